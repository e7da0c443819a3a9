//! hyperfine's JSON, in seconds. A "run" is one invocation, and its time is that invocation's median: hyperfine's
//! scripts assume independent times, which single inferences of one process are not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{pretty, series};
use crate::{metric::Nanoseconds, summary::CaseSummary};

#[derive(Serialize)]
struct Document {
    results: Vec<Result>,
}

#[derive(Serialize)]
struct Result {
    command: String,
    mean: f64,
    stddev: Option<f64>,
    median: f64,
    /// CPU times are not known: `null`, not 0.
    user: Option<f64>,
    system: Option<f64>,
    min: f64,
    max: f64,
    times: Vec<f64>,
    exit_codes: Vec<i32>,
    parameters: BTreeMap<&'static str, String>,
}

/// Cases without times are left out.
pub fn render(summaries: &[CaseSummary]) -> String {
    pretty(&Document { results: summaries.iter().filter_map(result).collect() })
}

fn result(summary: &CaseSummary) -> Option<Result> {
    let times: Vec<f64> = summary.invocation_medians.iter().map(|Nanoseconds(ns)| ns / 1e9).collect();
    let case = &summary.case;
    let mut parameters = BTreeMap::from([
        ("model", case.model.clone()),
        ("ratio", case.ratio.to_string()),
        ("device", case.device.clone()),
    ]);
    if !case.engine.is_default() {
        parameters.insert("engine", case.engine.name().to_owned());
    }
    Some(Result {
        command: series(case),
        mean: espalier_stats::mean(&times).ok()?,
        stddev: espalier_stats::sd(&times).ok(),
        median: espalier_stats::median(&times).ok()?,
        user: None,
        system: None,
        min: times.iter().copied().fold(f64::INFINITY, f64::min),
        max: times.iter().copied().fold(0.0, f64::max),
        // An invocation counts as measured only if it sent `finished`.
        exit_codes: vec![0; times.len()],
        times,
        parameters,
    })
}
