//! Files that were written before identifiers of this crate were renamed (commit 1710be1) are read, and written to the
//! same bytes, but for control characters of a board's text ([`clean`]); exports of them have the same keys and values.
//! A test here that fails is a file of a user's, or a script, that breaks.

use crate::{
    export, fixture,
    message::{Finished, Message},
    record::Run,
    summary::summarise,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../tests/fixtures/run.", $name))
    };
}

/// Every field of every type, each mode, engine, role, arm and failure stage.
fn run() -> Run {
    Run::parse(fixture!("jsonl")).unwrap()
}

/// As it is written now: text of boards used to be stored as it came.
fn clean(stored: &str) -> String {
    stored.replace("\\u001b", "\\\\u{1b}").replace("\\u0007", "\\\\u{7}")
}

#[test]
fn a_run() {
    assert_ne!(clean(fixture!("jsonl")), fixture!("jsonl"));
    assert!(fixture::lines(&run()) == clean(fixture!("jsonl")));
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
    /// In whatever field of a header, a record or an exported summary.
    #[test]
    fn floats_that_are_not_finite_come_back(
        picks in proptest::collection::vec(proptest::sample::select(&["NaN", "inf", "-inf"][..]), 7),
    ) {
        let mut picks = picks.into_iter().cycle();
        let mut next = || picks.next().unwrap();
        let mut replaced = 0;
        for line in clean(fixture!("jsonl")).lines() {
            let mut json = serde_json::from_str(line).unwrap();
            replace_floats(&mut json, &mut || { replaced += 1; next() });
            let entry: crate::record::Entry = serde_json::from_value(json.clone()).unwrap();
            proptest::prop_assert_eq!(serde_json::to_value(entry).unwrap(), json);
        }
        for summary in summarise(&run()) {
            let mut json = serde_json::to_value(summary).unwrap();
            replace_floats(&mut json, &mut || { replaced += 1; next() });
            let summary: crate::summary::CaseSummary = serde_json::from_value(json.clone()).unwrap();
            proptest::prop_assert_eq!(serde_json::to_value(summary).unwrap(), json);
        }
        proptest::prop_assert!(replaced > 1000);
    }
}

#[test]
fn exports_of_a_run() {
    let run = run();
    let summaries = summarise(&run);
    let action = export::action::render(&summaries);
    for (name, rendered, expected) in [
        ("json", export::json::render(&run, &summaries), fixture!("json")),
        ("csv", export::csv::render(&summaries), fixture!("csv")),
        ("hyperfine", export::hyperfine::render(&summaries), fixture!("hyperfine.json")),
        ("bencher", export::bencher::render(&summaries), fixture!("bencher.json")),
        ("action", action.smaller_is_better, fixture!("action-smaller.json")),
        ("action", action.bigger_is_better, fixture!("action-bigger.json")),
    ] {
        assert!(rendered == clean(expected), "{name}");
    }
}

#[test]
fn messages_of_a_run() {
    let run = run();
    let summaries = summarise(&run);
    let records = [&run.records[0], run.records.last().unwrap()].map(|record| Message::Record { record });
    let finished = Finished { run: &run.header.id, success: false, exit_code: 5, measured: 37, failed: 5, missing: 2 };
    let messages = [Message::RunStarted { run: &run.header }]
        .into_iter()
        .chain(records)
        .chain(summaries.iter().map(|case| Message::Summary { case }))
        .chain([Message::Finished(finished)]);
    assert!(messages.map(|message| message.to_line()).collect::<String>() == clean(fixture!("messages.jsonl")));
}
