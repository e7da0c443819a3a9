//! Hodges and Lehmann's estimate with exact signed-rank limits: robust to an outlier, unlike the mean.
//!
//! In: differences. Out: the median of all their pairwise means (Walsh averages) and two of those means as limits. The
//! one assumption is that differences are symmetric about their centre. It decides no gate: with few pairs it cannot
//! reach the levels a gate needs (eight pairs: 1 in 256 at best).

use crate::interval::Interval;
use crate::unfit::{Unfit, check};

/// The estimate of the centre with limits that cover it with at least `confidence` (Hollander & Wolfe, Nonparametric
/// Statistical Methods, 3.2-3.3). Takes memory for n² / 2 means and time for n³ / 4 sums: for hundreds of differences.
///
/// # Errors
/// A value that is not finite, or too few for any limit of that confidence: 0.95 takes six, 0.99 eight.
pub fn hodges_lehmann(differences: &[f64], confidence: f64) -> Result<Interval, Unfit> {
    let tail = (1.0 - confidence) / 2.0;
    let n = differences.len();
    // All differences on one side have probability 2⁻ⁿ.
    check(differences, (-tail.log2()).ceil().max(1.0) as usize)?;
    let mut means: Vec<f64> =
        (0..n).flat_map(|i| (i..n).map(move |j| (differences[i] + differences[j]) / 2.0)).collect();
    means.sort_unstable_by(f64::total_cmp);
    let last = means.len() - 1;
    let estimate = (means[last / 2] + means[means.len() / 2]) / 2.0;
    let outside = outside(n, tail);
    Ok(Interval { estimate, low: means[outside], high: means[last - outside], confidence })
}

/// How many Walsh averages of `n` differences lie below the lower limit, and as many above the upper: the largest w
/// with P(W ≤ w) ≤ `tail` for Wilcoxon's signed-rank sum W, its distribution built rank by rank.
fn outside(n: usize, tail: f64) -> usize {
    // The sum is symmetric, and a tail below one half ends in its lower half.
    let half = n * (n + 1) / 4;
    let mut probability = vec![0.0; half + 1];
    probability[0] = 1.0;
    for rank in 1..=n {
        let reached = (rank * (rank + 1) / 2).min(half);
        for sum in (0..=reached).rev() {
            let without = probability[sum];
            let with = if sum >= rank { probability[sum - rank] } else { 0.0 };
            probability[sum] = (without + with) / 2.0;
        }
    }
    let mut below = 0.0;
    let significant = probability.iter().take_while(|probability| {
        below += **probability;
        below <= tail
    });
    significant.count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(differences: &[f64], confidence: f64, expected: [f64; 3]) {
        let got = hodges_lehmann(differences, confidence).unwrap();
        for (got, expected) in [got.low, got.estimate, got.high].into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    /// Hollander & Wolfe's example 3.1 (Hamilton depression scale, nine patients), limits -0.786 and -0.010 in print;
    /// the others by trying all 2⁹ signs in numpy.
    #[test]
    #[expect(clippy::approx_constant, reason = "3.14 is a patient's score")]
    fn depression_scale() {
        let before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
        let after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
        let differences: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        check(&differences, 0.95, [-0.786, -0.46, -0.01]);
        check(&differences, 0.9, [-0.726, -0.46, -0.175]);
        check(&differences, 0.98, [-0.821, -0.46, 0.0685]);
    }

    /// Student's sleep data, with ties and a zero; and fourteen differences whose limits are where
    /// `scipy.stats.wilcoxon(d - shift, method="exact")` passes 0.01.
    #[test]
    fn golden_values() {
        check(&[1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4], 0.95, [0.9, 1.3, 2.7]);
        let pairs = [0.012, -0.004, 0.021, 0.008, 0.017, 0.003, -0.009, 0.026, 0.011, 0.014, 0.019, 0.001, 0.006, 0.03];
        check(&pairs, 0.99, [0.0015, 0.011, 0.0205]);
    }

    /// Wilcoxon's critical values as textbooks print them (largest sum that is significant, two-sided 0.05 and 0.01).
    #[test]
    fn critical_sums_are_the_published_ones() {
        for (n, at_5, at_1) in
            [(8, 3, 0), (10, 8, 3), (12, 13, 7), (15, 25, 15), (20, 52, 37), (25, 89, 68), (30, 137, 109)]
        {
            assert_eq!((outside(n, 0.025), outside(n, 0.005)), (at_5, at_1), "{n}");
        }
        assert_eq!(outside(50, 0.025), 434);
    }

    #[test]
    fn what_cannot_be_limited_is_refused() {
        assert_eq!(hodges_lehmann(&[1.0; 5], 0.95), Err(Unfit::TooFew { needed: 6, given: 5 }));
        assert!(hodges_lehmann(&[1.0; 6], 0.95).is_ok());
        assert_eq!(hodges_lehmann(&[1.0; 7], 0.99), Err(Unfit::TooFew { needed: 8, given: 7 }));
        assert_eq!(hodges_lehmann(&[], 0.0), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(hodges_lehmann(&[f64::NAN; 6], 0.95), Err(Unfit::NotFinite));
    }

    proptest! {
        #[test]
        fn exchanging_the_arms_exchanges_the_limits(differences in proptest::collection::vec(-1.0..1.0f64, 8..40)) {
            let opposite: Vec<f64> = differences.iter().map(|value| -value).collect();
            let there = hodges_lehmann(&differences, 0.99).unwrap();
            let back = hodges_lehmann(&opposite, 0.99).unwrap();
            prop_assert_eq!((there.estimate, there.low, there.high), (-back.estimate, -back.high, -back.low));
            prop_assert!(there.contains(there.estimate));
        }

        #[test]
        fn an_outlier_moves_little(
            mut differences in proptest::collection::vec(-1.0..1.0f64, 20..40), outlier in -1e9..1e9f64,
        ) {
            differences[0] = outlier;
            let interval = hodges_lehmann(&differences, 0.95).unwrap();
            prop_assert!(interval.low >= -1.0 && interval.high <= 1.0, "{interval:?}");
        }
    }
}
