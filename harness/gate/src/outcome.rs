//! The outcome of a gate: one exit status, a tally, and the reasons as text.
//!
//! It fails closed. Exit code 0 requires at least one comparison that passed, and forbids regressions, inconclusive or
//! missing comparisons, lost devices and wrong controls. A proved regression outranks a lost device, because it is true
//! whatever else happened.

use serde::{Deserialize, Serialize};

use crate::{Comparison, Criterion, Finding, Role, Verdict};
use espalier_bench::{exit::ExitStatus, record::Case};

/// A comparison that was to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub case: Case,
    pub criterion: Criterion,
    pub role: Role,
}

impl Planned {
    pub fn of(comparison: &Comparison) -> Planned {
        Planned { case: comparison.case.clone(), criterion: comparison.criterion, role: comparison.role }
    }

    pub fn is_answered_by(&self, comparison: &Comparison) -> bool {
        comparison.is_of(&self.case, self.criterion, self.role)
    }
}

/// What a comparison counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Regressed,
    /// Neither proved, a regression that was not confirmed, or a pass of which nothing was measured.
    Inconclusive,
    /// Not passed, but a waiver acknowledges it.
    Waived,
    Passed,
}

/// Numbers of comparisons between baseline and candidate; controls are in none of them but `missing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub passed: usize,
    pub regressed: usize,
    pub inconclusive: usize,
    pub waived: usize,
    /// Planned, controls among them, and not compared.
    pub missing: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GateOutcome {
    pub status: ExitStatus,
    pub tally: Tally,
    /// Why the status is not 0, the worst first; empty exactly where it is 0.
    pub reasons: Vec<String>,
    pub missing: Vec<Planned>,
}

pub fn standing(comparison: &Comparison) -> Standing {
    let unconfirmed = comparison.confirmation.as_ref().is_some_and(|confirmation| !confirmation.confirmed);
    match comparison.verdict {
        Verdict::Pass if comparison.finding != Finding::Nothing => Standing::Passed,
        _ if comparison.waived.is_some() => Standing::Waived,
        Verdict::Regressed if !unconfirmed => Standing::Regressed,
        _ => Standing::Inconclusive,
    }
}

/// How a control came out wrong; `None` where it came out right, and for what is no control.
pub fn alarm(comparison: &Comparison) -> Option<&'static str> {
    let nothing = comparison.finding == Finding::Nothing;
    match (comparison.role, comparison.verdict) {
        (Role::Gate, _) => None,
        (Role::NegativeControl, Verdict::Regressed) => Some("the baseline was found slower than itself"),
        (Role::PositiveControl, Verdict::Pass | Verdict::Inconclusive) => Some("a known slow-down was not found"),
        (Role::NegativeControl | Role::PositiveControl, _) => nothing.then_some("the control was not measured"),
    }
}

/// `lost` are the devices that could not be reached or broke.
pub fn outcome(comparisons: &[Comparison], planned: &[Planned], lost: &[String]) -> GateOutcome {
    let mut tally = Tally::default();
    let (mut regressed, mut open) = (Vec::new(), Vec::new());
    for comparison in comparisons.iter().filter(|comparison| comparison.role == Role::Gate) {
        match standing(comparison) {
            Standing::Passed => tally.passed += 1,
            Standing::Waived => tally.waived += 1,
            Standing::Regressed => {
                tally.regressed += 1;
                regressed.push(format!("regressed: {}", title(&comparison.case, comparison.criterion)));
            }
            Standing::Inconclusive => {
                tally.inconclusive += 1;
                open.push(format!("inconclusive: {}", title(&comparison.case, comparison.criterion)));
            }
        }
    }
    for comparison in comparisons {
        let title = title(&comparison.case, comparison.criterion);
        open.extend(alarm(comparison).map(|alarm| format!("control {title}: {alarm}")));
    }
    let missing = planned.iter().filter(|planned| !comparisons.iter().any(|made| planned.is_answered_by(made)));
    let missing: Vec<Planned> = missing.cloned().collect();
    tally.missing = missing.len();
    open.extend(missing.iter().map(|missing| format!("not compared: {}", title(&missing.case, missing.criterion))));
    if tally.passed == 0 {
        open.push("nothing passed: a gate that compared nothing is not green".to_owned());
    }
    let status = if !regressed.is_empty() {
        ExitStatus::Regression
    } else if !lost.is_empty() {
        ExitStatus::Device
    } else if !open.is_empty() {
        ExitStatus::Inconclusive
    } else {
        ExitStatus::Ok
    };
    let lost = lost.iter().map(|device| format!("lost device: {device}"));
    let reasons = regressed.into_iter().chain(lost).chain(open).collect();
    GateOutcome { status, tally, reasons, missing }
}

/// `digits-cnn@0.5 on pi4, p50`
pub fn title(case: &Case, criterion: Criterion) -> String {
    format!("{case}, {}", criterion.name())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;
    use crate::{Confirmation, Waived};

    fn comparison(device: &str, verdict: Verdict) -> Comparison {
        let judged = (verdict, Finding::Sizes { base: 1, candidate: 1 }, String::new());
        Comparison::new(Case::new("m", 0.5, device), Criterion::RunnerSize, Role::Gate, judged)
    }

    fn waived(comparison: Comparison) -> Comparison {
        Comparison { waived: Some(Waived { reason: "r".into(), until: "2026-12-31".into() }), ..comparison }
    }

    fn confirmed(confirmed: bool, comparison: Comparison) -> Comparison {
        let confirmation = Confirmation { confirmed, finding: comparison.finding.clone(), reason: String::new() };
        Comparison { confirmation: Some(confirmation), ..comparison }
    }

    fn planned(comparison: &Comparison) -> Planned {
        Planned::of(comparison)
    }

    #[track_caller]
    fn check(comparisons: &[Comparison], lost: &[&str], status: ExitStatus, reasons: &[&str]) {
        let planned: Vec<Planned> = comparisons.iter().map(planned).collect();
        let lost: Vec<String> = lost.iter().map(|device| (*device).to_owned()).collect();
        let outcome = outcome(comparisons, &planned, &lost);
        assert_eq!((outcome.status, outcome.reasons), (status, reasons.iter().map(|r| (*r).to_owned()).collect()));
    }

    #[test]
    fn the_worst_decides() {
        let [pass, regressed, open] = [("a", Verdict::Pass), ("b", Verdict::Regressed), ("c", Verdict::Inconclusive)]
            .map(|(d, v)| comparison(d, v));
        let [b, c] = ["regressed: m@0.5 on b, runner-size", "inconclusive: m@0.5 on c, runner-size"];
        let nothing = "nothing passed: a gate that compared nothing is not green";
        check(std::slice::from_ref(&pass), &[], ExitStatus::Ok, &[]);
        check(&[pass.clone(), open.clone()], &[], ExitStatus::Inconclusive, &[c]);
        check(&[pass.clone(), open.clone()], &["d"], ExitStatus::Device, &["lost device: d", c]);
        check(
            &[pass.clone(), open.clone(), regressed.clone()],
            &["d"],
            ExitStatus::Regression,
            &[b, "lost device: d", c],
        );
        check(&[], &[], ExitStatus::Inconclusive, &[nothing]);
        check(&[pass.clone(), waived(regressed.clone()), waived(open)], &[], ExitStatus::Ok, &[]);
        check(&[waived(regressed.clone())], &[], ExitStatus::Inconclusive, &[nothing]);
        check(&[pass.clone(), confirmed(true, regressed.clone())], &[], ExitStatus::Regression, &[b]);
        let unconfirmed = ["inconclusive: m@0.5 on b, runner-size"];
        check(&[pass.clone(), confirmed(false, regressed)], &[], ExitStatus::Inconclusive, &unconfirmed);
        let empty = Comparison { finding: Finding::Nothing, ..pass };
        check(&[empty], &[], ExitStatus::Inconclusive, &["inconclusive: m@0.5 on a, runner-size", nothing]);
    }

    #[test]
    fn controls_count_only_when_wrong() {
        let pass = comparison("a", Verdict::Pass);
        #[track_caller]
        fn alarms(role: Role, verdict: Verdict, expected: Option<&str>) {
            let control = Comparison { role, ..comparison("a", verdict) };
            let expected: Vec<String> =
                expected.iter().map(|alarm| format!("control m@0.5 on a, runner-size: {alarm}")).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            let status = if expected.is_empty() { ExitStatus::Ok } else { ExitStatus::Inconclusive };
            check(&[comparison("a", Verdict::Pass), control], &[], status, &expected);
        }
        alarms(Role::NegativeControl, Verdict::Pass, None);
        alarms(Role::NegativeControl, Verdict::Inconclusive, None);
        alarms(Role::NegativeControl, Verdict::Regressed, Some("the baseline was found slower than itself"));
        alarms(Role::PositiveControl, Verdict::Regressed, None);
        alarms(Role::PositiveControl, Verdict::Inconclusive, Some("a known slow-down was not found"));
        alarms(Role::PositiveControl, Verdict::Pass, Some("a known slow-down was not found"));
        let control = Comparison { role: Role::NegativeControl, finding: Finding::Nothing, ..pass.clone() };
        let reason = "control m@0.5 on a, runner-size: the control was not measured";
        check(&[pass.clone(), control.clone()], &[], ExitStatus::Inconclusive, &[reason]);
        // A control is no comparison of the candidate.
        let nothing = "nothing passed: a gate that compared nothing is not green";
        let control = Comparison { role: Role::NegativeControl, ..pass };
        check(&[control], &[], ExitStatus::Inconclusive, &[nothing]);
    }

    #[test]
    fn what_was_planned_must_be_there() {
        let [here, gone] = ["a", "b"].map(|device| comparison(device, Verdict::Pass));
        let control = Planned { role: Role::NegativeControl, ..planned(&here) };
        let outcome = outcome(std::slice::from_ref(&here), &[planned(&here), planned(&gone), control.clone()], &[]);
        assert_eq!(outcome.status, ExitStatus::Inconclusive);
        assert_eq!(outcome.missing, [planned(&gone), control]);
        assert_eq!(outcome.reasons, ["not compared: m@0.5 on b, runner-size", "not compared: m@0.5 on a, runner-size"]);
        assert_eq!(outcome.tally, Tally { passed: 1, missing: 2, ..Tally::default() });
    }

    fn any_comparison() -> impl Strategy<Value = Comparison> {
        let verdict = select(vec![Verdict::Pass, Verdict::Regressed, Verdict::Inconclusive]);
        let role = select(vec![Role::Gate, Role::Gate, Role::NegativeControl, Role::PositiveControl]);
        let device = select(vec!["a", "b", "c"]);
        (device, role, verdict, any::<bool>(), option::of(any::<bool>()), any::<bool>()).prop_map(
            |(device, role, verdict, measured, confirmation, is_waived)| {
                let mut made = Comparison { role, ..comparison(device, verdict) };
                if !measured {
                    made.finding = Finding::Nothing;
                }
                if let Some(answer) = confirmation {
                    made = confirmed(answer, made);
                }
                if is_waived { waived(made) } else { made }
            },
        )
    }

    proptest! {
        /// Written from the other end: what green means.
        #[test]
        fn green_is_earned(made in vec(any_comparison(), 0..5), dropped in any::<bool>(), lost in any::<bool>()) {
            let mut plan: Vec<Planned> = made.iter().map(planned).collect();
            if dropped {
                plan.push(planned(&comparison("d", Verdict::Pass)));
            }
            let lost_devices = if lost { vec!["d".to_owned()] } else { vec![] };
            let outcome = outcome(&made, &plan, &lost_devices);
            let gates = || made.iter().filter(|made| made.role == Role::Gate);
            let passes = |made: &Comparison| made.verdict == Verdict::Pass && made.finding != Finding::Nothing;
            let fine = gates().any(passes)
                && gates().all(|made| passes(made) || made.waived.is_some())
                && made.iter().all(|made| made.role == Role::Gate || alarm(made).is_none())
                && !dropped
                && !lost;
            prop_assert_eq!(outcome.status == ExitStatus::Ok, fine);
            prop_assert_eq!(outcome.reasons.is_empty(), fine);
            let Tally { passed, regressed, inconclusive, waived, missing } = outcome.tally;
            prop_assert_eq!(passed + regressed + inconclusive + waived, gates().count());
            prop_assert_eq!(missing, usize::from(dropped));
            prop_assert_eq!(outcome.status == ExitStatus::Regression, regressed > 0);
            prop_assert!(matches!(outcome.status.code(), 0 | 3 | 4 | 5));
        }

        /// Nothing that is added makes a gate greener, but a pass where there was none.
        #[test]
        fn more_trouble_is_never_greener(made in vec(any_comparison(), 1..5), extra in any_comparison()) {
            let plan: Vec<Planned> = made.iter().map(planned).collect();
            let before = outcome(&made, &plan, &[]);
            let more: Vec<Comparison> = made.iter().cloned().chain([extra.clone()]).collect();
            let after = outcome(&more, &plan, &[]);
            if standing(&extra) != Standing::Passed || extra.role != Role::Gate {
                prop_assert!(before.status == ExitStatus::Ok || after.status != ExitStatus::Ok);
            }
        }
    }
}
