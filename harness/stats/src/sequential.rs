//! Two one-sided group-sequential t tests on pairs: is the candidate proved worse than the lower margin, proved not
//! worse than the upper one, or must more be measured?
//!
//! In: differences of logarithms, ln B − ln A, one a pair. Out: the mean, its limits and one of three outcomes. Each
//! error is spent over the looks by [`nominal_levels`], so looking early costs nothing in validity; noise only moves
//! outcomes to "undecided". Where both margins are proved the lower one counts: a small regression is a regression.

use crate::spending::nominal_levels;
use crate::student::t_quantile;
use crate::unfit::{Unfit, check};

/// Both margins as logarithms of ratios, ln(1 + th).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// Proved above this is worse.
    pub fail: f64,
    /// Proved below this is not worse.
    pub pass: f64,
}

/// What a look decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Worse,
    NotWorse,
    Undecided,
}

/// One look at all pairs so far. Everything but `pairs` and `outcome` is a logarithm of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub mean: f64,
    /// Of one difference; 0 where the clock shows no spread.
    pub sd: f64,
    /// Of the mean, at least the floor.
    pub se: f64,
    pub pairs: usize,
    /// The one-sided limit a FAIL uses, at this look's share of `alpha`.
    pub low: f64,
    /// The one-sided limit a PASS uses, at this look's share of `beta`.
    pub high: f64,
    pub outcome: Outcome,
}

/// When to look and how sure to be at each look; built once, for its levels take a recursion.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    looks: Vec<usize>,
    margins: Margins,
    plan: Vec<Planned>,
}

/// One-sided nominal levels of a look, and their critical values for the planned number of pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Planned {
    alpha: f64,
    beta: f64,
    critical_alpha: f64,
    critical_beta: f64,
}

/// Fewer differences have no spread worth the name.
const FEWEST: usize = 4;
/// Of the minimum detectable effect.
const POWER: f64 = 0.95;

impl Design {
    /// `looks`: pairs at each look, ascending. `alpha`: P(worse) for an effect at the lower margin; `beta`: P(not
    /// worse) for an effect at the upper margin; both over all looks.
    ///
    /// # Panics
    /// If there is no look, they do not rise from above zero, or an error is not in (0, 1).
    pub fn new(looks: &[usize], margins: Margins, alpha: f64, beta: f64) -> Design {
        let whole = *looks.last().expect("a design has at least one look") as f64;
        let information: Vec<f64> = looks.iter().map(|pairs| *pairs as f64 / whole).collect();
        let levels = nominal_levels(alpha, &information).into_iter().zip(nominal_levels(beta, &information));
        let plan = looks.iter().zip(levels).map(|(pairs, (alpha, beta))| Planned::new(alpha, beta, *pairs)).collect();
        Design { looks: looks.to_vec(), margins, plan }
    }

    /// Pairs at each look.
    pub fn looks(&self) -> &[usize] {
        &self.looks
    }

    pub fn margins(&self) -> Margins {
        self.margins
    }

    /// One-sided nominal levels of each look: of a FAIL, of a PASS.
    pub fn levels(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.plan.iter().map(|planned| (planned.alpha, planned.beta))
    }

    /// Judges look `k` (from 0) on all differences of logarithms so far, ln B − ln A each. Their number sets the
    /// degrees of freedom and may differ from the plan, e.g. where whole blocks are the units because pairs are not
    /// independent; the level stays that of the look. `floor`: smallest believable standard error of the mean, in ln
    /// units (a coarse clock shows equal times); 0 for none.
    ///
    /// # Errors
    /// Fewer than four differences, which never decide, or a value that is not finite.
    ///
    /// # Panics
    /// If the design has no look `k`.
    pub fn look(&self, k: usize, differences: &[f64], floor: f64) -> Result<Look, Unfit> {
        check(differences, FEWEST)?;
        check(&[floor], 1)?;
        let planned = match self.plan[k] {
            planned if differences.len() == self.looks[k] => planned,
            planned => Planned::new(planned.alpha, planned.beta, differences.len()),
        };
        let pairs = differences.len();
        let n = pairs as f64;
        let mean = sum(differences.iter().copied()) / n;
        let sd = (sum(differences.iter().map(|value| (value - mean).powi(2))) / (n - 1.0)).sqrt();
        let se = (sd / n.sqrt()).max(floor);
        let low = mean - planned.critical_alpha * se;
        let high = mean + planned.critical_beta * se;
        let outcome = if low > self.margins.fail {
            Outcome::Worse
        } else if high < self.margins.pass {
            Outcome::NotWorse
        } else {
            Outcome::Undecided
        };
        Ok(Look { mean, sd, se, pairs, low, high, outcome })
    }

    /// The smallest slow-down, as a fraction, that fails in 95 of 100 sessions of `pairs` pairs whose differences of
    /// logarithms have the standard deviation `sd`: exp(ln(1 + th0) + (t_{1−a} + t_0.95) · sd / √n) − 1 with the level
    /// a of the last look. Infinite with fewer than two pairs.
    pub fn minimum_detectable_effect(&self, sd: f64, pairs: usize) -> f64 {
        if pairs < 2 {
            return f64::INFINITY;
        }
        let last = self.plan[self.plan.len() - 1];
        let critical = if pairs == self.looks[self.looks.len() - 1] {
            last.critical_alpha
        } else {
            -t_quantile(last.alpha, pairs - 1)
        };
        let reach = critical - t_quantile(1.0 - POWER, pairs - 1);
        (self.margins.fail + reach * sd / (pairs as f64).sqrt()).exp_m1()
    }
}

impl Planned {
    fn new(alpha: f64, beta: f64, pairs: usize) -> Planned {
        let critical = |level| -t_quantile(level, pairs.saturating_sub(1));
        Planned { alpha, beta, critical_alpha: critical(alpha), critical_beta: critical(beta) }
    }
}

/// With Neumaier's compensation: the same to the last digits in any order, and exactly negated for negated values.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for value in values {
        let next: f64 = sum + value;
        lost += if f64::abs(sum) >= f64::abs(value) { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::noise::normal;

    /// The nightly profile: pairs are twice the blocks.
    const NIGHTLY: [usize; 5] = [16, 24, 32, 48, 64];

    fn nightly() -> &'static Design {
        static DESIGN: LazyLock<Design> = LazyLock::new(|| {
            Design::new(&NIGHTLY, Margins { fail: 0.005f64.ln_1p(), pass: 0.03f64.ln_1p() }, 0.001, 0.05)
        });
        &DESIGN
    }

    /// Alternating around `mean` with the sample standard deviation `sd`.
    fn alternating(mean: f64, sd: f64, pairs: usize) -> Vec<f64> {
        let away = sd * ((pairs - 1) as f64 / pairs as f64).sqrt();
        (0..pairs).map(|i| if i % 2 == 0 { mean + away } else { mean - away }).collect()
    }

    #[track_caller]
    fn outcome(mean: f64, sd: f64, k: usize) -> Outcome {
        nightly().look(k, &alternating(mean, sd, NIGHTLY[k]), 0.0).unwrap().outcome
    }

    #[test]
    fn three_outcomes() {
        assert_eq!(outcome(0.05, 0.01, 0), Outcome::Worse);
        assert_eq!(outcome(0.0, 0.01, 0), Outcome::NotWorse);
        assert_eq!(outcome(0.02, 0.05, 0), Outcome::Undecided);
        assert_eq!(outcome(-0.5, 0.01, 4), Outcome::NotWorse);
        // Tight between the margins: both are proved, and the regression counts.
        assert_eq!(outcome(0.015, 0.001, 0), Outcome::Worse);
    }

    /// Student's sleep data; critical values by `scipy.stats.t.isf([0.0125, 0.00025], 9)`.
    #[test]
    fn limits_are_those_of_the_level() {
        let sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let design = Design::new(&[10, 40], Margins { fail: 0.0, pass: 0.1 }, 0.001, 0.05);
        let look = design.look(0, &sleep, 0.0).unwrap();
        assert!((look.mean - 1.58).abs() < 1e-15 && (look.se - 0.388_958_723_888_395_14).abs() < 1e-15, "{look:?}");
        assert!((look.low - (1.58 - 5.290_653_840_306_4 * look.se)).abs() < 1e-10, "{look:?}");
        assert!((look.high - (1.58 + 2.685_010_846_816_5 * look.se)).abs() < 1e-10, "{look:?}");
        assert_eq!((look.pairs, look.outcome), (10, Outcome::Undecided));
    }

    /// A block of two pairs as the unit: half as many values, the level of the look, fewer degrees of freedom.
    #[test]
    fn fewer_units_than_planned_widen_the_limits() {
        let design = nightly();
        let pairs = alternating(0.0, 0.02, 32);
        let planned = design.look(2, &pairs, 0.0).unwrap();
        let blocks = design.look(2, &alternating(0.0, 0.02, 16), 0.0).unwrap();
        let critical = (blocks.mean - blocks.low) / blocks.se;
        let level = design.levels().nth(2).unwrap().0;
        assert!((critical + t_quantile(level, 15)).abs() < 1e-9, "{critical}");
        assert!((planned.mean - planned.low) / planned.se < critical);
    }

    #[test]
    fn a_coarse_clock_is_held_to_its_floor() {
        let design = nightly();
        let equal = [0.006; 16];
        let believed = design.look(0, &equal, 0.0).unwrap();
        assert_eq!((believed.se, believed.outcome), (0.0, Outcome::Worse));
        let doubted = design.look(0, &equal, 0.001).unwrap();
        assert_eq!((doubted.sd, doubted.se, doubted.outcome), (0.0, 0.001, Outcome::NotWorse));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let design = nightly();
        assert_eq!(design.look(0, &[0.5, 0.5, 0.5], 0.0), Err(Unfit::TooFew { needed: 4, given: 3 }));
        assert_eq!(design.look(0, &[0.5, 0.5, f64::NAN, 0.5], 0.0), Err(Unfit::NotFinite));
        assert_eq!(design.look(0, &[0.5; 4], f64::NAN), Err(Unfit::NotFinite));
        assert!(design.minimum_detectable_effect(0.02, 1).is_infinite());
    }

    /// By hand: a = 3.767 58e-4 at the last look, t(63) = 3.542 067 and 1.669 402 by scipy.
    #[test]
    fn minimum_detectable_effect_of_the_whole_session() {
        let expected = (0.005f64.ln_1p() + (3.542_067 + 1.669_402) * 0.02 / 8.0).exp_m1();
        assert!((nightly().minimum_detectable_effect(0.02, 64) - expected).abs() < 1e-7);
        assert!(nightly().minimum_detectable_effect(0.02, 16) > 1.9 * expected);
    }

    /// Simulated sessions with an effect at a margin, the other margin out of reach: the errors are those promised, not
    /// more and not less.
    #[test]
    fn errors_are_the_promised_ones() {
        const SESSIONS: u64 = 2000;
        let share = |margins: Margins, effect: f64| {
            let design = Design::new(&NIGHTLY, margins, 0.1, 0.1);
            let decided = |session: &u64| {
                let differences: Vec<f64> =
                    normal(*session, 64).into_iter().map(|noise| effect + 0.04 * noise).collect();
                NIGHTLY
                    .iter()
                    .enumerate()
                    .any(|(k, n)| design.look(k, &differences[..*n], 0.0).unwrap().outcome != Outcome::Undecided)
            };
            (0..SESSIONS).filter(decided).count() as f64 / SESSIONS as f64
        };
        let false_fail = share(Margins { fail: 0.005, pass: -9.0 }, 0.005);
        let false_pass = share(Margins { fail: 9.0, pass: 0.03 }, 0.03);
        for error in [false_fail, false_pass] {
            assert!((error - 0.1).abs() < 0.02, "{error}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_the_arms_flips_the_sign_exactly(
            differences in proptest::collection::vec(-1.0..1.0f64, 4..140), k in 0..5usize,
        ) {
            let opposite: Vec<f64> = differences.iter().map(|value| -value).collect();
            let there = nightly().look(k, &differences, 0.0).unwrap();
            let back = nightly().look(k, &opposite, 0.0).unwrap();
            prop_assert_eq!(there.mean, -back.mean);
            prop_assert_eq!((there.sd, there.se), (back.sd, back.se));
        }

        #[test]
        fn a_factor_shifts_the_mean_by_its_logarithm(
            differences in proptest::collection::vec(-0.5..0.5f64, 4..140), factor in 1e-3..1e3f64,
        ) {
            let shifted: Vec<f64> = differences.iter().map(|value| value + factor.ln()).collect();
            let plain = nightly().look(4, &differences, 0.0).unwrap();
            let shifted = nightly().look(4, &shifted, 0.0).unwrap();
            prop_assert!((shifted.mean - plain.mean - factor.ln()).abs() < 1e-12);
            prop_assert!((shifted.sd - plain.sd).abs() < 1e-12);
        }

        #[test]
        fn the_order_does_not_matter(
            differences in proptest::collection::vec(-5.0..5.0f64, 4..140), seed in any::<usize>(),
        ) {
            let mut moved = differences.clone();
            moved.rotate_left(seed % differences.len());
            moved.reverse();
            let first = nightly().look(4, &differences, 0.0).unwrap();
            let second = nightly().look(4, &moved, 0.0).unwrap();
            prop_assert!((first.mean - second.mean).abs() <= 1e-15 && (first.low - second.low).abs() < 1e-12);
        }

        #[test]
        fn more_spread_never_proves_more(mean in -0.1..0.1f64, sd in 1e-4..0.1f64, k in 0..5usize) {
            let (calm, noisy) = (outcome(mean, sd, k), outcome(mean, 2.0 * sd, k));
            prop_assert!(noisy == calm || noisy == Outcome::Undecided || mean > 0.0 && mean < 0.03);
        }
    }
}
