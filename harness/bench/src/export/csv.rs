//! `--export-csv`: one row a case, quoted as RFC 4180 says, units in the columns' names; an empty field is "not measured".

use crate::{
    metric::{Metric, Unit},
    sanitise::sanitise,
    summary::{CaseSummary, Trust},
};

pub fn render(summaries: &[CaseSummary]) -> String {
    let mut out = record(&columns());
    for summary in summaries {
        out.push_str(&record(&fields(summary)));
    }
    out
}

/// Those that came later stand behind everything else: some scripts count columns.
const LATER: [Metric; 2] = [Metric::VsTract, Metric::VsOnnxruntime];

fn first() -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().filter(|metric| !LATER.contains(metric))
}

/// With an interval's limits beside them.
fn has_bounds(metric: Metric) -> bool {
    LATER.contains(&metric) || matches!(metric, Metric::P50 | Metric::P90 | Metric::P99 | Metric::SpeedUp)
}

fn columns() -> Vec<String> {
    let mut columns: Vec<String> = ["model", "device", "ratio", "effective_ratio"].map(str::to_owned).to_vec();
    first().for_each(|metric| columns.extend(columns_of(metric)));
    let last =
        ["samples", "lost", "won", "invocations", "planned_invocations", "values", "trust", "failures", "engine"];
    columns.extend(last.map(str::to_owned));
    LATER.into_iter().for_each(|metric| columns.extend(columns_of(metric)));
    columns.extend(["same_as_espalier", "compared_with_espalier", "largest_difference"].map(str::to_owned));
    columns
}

fn columns_of(metric: Metric) -> Vec<String> {
    let name = metric.name().replace('-', "_");
    let unit = match metric.unit() {
        Unit::Nanoseconds => "_ns",
        Unit::Bytes => "_bytes",
        Unit::Count | Unit::Times => "",
        Unit::Fraction => "_fraction",
    };
    let mut columns = vec![format!("{name}{unit}")];
    if has_bounds(metric) {
        columns.extend([format!("{name}_low{unit}"), format!("{name}_high{unit}")]);
    }
    columns
}

fn fields(summary: &CaseSummary) -> Vec<String> {
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let count = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    let case = &summary.case;
    let mut fields =
        vec![case.model.clone(), case.device.clone(), case.ratio.to_string(), number(summary.effective_ratio)];
    let values = |metric: Metric| {
        let estimate = summary.value(metric);
        let mut fields = vec![number(estimate.map(|estimate| estimate.value))];
        if has_bounds(metric) {
            let bounds = estimate.and_then(|estimate| estimate.bounds);
            fields.extend([number(bounds.map(|bounds| bounds.low)), number(bounds.map(|bounds| bounds.high))]);
        }
        fields
    };
    fields.extend(first().flat_map(values));
    let failures = summary.failures.iter().map(|failure| {
        // Our words come first: a field that begins with a board's `=` would be a formula to a spreadsheet.
        format!("{} at {}: {}", failure.mode.name(), failure.stage.name(), sanitise(&failure.message))
    });
    fields.extend([
        count(summary.accuracy.map(|accuracy| accuracy.total)),
        count(summary.change.map(|change| change.lost)),
        count(summary.change.map(|change| change.won)),
        summary.invocation_medians.len().to_string(),
        summary.planned_invocations.to_string(),
        summary.values.to_string(),
        summary.trust.map(Trust::name).unwrap_or_default().to_owned(),
        failures.collect::<Vec<String>>().join("; "),
        case.engine.name().to_owned(),
    ]);
    fields.extend(LATER.into_iter().flat_map(values));
    let same = summary.same_as_espalier;
    fields.extend([
        count(same.map(|same| same.equal)),
        count(same.map(|same| same.total)),
        number(same.and_then(|same| same.largest_difference).map(f64::from)),
    ]);
    fields
}

fn record(fields: &[String]) -> String {
    let quoted = fields.iter().map(|field| {
        if field.contains(['"', ',', '\r', '\n']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    });
    quoted.collect::<Vec<String>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, summary::summarise};

    #[test]
    fn one_row_a_case() {
        let summaries = summarise(&fixture::run());
        let got = render(&summaries[..3]);
        let expected = r#"
model,device,ratio,effective_ratio,weights_kept,macs_executed,macs_nonzero,file_bytes,packed_bytes,packed_codebook_bytes,load_ns,first_ns,p50_ns,p50_low_ns,p50_high_ns,p90_ns,p90_low_ns,p90_high_ns,p99_ns,p99_low_ns,p99_high_ns,speed_up,speed_up_low,speed_up_high,peak_rss_bytes,peak_allocated_bytes,accuracy_fraction,samples,lost,won,invocations,planned_invocations,values,trust,failures,engine,vs_tract,vs_tract_low,vs_tract_high,vs_onnxruntime,vs_onnxruntime_low,vs_onnxruntime_high,same_as_espalier,compared_with_espalier,largest_difference
digits-cnn,local,0,0,52000,410000,410000,215040,,,12500000,3012024,1000000.1274885128,980948.3464334935,1019421.9283949217,1081015.2,,,1111350.9466666668,,,,,,9437184,3145728,0.98,200,,,5,5,605,ok,,espalier,,,,,,,,,
digits-cnn,local,0.5,0.5,26000,410000,210000,215040,98304,24576,12500000,2392810,799999.8641248487,783843.2001510083,816489.5510689889,864691.6000000001,,,893125.2000000002,,,1.2500003716656285,1.24181503605595,1.258239660333611,9502720,3167573,0.97,200,3,1,5,5,605,ok,,espalier,,,,,,,,,
digits-cnn,local,0.9,0.895,5460,410000,50000,215040,,,,,,,,,,,,,,,,,9568256,3189418,0.9,200,17,1,0,5,0,,time at run: the runner was cut off before `finished`: signal 9 | \u{1b}]0;x\u{7},espalier,,,,,,,,,
"#;
        assert!(got.replace("\r\n", "\n") == expected.trim_start_matches('\n'), "{got}");
    }

    #[test]
    fn quoted_as_the_rfc_says() {
        assert_eq!(record(&["a".into(), "b,c".into(), "say \"x\"\n".into()]), "a,\"b,c\",\"say \"\"x\"\"\n\"\r\n");
    }
}
