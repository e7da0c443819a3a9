//! Ratios of times, on logarithms: exchanging the arms gives exactly the reciprocal, and units cancel.

use crate::interval::{Interval, mean, t_interval};
use crate::unfit::{Unfit, logs};

/// exp(mean of logs): the centre of values that differ by factors.
///
/// # Errors
/// No value, or one that is not finite and above zero.
pub fn geometric_mean(values: &[f64]) -> Result<f64, Unfit> {
    Ok(mean(&logs(values)?)?.exp())
}

/// The geometric mean with Student's t interval of the logs.
///
/// # Errors
/// Fewer than two values, or one that is not finite and above zero.
pub fn geometric_mean_interval(values: &[f64], confidence: f64) -> Result<Interval, Unfit> {
    Ok(t_interval(&logs(values)?, confidence)?.map(f64::exp))
}

/// `base` over `other`, exp(mean(ln base − ln other)), with Student's t interval over the pairs. Values at the same
/// index were measured next to each other, so what both share (heat, load) cancels. Above 1: `other` is faster.
///
/// # Errors
/// Different lengths, fewer than two pairs, or a value that is not finite and above zero.
pub fn paired_ratio(base: &[f64], other: &[f64], confidence: f64) -> Result<Interval, Unfit> {
    if base.len() != other.len() {
        return Err(Unfit::NotPaired { base: base.len(), other: other.len() });
    }
    let differences: Vec<f64> = logs(base)?.iter().zip(logs(other)?).map(|(base, other)| base - other).collect();
    Ok(t_interval(&differences, confidence)?.map(f64::exp))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "{got} is not {expected}");
    }

    /// `scipy.stats.t.interval` of the logs.
    #[test]
    fn golden_values() {
        let base = [1.00e6, 1.02e6, 0.99e6, 1.01e6, 1.05e6];
        let other = [0.80e6, 0.83e6, 0.79e6, 0.80e6, 0.85e6];
        let interval = geometric_mean_interval(&base, 0.95).unwrap();
        close(interval.estimate, 1_013_792.812_423_694, 1e-12);
        close(interval.low, 985_798.228_031_241, 1e-6);
        close(interval.high, 1_042_582.383_795_249, 1e-6);
        let ratio = paired_ratio(&base, &other, 0.95).unwrap();
        close(ratio.estimate, 1.245_914_933_120_624, 1e-12);
        close(ratio.low, 1.229_061_003_468_153, 1e-6);
        close(ratio.high, 1.262_999_978_188_79, 1e-6);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert_eq!(paired_ratio(&[1.0, 2.0], &[1.0], 0.95), Err(Unfit::NotPaired { base: 2, other: 1 }));
        assert_eq!(paired_ratio(&[1.0], &[1.0], 0.95), Err(Unfit::TooFew { needed: 2, given: 1 }));
        assert_eq!(paired_ratio(&[1.0, 0.0], &[1.0, 1.0], 0.95), Err(Unfit::NotPositive));
        assert_eq!(geometric_mean(&[]), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(geometric_mean(&[f64::INFINITY]), Err(Unfit::NotFinite));
    }

    fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
        proptest::collection::vec((1e2..1e9, 1e2..1e9), 2..30)
    }

    proptest! {
        #[test]
        fn exchanging_the_arms_gives_the_reciprocal(pairs in pairs()) {
            let (base, other): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let there = paired_ratio(&base, &other, 0.95).unwrap();
            let back = paired_ratio(&other, &base, 0.95).unwrap();
            close(back.estimate, 1.0 / there.estimate, 1e-12);
            close(back.low, 1.0 / there.high, 1e-12);
            close(back.high, 1.0 / there.low, 1e-12);
        }

        #[test]
        fn the_unit_does_not_matter(pairs in pairs(), factor in 1e-6..1e6) {
            let (base, other): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let scale = |values: &[f64]| values.iter().map(|value| value * factor).collect::<Vec<f64>>();
            let plain = paired_ratio(&base, &other, 0.95).unwrap();
            let both = paired_ratio(&scale(&base), &scale(&other), 0.95).unwrap();
            let one = paired_ratio(&scale(&base), &other, 0.95).unwrap();
            close(both.low, plain.low, 1e-9);
            close(one.low, plain.low * factor, 1e-9);
            close(one.high, plain.high * factor, 1e-9);
            let mean = geometric_mean_interval(&base, 0.95).unwrap();
            let scaled = geometric_mean_interval(&scale(&base), 0.95).unwrap();
            close(scaled.estimate, mean.estimate * factor, 1e-9);
            close(scaled.high, mean.high * factor, 1e-9);
        }

        #[test]
        fn the_order_of_pairs_does_not_matter(pairs in pairs(), seed in any::<usize>()) {
            let mut moved = pairs.clone();
            moved.rotate_left(seed % pairs.len());
            moved.reverse();
            let ratio = |pairs: Vec<(f64, f64)>| {
                let (base, other): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
                paired_ratio(&base, &other, 0.95).unwrap()
            };
            let (first, second) = (ratio(pairs), ratio(moved));
            close(first.estimate, second.estimate, 1e-9);
            close(first.low, second.low, 1e-9);
        }
    }
}
