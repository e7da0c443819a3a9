//! Estimators for times and for paired right-or-wrong answers. Pure: numbers in, numbers out.
//!
//! The unit of a statement about time is the *invocation*: single inferences of one process are not independent.
//! So intervals come from the spread between invocations, on the logarithm of each invocation's time.
//! What cannot be estimated is an [`Unfit`], never a zero.

mod autocorrelation;
mod change_points;
mod cusum;
mod interval;
mod levels;
mod many;
mod mcnemar;
mod proportion;
mod quantile;
mod ratio;
mod separation;
mod sequential;
mod signed_rank;
mod spending;
mod states;
mod steady;
mod student;
mod trend;

#[cfg(test)]
mod noise;

pub use autocorrelation::autocorrelation;
pub use change_points::{ChangePoint, ChangePoints, Level};
pub use cusum::{Cusum, CusumStep};
pub use interval::{Interval, log_sd, mean, sd, t_interval};
pub use levels::{Levels, variance_levels};
pub use many::{Pooled, benjamini_hochberg, pooled, sign_test};
pub use mcnemar::{mcnemar_one_sided, mcnemar_two_sided};
pub use proportion::{PairedDrop, paired_drop};
pub use quantile::{clustered_quantile, median, quantile_interval, quantile_of_sorted, quantile_r8, sorted};
pub use ratio::{geometric_mean, geometric_mean_interval, paired_ratio};
pub use separation::{Separation, Tolerance, separation, separation_chance};
pub use sequential::{Design, Look, Margins, Outcome};
pub use signed_rank::hodges_lehmann;
pub use states::{States, fisher_exact, two_states};
pub use steady::{BatchDrift, batch_drift, steady_from};
pub use student::t_p_value;
pub use trend::{Step, Trend, mann_kendall, pettitt};

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
