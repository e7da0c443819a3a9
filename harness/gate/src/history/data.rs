//! `--export-json` of a history: all a page needs to draw it.
//!
//! ```text
//! { "schema": "espalier-history", "version": 1,
//!   "tracks": [ { "case": {"model", "ratio", "device"}, "criterion", "baseline", "is_past",
//!     "unit": "ns" | "B" | "fraction",
//!     "nights": [ {"gate", "time", "commit", "log_ratio", "se", "pairs", "anchor_ns", "anchor_se", "verdict", "tags",
//!       "hollow"}, … ],
//!     "lines": [ { "series": "code" | "device", "min_magnitude",
//!       "stretches": [ {"first", "last", "mean", "bounds": [low, high] | null}, … ],     a step function
//!       "weak": [night, …],                                                              nearly a change: drawn hollow
//!       "points": [ { "kind": "step" | "creep", "state": "new" | "confirmed" | "accepted" | "noise", "direction",
//!         "night", "last_good", "first_bad", "last_good_commit", "first_bad_commit", "magnitude", "p_value",
//!         "nights_after", "before", "after", "acknowledged": {…} | null }, … ] }, … ] }, … ] }
//! ```
//! A night is a history entry; `night`, `weak`, `first`, `last` and the like are indexes of the track's `nights`.
//! Means, bounds and `min_magnitude` are natural logarithms (of the ratio; of the baseline's value in the unit),
//! `magnitude` is a fraction. Fields may be added without a new version.

use serde::Serialize;

use super::{Change, History, HistoryEntry, Line, Point, PointKind, State, Stretch, Subject, Track, render};
use crate::Criterion;
use espalier_bench::record::Case;

pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: u32,
    tracks: Vec<TrackData<'a>>,
}

#[derive(Serialize)]
struct TrackData<'a> {
    case: &'a Case,
    criterion: Criterion,
    baseline: &'a str,
    is_past: bool,
    unit: &'static str,
    #[serde(rename = "nights")]
    entries: Vec<EntryData<'a>>,
    lines: Vec<LineData<'a>>,
}

#[derive(Serialize)]
struct EntryData<'a> {
    #[serde(flatten)]
    entry: &'a HistoryEntry,
    hollow: bool,
}

#[derive(Serialize)]
struct LineData<'a> {
    series: Subject,
    min_magnitude: f64,
    stretches: &'a [Stretch],
    weak: &'a [usize],
    points: Vec<PointData<'a>>,
}

#[derive(Serialize)]
struct PointData<'a> {
    kind: PointKind,
    state: &'static str,
    direction: &'static str,
    #[serde(rename = "night")]
    entry: usize,
    last_good: usize,
    first_bad: usize,
    last_good_commit: Option<&'a str>,
    first_bad_commit: Option<&'a str>,
    magnitude: f64,
    p_value: Option<f64>,
    #[serde(rename = "nights_after")]
    entries_after: usize,
    before: Stretch,
    after: Stretch,
    acknowledged: Option<&'a Change>,
}

pub fn render(history: &History) -> String {
    let tracks = history.rows.iter().map(|row| TrackData {
        case: &row.track.case,
        criterion: row.track.criterion,
        baseline: &row.track.baseline,
        is_past: row.track.is_past,
        unit: render::unit(row.track.criterion).symbol(),
        entries: row.track.entries.iter().map(|entry| EntryData { entry, hollow: entry.is_hollow() }).collect(),
        lines: row.lines().into_iter().map(|line| line_data(&row.track, line)).collect(),
    });
    let document = Document { schema: "espalier-history", version: VERSION, tracks: tracks.collect() };
    serde_json::to_string_pretty(&document).expect("strings and finite numbers always encode") + "\n"
}

fn line_data<'a>(track: &'a Track, line: &'a Line) -> LineData<'a> {
    let commit = |entry: usize| track.entries[entry].commit.as_deref();
    let point = |point: &'a Point| PointData {
        kind: point.kind,
        state: point.state.name(),
        direction: render::direction(track.criterion, point.change),
        entry: point.entry,
        last_good: point.last_good,
        first_bad: point.first_bad,
        last_good_commit: commit(point.last_good),
        first_bad_commit: commit(point.first_bad),
        magnitude: point.magnitude(),
        p_value: point.p_value,
        entries_after: point.entries_after,
        before: point.before,
        after: point.after,
        acknowledged: match &point.state {
            State::Acknowledged(change) => Some(change),
            State::New | State::Confirmed => None,
        },
    };
    LineData {
        series: line.subject,
        min_magnitude: line.min_magnitude,
        stretches: &line.stretches,
        weak: &line.weak,
        points: line.points.iter().map(point).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Verdict,
        history::{Acknowledged, fixture, history},
    };

    #[test]
    fn a_page_has_all_it_draws() {
        let mut entries = fixture::entries(40, 5, |entry| if entry >= 28 { 0.03 } else { 0.0 }, |_| 0.0);
        entries[7].verdict = Verdict::Inconclusive;
        let change = fixture::change("c00028", Acknowledged::Accepted);
        let document: Value = serde_json::from_str(&render(&history(&entries, &[change]))).unwrap();
        assert_eq!((&document["schema"], &document["version"]), (&json!("espalier-history"), &json!(1)));
        let track = &document["tracks"][0];
        assert_eq!((&track["criterion"], &track["unit"]), (&json!("p50"), &json!("ns")));
        assert_eq!(track["nights"].as_array().unwrap().len(), 40);
        assert_eq!((&track["nights"][7]["hollow"], &track["nights"][8]["hollow"]), (&json!(true), &json!(false)));
        let [code, device] = [&track["lines"][0], &track["lines"][1]];
        assert_eq!((&code["series"], &device["series"]), (&json!("code"), &json!("device")));
        let stretches: Vec<(u64, u64)> = code["stretches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stretch| (stretch["first"].as_u64().unwrap(), stretch["last"].as_u64().unwrap()))
            .collect();
        assert_eq!(stretches, [(0, 27), (28, 39)]);
        let point = &code["points"][0];
        assert_eq!(
            (&point["state"], &point["direction"], &point["kind"]),
            (&json!("accepted"), &json!("slower"), &json!("step"))
        );
        assert_eq!((&point["last_good_commit"], &point["first_bad_commit"]), (&json!("c00027"), &json!("c00028")));
        assert_eq!(point["acknowledged"]["series"], "code");
        assert!((point["magnitude"].as_f64().unwrap() - 0.03f64.exp_m1()).abs() < 0.003);
        assert_eq!(device["points"], json!([]));
        assert_eq!(device["stretches"].as_array().unwrap().len(), 1);
    }
}
