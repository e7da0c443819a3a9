//! A gate's report as JSON: everything it holds, for programs.
//!
//! ```text
//! { "schema": "espalier-gate", "version": 1,
//!   "units": { "base_ns": "ns", "base": "B", "mde": "fraction", … },
//!   "outcome": { "status", "exit_code", "reasons", "missing",
//!     "tally": { "passed", "regressed", "inconclusive", "waived", "missing" } },
//!   "baseline", "candidate", "started", "profile", "devices", "planned", "latencies", "faults", "notes": as
//!     in the report,
//!   "comparisons": [
//!     { "standing": "passed" | "regressed" | "inconclusive" | "waived", "alarm": text | null, and the comparison },
//!     … ],
//!   "pooled": [ { "model", "ratio", "criterion", "devices", "effect", "low", "high", "p_value", "all_passed" }, … ],
//!   "suspects": [ { "case", "criterion", "effect", "adjusted_p_value" }, … ] }
//! ```
//! Times are nanoseconds, sizes bytes, margins, drops and standard deviations fractions, effects ratios of candidate
//! over baseline (the `ratio` of a case is its pruned fraction); `null` is "not known". Fields may be added without a
//! new version; a field that is removed or changes its meaning raises it.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Comparison,
    family::{self, PooledEffect, Suspect},
    outcome::{self, Planned, Standing, Tally},
    report::{BaselineFacts, Fault, GateDevice, Latency, ProfileFacts, Report, Took},
};
use espalier_bench::{exit::ExitStatus, export::pretty, record::Provenance};

pub const VERSION: u32 = 1;

const UNITS: [(&str, &str); 15] = [
    ("base_ns", "ns"),
    ("candidate_ns", "ns"),
    ("base", "B"),
    ("candidate", "B"),
    ("ratio", "x"),
    ("effect", "x"),
    ("low", "x"),
    ("high", "x"),
    ("lower", "fraction"),
    ("upper", "fraction"),
    ("pair_sd", "fraction"),
    ("se", "fraction"),
    ("mde", "fraction"),
    ("drop", "fraction"),
    ("drop_high", "fraction"),
];

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: u32,
    units: Map<String, Value>,
    outcome: OutcomeFacts,
    baseline: &'a BaselineFacts,
    candidate: &'a Provenance,
    started: &'a str,
    profile: &'a ProfileFacts,
    devices: &'a [GateDevice],
    planned: &'a [Planned],
    comparisons: Vec<JudgedComparison<'a>>,
    latencies: &'a [Latency],
    #[serde(skip_serializing_if = "<[Took]>::is_empty")]
    took: &'a [Took],
    pooled: Vec<PooledEffect>,
    suspects: Vec<Suspect>,
    faults: &'a [Fault],
    notes: &'a [String],
}

#[derive(Serialize)]
struct OutcomeFacts {
    status: &'static str,
    exit_code: u8,
    tally: Tally,
    reasons: Vec<String>,
    missing: Vec<Planned>,
}

#[derive(Serialize)]
struct JudgedComparison<'a> {
    standing: Standing,
    alarm: Option<&'static str>,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub fn render(report: &Report) -> String {
    let outcome = report.outcome();
    let Report { baseline, candidate, started, profile, devices, planned, comparisons, faults, notes, .. } = report;
    let (latencies, took) = (&report.latencies, &report.took);
    let judged = |comparison| JudgedComparison {
        standing: outcome::standing(comparison),
        alarm: outcome::alarm(comparison),
        comparison,
    };
    pretty(&Document {
        schema: "espalier-gate",
        version: VERSION,
        units: UNITS.iter().map(|(field, unit)| ((*field).to_owned(), Value::from(*unit))).collect(),
        outcome: OutcomeFacts {
            status: status(outcome.status),
            exit_code: outcome.status.code(),
            tally: outcome.tally,
            reasons: outcome.reasons,
            missing: outcome.missing,
        },
        baseline,
        candidate,
        started,
        profile,
        devices,
        planned,
        comparisons: comparisons.iter().map(judged).collect(),
        latencies,
        took,
        pooled: family::pool(report),
        suspects: family::suspects(report),
        faults,
        notes,
    })
}

fn status(status: ExitStatus) -> &'static str {
    match status {
        ExitStatus::Ok => "ok",
        ExitStatus::Failed => "failed",
        ExitStatus::Usage => "usage",
        ExitStatus::Regression => "regression",
        ExitStatus::Inconclusive => "inconclusive",
        ExitStatus::Device => "device",
        ExitStatus::ClosedPipe => "closed-pipe",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::tests_support::report;

    #[test]
    fn the_report_comes_back() {
        let report = report();
        assert_eq!(serde_json::from_str::<Report>(&render(&report)).unwrap(), report);
    }

    #[test]
    fn what_programs_look_for_is_there() {
        let document: Value = serde_json::from_str(&render(&report())).unwrap();
        assert_eq!((&document["schema"], &document["version"]), (&json!("espalier-gate"), &json!(1)));
        let tally = json!({"passed": 4, "regressed": 1, "inconclusive": 1, "waived": 1, "missing": 1});
        assert_eq!(document["outcome"]["tally"], tally);
        assert_eq!(
            (&document["outcome"]["status"], &document["outcome"]["exit_code"]),
            (&json!("regression"), &json!(3))
        );
        assert_eq!(document["outcome"]["reasons"][0], "regressed: digits-cnn@0.5 on pi4, p50");
        let standings: Vec<&Value> =
            document["comparisons"].as_array().unwrap().iter().map(|comparison| &comparison["standing"]).collect();
        let expected = ["regressed", "passed", "waived", "passed", "passed", "passed", "passed", "inconclusive"];
        assert_eq!(standings, expected);
        assert_eq!(document["comparisons"][0]["finding"]["pair_sd"], 0.021);
        assert_eq!(document["comparisons"][7]["finding"]["mde"], Value::Null);
        assert_eq!(document["comparisons"][2]["criterion"], "runner-size");
        assert_eq!(document["comparisons"][0]["alarm"], Value::Null);
    }

    /// Every number of a comparison, a margin or a latency has its unit in the head, or is a count or a probability.
    #[test]
    fn numbers_have_units() {
        fn numbers(value: &Value, name: &str, found: &mut Vec<String>) {
            match value {
                Value::Number(_) => found.push(name.to_owned()),
                Value::Array(items) => items.iter().for_each(|item| numbers(item, name, found)),
                Value::Object(fields) => fields.iter().for_each(|(name, field)| numbers(field, name, found)),
                _ => {}
            }
        }
        let mut report = report();
        report.devices[1].emulated = false;
        let document: Value = serde_json::from_str(&render(&report)).unwrap();
        assert_eq!(
            (document["pooled"].as_array().unwrap().len(), document["suspects"].as_array().unwrap().len()),
            (1, 1)
        );
        let mut found = Vec::new();
        for part in ["comparisons", "profile", "latencies", "pooled", "suspects"] {
            numbers(&document[part], part, &mut found);
        }
        let counts = ["pairs", "blocks", "lost", "won", "total", "p_value", "adjusted_p_value"];
        found.retain(|name| document["units"].get(name).is_none() && !counts.contains(&name.as_str()));
        assert_eq!(found, [""; 0]);
    }
}
