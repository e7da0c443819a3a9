//! What is asked for: the names are those of the model files (`models/*.toml`) and of the manifest.

use serde::{Deserialize, Serialize};

use crate::PruneError;

/// How the importance of a weight is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Absolute value.
    Magnitude,
}

/// What weights compete with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All weights of the model.
    Global,
}

/// What is removed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// Fraction of the prunable weights to remove, in [0, 1).
    pub ratio: f64,
}

impl Recipe {
    /// Global weight magnitude.
    pub fn magnitude(ratio: f64) -> Recipe {
        Recipe { method: Method::Magnitude, scope: Scope::Global, unit: Unit::Weight, ratio }
    }

    /// # Errors
    /// [`PruneError::Ratio`] for a ratio outside [0, 1), or NaN.
    pub fn check(&self) -> Result<(), PruneError> {
        if (0.0..1.0).contains(&self.ratio) { Ok(()) } else { Err(PruneError::Ratio { ratio: self.ratio }) }
    }

    /// How many of `prunable` weights are removed: `round(ratio * prunable)`, halves away from zero. A ratio just below 1 may round to all.
    pub fn removed(&self, prunable: u64) -> u64 {
        (self.ratio * prunable as f64).round() as u64
    }
}
