//! ONNX model in, pruned ONNX model out.
//!
//! ```text
//! bytes ─► onnx (decode) ─► prunable (what is a weight, and why the rest is not) ─► importance ─► select (exactly k)
//!       ─► remove (zeros) ─► bytes + manifest
//! ```
//! Everything works on bytes; only [`mod@file`] touches the disk. The same model and recipe give the same bytes
//! everywhere. A variant at ratio 0 is the dense file itself, byte for byte.

pub mod importance;
pub mod layout;
pub mod manifest;
pub mod prunable;
pub mod remove;
pub mod samples;
pub mod scores;
pub mod select;
pub mod structure;
pub mod tune;

mod error;
mod inputs;
mod inspect;
mod macs;
mod operators;
mod outputs;
mod predictions;
mod recipe;
mod shapes;

pub use error::PruneError;
pub use espalier_onnx::{self as onnx, Axis, Bytes, OnnxError, file, runnable, tensor};
pub use espalier_recipe::{Method, Scope, Structure, Unit};
pub use inspect::{Inspection, Port, inspect};
pub use manifest::{Calibration, Macs, Manifest, PrunedTensor};
pub use outputs::{OutputFacts, outputs};
pub use prunable::{Reason, Untouched, survey};
pub use recipe::{Amount, Recipe};
pub use samples::Samples;
pub use scores::{Mask, Scores};

use std::borrow::Cow;

use onnx::Model;
use prunable::Survey;
use remove::Patch;
use select::{Importance, Removal, Selection};
use tensor::Values;

/// The version of the pruner in the keys of caches: raised whenever it makes other bytes of the same model and recipe.
/// A test fails when that is forgotten.
pub const PRUNER: u32 = 3;

/// A pruned model.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The ONNX file.
    pub bytes: Bytes,
    pub manifest: Manifest,
}

/// Removes exactly `round(ratio * n)` of the model's `n` prunable units, the least important ones. `samples` are for
/// methods that need them: see [`Method::needs_samples`].
///
/// # Errors
/// See [`PruneError`]. At ratio 0 only a file that is no model, or whose weights do not fit their shapes, is an error.
pub fn prune(model: &Bytes, recipe: &Recipe, samples: Option<&Samples>) -> Result<Pruned, PruneError> {
    recipe.check()?;
    if let Unit::Structure(_) = recipe.unit {
        return structure::prune(model, recipe, samples, &structure::Options::default());
    }
    let model = Model::decode(model)?;
    let survey = prunable::survey(&model)?;
    for weight in &survey.weights {
        Values::of(&weight.name, weight.place.tensor(model.graph()))?;
    }
    if recipe.amount().is_nothing() {
        return unchanged(&model, recipe, survey, samples);
    }
    if survey.weights.iter().all(|weight| select::units(weight, recipe.unit) == 0) {
        return Err(PruneError::NothingPrunable { why: why_nothing(&survey, recipe.unit) });
    }
    if let Some(importance) = importance::from_the_file(&model, &survey, recipe.method, recipe.seed) {
        return removed(&model, recipe, &survey, &importance, None, samples);
    }
    let (scores, already) = match recipe.method {
        Method::Synflow => importance::Flow::new(&model, &survey, samples)?.last_step(recipe)?,
        method => (importance::scores(&model, &survey, method, samples, recipe.batch, recipe.seed)?, None),
    };
    removed(&model, recipe, &survey, &|tensor| Ok(Cow::Borrowed(&scores.0[tensor])), already.as_ref(), samples)
}

fn removed(
    model: &Model,
    recipe: &Recipe,
    survey: &Survey,
    importance: &Importance<'_>,
    already: Option<&Mask>,
    samples: Option<&Samples>,
) -> Result<Pruned, PruneError> {
    let mut selection = Selection::new(survey, recipe.scope, recipe.unit, recipe.amount(), importance, already)?;
    let mut patch = Patch::of(model);
    let (mut before, mut tensors) = (Vec::new(), Vec::new());
    for (index, weight) in survey.weights.iter().enumerate() {
        let removal = selection.tensor(index)?;
        let zeros = patch.zero(&weight.name, weight.place, &removal.removed)?;
        before.push(zeros.before);
        tensors.push(pruned_tensor(weight, &removal, zeros.after));
    }
    let macs = counted(model, survey, samples, &before, &tensors);
    Ok(Pruned { bytes: patch.finish(), manifest: Manifest { macs, ..manifest(recipe, survey, tensors, samples) } })
}

fn unchanged(model: &Model, recipe: &Recipe, survey: Survey, samples: Option<&Samples>) -> Result<Pruned, PruneError> {
    let mut tensors = Vec::new();
    for weight in &survey.weights {
        let values = Values::of(&weight.name, weight.place.tensor(model.graph()))?;
        let removal = Removal { units: select::units(weight, recipe.unit), ..Removal::default() };
        tensors.push(pruned_tensor(weight, &removal, values.zeros()));
    }
    let zeros: Vec<u64> = tensors.iter().map(|tensor| tensor.zeros).collect();
    let macs = counted(model, &survey, samples, &zeros, &tensors);
    let manifest = Manifest { macs, ..manifest(recipe, &survey, tensors, None) };
    Ok(Pruned { bytes: model.source().clone(), manifest })
}

/// `before` gives the zeros of each tensor of the survey, `after` its state after pruning.
fn counted(
    model: &Model,
    survey: &Survey,
    samples: Option<&Samples>,
    before: &[u64],
    after: &[PrunedTensor],
) -> Option<Macs> {
    let uses = macs::uses(model, survey, samples)?;
    let (dense, dense_nonzero) = macs::total(survey, &uses, before.iter().copied());
    let (pruned, pruned_nonzero) = macs::total(survey, &uses, after.iter().map(|tensor| tensor.zeros));
    Some(Macs { dense, dense_nonzero, pruned, pruned_nonzero })
}

fn pruned_tensor(weight: &prunable::Weight, removal: &Removal, zeros: u64) -> PrunedTensor {
    PrunedTensor {
        name: weight.name.clone(),
        shape: weight.shape.clone(),
        weights: weight.count,
        removed: removal.removed.iter().map(|removed| u64::from(*removed)).sum(),
        zeros,
        units: removal.units,
        removed_units: removal.removed_units,
    }
}

/// `tensors` are those of the survey; those that the unit does not fit are listed with the untouched.
fn manifest(recipe: &Recipe, survey: &Survey, tensors: Vec<PrunedTensor>, samples: Option<&Samples>) -> Manifest {
    let (tensors, misfits): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|tensor| tensor.units > 0 || tensor.weights == 0);
    let misfits = misfits.into_iter().map(|tensor| Untouched {
        name: tensor.name,
        shape: tensor.shape,
        parameters: tensor.weights,
        reason: Reason::Unit { unit: recipe.unit },
    });
    let untouched = misfits.chain(survey.untouched.iter().cloned()).collect();
    let sum = |count: fn(&PrunedTensor) -> u64| tensors.iter().map(count).fold(0, u64::saturating_add);
    let units = (sum(|tensor| tensor.units), sum(|tensor| tensor.removed_units));
    Manifest::new(recipe, survey, tensors, untouched, units, samples)
}

fn why_nothing(survey: &Survey, unit: Unit) -> String {
    if let Some(weight) = survey.weights.first() {
        return format!("`{}`, for one, is {}", weight.name, Reason::Unit { unit });
    }
    match survey.untouched.iter().find(|tensor| matches!(tensor.reason, Reason::Dtype { .. } | Reason::Indirect { .. }))
    {
        Some(tensor) => format!("`{}`, for one, is {}", tensor.name, tensor.reason),
        None => "it has no Conv, Gemm, MatMul, LSTM, GRU or RNN with constant weights".to_owned(),
    }
}
