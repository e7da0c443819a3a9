//! github-action-benchmark: `[{name, unit, value, range?, extra?}]`, in two files, since a file has one direction.

use serde::Serialize;

use super::{pretty, series};
use crate::{
    metric::{Estimate, Metric, Unit},
    summary::{CaseSummary, Trust},
};

/// The two files' text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// For `tool: customSmallerIsBetter`.
    pub smaller_is_better: String,
    /// For `tool: customBiggerIsBetter`.
    pub bigger_is_better: String,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    unit: &'static str,
    value: f64,
    /// Half of the interval's width, in `unit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<String>,
}

pub fn render(summaries: &[CaseSummary]) -> Files {
    let file = |smaller: bool| {
        let metrics = Metric::ALL.into_iter().filter(|metric| metric.smaller_is_better() == smaller);
        let metrics: Vec<Metric> = metrics.collect();
        let measured = summaries.iter().filter(|summary| summary.has_results());
        let entries = measured.flat_map(|summary| {
            let scores = summary.score.iter().flat_map(|score| &score.measures);
            let scores = scores.filter(move |score| score.smaller_is_better == smaller);
            let metrics = metrics.iter().filter_map(|metric| entry(summary, *metric));
            metrics.chain(scores.map(|score| score_entry(summary, score)))
        });
        pretty(&entries.collect::<Vec<Entry>>())
    };
    Files { smaller_is_better: file(true), bigger_is_better: file(false) }
}

fn score_entry(summary: &CaseSummary, score: &espalier_tasks::Measure) -> Entry {
    let unit = match score.unit {
        espalier_tasks::Unit::Fraction => Unit::Fraction.symbol(),
        espalier_tasks::Unit::Number => "1",
    };
    let name = format!("{} {}", series(&summary.case), score.name.to_lowercase());
    Entry { name, unit, value: score.value, range: None, extra: None }
}

fn entry(summary: &CaseSummary, metric: Metric) -> Option<Entry> {
    let Estimate { value, bounds } = summary.value(metric)?;
    Some(Entry {
        name: format!("{} {}", series(&summary.case), metric.name()),
        unit: metric.unit().symbol(),
        value,
        range: bounds.map(|bounds| format!("± {}", (bounds.high - bounds.low) / 2.0)),
        extra: summary.trust.filter(|trust| *trust != Trust::Ok).map(|trust| format!("trust: {}", trust.name())),
    })
}
