//! How much a value resembles the one before it. Where it is large, values are not independent.

use crate::unfit::check;

/// Σ (xᵢ − m)(xᵢ₊ₖ − m) / Σ (xᵢ − m)², within [−1, 1]. `None` for fewer than `lag` + 2 or non-finite values, no spread.
pub fn autocorrelation(values: &[f64], lag: usize) -> Option<f64> {
    check(values, lag.checked_add(2)?).ok()?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let product = |lag: usize| values.iter().zip(&values[lag..]).map(|(one, other)| (one - mean) * (other - mean));
    let total: f64 = product(0).sum();
    (total > 0.0).then(|| product(lag).sum::<f64>() / total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `statsmodels.tsa.stattools.acf`.
    #[test]
    fn golden_values() {
        let values = [23.1, 24.0, 22.7, 25.3, 24.0, 26.1, 25.3, 24.9, 27.2, 26.1, 27.8, 26.4];
        for (lag, expected) in [(0, 1.0), (1, 0.390_901_869_111_590_1), (2, 0.511_364_441_341_064_6)] {
            assert!((autocorrelation(&values, lag).unwrap() - expected).abs() < 1e-12);
        }
        assert_eq!(autocorrelation(&values, 11), None);
        assert_eq!(autocorrelation(&values, usize::MAX), None);
        assert_eq!(autocorrelation(&[1.0; 5], 1), None);
        assert_eq!(autocorrelation(&[1.0, f64::NAN, 2.0], 1), None);
    }

    proptest! {
        #[test]
        fn scale_and_direction_do_not_matter(
            values in proptest::collection::vec(-1e3f64..1e3, 6..60), lag in 0usize..4, factor in 1e-3..1e3,
        ) {
            let plain = autocorrelation(&values, lag).unwrap();
            let other: Vec<f64> = values.iter().rev().map(|value| value * factor + 5.0).collect();
            prop_assert!((autocorrelation(&other, lag).unwrap() - plain).abs() < 1e-6);
            prop_assert!(plain.abs() <= 1.0 + 1e-12);
        }
    }
}
