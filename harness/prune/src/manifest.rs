//! What a pruned file is and how it came about; written beside it, read by tables.

use serde::{Deserialize, Serialize};

use crate::{Method, Scope, Unit, prunable::Untouched};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// As asked for: the fraction of the prunable weights to remove.
    pub ratio: f64,
    /// `removed / prunable`; differs from `ratio` by rounding to whole weights. 0 where nothing is prunable.
    pub effective_ratio: f64,
    /// Single weights that could be removed.
    pub prunable: u64,
    /// Of those, removed: exactly `round(ratio * prunable)`.
    pub removed: u64,
    /// Of the prunable ones, zero now: the removed ones and those that were zero before and had to stay.
    pub zeros: u64,
    /// All parameters of the model, prunable or not.
    pub parameters: u64,
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
}
