//! Where times vary, within a process or between processes, and so what is worth repeating (Kalibera and Jones 2013,
//! "Rigorous benchmarking in reasonable time"). Two levels: inferences in an invocation, and invocations. Callers pass
//! logarithms: then 0.01 is one per cent at both levels.

use crate::interval::{mean, sd};
use crate::unfit::{Unfit, check};

/// Unbiased shares of the variance, in the square of the values' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// T₁²: of one inference around its invocation's mean.
    pub within: f64,
    /// T₂²: of an invocation's own mean around that of all. Estimated: may be below zero.
    pub between: f64,
}

/// T₁² = S₁², the variance within invocations; T₂² = S₂² − S₁²/r, with S₂² that of their means and r inferences in
/// each. Where invocations have different lengths, S₁² weighs them by their degrees of freedom and 1/r is averaged.
///
/// # Errors
/// Fewer than two invocations, one with fewer than two values, or a value that is not finite.
pub fn variance_levels<S: AsRef<[f64]>>(invocations: &[S]) -> Result<Levels, Unfit> {
    let (mut squares, mut freedom, mut reciprocals) = (0.0, 0.0, 0.0);
    let mut means = Vec::with_capacity(invocations.len());
    for values in invocations {
        let values = values.as_ref();
        let n = values.len() as f64;
        squares += sd(values)?.powi(2) * (n - 1.0);
        freedom += n - 1.0;
        reciprocals += n.recip();
        means.push(mean(values)?);
    }
    check(&means, 2)?;
    let within = squares / freedom;
    let between = sd(&means)?.powi(2) - within * reciprocals / means.len() as f64;
    Ok(Levels { within, between })
}

impl Levels {
    /// Inferences in an invocation that give the smallest total error for a given time: ⌈√(c₂/c₁ · T₁²/T₂²)⌉, with
    /// `inference_cost` c₁ for one more inference and `invocation_cost` c₂ for one more invocation (start, load,
    /// warm-up), in the same unit. At least one. `None` where invocations do not differ: then one long one is best.
    pub fn best_iterations(self, inference_cost: f64, invocation_cost: f64) -> Option<u64> {
        let best = (invocation_cost / inference_cost * self.within / self.between).sqrt().ceil();
        (self.between > 0.0 && best.is_finite()).then(|| (best as u64).max(1))
    }

    /// Inferences in an invocation beyond which more gain nothing: where the error of their median, 1.25 √(T₁² (1 +
    /// φ)/(1 − φ) / N), is a third of the spread between invocations. `phi` is the lag-1 autocorrelation within an
    /// invocation. At least one. `None` where invocations do not differ, or `phi` is not within (−1, 1).
    pub fn enough_iterations(self, phi: f64) -> Option<u64> {
        let enough = (3.0f64 * 1.25).powi(2) * self.within * (1.0 + phi) / (1.0 - phi) / self.between;
        (self.between > 0.0 && phi.abs() < 1.0 && enough.is_finite()).then(|| (enough.ceil() as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::normal;

    /// One-way analysis of variance by `scipy.stats.f_oneway`: F = 63.267…, and (F − 1) times the mean square within,
    /// over 4, is the share between.
    #[test]
    fn golden_values() {
        let invocations = [[10.1, 10.3, 9.8, 10.0], [11.2, 11.0, 11.4, 11.1], [9.5, 9.9, 9.7, 9.4]];
        let levels = variance_levels(&invocations).unwrap();
        assert!((levels.within - 0.040_555_555_555_555_56).abs() < 1e-12, "{levels:?}");
        assert!((levels.between - 0.631_319_444_444_445).abs() < 1e-12, "{levels:?}");
        // √(100 · 0.0406 / 0.6313) = 2.53; 14.06 · 0.0642 · 3 = 2.71.
        assert_eq!(levels.best_iterations(1.0, 100.0), Some(3));
        assert_eq!(levels.enough_iterations(0.5), Some(3));
    }

    /// 200 samples of 12 invocations with 10 to 20 inferences: the estimates' means are the variances that went in,
    /// within four standard errors.
    #[test]
    fn estimates_are_unbiased() {
        for (within, between) in [(0.04, 0.01), (0.02, 0.03), (0.05, 0.0)] {
            let estimates: Vec<Levels> = (0..200)
                .map(|sample| {
                    let means = normal(1_000_000 + sample, 12);
                    let invocation = |i: usize| -> Vec<f64> {
                        let noise = normal(sample * 12 + i as u64, 10 + i % 11);
                        noise.iter().map(|noise| 3.0 + between * means[i] + within * noise).collect()
                    };
                    variance_levels(&(0..12).map(invocation).collect::<Vec<_>>()).unwrap()
                })
                .collect();
            let check = |values: Vec<f64>, expected: f64| {
                let error = sd(&values).unwrap() / (values.len() as f64).sqrt();
                let got = mean(&values).unwrap();
                assert!((got - expected).abs() < 4.0 * error, "{got} ± {error} is not {expected}");
            };
            check(estimates.iter().map(|levels| levels.within).collect(), within * within);
            check(estimates.iter().map(|levels| levels.between).collect(), between * between);
        }
    }

    #[test]
    fn where_invocations_do_not_differ_there_is_no_best() {
        let levels = variance_levels(&[[1.0, 3.0], [3.0, 1.0]]).unwrap();
        assert!((levels.within - 2.0).abs() < 1e-12 && (levels.between + 1.0).abs() < 1e-12, "{levels:?}");
        assert_eq!((levels.best_iterations(1.0, 10.0), levels.enough_iterations(0.0)), (None, None));
        assert_eq!(Levels { within: 0.0, between: 0.0 }.best_iterations(1.0, 1.0), None);
        assert_eq!(Levels { within: 0.0, between: 1.0 }.best_iterations(1.0, 1.0), Some(1));
        assert_eq!(Levels { within: 1.0, between: 1.0 }.enough_iterations(1.0), None);
        assert_eq!(variance_levels(&[[1.0, 2.0]]), Err(Unfit::TooFew { needed: 2, given: 1 }));
        assert_eq!(variance_levels(&[vec![1.0, 2.0], vec![1.0]]), Err(Unfit::TooFew { needed: 2, given: 1 }));
        assert_eq!(variance_levels(&[[1.0, 2.0], [1.0, f64::NAN]]), Err(Unfit::NotFinite));
    }

    proptest! {
        /// For the time that the best number takes, no other number of inferences has a smaller error, apart from
        /// rounding up to a whole one. The squared error of one invocation is T₂² + T₁²/r.
        #[test]
        fn the_best_is_the_best(within in 1e-4..1.0, between in 1e-4..1.0, cost in 1.0..1e3, other in 1u64..500) {
            let levels = Levels { within, between };
            let best = levels.best_iterations(1.0, cost).unwrap();
            let variance = |iterations: u64| (between + within / iterations as f64) * (cost + iterations as f64);
            prop_assert!(variance(best).min(variance(best.saturating_sub(1).max(1))) <= variance(other) * (1.0 + 1e-9));
        }

        #[test]
        fn the_unit_does_not_matter(
            invocations in proptest::collection::vec(proptest::collection::vec(1.0..1e3, 3..9), 2..6),
            factor in 1e-3f64..1e3,
        ) {
            let scaled: Vec<Vec<f64>> =
                invocations.iter().map(|values| values.iter().map(|value| value * factor).collect()).collect();
            let (plain, scaled) = (variance_levels(&invocations).unwrap(), variance_levels(&scaled).unwrap());
            prop_assert!((scaled.within / (plain.within * factor * factor) - 1.0).abs() < 1e-6);
        }
    }
}
