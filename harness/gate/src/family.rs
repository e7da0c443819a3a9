//! What many comparisons show together. A model that became slower is slower on several devices: the pooled ratio shows
//! that where each device is undecided. Cases that were not proved slower but look so are suspects, of which a tenth
//! may be wrong.
//!
//! Both are for people to read: no verdict and no exit code depends on them, because sessions that stop at the first
//! decision make p-values a little too small. Emulated boards are left out: their times say nothing about real ones.

use espalier_protocol::float;
use espalier_stats::{benjamini_hochberg, pooled, t_p_value};
use serde::Serialize;

use crate::{Comparison, Criterion, Effect, Role, Verdict, report::Report};
use espalier_bench::record::Case;

/// Expected share of false ones among the suspects.
pub const FALSE_SUSPECTS: f64 = 0.10;
/// Two-sided, of the normal distribution: for intervals of 95 %.
const CRITICAL: f64 = 1.959_963_984_540_054;

/// One model at one ratio over the devices it was compared on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PooledEffect {
    pub model: String,
    #[serde(with = "float")]
    pub ratio: f64,
    pub criterion: Criterion,
    /// At least two.
    pub devices: Vec<String>,
    /// Time of the candidate over that of the baseline, with its two-sided 95 % interval.
    #[serde(with = "float")]
    pub effect: f64,
    #[serde(with = "float")]
    pub low: f64,
    #[serde(with = "float")]
    pub high: f64,
    /// One-sided: the probability of an effect this slow or slower if nothing had changed.
    #[serde(with = "float")]
    pub p_value: f64,
    /// Whether each of them passed by itself.
    pub all_passed: bool,
}

/// A case that looks slower and was not proved so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspect {
    pub case: Case,
    pub criterion: Criterion,
    #[serde(with = "float")]
    pub effect: f64,
    /// Of the one-sided t test of its pairs, adjusted for the number of cases (Benjamini and Hochberg).
    #[serde(with = "float")]
    pub adjusted_p_value: f64,
}

/// By model, ratio and criterion, in the order of the comparisons.
pub fn pool(report: &Report) -> Vec<PooledEffect> {
    let mut groups: Vec<Vec<(&Comparison, &Effect)>> = Vec::new();
    for (comparison, effect) in effects(report) {
        let same = |(other, _): &(&Comparison, &Effect)| {
            let (case, other_case) = (&comparison.case, &other.case);
            case.model == other_case.model && case.ratio == other_case.ratio && comparison.criterion == other.criterion
        };
        match groups.iter_mut().find(|group| same(&group[0])) {
            Some(group) => group.push((comparison, effect)),
            None => groups.push(vec![(comparison, effect)]),
        }
    }
    groups.iter().filter(|group| group.len() > 1).filter_map(|group| pool_one(group)).collect()
}

/// `None` where a standard error is not above zero: the clock was too coarse.
fn pool_one(group: &[(&Comparison, &Effect)]) -> Option<PooledEffect> {
    let estimates: Vec<(f64, f64)> = group.iter().map(|(_, effect)| (effect.ratio.ln(), effect.se)).collect();
    let pooled = pooled(&estimates).ok()?;
    let (first, _) = group[0];
    let ratio = |steps: f64| (pooled.estimate + steps * CRITICAL * pooled.se).exp();
    Some(PooledEffect {
        model: first.case.model.clone(),
        ratio: first.case.ratio,
        criterion: first.criterion,
        devices: group.iter().map(|(comparison, _)| comparison.case.device.clone()).collect(),
        effect: ratio(0.0),
        low: ratio(-1.0),
        high: ratio(1.0),
        p_value: pooled.p_value,
        all_passed: group.iter().all(|(comparison, _)| comparison.verdict == Verdict::Pass),
    })
}

/// The most likely first. What is proved slower is no suspect, but counts among the cases that p-values are adjusted
/// for.
pub fn suspects(report: &Report) -> Vec<Suspect> {
    let effects: Vec<(&Comparison, &Effect)> = effects(report).collect();
    let p_value = |effect: &Effect| t_p_value(effect.ratio.ln(), effect.se, effect.pairs - 1, 0.0);
    let p_values: Vec<f64> = effects.iter().map(|(_, effect)| p_value(effect)).collect();
    let adjusted = benjamini_hochberg(&p_values);
    let open = |comparison: &Comparison| comparison.verdict != Verdict::Regressed;
    let likely = effects
        .iter()
        .zip(adjusted)
        .filter(|((comparison, _), adjusted)| open(comparison) && *adjusted <= FALSE_SUSPECTS);
    let suspect = |(comparison, effect): &(&Comparison, &Effect), adjusted_p_value: f64| Suspect {
        case: comparison.case.clone(),
        criterion: comparison.criterion,
        effect: effect.ratio,
        adjusted_p_value,
    };
    let mut suspects: Vec<Suspect> = likely.map(|(effect, adjusted)| suspect(effect, adjusted)).collect();
    suspects.sort_by(|one, other| one.adjusted_p_value.total_cmp(&other.adjusted_p_value));
    suspects
}

/// Of times, baseline against candidate, on real devices, with enough pairs for a spread.
fn effects(report: &Report) -> impl Iterator<Item = (&Comparison, &Effect)> {
    let emulated = |name: &str| report.devices.iter().any(|device| device.name == name && device.emulated);
    let real = report.comparisons.iter().filter(move |made| made.role == Role::Gate && !emulated(&made.case.device));
    let effects = real.filter_map(|comparison| Some((comparison, comparison.finding.effect()?)));
    effects.filter(|(_, effect)| effect.pairs > 1 && effect.ratio > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Finding, report::tests_support};

    /// Logarithm of the ratio, pair SD, pairs, verdict; each on a device of its own.
    fn report(cases: &[(f64, f64, usize, Verdict)]) -> Report {
        let mut report = tests_support::report();
        let made = cases.iter().enumerate().map(|(index, (log, pair_sd, pairs, verdict))| {
            let ratio = log.exp();
            let effect = Effect {
                ratio,
                pairs: *pairs,
                pair_sd: *pair_sd,
                se: pair_sd / (*pairs as f64).sqrt(),
                ..tests_support::effect(1.0, 1.0, 1.0)
            };
            tests_support::comparison(&format!("m@0.5 on d{index}"), Criterion::P50, *verdict, Finding::Effect(effect))
        });
        report.comparisons = made.collect();
        report
    }

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 1e-6, "{got} is not {expected}");
    }

    /// Standard errors 0.005, 0.004, 0.01. The numbers are from numpy and scipy.stats: weights 1 / se², `norm.sf`.
    #[test]
    fn devices_that_are_undecided_are_clear_together() {
        use Verdict::*;
        let pooled = pool(&report(&[
            (0.012, 0.020, 16, Inconclusive),
            (0.010, 0.016, 16, Pass),
            (0.020, 0.050, 25, Inconclusive),
        ]));
        let [pooled] = pooled.as_slice() else { panic!("{pooled:?}") };
        assert_eq!((pooled.devices.join(" ").as_str(), pooled.all_passed), ("d0 d1 d2", false));
        close(pooled.effect, 1.011_667_540_905_52);
        close(pooled.low, 1.005_773_116_975_214_4);
        close(pooled.high, 1.017_596_509_638_111_4);
        close(pooled.p_value, 4.996_572_207_529e-5);
    }

    #[test]
    fn only_what_belongs_together_is_pooled() {
        let mut report = report(&[(0.01, 0.02, 16, Verdict::Pass), (0.01, 0.02, 16, Verdict::Pass)]);
        assert_eq!(pool(&report).len(), 1);
        assert!(pool(&report)[0].all_passed);
        let changed = |change: fn(&mut Comparison)| {
            let mut changed = report.clone();
            change(&mut changed.comparisons[1]);
            pool(&changed)
        };
        assert_eq!(changed(|made| made.case.ratio = 0.0), []);
        assert_eq!(changed(|made| made.case.model = "n".into()), []);
        assert_eq!(changed(|made| made.criterion = Criterion::P99), []);
        assert_eq!(changed(|made| made.role = Role::NegativeControl), []);
        assert_eq!(changed(|made| made.finding = Finding::Nothing), []);
        report.comparisons[1].case.device = "jetson".into();
        assert_eq!(pool(&report), [], "emulated");
    }

    /// p-values of the t tests and their adjustment are from scipy.stats: `t.sf` and `false_discovery_control`.
    #[test]
    fn suspects_are_what_looks_slower_and_was_not_found_so() {
        use Verdict::*;
        let report = report(&[
            (0.010, 0.020, 16, Inconclusive),
            (0.040, 0.020, 16, Regressed),
            (0.0, 0.020, 16, Pass),
            (-0.04, 0.020, 16, Pass),
            (0.015, 0.020, 16, Pass),
            (0.004, 0.020, 16, Pass),
        ]);
        let suspects = suspects(&report);
        let devices: Vec<&str> = suspects.iter().map(|suspect| &*suspect.case.device).collect();
        assert_eq!(devices, ["d4", "d0"]);
        close(suspects[0].adjusted_p_value, 0.013_459_106_215_835);
        close(suspects[1].adjusted_p_value, 0.063_945_007_284_720);
    }

    #[test]
    fn nothing_odd_gets_in_the_way() {
        let odd = report(&[
            (0.01, 0.0, 16, Verdict::Pass),
            (0.01, f64::NAN, 16, Verdict::Pass),
            (0.01, 0.02, 1, Verdict::Pass),
            (f64::NEG_INFINITY, 0.02, 16, Verdict::Pass),
            (f64::NAN, 0.02, 16, Verdict::Pass),
        ]);
        assert_eq!(pool(&odd), []);
        let suspects = suspects(&odd);
        assert!(suspects.iter().all(|suspect| suspect.adjusted_p_value.is_finite()), "{suspects:?}");
    }
}
