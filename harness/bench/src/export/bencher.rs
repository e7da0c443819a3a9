//! Bencher Metric Format: `{series: {measure: {value, lower_value?, upper_value?}}}`; the median is `latency`, in ns.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{pretty, series};
use crate::{metric::Metric, summary::CaseSummary};

#[derive(Serialize)]
struct Measure {
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_value: Option<f64>,
}

/// Cases without any measurement are left out: their weights and sizes alone would look like a result.
pub fn render(summaries: &[CaseSummary]) -> String {
    let measured = summaries.iter().filter(|summary| summary.has_results());
    pretty(&measured.map(|summary| (series(&summary.case), measures(summary))).collect::<BTreeMap<_, _>>())
}

fn measures(summary: &CaseSummary) -> BTreeMap<String, Measure> {
    let measure = |metric: Metric| {
        let estimate = summary.value(metric)?;
        let name = if metric == Metric::P50 { "latency" } else { metric.name() };
        let lower_value = estimate.bounds.map(|bounds| bounds.low);
        let upper_value = estimate.bounds.map(|bounds| bounds.high);
        Some((name.to_owned(), Measure { value: estimate.value, lower_value, upper_value }))
    };
    let scores = summary.score.iter().flat_map(|score| &score.measures);
    let scores = scores
        .map(|score| (score.name.to_lowercase(), Measure { value: score.value, lower_value: None, upper_value: None }));
    Metric::ALL.into_iter().filter_map(measure).chain(scores).collect()
}
