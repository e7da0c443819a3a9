//! Means with Student's t intervals. An interval needs two values: the spread of a single value is unknown, not zero.

use crate::student::t_quantile;
use crate::unfit::{Unfit, check, logs};

/// An estimate with the limits that cover the true value in `confidence` of all repetitions. Same unit throughout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
    /// In (0, 1), e.g. 0.95.
    pub confidence: f64,
}

impl Interval {
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Of every number; `change` must be increasing.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Interval {
        Interval { estimate: change(self.estimate), low: change(self.low), high: change(self.high), ..self }
    }
}

/// Mean ± t · s / √n with n − 1 degrees of freedom.
///
/// # Errors
/// Fewer than two values, or one that is not finite.
pub fn t_interval(values: &[f64], confidence: f64) -> Result<Interval, Unfit> {
    let estimate = mean(values)?;
    let n = values.len() as f64;
    let half = student_t(confidence, values.len().saturating_sub(1)) * sd(values)? / n.sqrt();
    Ok(Interval { estimate, low: estimate - half, high: estimate + half, confidence })
}

/// # Errors
/// No value, or one that is not finite.
pub fn mean(values: &[f64]) -> Result<f64, Unfit> {
    check(values, 1)?;
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation (n − 1 below).
///
/// # Errors
/// Fewer than two values, or one that is not finite.
pub fn sd(values: &[f64]) -> Result<f64, Unfit> {
    check(values, 2)?;
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Ok((squares / (values.len() - 1) as f64).sqrt())
}

/// The standard deviation of the logarithms: 0.02 is "about two per cent", whatever the unit.
///
/// # Errors
/// Fewer than two values, or one that is not finite and above zero.
pub fn log_sd(values: &[f64]) -> Result<f64, Unfit> {
    sd(&logs(values)?)
}

/// The two-sided critical value of Student's t: `student_t(0.95, 9)` is 2.262. Infinite with no degree of freedom.
pub(crate) fn student_t(confidence: f64, freedom: usize) -> f64 {
    // From the lower tail: `1 - small` would lose its digits.
    -t_quantile((1.0 - confidence) / 2.0, freedom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R. A. Fisher's table of t, to its last digit.
    #[test]
    fn critical_values_are_the_published_ones() {
        for (confidence, freedom, expected) in [
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.95, 4, 2.776),
            (0.95, 9, 2.262),
            (0.95, 30, 2.042),
            (0.95, 120, 1.980),
            (0.90, 5, 2.015),
            (0.99, 10, 3.169),
        ] {
            let got = student_t(confidence, freedom);
            assert!((got - expected).abs() < 6e-4, "t({confidence}, {freedom}) = {got}, not {expected}");
        }
        assert_eq!(student_t(0.95, 0), f64::INFINITY);
    }

    /// Student's sleep data (1908), the differences of the two drugs; limits as R prints them for `t.test(…, paired =
    /// TRUE)`.
    #[test]
    fn students_own_example() {
        let differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let interval = t_interval(&differences, 0.95).unwrap();
        assert!((interval.estimate - 1.58).abs() < 1e-12);
        assert!((interval.low - 0.700_114_2).abs() < 1e-4, "{interval:?}");
        assert!((interval.high - 2.459_885_8).abs() < 1e-4, "{interval:?}");
    }

    #[test]
    fn what_cannot_be_estimated_is_refused() {
        assert_eq!(t_interval(&[], 0.95), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(t_interval(&[1.0], 0.95), Err(Unfit::TooFew { needed: 2, given: 1 }));
        assert_eq!(t_interval(&[1.0, f64::NAN], 0.95), Err(Unfit::NotFinite));
        assert_eq!(log_sd(&[1.0, 0.0]), Err(Unfit::NotPositive));
        assert_eq!(log_sd(&[1.0]), Err(Unfit::TooFew { needed: 2, given: 1 }));
    }
}
