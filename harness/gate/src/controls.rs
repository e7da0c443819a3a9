//! Whether the gate itself can be believed: comparisons whose outcome is known beforehand, kept gate by gate in
//! `reports/controls.jsonl`.
//!
//! A negative control compares the baseline with itself and must not regress; a positive one has a known slow-down and
//! must regress. The error rates promise at most one wrong A/A comparison a month; more of them, or a slow-down that
//! was missed, is an alarm. Beyond verdicts, the signs of the A/A effects are counted: a gate that finds B slower more
//! often than A on the same code favours an arm.

use espalier_protocol::float;
use serde::{Deserialize, Serialize};

use crate::{Comparison, Criterion, Role, Verdict, date::Date, lines};
use espalier_bench::record::Case;

/// A/A comparisons that may regress within [`MONTH_DAYS`] without an alarm.
const REGRESSED_A_MONTH: usize = 1;
const MONTH_DAYS: i64 = 31;

/// Days after which a slow-down is due again.
const WEEK_DAYS: i64 = 7;

/// Level of the sign test over all A/A comparisons.
const BIAS_P: f64 = 0.01;

/// One control of one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The gate's id.
    pub gate: String,
    /// Day in UTC, `2026-11-23`.
    pub day: String,
    pub case: Case,
    pub criterion: Criterion,
    pub role: Role,
    pub verdict: Verdict,
    /// Logarithm of the measured ratio; `None` where nothing was measured.
    #[serde(default, with = "float")]
    pub log_ratio: Option<f64>,
}

impl Control {
    /// `None` for what is no control.
    pub fn of(gate: &str, day: &str, comparison: &Comparison) -> Option<Control> {
        let Comparison { case, criterion, role, verdict, finding, .. } = comparison.clone();
        let log_ratio = finding.effect().map(|effect| effect.ratio.ln());
        let control = Control { gate: gate.into(), day: day.into(), case, criterion, role, verdict, log_ratio };
        (role != Role::Gate).then_some(control)
    }

    /// With the line break.
    pub fn to_line(&self) -> String {
        lines::to_json(self)
    }
}

/// Reads the file; a last line that was cut off is dropped.
///
/// # Errors
/// Names the line.
pub fn parse(text: &str) -> Result<Vec<Control>, String> {
    lines::from_json(text)
}

/// What is wrong with the gate, in sentences; nothing where it keeps its promises.
pub fn alarms(controls: &[Control], today: Date) -> Vec<String> {
    let days_ago = |control: &Control| Date::parse(&control.day).map(|day| today.days_since(day));
    let recent = |control: &&Control| days_ago(control).is_some_and(|days| (0..MONTH_DAYS).contains(&days));
    let negative = |control: &&Control| control.role == Role::NegativeControl;
    let mut alarms = Vec::new();
    let regressed = |control: &&Control| control.verdict == Verdict::Regressed;
    let count = controls.iter().filter(recent).filter(negative).filter(regressed).count();
    if count > REGRESSED_A_MONTH {
        alarms.push(format!(
            "{count} comparisons of a baseline with itself regressed within {MONTH_DAYS} days: the gate raises false \
             alarms"
        ));
    }
    let missed = |control: &&Control| control.role == Role::PositiveControl && control.verdict != Verdict::Regressed;
    for control in controls.iter().filter(|control| days_ago(control) == Some(0)).filter(missed) {
        let Control { case, criterion, verdict, .. } = control;
        alarms.push(format!("a known slow-down of {case} was not found ({}: {})", criterion.name(), verdict.name()));
    }
    let signs: Vec<f64> = controls.iter().filter(negative).filter_map(|control| control.log_ratio).collect();
    let slower = signs.iter().filter(|log| **log > 0.0).count() as u64;
    let faster = signs.iter().filter(|log| **log < 0.0).count() as u64;
    let p_value = espalier_stats::sign_test(slower, faster);
    if p_value < BIAS_P {
        alarms.push(format!(
            "of {} comparisons of a baseline with itself the second arm was slower in {slower} (sign test, \
             p = {p_value:.4}): the gate favours an arm",
            signs.len()
        ));
    }
    alarms
}

/// Whether a device had no slow-down for a week; one of which nothing was measured does not count.
pub fn needs_slow_down(controls: &[Control], device: &str, today: Date) -> bool {
    let mut measured = controls.iter().filter(|control| {
        control.role == Role::PositiveControl && control.case.device == device && control.log_ratio.is_some()
    });
    !measured.any(|control| Date::parse(&control.day).is_some_and(|day| today.days_since(day) < WEEK_DAYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(day: &str, role: Role, verdict: Verdict, log_ratio: f64) -> Control {
        let case = Case::new("m", 0.5, "pi4");
        let (gate, day) = ("g".into(), day.into());
        Control { gate, day, case, criterion: Criterion::P50, role, verdict, log_ratio: Some(log_ratio) }
    }

    fn today() -> Date {
        Date::parse("2026-11-23").unwrap()
    }

    #[test]
    fn one_false_regression_a_month_is_within_the_promise() {
        let failed = |day: &str| control(day, Role::NegativeControl, Verdict::Regressed, 0.01);
        assert_eq!(alarms(&[failed("2026-11-23"), failed("2026-10-20")], today()), [] as [&str; 0]);
        let alarms = alarms(&[failed("2026-11-23"), failed("2026-11-01")], today());
        assert_eq!(alarms.len(), 1);
        assert!(alarms[0].starts_with("2 comparisons of a baseline with itself regressed"), "{alarms:?}");
    }

    #[test]
    fn a_slow_down_that_was_missed_is_an_alarm_the_same_day() {
        let missed = control("2026-11-23", Role::PositiveControl, Verdict::Pass, 0.0);
        assert_eq!(
            alarms(std::slice::from_ref(&missed), today()),
            ["a known slow-down of m@0.5 on pi4 was not found (p50: pass)"]
        );
        let found = Control { verdict: Verdict::Regressed, ..missed.clone() };
        assert_eq!(alarms(std::slice::from_ref(&found), today()), [] as [&str; 0]);
        assert!(!needs_slow_down(&[found], "pi4", today()));
        assert!(needs_slow_down(&[Control { day: "2026-11-16".into(), ..missed }], "pi4", today()));
        assert!(needs_slow_down(&[], "pi4", today()));
    }

    #[test]
    fn a_gate_that_favours_an_arm_is_found_out() {
        let entry = |log: f64| control("2026-01-01", Role::NegativeControl, Verdict::Pass, log);
        let fair: Vec<Control> = (0..40).map(|number| entry(if number % 2 == 0 { 0.01 } else { -0.01 })).collect();
        assert_eq!(alarms(&fair, today()), [] as [&str; 0]);
        let biased: Vec<Control> = (0..40).map(|number| entry(if number % 5 == 0 { -0.01 } else { 0.01 })).collect();
        assert!(alarms(&biased, today())[0].contains("the second arm was slower in 32"));
    }

    #[test]
    fn lines_come_back_and_a_cut_off_one_is_dropped() {
        let one = control("2026-11-23", Role::NegativeControl, Verdict::Pass, -0.001);
        let text = one.to_line() + &one.to_line();
        assert_eq!(parse(&text).unwrap(), [one.clone(), one.clone()]);
        assert_eq!(parse(&text[..text.len() - 5]).unwrap(), [one]);
        assert!(parse("{}\n").unwrap_err().starts_with("line 1: "));
    }
}
