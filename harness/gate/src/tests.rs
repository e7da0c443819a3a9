//! Files that were written before identifiers of this crate were renamed (commit 1710be1) are read, and written to the
//! same bytes. Stored spellings outlive the code: a test here that fails is a file of a user's that cannot be read.

use std::collections::BTreeSet;

use espalier_inventory::SourceFile;

use crate::{
    Criterion, Verdict,
    baseline::Baseline,
    calibration::Calibration,
    controls,
    date::Date,
    file::{Entry, GateRun},
    history::{self, changes, data},
    json,
    judge::LatencyJudge,
    junit,
    profile::{Profile, Terms},
    replay,
    report::Report,
    waivers,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../tests/fixtures/", $name))
    };
}

/// Every role, arm, verdict, criterion, finding and failure stage; a session cut off, one that confirms, every optional
/// field.
#[test]
fn a_gate() {
    let text = fixture!("gate.jsonl");
    let entries: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written: String = entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
    assert!(written == text);
    let run = GateRun::parse(text).unwrap();
    let criteria: BTreeSet<Criterion> = run.comparisons.iter().map(|comparison| comparison.criterion).collect();
    assert_eq!(criteria, Criterion::ALL.into());

    // Judged again, the invocations give the verdicts and the numbers that were stored.
    let judged = run.judge_again().unwrap();
    assert_eq!(judged.len(), 9);
    for (judged, stored) in judged.iter().zip(&run.comparisons) {
        assert_eq!((&judged.case, judged.criterion, judged.role), (&stored.case, stored.criterion, stored.role));
        assert_eq!((judged.verdict, &judged.finding), (stored.verdict, &stored.finding));
        let confirmed = |comparison: &crate::Comparison| {
            comparison.confirmation.as_ref().map(|again| (again.confirmed, again.finding.clone()))
        };
        assert_eq!(confirmed(judged), confirmed(stored));
    }
    assert_eq!(judged.iter().filter(|judged| judged.verdict == Verdict::Regressed).count(), 6);
}

/// Puts what is not finite in the place of every float of stored JSON, which has a decimal point; integers have none.
fn replace_floats(json: &mut serde_json::Value, next: &mut dyn FnMut() -> &'static str) {
    match json {
        serde_json::Value::Number(number) if number.is_f64() => *json = next().into(),
        serde_json::Value::Array(elements) => elements.iter_mut().for_each(|element| replace_floats(element, next)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| replace_floats(field, next)),
        _ => {}
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    /// In whatever field of an entry of a gate's file, a report or a control.
    #[test]
    fn floats_that_are_not_finite_come_back(
        picks in proptest::collection::vec(proptest::sample::select(&["NaN", "inf", "-inf"][..]), 7),
    ) {
        use serde_json::{Value, from_value, to_value};

        fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned>(json: &Value) -> Value {
            to_value(from_value::<T>(json.clone()).unwrap()).unwrap()
        }
        let mut picks = picks.into_iter().cycle();
        let mut replaced = 0;
        let mut next = || { replaced += 1; picks.next().unwrap() };
        let mut replace = |text: &str| -> Value {
            let mut json = serde_json::from_str(text).unwrap();
            replace_floats(&mut json, &mut next);
            json
        };
        for line in fixture!("gate.jsonl").lines() {
            let json = replace(line);
            proptest::prop_assert_eq!(round_trip::<Entry>(&json), json);
        }
        let report: Report = serde_json::from_str(fixture!("gate.json")).unwrap();
        let json = replace(&serde_json::to_string(&report).unwrap());
        proptest::prop_assert_eq!(round_trip::<Report>(&json), json);
        for line in fixture!("controls.jsonl").lines() {
            let json = replace(line);
            proptest::prop_assert_eq!(round_trip::<controls::Control>(&json), json);
        }
        proptest::prop_assert!(replaced > 100);
    }
}

#[test]
fn exports_of_a_gate() {
    let report: Report = serde_json::from_str(fixture!("gate.json")).unwrap();
    assert!(json::render(&report) == fixture!("gate.json"));
    assert!(junit::render(&report) == fixture!("gate.junit.xml"));
}

#[test]
fn a_baseline() {
    let text = fixture!("baseline.txt");
    assert_eq!(Baseline::parse(text, "baseline.toml").unwrap().to_toml(), text);
}

#[test]
fn a_calibration() {
    let text = fixture!("calibration.toml");
    assert_eq!(Calibration::parse(text, "pi4.toml").unwrap().to_toml(), text);
}

#[test]
fn controls_of_every_entry() {
    let text = fixture!("controls.jsonl");
    let written: String = controls::parse(text).unwrap().iter().map(controls::Control::to_line).collect();
    assert_eq!(written, text);
}

/// With its acknowledged changes and its export: steps and creep in every state, hollow entries, one without a commit.
#[test]
fn a_history() {
    let entries = history::entry::parse(fixture!("history.jsonl")).unwrap();
    let mut lines: Vec<String> = entries.iter().map(|entry| entry.to_line().unwrap()).collect();
    let mut stored: Vec<&str> = fixture!("history.jsonl").split_inclusive('\n').collect();
    // They are read in the order of time.
    lines.sort();
    stored.sort_unstable();
    assert_eq!(lines, stored);
    let changes = changes::parse(&SourceFile::new("changes.toml", fixture!("changes.toml"))).unwrap();
    assert_eq!(changes.iter().map(changes::Change::to_toml).collect::<String>(), fixture!("changes.toml"));
    assert!(data::render(&history::history(&entries, &changes)) == fixture!("history.json"));
}

#[test]
fn waivers_of_every_criterion() {
    let source = SourceFile::new("waivers.toml", fixture!("waivers.toml"));
    let waivers = waivers::parse(&source, Date::parse("2026-11-23").unwrap()).unwrap();
    let criteria: BTreeSet<Criterion> = waivers.iter().filter_map(|waiver| waiver.criterion).collect();
    assert_eq!(criteria, Criterion::ALL.into());
    let [first, second, .., last] = waivers.as_slice() else { panic!("{waivers:?}") };
    assert_eq!(
        (first.case.to_string().as_str(), first.reason.as_str(), first.until.to_string().as_str()),
        ("digits-cnn@0.5 on pi4", "the new kernel is slower here until tract 0.24", "2026-12-31")
    );
    assert_eq!((second.criterion, second.until.to_string().as_str()), (None, "2026-11-22"));
    assert_eq!(last.case.to_string(), "digits-mlp@0.9 on pi4 by onnxruntime");
}

#[test]
fn recorded_comparisons() {
    let judge = LatencyJudge::new(&Profile::COARSE, Criterion::P50, Terms { comparisons: 3, ..Terms::ALONE }).unwrap();
    let (text, mut written, mut judged) = (fixture!("replay.jsonl"), String::new(), String::new());
    for (index, line) in text.lines().enumerate() {
        let replay = replay::parse_line(line.as_bytes(), index + 1).unwrap();
        written += &(replay.to_line() + "\n");
        judged += &(replay::judge(&replay, &judge).unwrap().to_line() + "\n");
    }
    assert_eq!(written, text);
    assert_eq!(judged, fixture!("replay-judged.jsonl"));
}
