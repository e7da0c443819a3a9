//! A gate's report for people: a table for a terminal, Markdown for a job's summary or the comment on a pull request.
//! Both render the same sheet, as the tables of `bench` do. Markdown puts passes last, because GitHub limits its
//! length.

use crate::{
    Comparison, Finding, Role,
    outcome::{self, Standing},
    report::Report,
    text,
};
use espalier_bench::{
    markdown::{self, escape},
    sheet::{Cell, Column, Sheet, Tone, cell},
    table::{self, Look},
};

/// GitHub refuses comments of more than 65,536 characters; the difference is for escaping the rest of the report.
const MOST_MARKDOWN: usize = 60_000;

/// Lets a program that comments find its comment again.
pub const MARKER: &str = "<!-- espalier-gate -->";

/// Ends with a line `GATE: 1 regressed, 3 pass (exit code 3)`.
pub fn terminal(report: &Report, look: Look) -> String {
    let rows: Vec<&Comparison> = report.comparisons.iter().collect();
    let sheet = sheet(report, &rows);
    format!("{}GATE: {}\n", table::render_sheet(&sheet, look), text::total(report, &report.outcome()))
}

pub fn markdown(report: &Report) -> String {
    let mut rows: Vec<&Comparison> = report.comparisons.iter().collect();
    rows.sort_by_key(|comparison| (outcome::alarm(comparison).is_none(), outcome::standing(comparison)));
    loop {
        let text = markdown_of(report, &rows);
        if text.len() <= MOST_MARKDOWN || rows.is_empty() {
            return text;
        }
        // A few steps for any number of rows; the last ones are those that passed.
        rows.truncate(rows.len() * 3 / 4);
    }
}

fn markdown_of(report: &Report, rows: &[&Comparison]) -> String {
    let mut sheet = sheet(report, rows);
    let left_out = report.comparisons.len() - rows.len();
    if left_out > 0 {
        sheet.notes.insert(0, format!("{left_out} more comparisons have no room here: see the JSON export"));
    }
    let total = text::total(report, &report.outcome());
    format!("{MARKER}\n{}\n**{}**\n", markdown::render_sheet(&sheet).trim_start(), escape(&format!("GATE: {total}")))
}

/// `rows` are the comparisons that are shown, in their order.
fn sheet(report: &Report, rows: &[&Comparison]) -> Sheet {
    let plain = |text: &dyn Fn(&Comparison) -> String| -> Vec<Cell> {
        rows.iter().map(|comparison| cell(text(comparison), Tone::Plain)).collect()
    };
    let finding = |text: fn(&Finding) -> String| plain(&|comparison| text(&comparison.finding));
    let arm = |arm: usize| plain(&|comparison| text::values(report, comparison)[arm].clone());
    let mut columns = vec![
        Column::new("case", "", 0, plain(&text::case)),
        Column::new("criterion", "", 1, plain(&|comparison| comparison.criterion.name().to_owned())),
        Column::new("baseline", "", 5, arm(0)),
        Column::new("candidate", "", 4, arm(1)),
        Column { legend: text::LEGEND_CHANGE, ..Column::new("change", "", 3, finding(text::change)) },
        Column::new("verdict", "", 2, rows.iter().map(|comparison| verdict(comparison)).collect()),
        Column::new("pairs", "", 7, finding(text::pairs)),
        Column { legend: text::LEGEND_MDE, ..Column::new("MDE", "", 6, finding(text::mde)) },
        Column::new("pair SD", "", 8, finding(text::pair_sd)),
    ];
    if rows.is_empty() {
        columns.clear();
    }
    Sheet {
        title: text::line(&format!("gate against {}, profile {}", report.baseline.name, report.profile.name)),
        facts: text::facts(report),
        columns,
        notes: notes(report, rows),
    }
}

fn verdict(comparison: &Comparison) -> Cell {
    let tone = match (outcome::alarm(comparison), outcome::standing(comparison)) {
        (Some(_), _) | (None, Standing::Regressed) => Tone::Bad,
        (None, Standing::Passed) => Tone::Good,
        (None, Standing::Inconclusive | Standing::Waived) => Tone::Doubtful,
    };
    // A positive control must regress: that is not bad.
    let tone = if comparison.role != Role::Gate && tone != Tone::Bad { Tone::Plain } else { tone };
    cell(text::verdict(comparison), tone)
}

fn notes(report: &Report, rows: &[&Comparison]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for comparison in rows {
        let title = format!("{}, {}", text::case(comparison), comparison.criterion.name());
        notes.extend(text::remarks(comparison).map(|remarks| format!("{title}: {remarks}")));
    }
    for fault in &report.faults {
        let (device, message) = (text::line(&fault.device), text::line(&fault.message));
        notes.push(format!("device {device} failed, stage {}: {message}", fault.stage.name()));
    }
    let outcome = report.outcome();
    for missing in &outcome.missing {
        notes.push(text::line(&format!(
            "planned and not compared: {}",
            outcome::title(&missing.case, missing.criterion)
        )));
    }
    if outcome.tally.passed == 0 {
        notes.push("nothing passed: a gate that compared nothing is not green".to_owned());
    }
    notes.extend(text::family(report));
    if report.devices.iter().any(|device| device.emulated) {
        notes.push("emulated boards: their times are a functional check and say nothing about real ones".to_owned());
    }
    notes.extend(report.notes.iter().map(|note| text::line(note)));
    notes
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Verdict, report::tests_support::report};

    fn rendered(width: usize, colour: bool) -> String {
        terminal(&report(), Look { width, colour })
    }

    #[test]
    fn wide() {
        let got = rendered(150, false);
        let expected = include_str!("../tests/fixtures/report-wide.txt");
        assert!(got == expected, "{got}");
    }

    #[test]
    fn narrow() {
        let got = rendered(100, false);
        let expected = r#"
gate against release-1.4, profile nightly
baseline release-1.4 of 2026-11-20T09:00:00Z, accepted by jo@workbench
  its revision 7c7533f, espalier 0.1.0 · candidate's revision 05f99f9+, espalier 0.1.0
  begun 2026-11-23T19:15:00Z on workbench · profile nightly
  p50: regressed when proved slower by more than 0.5 %, pass when proved slower by less than 3 %
  p99: regressed when proved slower by more than 5 %, pass when proved slower by less than 15 %
  pi4 (aarch64-gnu), runner 1a2b3c4d in both arms
  jetson (aarch64-gnu, emulated), runner 1a2b3c4d → 5e6f7a8b
╭───────────────────────────┬─────────────┬────────────────────────┬────────────────────╮
│            case           ┆  criterion  ┆         change         ┆       verdict      │
╞═══════════════════════════╪═════════════╪════════════════════════╪════════════════════╡
│     digits-cnn@0.5 on pi4 ┆         p50 ┆    +3.4 % [+1.9, +4.9] ┆          regressed │
│       digits-cnn@0 on pi4 ┆         p50 ┆ +0.04 % [-0.21, +0.29] ┆               pass │
│     digits-cnn@0.5 on pi4 ┆ runner-size ┆    +12.0 KiB (+1.17 %) ┆ regressed (waived) │
│     digits-cnn@0.5 on pi4 ┆  model-size ┆                   same ┆               pass │
│     digits-cnn@0.5 on pi4 ┆    peak-rss ┆                   same ┆               pass │
│     digits-cnn@0.5 on pi4 ┆    accuracy ┆         -0.20 pp (3/1) ┆               pass │
│ digits-cnn@0 on pi4 (A/A) ┆         p50 ┆    -0.1 % [-1.0, +0.8] ┆               pass │
│  digits-cnn@0.5 on jetson ┆         p50 ┆ +12.0 % [-10.0, +40.0] ┆       inconclusive │
╰───────────────────────────┴─────────────┴────────────────────────┴────────────────────╯
digits-cnn@0.5 on pi4, p50: proved slower by more than 0.5 %; confirmed +3.1 % [+1.2, +5.0]; drift
  z=4.1
digits-cnn@0.5 on pi4, runner-size: 12.0 KiB larger, 0.5 % are allowed; waived until 2026-12-31:
  labels | inside <b>
digits-cnn@0.5 on jetson, p50: nothing proved after 32 blocks \u{1b}[2J
device visionfive2 failed, stage connect: connection refused | <b> @root
planned and not compared: digits-cnn@0.5 on jetson, p99
emulated boards: their times are a functional check and say nothing about real ones
waiver for digits-mlp@0 on pi4 ended on 2026-11-22: renew it or take it out
change: candidate against baseline; of a time with the one-sided limits of the test (the lower one
  decides "regressed", the upper one "pass"), of an accuracy with samples lost and won
too narrow for: baseline, candidate, pairs, MDE, pair SD
GATE: 1 regressed, 4 pass, 1 inconclusive, 1 waived, 1 not compared, 1 device fault (exit code 3)
"#;
        assert!(got == expected.trim_start_matches('\n'), "{got}");
    }

    #[test]
    fn as_a_comment() {
        let got = markdown(&report());
        let expected = include_str!("../tests/fixtures/report-comment.txt");
        assert!(got == expected, "{got}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [100, 120, 140, 160, 200] {
            for line in rendered(width, false).lines() {
                assert!(line.chars().count() <= width, "width {width}: {line}");
            }
        }
        assert!(!rendered(200, false).contains("too narrow"));
    }

    #[test]
    fn colour_only_on_request() {
        assert!(rendered(160, true).contains("\u{1b}["));
        assert!(!rendered(160, false).contains('\u{1b}'));
    }

    #[test]
    fn a_gate_that_compared_nothing_says_so() {
        let mut report = report();
        report.comparisons.clear();
        report.planned.clear();
        report.faults.clear();
        for text in [terminal(&report, Look { width: 120, colour: false }), markdown(&report)] {
            assert!(text.contains("nothing passed: a gate that compared nothing is not green"), "{text}");
            assert!(text.contains("GATE: nothing compared (exit code 4)"), "{text}");
            assert!(!text.contains("│") && !text.contains("| ---"), "{text}");
        }
    }

    /// Only passes are cut from a comment, and a note counts them.
    #[test]
    fn a_comment_fits_github() {
        let mut report = report();
        let pass = report.comparisons[1].clone();
        report.comparisons.splice(0..0, std::iter::repeat_n(pass, 3000));
        let text = markdown(&report);
        assert!(text.len() <= MOST_MARKDOWN && text.len() > MOST_MARKDOWN / 2, "{}", text.len());
        assert!(text.contains(" more comparisons have no room here"), "{text}");
        for shown in ["regressed |", "inconclusive |", r"regressed (waived) |", "visionfive2"] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
    }

    #[test]
    fn an_alarm_is_seen() {
        let mut report = report();
        let control = report.comparisons.iter_mut().find(|made| made.role == Role::NegativeControl).unwrap();
        control.verdict = Verdict::Regressed;
        let text = terminal(&report, Look { width: 160, colour: false });
        assert!(text.contains("regressed (alarm)"), "{text}");
        assert!(
            text.contains("digits-cnn@0 on pi4 (A/A), p50: alarm: the baseline was found slower than itself"),
            "{text}"
        );
        assert!(text.contains("1 control wrong"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_foreign_acts(texts in vec(any::<String>(), 4)) {
            let mut report = report();
            let [reason, tag, message, note] = texts.try_into().expect("four");
            report.comparisons[0].reason = reason;
            report.comparisons[1].tags = vec![tag];
            report.faults[0].message = message.into();
            report.notes.push(note);
            let look = Look { width: 160, colour: false };
            let text = terminal(&report, look);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", text);
            let rows = |text: &str| text.lines().filter(|line| line.starts_with("| ")).count();
            prop_assert_eq!(rows(&markdown(&report)), report.comparisons.len() + 2);
        }
    }
}
