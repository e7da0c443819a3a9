//! Findings of the gate as text, for every renderer the same. Numbers carry their unit; foreign text is put on one line
//! and sanitised.

use crate::{
    Comparison, Effect, Finding, Role, family,
    outcome::{self, GateOutcome, Standing},
    report::{GateDevice, Report},
};
use espalier_bench::{
    metric::Unit,
    sheet::{MISSING, both, percent, short, size},
};
use espalier_protocol::text::sanitise;

/// `digits-cnn@0.5 on pi4`, for a control with what it is.
pub fn case(comparison: &Comparison) -> String {
    let control = control(comparison.role);
    line(&format!("{}{control}", comparison.case))
}

/// Behind the name of a control: the baseline against itself, or the candidate against itself with a known slow-down.
pub fn control(role: Role) -> &'static str {
    match role {
        Role::Gate => "",
        Role::NegativeControl => " (A/A)",
        Role::PositiveControl => " (A/A slowed)",
    }
}

/// The values of both arms, each with its unit.
pub fn values(report: &Report, comparison: &Comparison) -> [String; 2] {
    match &comparison.finding {
        Finding::Effect(_) => match report.latency(comparison) {
            Some(latency) => both(latency.base_ns, latency.candidate_ns, Unit::Nanoseconds),
            None => [MISSING.to_owned(), MISSING.to_owned()],
        },
        Finding::Peaks { base, candidate } => match (middle(base), middle(candidate)) {
            (Some(base), Some(candidate)) => both(base, candidate, Unit::Bytes),
            _ => [MISSING.to_owned(), MISSING.to_owned()],
        },
        Finding::Sizes { base, candidate } => both(*base as f64, *candidate as f64, Unit::Bytes),
        Finding::Score { unit, base, candidate, .. } => [score(*base, *unit), score(*candidate, *unit)],
        Finding::Accuracy { .. } | Finding::Nothing => [MISSING.to_owned(), MISSING.to_owned()],
    }
}

/// From baseline to candidate: `+3.4 % [+1.9, +4.9]`, `+12.0 KiB (+1.2 %)`, `-0.20 pp (3/1)`.
pub fn change(finding: &Finding) -> String {
    match finding {
        Finding::Effect(effect) => interval(effect),
        Finding::Peaks { base, candidate } => match (middle(base), middle(candidate)) {
            (Some(base), Some(candidate)) => bytes(base, candidate),
            _ => MISSING.to_owned(),
        },
        Finding::Sizes { base, candidate } => bytes(*base as f64, *candidate as f64),
        Finding::Accuracy { same_outputs: true, .. } => "same outputs".to_owned(),
        Finding::Accuracy { lost, won, drop, .. } => format!("{} pp ({lost}/{won})", signed(-drop * 100.0, 2)),
        Finding::Score { metric, unit, drop, .. } => match unit {
            espalier_tasks::Unit::Fraction => format!("{} pp of {metric}", signed(-drop * 100.0, 2)),
            espalier_tasks::Unit::Number => format!("{} of {metric}", signed(-drop, 4)),
        },
        Finding::Nothing => MISSING.to_owned(),
    }
}

fn score(value: f64, unit: espalier_tasks::Unit) -> String {
    match unit {
        espalier_tasks::Unit::Fraction => format!("{:.2} %", value * 100.0),
        espalier_tasks::Unit::Number => format!("{value:.4}"),
    }
}

fn interval(effect: &Effect) -> String {
    let changes = [effect.ratio, effect.low, effect.high].map(|ratio| (ratio - 1.0) * 100.0);
    // Two digits of the largest, so that an interval inside a small margin can be read.
    let decimals = if changes.iter().all(|change| change.abs() < 0.95) { 2 } else { 1 };
    let [change, low, high] = changes.map(|change| signed(change, decimals));
    format!("{change} % [{low}, {high}]")
}

fn bytes(base: f64, candidate: f64) -> String {
    let difference = candidate - base;
    if difference == 0.0 {
        return "same".to_owned();
    }
    let sign = if difference < 0.0 { '-' } else { '+' };
    let percent = if base > 0.0 { format!(" ({} %)", signed(difference / base * 100.0, 2)) } else { String::new() };
    format!("{sign}{}{percent}", size(difference.abs().round() as u64))
}

/// The numbers of an accuracy: `3 lost and 1 won of 1000, at most 0.55 pp lost, p = 0.31`.
fn accuracy(finding: &Finding) -> Option<String> {
    let Finding::Accuracy { lost, won, total, same_outputs: false, drop_high, p_value, .. } = finding else {
        return None;
    };
    let limit = format!("{:.2} pp", drop_high.abs() * 100.0);
    let limit = if *drop_high < 0.0 { format!("at least {limit} won") } else { format!("at most {limit} lost") };
    Some(format!("{lost} lost and {won} won of {total}, {limit}, p = {p_value:.2}"))
}

pub fn pairs(finding: &Finding) -> String {
    finding.effect().map_or(MISSING.to_owned(), |effect| effect.pairs.to_string())
}

pub fn mde(finding: &Finding) -> String {
    let mde = finding.effect().and_then(|effect| effect.mde);
    mde.map_or(MISSING.to_owned(), |mde| format!("{:.1} %", mde * 100.0))
}

pub fn pair_sd(finding: &Finding) -> String {
    finding.effect().map_or(MISSING.to_owned(), |effect| format!("{:.1} %", effect.pair_sd * 100.0))
}

/// The verdict, which a waiver does not hide.
pub fn verdict(comparison: &Comparison) -> String {
    let verdict = comparison.verdict.name();
    match (outcome::standing(comparison), outcome::alarm(comparison)) {
        (_, Some(_)) => format!("{verdict} (alarm)"),
        (Standing::Waived, _) => format!("{verdict} (waived)"),
        _ if comparison.confirmation.as_ref().is_some_and(|confirmation| !confirmation.confirmed) => {
            format!("{verdict} (not confirmed)")
        }
        _ => verdict.to_owned(),
    }
}

/// Reasons, tags, confirmation and waiver; `None` for a pass without any of them.
pub fn remarks(comparison: &Comparison) -> Option<String> {
    let standing = outcome::standing(comparison);
    let mut parts: Vec<String> = Vec::new();
    if standing != Standing::Passed && !comparison.reason.is_empty() {
        parts.push(comparison.reason.clone());
    }
    parts.extend(outcome::alarm(comparison).map(|alarm| format!("alarm: {alarm}")));
    parts.extend(accuracy(&comparison.finding).filter(|_| standing != Standing::Passed));
    if let Some(confirmation) = &comparison.confirmation {
        let change = change(&confirmation.finding);
        parts.push(match confirmation.confirmed {
            true => format!("confirmed {change}"),
            false => format!("not confirmed {change}: {}", confirmation.reason),
        });
    }
    parts.extend(comparison.tags.iter().cloned());
    let waived = comparison.waived.as_ref();
    parts.extend(waived.map(|waived| format!("waived until {}: {}", waived.until, waived.reason)));
    let parts: Vec<String> = parts.iter().map(|part| line(part)).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// In one sentence, where there is no table:
/// `+3.4 % [+1.9, +4.9], 24 pairs, MDE 2.6 %, pair SD 2.1 %; proved slower by …`.
pub fn sentence(report: &Report, comparison: &Comparison) -> String {
    let finding = &comparison.finding;
    let [base, candidate] = values(report, comparison);
    let mut numbers = vec![change(finding)];
    if base != MISSING {
        numbers.push(format!("{base} → {candidate}"));
    }
    if finding.effect().is_some() {
        numbers.push(format!("{} pairs, MDE {}, pair SD {}", pairs(finding), mde(finding), pair_sd(finding)));
    }
    if outcome::standing(comparison) == Standing::Passed {
        numbers.extend(accuracy(finding));
    }
    if finding == &Finding::Nothing {
        numbers = vec!["nothing was measured".to_owned()];
    }
    let numbers = numbers.join(", ");
    remarks(comparison).map_or(numbers.clone(), |remarks| format!("{numbers}; {remarks}"))
}

/// What was compared, with what and on what terms; short phrases.
pub fn facts(report: &Report) -> Vec<String> {
    let unknown = "unknown";
    let Report { baseline, candidate, profile, .. } = report;
    let revision = |revision: &Option<String>| revision.clone().unwrap_or_else(|| unknown.to_owned());
    let mut facts = vec![
        format!("baseline {} of {}, accepted by {}", baseline.name, baseline.accepted, baseline.by),
        format!("its revision {}, espalier {}", revision(&baseline.revision), baseline.espalier),
        format!("candidate's revision {}, espalier {}", revision(&candidate.revision), candidate.espalier),
        format!("begun {} on {}", report.started, candidate.host),
    ];
    facts.push(format!("profile {}", profile.name));
    for margins in &profile.margins {
        let [lower, upper] = [margins.lower, margins.upper].map(|margin| percent(margin, 4));
        facts.push(format!(
            "{}: regressed when proved slower by more than {lower} %, pass when proved slower by less than {upper} %",
            margins.criterion.name()
        ));
    }
    facts.extend(report.devices.iter().map(device));
    facts.iter().map(|fact| line(fact)).collect()
}

fn device(device: &GateDevice) -> String {
    let brief = |sha256: &String| sha256.chars().take(8).collect::<String>();
    let runner = match (&device.base_runner, &device.candidate_runner) {
        (Some(base), Some(candidate)) if base == candidate => format!("runner {} in both arms", brief(base)),
        (base, candidate) => {
            let brief = |runner: &Option<String>| runner.as_ref().map_or("none".to_owned(), brief);
            format!("runner {} → {}", brief(base), brief(candidate))
        }
    };
    let emulated = if device.emulated { ", emulated" } else { "" };
    format!("{} ({}{emulated}), {runner}", device.name, device.target)
}

/// What the comparisons show together, in sentences. Of the pooled effects only those that say more than their cases
/// do.
pub fn family(report: &Report) -> Vec<String> {
    const CLEAR: f64 = 0.01;
    let mut sentences: Vec<String> = Vec::new();
    for pooled in family::pool(report).iter().filter(|pooled| !pooled.all_passed || pooled.p_value < CLEAR) {
        let changes = [pooled.effect, pooled.low, pooled.high].map(|ratio| signed((ratio - 1.0) * 100.0, 1));
        let ([change, low, high], p_value) = (changes, p_value(pooled.p_value));
        let title = format!("{}@{}, {}", pooled.model, pooled.ratio, pooled.criterion.name());
        let devices = format!("{} devices ({})", pooled.devices.len(), pooled.devices.join(", "));
        sentences.push(format!("{title}, over {devices}: {change} % [{low}, {high}] (95 %), slower: {p_value}"));
    }
    let suspects = family::suspects(report);
    let names = suspects.iter().map(|suspect| {
        let change = signed((suspect.effect - 1.0) * 100.0, 1);
        format!("{} ({change} %)", outcome::title(&suspect.case, suspect.criterion))
    });
    if !suspects.is_empty() {
        let (wrong, names) = (percent(family::FALSE_SUSPECTS, 4), names.collect::<Vec<String>>().join("; "));
        sentences.push(format!("suspects, not proved slower but looking so, {wrong} % of them wrongly: {names}"));
    }
    sentences.iter().map(|sentence| sanitise(sentence).replace('\n', " ")).collect()
}

fn p_value(p_value: f64) -> String {
    if p_value < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p_value:.4}") }
}

/// The last line: `1 regressed, 3 pass, 1 inconclusive (exit code 3)`.
pub fn total(report: &Report, outcome: &GateOutcome) -> String {
    let tally = outcome.tally;
    let faulty = report.faults.len();
    let faults = if faulty == 1 { "device fault" } else { "device faults" };
    let counts = [
        (tally.regressed, "regressed"),
        (tally.passed, "pass"),
        (tally.inconclusive, "inconclusive"),
        (tally.waived, "waived"),
        (tally.missing, "not compared"),
        (report.comparisons.iter().filter(|comparison| outcome::alarm(comparison).is_some()).count(), "control wrong"),
        (faulty, faults),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let counts = if counts.is_empty() { "nothing compared".to_owned() } else { counts.join(", ") };
    format!("{counts} (exit code {})", outcome.status.code())
}

/// Foreign text on one line, harmless and of bounded length.
pub fn line(text: &str) -> String {
    short(text).replace('\n', " ")
}

/// With its sign, but zero without minus.
fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{value:+.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| c == '0' || c == '.') => format!("+{digits}"),
        _ => text,
    }
}

/// The median; of an even number the mean of both in the middle.
fn middle(values: &[u64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((*low as f64 + *high as f64) / 2.0)
}

/// Legends of the columns.
pub const LEGEND_CHANGE: &str = "change: candidate against baseline; of a time with the one-sided limits of the test \
                                 (the lower one decides \"regressed\", the upper one \"pass\"), of an accuracy with \
                                 samples lost and won";
pub const LEGEND_MDE: &str = "MDE: smallest slow-down that is found in 95 of 100 sessions like this one";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Criterion, Verdict,
        report::tests_support::{comparison, effect, report},
    };

    #[track_caller]
    fn check(finding: Finding, expected: &str) {
        assert_eq!(change(&finding), expected);
    }

    #[test]
    fn changes_have_units_and_signs() {
        check(Finding::Effect(effect(1.034, 1.019, 1.049)), "+3.4 % [+1.9, +4.9]");
        check(Finding::Effect(effect(0.99996, 0.9979, 1.0029)), "+0.00 % [-0.21, +0.29]");
        check(Finding::Effect(effect(0.9996, 0.9, 1.1)), "+0.0 % [-10.0, +10.0]");
        check(Finding::Sizes { base: 1_048_576, candidate: 1_060_864 }, "+12.0 KiB (+1.17 %)");
        check(Finding::Sizes { base: 4_194_304, candidate: 2_097_152 }, "-2.00 MiB (-50.00 %)");
        check(Finding::Sizes { base: 7, candidate: 7 }, "same");
        check(Finding::Sizes { base: 0, candidate: 7 }, "+7 B");
        check(Finding::Sizes { base: u64::MAX, candidate: 0 }, "-17179869184 GiB (-100.00 %)");
        check(Finding::Peaks { base: vec![3, 1, 2], candidate: vec![4, 4] }, "+2 B (+100.00 %)");
        check(Finding::Peaks { base: vec![], candidate: vec![4] }, "—");
        let accuracy = |drop: f64, same_outputs: bool| Finding::Accuracy {
            lost: 3,
            won: 1,
            total: 200,
            p_value: 0.3125,
            drop,
            drop_high: 0.023,
            same_outputs,
        };
        check(accuracy(0.01, false), "-1.00 pp (3/1)");
        check(accuracy(-0.01, false), "+1.00 pp (3/1)");
        check(accuracy(0.0, false), "+0.00 pp (3/1)");
        check(accuracy(0.0, true), "same outputs");
        check(Finding::Nothing, "—");
    }

    #[test]
    fn remarks_say_what_numbers_do_not() {
        let report = report();
        let remarks: Vec<String> = report.comparisons.iter().map(|made| remarks(made).unwrap_or_default()).collect();
        assert_eq!(
            remarks,
            [
                "proved slower by more than 0.5 %; confirmed +3.1 % [+1.2, +5.0]; drift z=4.1",
                "",
                "12.0 KiB larger, 0.5 % are allowed; waived until 2026-12-31: labels | inside <b>",
                "",
                "",
                "",
                "",
                r"nothing proved after 32 blocks \u{1b}[2J",
            ]
        );
    }

    #[test]
    fn what_cases_say_together() {
        assert_eq!(family(&report()), [""; 0], "one device is emulated");
        let mut report = report();
        report.devices[1].emulated = false;
        let clear = "digits-cnn@0.5, p50, over 2 devices (pi4, jetson): +7.6 % [+7.0, +8.3] (95 %), slower: p < 0.0001";
        let suspect =
            "suspects, not proved slower but looking so, 10 % of them wrongly: digits-cnn@0.5 on jetson, p50 (+12.0 %)";
        assert_eq!(family(&report), [clear, suspect]);
        // What passed everywhere and does not differ is left out.
        report.comparisons[0].case.model = "other".into();
        report.comparisons[1].case.ratio = 0.5;
        report.comparisons[7].finding = Finding::Effect(effect(1.0, 0.99, 1.01));
        assert_eq!(
            family(&report),
            ["digits-cnn@0.5, p50, over 2 devices (pi4, jetson): +0.0 % [-0.1, +0.2] (95 %), slower: p = 0.3152"]
        );
        report.comparisons[7].verdict = Verdict::Pass;
        assert_eq!(family(&report), [""; 0]);
    }

    #[test]
    fn a_sentence_has_everything() {
        let report = report();
        assert_eq!(
            sentence(&report, &report.comparisons[0]),
            "+3.4 % [+1.9, +4.9], 1.000 ms → 1.034 ms, 24 pairs, MDE 2.6 %, pair SD 2.1 %; proved slower by more than \
             0.5 %; \
             confirmed +3.1 % [+1.2, +5.0]; drift z=4.1"
        );
        let nothing = comparison("m@0 on d", Criterion::P50, Verdict::Inconclusive, Finding::Nothing);
        assert_eq!(sentence(&report, &nothing), "nothing was measured");
    }
}
