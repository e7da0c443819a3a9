//! Why there is no estimate, and the checks that find out.

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
pub(crate) fn check(values: &[f64], needed: usize) -> Result<(), Unfit> {
    if values.len() < needed {
        return Err(Unfit::TooFew { needed, given: values.len() });
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Unfit::NotFinite);
    }
    Ok(())
}

/// The natural logarithms of finite values above zero.
pub(crate) fn logs(values: &[f64]) -> Result<Vec<f64>, Unfit> {
    check(values, 0)?;
    if values.iter().any(|value| *value <= 0.0) {
        return Err(Unfit::NotPositive);
    }
    Ok(values.iter().map(|value| value.ln()).collect())
}
