//! `reports/waivers.toml`: regressions and inconclusive cases that are acknowledged, with a reason and a last day.
//!
//! A waiver takes away what a verdict does to the exit code, never the verdict: it stays in every report, with the
//! reason beside it. No waiver lasts longer than [`LONGEST_DAYS`], and one that has ended or fits nothing is reported,
//! so that the file does not fill with forgotten ones.
//!
//! ```toml
//! [[waiver]]
//! case = "digits-cnn@0.5 on pi4"
//! criterion = "p50"                 # left out: all of them
//! reason = "the new kernel is slower here until tract 0.24"
//! until = "2026-12-31"
//! ```

use crate::{Comparison, Criterion, Role, Verdict, Waived, date::Date, tables};
use espalier_bench::record::Case;
use espalier_inventory::{
    Problem, SourceFile,
    document::{Table, Wrong},
    suggest,
};

/// From the day on which the file is read to a waiver's last day.
pub const LONGEST_DAYS: i64 = 366;

#[derive(Clone, Debug, PartialEq)]
pub struct Waiver {
    pub case: Case,
    /// `None`: every criterion.
    pub criterion: Option<Criterion>,
    pub reason: String,
    /// Last day on which it holds.
    pub until: Date,
}

impl Waiver {
    fn fits(&self, comparison: &Comparison) -> bool {
        comparison.role == Role::Gate
            && comparison.case == self.case
            && self.criterion.is_none_or(|criterion| criterion == comparison.criterion)
    }

    /// `waiver for digits-cnn@0.5 on pi4 (p50)`
    fn title(&self) -> String {
        let criterion = self.criterion.map(|criterion| format!(" ({})", criterion.name())).unwrap_or_default();
        format!("waiver for {}{criterion}", self.case)
    }
}

/// # Errors
/// Every mistake in the file, from top to bottom. A waiver that has ended is no mistake.
pub fn parse(source: &SourceFile, today: Date) -> Result<Vec<Waiver>, Vec<Problem>> {
    tables::parse(source, "waiver", |table, others| read_waiver(table, others, today))
}

fn read_waiver(mut table: Table<'_, '_>, others: &[Waiver], today: Date) -> Option<Waiver> {
    let case_value = table.require("case", "\"digits-cnn@0.5 on pi4\"");
    let case = case_value.as_ref().and_then(|value| value.parse(tables::case));
    let criterion = tables::optional(&mut table, "criterion", tables::criterion);
    let filled = |text: &str| tables::filled("reason", text);
    let reason = tables::field(&mut table, "reason", "slower until tract 0.24", filled);
    let until = tables::field(&mut table, "until", "2026-12-31", |text| last_day(text, today));
    table.close();
    let waiver = Waiver { case: case?, criterion: criterion?, reason: reason?, until: until? };
    if others.iter().any(|other| other.case == waiver.case && other.criterion == waiver.criterion) {
        case_value?.wrong(Wrong::new(format!("there is another {}", waiver.title())));
        return None;
    }
    Some(waiver)
}

fn last_day(text: &str, today: Date) -> Result<Date, Wrong> {
    let until = tables::day(text)?;
    let days = until.days_since(today);
    if days > LONGEST_DAYS {
        return Err(Wrong::new(format!(
            "a waiver is not forever: {until} is {days} days off, {LONGEST_DAYS} are allowed"
        )));
    }
    Ok(until)
}

/// Marks what is waived today, and returns notes about waivers that do nothing. The waiver of one criterion takes
/// precedence over that of all.
pub fn apply(waivers: &[Waiver], comparisons: &mut [Comparison], today: Date) -> Vec<String> {
    for comparison in comparisons.iter_mut().filter(|comparison| comparison.verdict != Verdict::Pass) {
        let fitting = waivers.iter().filter(|waiver| waiver.until >= today && waiver.fits(comparison));
        if let Some(waiver) = fitting.max_by_key(|waiver| waiver.criterion.is_some()) {
            comparison.waived = Some(Waived { reason: waiver.reason.clone(), until: waiver.until.to_string() });
        }
    }
    waivers.iter().filter_map(|waiver| note(waiver, comparisons, today)).collect()
}

fn note(waiver: &Waiver, comparisons: &[Comparison], today: Date) -> Option<String> {
    let title = waiver.title();
    if waiver.until < today {
        return Some(format!("{title} ended on {}: renew it or take it out", waiver.until));
    }
    let mut fitting = comparisons.iter().filter(|comparison| waiver.fits(comparison)).peekable();
    if fitting.peek().is_some() {
        let passed = fitting.all(|comparison| comparison.verdict == Verdict::Pass);
        return passed.then(|| format!("{title} is not needed: it passed"));
    }
    let cases: Vec<String> = comparisons.iter().map(|comparison| comparison.case.to_string()).collect();
    let case = waiver.case.to_string();
    // The case may be here without that criterion.
    let meant = suggest(&case, cases.iter().map(String::as_str)).filter(|meant| *meant != case);
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Some(format!("{title} fits nothing in this gate{meant}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Finding;

    fn day(text: &str) -> Date {
        Date::parse(text).unwrap()
    }

    fn read(text: &str) -> Result<Vec<Waiver>, Vec<Problem>> {
        parse(&SourceFile::new("w.toml", text), day("2026-11-23"))
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let problems = read(text).err().unwrap_or_default();
        let lines: Vec<String> = problems.iter().map(|problem| problem.to_string()).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    const VALID: &str = r#"
[[waiver]]
case = "digits-cnn@0.5 on pi4"
criterion = "p50"
reason = "the new kernel is slower here"
until = "2026-12-31"

[[waiver]]
case = "digits-mlp@0 on pi4"
reason = " noisy "
until = "2026-11-22"
"#;

    #[test]
    fn a_valid_file_means_what_it_says() {
        let case = |text: &str| Case::parse(text).unwrap();
        let expected = vec![
            Waiver {
                case: case("digits-cnn@0.5 on pi4"),
                criterion: Some(Criterion::P50),
                reason: "the new kernel is slower here".into(),
                until: day("2026-12-31"),
            },
            Waiver {
                case: case("digits-mlp@0 on pi4"),
                criterion: None,
                reason: "noisy".into(),
                until: day("2026-11-22"),
            },
        ];
        assert_eq!(read(VALID), Ok(expected));
        assert_eq!(read("# none\n"), Ok(vec![]));
    }

    #[test]
    fn every_mistake_at_once() {
        check(
            "[[waiver]]\ncase = \"digits-cnn on pi4\"\ncriterion = \"p5\"\nreason = \" \"\nuntil = \"2026-02-30\"\n\
             [[waiver]]\ncase = \"m@0 on d\"\nreson = \"r\"\nuntil = 2026-12-31\n",
            "w.toml:2:8: `digits-cnn on pi4` is not a case such as `digits-cnn@0.5 on pi4`\n\
             w.toml:3:13: unknown criterion `p5` (known: `fastest`, `p50`, `p95`, `p99`, `peak-rss`, \
             `peak-allocated`, `runner-size`, `model-size`, `accuracy`)\n\
             w.toml:4:10: `reason` is empty: fill it in for whoever reads the report\n\
             w.toml:5:9: `2026-02-30` is no day such as `2026-12-31`\n\
             w.toml:8:1: unknown key `reson` in `[waiver]`; did you mean `reason`?\n\
             w.toml:9:9: `waiver.until` must be a string, not a date; did you mean `\"2026-12-31\"`?",
        );
        check("waivers = []", "w.toml:1:1: unknown key `waivers`; did you mean `waiver`?");
        check("waiver = 1", "w.toml:1:10: `waiver` must be an array of tables, not a whole number");
        let waiver = |until: &str, criterion: &str| {
            format!("[[waiver]]\ncase = \"m@0 on d\"\n{criterion}\nreason = \"r\"\nuntil = \"{until}\"\n")
        };
        check(
            &waiver("2026-12-31", "criterion = \"pek-rss\""),
            "w.toml:3:13: unknown criterion `pek-rss`; did you mean `peak-rss`?",
        );
        check(&waiver("2027-11-24", ""), "");
        let forever = "a waiver is not forever: 2027-11-25 is 367 days off, 366 are allowed";
        check(&waiver("2027-11-25", ""), &format!("w.toml:5:9: {forever}"));
        let twice = waiver("2026-12-31", "") + &waiver("2027-01-31", "criterion = \"p50\"") + &waiver("2026-12-31", "");
        check(&twice, "w.toml:12:8: there is another waiver for m@0 on d");
    }

    fn comparison(case: &str, criterion: Criterion, verdict: Verdict) -> Comparison {
        let judged = (verdict, Finding::Nothing, String::new());
        Comparison::new(Case::parse(case).unwrap(), criterion, Role::Gate, judged)
    }

    #[test]
    fn what_is_waived_keeps_its_verdict() {
        let case = "digits-cnn@0.5 on pi4";
        let mut comparisons = vec![
            comparison(case, Criterion::P50, Verdict::Regressed),
            comparison(case, Criterion::P95, Verdict::Regressed),
            comparison("digits-mlp@0 on pi4", Criterion::P50, Verdict::Inconclusive),
            Comparison { role: Role::NegativeControl, ..comparison(case, Criterion::P50, Verdict::Regressed) },
        ];
        let before = comparisons.clone();
        let notes = apply(&read(VALID).unwrap(), &mut comparisons, day("2026-11-23"));
        let waived = Waived { reason: "the new kernel is slower here".into(), until: "2026-12-31".into() };
        assert_eq!(comparisons[0], Comparison { waived: Some(waived), ..before[0].clone() });
        assert_eq!(comparisons[1..], before[1..]);
        assert_eq!(notes, ["waiver for digits-mlp@0 on pi4 ended on 2026-11-22: renew it or take it out"]);
    }

    #[test]
    fn it_holds_on_its_last_day_and_not_after() {
        let waivers = read(VALID).unwrap();
        let waived = |today: &str| {
            let mut comparisons = [comparison("digits-cnn@0.5 on pi4", Criterion::P50, Verdict::Inconclusive)];
            apply(&waivers, &mut comparisons, day(today));
            comparisons[0].waived.is_some()
        };
        assert!(waived("2026-12-30") && waived("2026-12-31"));
        assert!(!waived("2027-01-01") && !waived("2030-01-01"));
    }

    #[test]
    fn one_criterion_goes_before_all() {
        let text = VALID.replace("digits-mlp@0", "digits-cnn@0.5").replace("2026-11-22", "2026-11-30");
        let mut comparisons = [Criterion::P50, Criterion::Accuracy]
            .map(|criterion| comparison("digits-cnn@0.5 on pi4", criterion, Verdict::Regressed));
        assert_eq!(apply(&read(&text).unwrap(), &mut comparisons, day("2026-11-23")), [""; 0]);
        let reasons = comparisons.each_ref().map(|comparison| comparison.waived.clone().unwrap().reason);
        assert_eq!(reasons, ["the new kernel is slower here", "noisy"]);
    }

    #[test]
    fn a_waiver_that_waives_nothing_is_reported() {
        #[track_caller]
        fn check(case: &str, criterion: Criterion, verdict: Verdict, expected: &str) {
            let waivers = &read(VALID).unwrap()[..1];
            assert_eq!(apply(waivers, &mut [comparison(case, criterion, verdict)], day("2026-11-23")), [expected]);
        }
        let title = "waiver for digits-cnn@0.5 on pi4 (p50)";
        let fits_nothing = format!("{title} fits nothing in this gate");
        check("digits-cnn@0.5 on pi4", Criterion::P50, Verdict::Pass, &format!("{title} is not needed: it passed"));
        check("digits-cnn@0.5 on pi4", Criterion::P95, Verdict::Regressed, &fits_nothing);
        check("other@0.5 on jetson", Criterion::P50, Verdict::Regressed, &fits_nothing);
        let meant = format!("{fits_nothing}; did you mean `digits-cnn@0.5 on pi5`?");
        check("digits-cnn@0.5 on pi5", Criterion::P50, Verdict::Regressed, &meant);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            for problem in read(&text).err().unwrap_or_default() {
                prop_assert!((1..=text.matches('\n').count() + 1).contains(&problem.line));
            }
        }

        /// Whatever was slipped into a valid file: nothing that is read is without reason or beyond the limit.
        #[test]
        fn a_slip_is_refused_or_harmless(
            slips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..3_usize, "[\\[\\]=\"'#\n0-9a-f \
                                                                                               -]{0,2}"), 1..4),
        ) {
            let mut characters: Vec<char> = VALID.chars().collect();
            for (place, removed, inserted) in slips {
                let place = place.index(characters.len() - removed);
                characters.splice(place..place + removed, inserted.chars());
            }
            for waiver in read(&String::from_iter(characters)).unwrap_or_default() {
                prop_assert!(!waiver.reason.trim().is_empty());
                prop_assert!(waiver.until.days_since(day("2026-11-23")) <= LONGEST_DAYS);
                prop_assert_eq!(Case::parse(&waiver.case.to_string()), Ok(waiver.case));
            }
        }
    }
}
