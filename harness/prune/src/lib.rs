//! ONNX model in, pruned ONNX model out.
//!
//! ```text
//! bytes ─► onnx (decode) ─► prunable (what is a weight, and why the rest is not) ─► magnitude (importance) ─► select (exactly k) ─► remove (zeros) ─► bytes + manifest
//! ```
//! The core works on bytes; only [`file`] touches the disk. The same model and recipe give the same bytes everywhere. A variant at ratio 0 is
//! the dense file itself, byte for byte.

pub mod manifest;
pub mod prunable;
pub mod samples;
pub mod scores;
pub mod select;

mod error;
mod inspect;
mod magnitude;
mod recipe;
mod remove;

pub use error::PruneError;
pub use espalier_onnx::{self as onnx, Bytes, OnnxError, file, tensor};
pub use inspect::{Axis, Inspection, Port, inspect};
pub use manifest::{Manifest, PrunedTensor};
pub use prunable::{Reason, Untouched};
pub use recipe::{Method, Recipe, Scope, Structure, Unit};
pub use samples::Samples;
pub use scores::{Mask, Scores};

use onnx::Model;
use prunable::Survey;
use remove::Count;
use tensor::Values;

/// A variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The ONNX file.
    pub bytes: Bytes,
    pub manifest: Manifest,
}

/// Removes exactly `round(ratio * n)` of the model's `n` prunable weights, the least important ones.
///
/// # Errors
/// See [`PruneError`]. At ratio 0 only a file that is no model at all, or whose weights do not fit their shapes, is an error.
pub fn prune(model: &Bytes, recipe: &Recipe) -> Result<Pruned, PruneError> {
    recipe.check()?;
    let Recipe { method: Method::Magnitude, scope: Scope::Global, unit: Unit::Weight, ratio } = *recipe else {
        return Err(PruneError::NotYet {
            what: format!("{}, {}, {}", recipe.method.name(), recipe.scope.name(), recipe.unit),
        });
    };
    let model = Model::decode(model)?;
    let survey = prunable::survey(&model)?;
    if survey.prunable() == 0 && ratio > 0.0 {
        return Err(PruneError::NothingPrunable { why: why_nothing(&survey) });
    }
    let mut weights = Vec::new();
    for weight in &survey.weights {
        weights.push((weight.name.as_str(), Values::of(&weight.name, weight.place.tensor(model.graph()))?));
    }

    let removed = recipe.removed(survey.prunable());
    let (bytes, counts) = if removed == 0 {
        let counts = weights.iter().map(|(_, values)| Count { removed: 0, zeros: values.zeros() }).collect();
        (model.source().clone(), counts)
    } else {
        let cut = magnitude::cut(&weights, removed)?;
        remove::remove(model, &survey, cut, magnitude::importance)?
    };
    Ok(Pruned { bytes, manifest: manifest(recipe, survey, &counts) })
}

fn manifest(recipe: &Recipe, survey: Survey, counts: &[Count]) -> Manifest {
    let (prunable, parameters) = (survey.prunable(), survey.parameters());
    let removed = counts.iter().map(|count| count.removed).sum();
    let tensors = survey.weights.into_iter().zip(counts).map(|(weight, count)| PrunedTensor {
        name: weight.name,
        shape: weight.shape,
        weights: weight.count,
        removed: count.removed,
        zeros: count.zeros,
    });
    Manifest {
        method: recipe.method,
        scope: recipe.scope,
        unit: recipe.unit,
        ratio: recipe.ratio,
        effective_ratio: if prunable == 0 { 0.0 } else { removed as f64 / prunable as f64 },
        prunable,
        removed,
        zeros: counts.iter().map(|count| count.zeros).sum(),
        parameters,
        tensors: tensors.collect(),
        untouched: survey.untouched,
    }
}

fn why_nothing(survey: &Survey) -> String {
    match survey.untouched.iter().find(|tensor| matches!(tensor.reason, Reason::Dtype { .. } | Reason::Indirect { .. }))
    {
        Some(tensor) => format!("`{}`, for one, is {}", tensor.name, tensor.reason),
        None => "it has no Conv, Gemm, MatMul, LSTM, GRU or RNN with constant weights".to_owned(),
    }
}
