//! Many tests in one run, and one model on many devices: adjusted p-values, a pooled estimate, a sign test.
//!
//! The gate splits its error over the cases beforehand. Benjamini and Hochberg's adjustment works afterwards: it bounds
//! the share of false findings in a list of suspects, which a person looks at and no exit code depends on.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::mcnemar::mcnemar_two_sided;
use crate::unfit::{Unfit, check};

/// Adjusted p-values, in the order given: of those at or under q at most a share q is false (Benjamini & Hochberg,
/// Journal of the Royal Statistical Society B 57, 1995, 289-300). A NaN counts as 1: that test showed nothing.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let number = |p: f64| if p.is_nan() { 1.0 } else { p };
    let mut ascending: Vec<(usize, f64)> = p_values.iter().copied().map(number).enumerate().collect();
    ascending.sort_by(|(_, left), (_, right)| left.total_cmp(right));
    let mut adjusted = vec![1.0; m];
    let mut smallest = 1.0;
    for (rank, (index, p)) in ascending.into_iter().enumerate().rev() {
        smallest = f64::min(smallest, m as f64 / (rank + 1) as f64 * p);
        adjusted[index] = smallest;
    }
    adjusted
}

/// One effect, from several estimates of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pooled {
    pub estimate: f64,
    pub se: f64,
    /// One-sided, of "the effect is above zero".
    pub p_value: f64,
}

/// The fixed-effect mean of (estimate, standard error) pairs, each weighted by 1 / se²: one model over devices, as
/// logarithms of ratios. The test is the normal one and takes the standard errors as known.
///
/// # Errors
/// No estimate, a value that is not finite, or a standard error that is not above zero.
pub fn pooled(estimates: &[(f64, f64)]) -> Result<Pooled, Unfit> {
    check(&estimates.iter().flat_map(|(estimate, se)| [*estimate, *se]).collect::<Vec<f64>>(), 1)?;
    if estimates.iter().any(|(_, se)| *se <= 0.0) {
        return Err(Unfit::NotPositive);
    }
    let weight: f64 = estimates.iter().map(|(_, se)| se.powi(-2)).sum();
    let estimate = estimates.iter().map(|(estimate, se)| estimate * se.powi(-2)).sum::<f64>() / weight;
    let se = weight.sqrt().recip();
    Ok(Pooled { estimate, se, p_value: Normal::standard().sf(estimate / se) })
}

/// Two-sided p-value of `wins` against `losses` if both are equally likely, ties left out: the exact binomial test.
pub fn sign_test(wins: u64, losses: u64) -> f64 {
    mcnemar_two_sided(wins, losses)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P_VALUES: [f64; 8] = [0.0021, 0.04, 0.03, 0.005, 0.6, 0.0021, 0.2, 0.049];

    #[track_caller]
    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-10 * expected.abs(), "{got} is not {expected}");
        }
    }

    /// `statsmodels.stats.multitest.multipletests`, method `fdr_bh`.
    #[test]
    fn golden_values() {
        let expected = [
            0.0084,
            0.064,
            0.06,
            0.013_333_333_333_333_33,
            0.6,
            0.0084,
            0.228_571_428_571_428_6,
            0.065_333_333_333_333_33,
        ];
        close(&benjamini_hochberg(&P_VALUES), &expected);
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn nan_counts_as_one() {
        for nan in [f64::NAN, -f64::NAN] {
            close(&benjamini_hochberg(&[0.01, nan]), &[0.02, 1.0]);
        }
    }

    /// `statsmodels.stats.meta_analysis.combine_effects`, the fixed effect; its tail by `scipy.stats.norm.sf`.
    #[test]
    fn golden_pooled() {
        let got = pooled(&[(0.021, 0.008), (0.034, 0.011), (0.012, 0.006), (0.05, 0.02)]).unwrap();
        let expected = [0.019_706_561_702_037_485, 0.004_296_666_481_706_927, 2.253_940_924_055_388e-6];
        close(&[got.estimate, got.se, got.p_value], &expected);
    }

    #[test]
    fn what_cannot_be_pooled_is_refused() {
        assert_eq!(pooled(&[]), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(pooled(&[(0.1, 0.0)]), Err(Unfit::NotPositive));
        assert_eq!(pooled(&[(f64::NAN, 0.1)]), Err(Unfit::NotFinite));
        assert_eq!(pooled(&[(0.1, f64::INFINITY)]), Err(Unfit::NotFinite));
    }

    /// `scipy.stats.binomtest`.
    #[test]
    fn golden_signs() {
        close(&[sign_test(31, 9), sign_test(3, 17)], &[0.000_679_548_254_993_278_5, 0.002_576_828_002_929_687_5]);
        assert_eq!(sign_test(0, 0), 1.0);
    }

    proptest! {
        #[test]
        fn between_the_plain_value_and_bonferroni(p_values in proptest::collection::vec(0.0..=1.0f64, 1..40)) {
            let adjusted = benjamini_hochberg(&p_values);
            for (i, p) in p_values.iter().enumerate() {
                let bonferroni = (p * p_values.len() as f64).min(1.0);
                prop_assert!(*p <= adjusted[i] && adjusted[i] <= bonferroni * (1.0 + 1e-12), "{p}");
            }
        }

        #[test]
        fn the_order_carries_over(p_values in proptest::collection::vec(0.0..=1.0f64, 1..40)) {
            let reversed: Vec<f64> = p_values.iter().rev().copied().collect();
            let mut back = benjamini_hochberg(&reversed);
            back.reverse();
            prop_assert_eq!(back, benjamini_hochberg(&p_values));
        }
    }
}
