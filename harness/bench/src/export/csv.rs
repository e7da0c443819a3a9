//! `--export-csv`: one row a case, quoted as in RFC 4180, units in the columns' names; empty is "not measured".

use espalier_protocol::text::sanitise;

use crate::{
    metric::{Metric, Unit},
    summary::{CaseSummary, Trust},
};

pub fn render(summaries: &[CaseSummary]) -> String {
    // Only runs with other metrics than accuracy have their columns.
    let has_scores = summaries.iter().any(|summary| summary.score.is_some());
    let row = |mut fields: Vec<String>, scores: Vec<String>| {
        fields.extend(scores.into_iter().filter(|_| has_scores));
        record(&fields)
    };
    let heading = ["metric", "score", "score_drop", "score_drop_low", "score_drop_high"].map(str::to_owned).to_vec();
    let mut out = row(columns(), heading);
    for summary in summaries {
        out.push_str(&row(fields(summary), score(summary)));
    }
    out
}

/// Metrics added later come last, because some scripts count columns.
const LATER: [Metric; 2] = [Metric::VsTract, Metric::VsOnnxruntime];

fn first() -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().filter(|metric| !LATER.contains(metric))
}

/// Whether the interval's limits have columns too.
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

/// The metric that budgets are about, its value, and how much smaller it is than the dense variant's.
fn score(summary: &CaseSummary) -> Vec<String> {
    let first = summary.score.as_ref().and_then(|score| score.measures.first());
    let drop = summary.score.as_ref().and_then(|score| score.drop);
    let bounds = drop.and_then(|drop| drop.bounds);
    let numbers = [
        first.map(|measure| measure.value),
        drop.map(|drop| drop.value),
        bounds.map(|bounds| bounds.low),
        bounds.map(|bounds| bounds.high),
    ];
    let numbers = numbers.map(|number| number.map(|number| number.to_string()).unwrap_or_default());
    let name = first.map(|measure| measure.name.clone()).unwrap_or_default();
    [name].into_iter().chain(numbers).collect()
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
        // Untrusted text is never first: a field that begins with `=` would be a formula to a spreadsheet.
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
        assert!(got.replace("\r\n", "\n") == include_str!("../expected/csv.txt"), "{got}");
    }

    #[test]
    fn quoted_as_the_rfc_says() {
        assert_eq!(record(&["a".into(), "b,c".into(), "say \"x\"\n".into()]), "a,\"b,c\",\"say \"\"x\"\"\n\"\r\n");
    }
}
