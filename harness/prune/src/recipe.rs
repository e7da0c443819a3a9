//! One pruning: method, scope, unit and how much is removed.

use espalier_recipe::{Method, Scope, Unit};
use serde::{Deserialize, Serialize};

use crate::PruneError;

/// How much is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Exactly `round(ratio * n)` of the `n` units of a scope, the least important ones.
    Ratio(f64),
    /// Every unit less important than `threshold * max`, the most important unit of its scope.
    Threshold(f64),
}

impl Amount {
    /// # Errors
    /// A ratio outside [0, 1), a threshold outside [0, 1], or NaN.
    pub fn check(self) -> Result<(), PruneError> {
        match self {
            Amount::Ratio(ratio) if !(0.0..1.0).contains(&ratio) => Err(PruneError::Ratio { ratio }),
            Amount::Threshold(threshold) if !(0.0..=1.0).contains(&threshold) => {
                Err(PruneError::Threshold { threshold })
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// [`PruneError::NOfM`]: of each `of` weights `keep` stay, so there is one ratio and no threshold.
    pub fn check_unit(self, unit: Unit) -> Result<(), PruneError> {
        match (unit, unit.only_ratio()) {
            (Unit::NOfM { keep, of }, Some(only)) if !matches!(self, Amount::Ratio(ratio) if unit.allows(ratio)) => {
                Err(PruneError::NOfM { keep, of, only })
            }
            _ => Ok(()),
        }
    }

    /// How many of these scores, from the least up, are removed.
    pub fn count(self, sorted: &[f64]) -> usize {
        match self {
            Amount::Ratio(ratio) => removed(ratio, sorted.len() as u64) as usize,
            Amount::Threshold(threshold) => {
                let most = sorted.last().copied().unwrap_or(0.0);
                sorted.iter().filter(|score| **score < threshold * most).count()
            }
        }
    }

    pub fn is_nothing(self) -> bool {
        matches!(self, Amount::Ratio(amount) | Amount::Threshold(amount) if amount == 0.0)
    }
}

impl From<f64> for Amount {
    fn from(ratio: f64) -> Amount {
        Amount::Ratio(ratio)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// The fraction of the prunable units to remove, in [0, 1).
    pub ratio: f64,
    /// In place of `ratio`: see [`Amount::Threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Of everything drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// How many samples a gradient is taken of: its absolute value is that of the batch's gradient.
    #[serde(default = "default_batch")]
    pub batch: usize,
}

/// All values of a batch are kept for its gradient: 150 MB an image for ResNet50.
fn default_batch() -> usize {
    8
}

impl Recipe {
    /// Everything else is at its default.
    pub fn new(method: Method, scope: Scope, unit: Unit, ratio: f64) -> Recipe {
        Recipe { method, scope, unit, ratio, threshold: None, seed: 0, batch: default_batch() }
    }

    /// Global weight magnitude.
    pub fn magnitude(ratio: f64) -> Recipe {
        Recipe::new(Method::Magnitude, Scope::Global, Unit::Weight, ratio)
    }

    /// With `keep` of each `of` weights.
    pub fn keeping(&self, keep: u32, of: u32) -> Recipe {
        Recipe { unit: Unit::NOfM { keep, of }, ratio: 1.0 - f64::from(keep) / f64::from(of), ..*self }
    }

    pub fn amount(&self) -> Amount {
        self.threshold.map_or(Amount::Ratio(self.ratio), Amount::Threshold)
    }

    /// # Errors
    /// Those of [`Amount::check`]; a ratio that an N:M unit cannot have.
    pub fn check(&self) -> Result<(), PruneError> {
        self.amount().check()?;
        self.amount().check_unit(self.unit)
    }

    /// How many of `prunable` units are removed: `round(ratio * prunable)`, halves away from zero. A ratio just below 1
    /// may round to all.
    pub fn removed(&self, prunable: u64) -> u64 {
        removed(self.ratio, prunable)
    }
}

/// `round(ratio * n)`, halves away from zero.
pub fn removed(ratio: f64, n: u64) -> u64 {
    (ratio * n as f64).round() as u64
}
