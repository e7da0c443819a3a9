//! hyperfine's JSON, in seconds. A "run" is one invocation, and its time is that invocation's median: hyperfine's
//! scripts assume independent times, which single inferences of one process are not. Parameters are only those that
//! vary: `plot_parametrized.py` takes exactly one, a number, which is the ratio for one model on one device.

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
    let all: Vec<BTreeMap<&'static str, String>> = summaries.iter().map(parameters).collect();
    let varies = |name: &&str| all.iter().any(|other| other[name] != all[0][name]);
    let mut names: Vec<&str> = ["device", "engine", "model", "ratio"].into_iter().filter(varies).collect();
    if names.is_empty() {
        names.push("ratio");
    }
    let result = |(summary, own): (&CaseSummary, &BTreeMap<&'static str, String>)| {
        let mut own = own.clone();
        own.retain(|name, _| names.contains(name));
        result(summary, own)
    };
    pretty(&Document { results: summaries.iter().zip(&all).filter_map(result).collect() })
}

fn parameters(summary: &CaseSummary) -> BTreeMap<&'static str, String> {
    let case = &summary.case;
    BTreeMap::from([
        ("model", case.model.clone()),
        ("ratio", case.ratio.to_string()),
        ("device", case.device.clone()),
        ("engine", case.engine.name().to_owned()),
    ])
}

fn result(summary: &CaseSummary, parameters: BTreeMap<&'static str, String>) -> Option<Result> {
    let times: Vec<f64> = summary.invocation_medians.iter().map(|Nanoseconds(ns)| ns / 1e9).collect();
    Some(Result {
        command: series(&summary.case),
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
