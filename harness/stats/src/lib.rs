//! Estimators for times and for paired right-or-wrong answers. Pure: numbers in, numbers out.
//!
//! The unit of a statement about time is the *invocation*: single inferences of one process are not independent, so intervals come from the spread
//! between invocations, on the logarithm of what each of them said. A value that cannot be estimated is an [`Unfit`], never a zero.

mod interval;
mod mcnemar;
mod quantile;
mod ratio;

pub use interval::{Interval, log_sd, mean, sd, student_t, t_interval};
pub use mcnemar::{mcnemar_one_sided, mcnemar_two_sided};
pub use quantile::{clustered_quantile, median, quantile_interval, quantile_r8};
pub use ratio::{geometric_mean, geometric_mean_interval, paired_ratio};

use std::{error, fmt};

/// Why there is no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    TooFew {
        needed: usize,
        given: usize,
    },
    /// A value is infinite or not a number.
    NotFinite,
    /// A value has no logarithm.
    NotPositive,
    /// The two arms have different lengths.
    NotPaired {
        base: usize,
        other: usize,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::TooFew { needed, given } => write!(f, "{needed} values are needed, {given} given"),
            Unfit::NotFinite => write!(f, "a value is not finite"),
            Unfit::NotPositive => write!(f, "a value is not above zero"),
            Unfit::NotPaired { base, other } => write!(f, "{base} values cannot be paired with {other}"),
        }
    }
}

impl error::Error for Unfit {}

/// Refuses fewer than `needed` values and values that are not finite.
fn check(values: &[f64], needed: usize) -> Result<(), Unfit> {
    if values.len() < needed {
        return Err(Unfit::TooFew { needed, given: values.len() });
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Unfit::NotFinite);
    }
    Ok(())
}

/// The natural logarithms of finite values above zero.
fn logs(values: &[f64]) -> Result<Vec<f64>, Unfit> {
    check(values, 0)?;
    if values.iter().any(|value| *value <= 0.0) {
        return Err(Unfit::NotPositive);
    }
    Ok(values.iter().map(|value| value.ln()).collect())
}
