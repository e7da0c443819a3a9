//! What was pruned, and how: written beside the pruned file, read by tables.

use serde::{Deserialize, Serialize};

use crate::{
    Method, Recipe, Samples, Scope, Unit,
    prunable::{Survey, Untouched},
    structure,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// The requested fraction of units to remove; 0 where a threshold was requested.
    pub ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// `removed_units / units`; differs from `ratio` by rounding to whole units. 0 where nothing is prunable.
    pub effective_ratio: f64,
    /// How many units could be removed: single weights, tiles, channels; of N:M the weights in whole groups.
    #[serde(default)]
    pub units: u64,
    /// How many of them are removed: exactly `round(ratio * units)`; with local scope of each tensor.
    #[serde(default)]
    pub removed_units: u64,
    /// Single weights in the prunable tensors.
    pub prunable: u64,
    /// Of those, removed.
    pub removed: u64,
    /// How many prunable weights are zero: the removed ones and those that were zero before.
    pub zeros: u64,
    /// All parameters of the model, prunable or not.
    pub parameters: u64,
    /// Multiply-accumulates; `None` where shapes are unknown.
    #[serde(default)]
    pub macs: Option<Macs>,
    /// The samples importance was computed from; `None` for methods that need none.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Of everything drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// Of variants whose tensors shrank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<structure::Report>,
    /// The prunable tensors, in the order of the file.
    pub tensors: Vec<PrunedTensor>,
    /// The others that hold parameters, with the reason each was left unchanged.
    pub untouched: Vec<Untouched>,
}

impl Manifest {
    /// Multiply-accumulates and the structure are still open; `units` are all units and the removed ones.
    pub(crate) fn new(
        recipe: &Recipe,
        survey: &Survey,
        tensors: Vec<PrunedTensor>,
        untouched: Vec<Untouched>,
        (units, removed_units): (u64, u64),
        samples: Option<&Samples>,
    ) -> Manifest {
        let sum = |count: fn(&PrunedTensor) -> u64| tensors.iter().map(count).fold(0, u64::saturating_add);
        Manifest {
            method: recipe.method,
            scope: recipe.scope,
            unit: recipe.unit,
            ratio: recipe.ratio,
            threshold: recipe.threshold,
            effective_ratio: if units == 0 { 0.0 } else { removed_units as f64 / units as f64 },
            units,
            removed_units,
            prunable: sum(|tensor| tensor.weights),
            removed: sum(|tensor| tensor.removed),
            zeros: sum(|tensor| tensor.zeros),
            parameters: survey.parameters(),
            macs: None,
            calibration: Calibration::of(recipe, samples),
            seed: recipe.seed,
            structure: None,
            tensors,
            untouched,
        }
    }
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

/// The samples importance was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    pub samples: usize,
    /// How many samples a gradient was taken of.
    pub batch: usize,
    /// Whether gradients used labels; else they used the model's own predictions.
    pub labels: bool,
}

impl Calibration {
    /// `None` for a method that needs no samples.
    pub(crate) fn of(recipe: &Recipe, samples: Option<&Samples>) -> Option<Calibration> {
        let samples = samples.filter(|_| recipe.method.needs_samples())?;
        Some(Calibration { samples: samples.len(), batch: recipe.batch, labels: samples.labels.is_some() })
    }
}
