//! Results for other tools, one file a format. Numbers are in base units; what was not measured is left out or empty.

pub mod action;
pub mod bencher;
pub mod csv;
pub mod hyperfine;
pub mod json;

use crate::record::Case;

/// Names a series. The default engine is left out, so that the series of earlier releases continue.
fn series(case: &Case) -> String {
    let Case { model, ratio, device, engine } = case;
    if engine.is_default() {
        format!("{model}/{ratio}/{device}")
    } else {
        format!("{model}/{ratio}/{device}/{}", engine.name())
    }
}

/// Indented JSON.
pub fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("strings and numbers always encode") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixture,
        metric::Metric,
        summary::{CaseSummary, summarise},
    };

    fn summaries() -> Vec<CaseSummary> {
        summarise(&fixture::run())
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn json_has_units_for_its_fields_and_comes_back() {
        let summaries = summaries();
        let document = parsed(&json::render(&fixture::run(), &summaries));
        assert_eq!((&document["schema"], &document["version"]), (&json!("espalier-summary"), &json!(1)));
        let read: Vec<CaseSummary> = serde_json::from_value(document["cases"].clone()).unwrap();
        assert_eq!(read, summaries);
        assert_eq!(document["units"]["p50"], "ns");
        assert_eq!(document["units"].as_object().unwrap().len(), Metric::ALL.len());
        assert_eq!(document["cases"][2]["p50"], Value::Null, "not measured is null");
        assert_eq!(document["cases"][1]["file"], 215_040);
        assert!(document["run"]["models"][0]["labels"].is_null());
    }

    #[test]
    fn bencher_has_limits_and_leaves_out_what_is_missing() {
        let document = parsed(&bencher::render(&summaries()));
        let half = &document["digits-cnn/0.5/local"];
        let latency = |key: &str| half["latency"][key].as_f64().unwrap();
        assert!((latency("value") / 0.8e6 - 1.0).abs() < 1e-5, "in ns");
        assert!(latency("lower_value") < latency("value") && latency("value") < latency("upper_value"));
        assert_eq!(half["peak-rss"], json!({"value": 9_502_720.0}));
        assert_eq!(half["accuracy"], json!({"value": 0.97}));
        assert_eq!(document["digits-cnn/0.9/local"].get("latency"), None);
        assert_eq!(document["digits-cnn/0.9/local"]["accuracy"]["value"], 0.9);
    }

    #[test]
    fn the_actions_two_files_hold_one_direction_each() {
        let files = action::render(&summaries());
        let names = |text: &str| -> Vec<String> {
            let entries = parsed(text);
            let of_half = entries.as_array().unwrap().iter().filter_map(|entry| {
                let (series, metric) = entry["name"].as_str().unwrap().split_once(' ').unwrap();
                (series == "digits-cnn/0.5/local").then(|| metric.to_owned())
            });
            of_half.collect()
        };
        assert_eq!(names(&files.bigger_is_better), ["speed-up", "accuracy"]);
        // Nothing is compared with other engines here.
        assert_eq!(names(&files.smaller_is_better).len(), Metric::ALL.len() - 4);
        let entries = parsed(&files.smaller_is_better);
        let p50 = |series: &str| {
            let name = format!("{series} p50");
            entries.as_array().unwrap().iter().find(|entry| entry["name"] == name.as_str()).cloned()
        };
        let local = p50("digits-cnn/0.5/local").unwrap();
        assert_eq!(local["unit"], "ns");
        assert!(local["range"].as_str().unwrap().starts_with("± ") && local.get("extra").is_none());
        assert_eq!(p50("digits-cnn/0.5/virt-riscv64").unwrap()["extra"], "trust: emulated");
        assert_eq!(p50("digits-cnn/0.9/local"), None);
    }

    #[test]
    fn hyperfine_is_in_seconds_with_one_time_an_invocation() {
        let document = parsed(&hyperfine::render(&summaries()));
        let results = document["results"].as_array().unwrap();
        assert_eq!(results.len(), 5, "the case without times is left out");
        let half = &results[1];
        assert_eq!(half["command"], "digits-cnn/0.5/local");
        assert!((half["mean"].as_f64().unwrap() / 0.8e-3 - 1.0).abs() < 1e-3);
        assert_eq!(half["times"].as_array().unwrap().len(), 5);
        assert_eq!(half["exit_codes"], json!([0, 0, 0, 0, 0]));
        assert_eq!(half["parameters"], json!({"device": "local", "ratio": "0.5"}), "there is one model");
        let keys: Vec<&String> = half.as_object().unwrap().keys().collect();
        let expected = [
            "command",
            "exit_codes",
            "max",
            "mean",
            "median",
            "min",
            "parameters",
            "stddev",
            "system",
            "times",
            "user",
        ];
        assert_eq!(keys, expected);
    }

    /// What hyperfine's `plot_parametrized.py` asks for: one parameter, the same of all, a number.
    #[test]
    fn hyperfines_own_plot_reads_one_model_on_one_device() {
        let mut summaries = summaries();
        summaries.retain(|summary| summary.case.device == "local");
        for count in [summaries.len(), 1] {
            let document = parsed(&hyperfine::render(&summaries[..count]));
            let results = document["results"].as_array().unwrap();
            assert!(!results.is_empty());
            for result in results {
                let parameters = result["parameters"].as_object().unwrap();
                assert_eq!(parameters.keys().collect::<Vec<_>>(), ["ratio"]);
                assert!(parameters["ratio"].as_str().unwrap().parse::<f64>().is_ok());
            }
        }
    }

    #[test]
    fn other_engines_have_series_of_their_own() {
        let run = fixture::run_with_peers();
        let summaries = summarise(&run);
        let document = parsed(&bencher::render(&summaries));
        let p50 = |series: &str| document[series]["latency"]["value"].as_f64().unwrap();
        assert!((p50("digits-cnn/0/local/onnxruntime") / p50("digits-cnn/0/local") - 1.5).abs() < 1e-5);
        let vs = &document["digits-cnn/0.5/local"]["vs-onnxruntime"];
        assert!((vs["value"].as_f64().unwrap() - 1.875).abs() < 1e-4 && vs["lower_value"].is_number(), "{vs}");
        let hyperfine = parsed(&hyperfine::render(&summaries));
        let of = |command: &str| {
            let results = hyperfine["results"].as_array().unwrap();
            results.iter().find(|result| result["command"] == command).unwrap()["parameters"].clone()
        };
        assert_eq!(of("digits-cnn/0.5/local/tract")["engine"], "tract");
        assert_eq!(of("digits-cnn/0.5/local")["engine"], "espalier", "all have the same parameters");
        let bigger = action::render(&summaries).bigger_is_better;
        assert!(
            bigger.contains("digits-cnn/0.5/local vs-tract") && bigger.contains("/local/tract speed-up"),
            "{bigger}"
        );
        let csv = csv::render(&summaries);
        let row =
            csv.lines().find(|line| line.starts_with("digits-cnn,local,0.5") && line.contains("onnxruntime")).unwrap();
        assert!(row.contains(",199,200,"), "{row}");
        let json = parsed(&json::render(&run, &summaries));
        assert_eq!(json["run"]["peers"][0]["versions"], "onnxruntime 1.32.0, numpy 2.4.0, Python 3.11.7");
        let cases: Vec<CaseSummary> = serde_json::from_value(json["cases"].clone()).unwrap();
        assert_eq!(cases, summaries);
    }

    #[test]
    fn nothing_measured_is_nothing_exported() {
        let mut run = fixture::run();
        run.records.clear();
        let summaries = summarise(&run);
        assert_eq!(parsed(&bencher::render(&summaries)), json!({}));
        assert_eq!(parsed(&hyperfine::render(&summaries)), json!({"results": []}));
        assert_eq!(parsed(&action::render(&summaries).smaller_is_better), json!([]));
    }
}
