//! `--export-json`: everything a summary contains.
//!
//! ```text
//! { "schema": "espalier-summary", "version": 1,
//!   "units": { "<metric>": "ns" | "B" | "count" | "fraction" | "x", … },
//!   "confidence": 0.95,
//!   "run": the run's header, as stored, without the labels,
//!   "cases": [ CaseSummary, … ] }
//! ```
//! In a case, `{"value", "bounds": {"low", "high"} | null}` is an estimate with its interval, and `null` is "not
//! measured". Times are in nanoseconds, sizes in bytes. Fields may be added without a new version; a field that changes
//! its meaning or is removed raises it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::pretty;
use crate::{
    metric::Metric,
    record::{Run, RunHeader},
    summary::{CONFIDENCE, CaseSummary},
};

pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: u32,
    units: Map<String, Value>,
    confidence: f64,
    run: RunHeader,
    cases: &'a [CaseSummary],
}

pub fn render(run: &Run, summaries: &[CaseSummary]) -> String {
    let mut header = run.header.clone();
    // Labels are one number a sample, and no result.
    header.models.iter_mut().for_each(|model| (model.labels, model.truth) = (None, None));
    // A summary's fields have the metrics' names, except `macs` and `accuracy`, which are two numbers each.
    let unit = |metric: &Metric| (metric.name().replace('-', "_"), Value::from(metric.unit().symbol()));
    pretty(&Document {
        schema: "espalier-summary",
        version: VERSION,
        units: Metric::ALL.iter().map(unit).collect(),
        confidence: CONFIDENCE,
        run: header,
        cases: summaries,
    })
}
