//! What a pruned file is and how it came about; written beside it, read by tables.

use serde::{Deserialize, Serialize};

use crate::{Method, Recipe, Samples, Scope, Unit, prunable::Untouched, structure};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// As asked for: the fraction of the units to remove. 0 where a threshold was asked for.
    pub ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// `removed_units / units`; differs from `ratio` by rounding to whole units. 0 where nothing is prunable.
    pub effective_ratio: f64,
    /// How many units could be removed: single weights, tiles, channels; for N:M the weights in whole groups.
    #[serde(default)]
    pub units: u64,
    /// Of those, removed: exactly `round(ratio * units)`; with local scope so of each tensor.
    #[serde(default)]
    pub removed_units: u64,
    /// Single weights in the prunable tensors.
    pub prunable: u64,
    /// Of those, removed.
    pub removed: u64,
    /// Of the prunable ones, zero now: the removed ones and those that were zero before and had to stay.
    pub zeros: u64,
    /// All parameters of the model, prunable or not.
    pub parameters: u64,
    /// Multiply-accumulates; `None` where the file does not tell shapes and nothing was run.
    #[serde(default)]
    pub macs: Option<Macs>,
    /// What importance was judged on; `None` for methods that need no samples.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Of whatever was drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// Of variants whose tensors shrank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<structure::Report>,
    /// The prunable tensors, in the order of the file.
    pub tensors: Vec<PrunedTensor>,
    /// The others that hold parameters, with the reason each was left alone.
    pub untouched: Vec<Untouched>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrunedTensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub weights: u64,
    pub removed: u64,
    pub zeros: u64,
    /// How many units it has, and how many of them are removed.
    #[serde(default)]
    pub units: u64,
    #[serde(default)]
    pub removed_units: u64,
}

/// Multiply-accumulates of one sample in the nodes with prunable weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macs {
    /// Before.
    pub dense: u64,
    /// Before, those whose weight is not zero.
    pub dense_nonzero: u64,
    /// After: fewer where tensors shrink.
    pub pruned: u64,
    /// After, those whose weight is not zero.
    pub pruned_nonzero: u64,
}

/// What importance was judged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    pub samples: usize,
    /// How many at a time, where gradients were taken.
    pub batch: usize,
    /// Whether samples came with labels, where gradients were taken; else the model's own predictions served.
    pub labels: bool,
}

impl Calibration {
    /// `None` for a method that looks at no samples.
    pub(crate) fn of(recipe: &Recipe, samples: Option<&Samples>) -> Option<Calibration> {
        let samples = samples.filter(|_| recipe.method.needs_samples())?;
        Some(Calibration { samples: samples.len(), batch: recipe.batch, labels: samples.labels.is_some() })
    }
}
