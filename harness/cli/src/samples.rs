//! Reads a user's samples for the pruner: one tensor for each input of the network, in its order, and labels.

use std::path::Path;

use anyhow::{Context as _, Result};
use espalier_protocol::tensor::{self, DType, Tensor as WireTensor};
use espalier_prune::{
    Axis, Bytes, Inspection, Port,
    samples::{Array, Samples, Tensor},
};
use espalier_samples::{EvalSet, ModelAxis, ModelInput};
use espalier_tasks::Truth;

use crate::{context::usage, terminal};

/// `what` names the samples in messages, e.g. `training set`.
///
/// # Errors
/// The file cannot be read, or does not fit the model.
pub fn read(what: &str, path: &Path, model: &Inspection) -> Result<Samples> {
    let set = espalier_samples::read(what, path, Some(&model_inputs(model)))
        .map_err(|error| usage(terminal::causes(&error)))?;
    let cannot = || format!("the {what} `{}` cannot be used", path.display());
    let labels = set.truth.as_ref().and_then(Truth::labels);
    let labels = labels.map(|labels| labels.into_iter().map(usize::try_from).collect::<Result<_, _>>());
    let labels = labels.transpose().map_err(|_| usage(format!("{}: it has labels `y` below 0", cannot())))?;
    Ok(Samples { labels, ..inputs_of(&set, model)? })
}

/// The samples as the engine takes them, without right answers.
///
/// # Errors
/// An input without samples.
pub fn inputs_of(set: &EvalSet, model: &Inspection) -> Result<Samples> {
    let mut inputs = Vec::new();
    for (index, port) in model.inputs.iter().enumerate() {
        let is_its = |tensor: &&WireTensor| tensor.header.name == port.name || index == 0 && tensor.header.name == "x";
        let tensor = set.inputs.iter().find(is_its).with_context(|| format!("no samples for input `{}`", port.name));
        inputs.push(tensor_of(tensor?, port.dtype)?);
    }
    Ok(Samples { inputs, labels: None })
}

/// What the identity of samples is computed from: one file as it is, of several what they hold.
///
/// # Errors
/// As [`read`].
pub fn content(what: &str, path: &Path, dense: &Bytes) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz")) {
        return std::fs::read(path).map_err(|error| usage(format!("cannot read `{}`: {error}", path.display())));
    }
    let inputs = model_inputs(&espalier_prune::inspect(dense)?);
    let set = espalier_samples::read(what, path, Some(&inputs)).map_err(|error| usage(terminal::causes(&error)))?;
    let mut content = tensor::encode(&set.inputs);
    content.extend(set.truth.into_iter().flat_map(|truth| truth.values).flat_map(f64::to_le_bytes));
    Ok(content)
}

fn tensor_of(wire: &WireTensor, dtype: &str) -> Result<Tensor> {
    let shape = wire.header.shape.iter().map(|axis| usize::try_from(*axis)).collect::<Result<Vec<_>, _>>()?;
    Ok(match wire.header.dtype {
        DType::F32 => {
            let values = wire.bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value));
            Tensor::F32(Array::new(shape, values.collect()))
        }
        DType::I64 => {
            let values = wire.bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value));
            // The protocol has no booleans.
            if dtype == "bool" {
                Tensor::Bool(Array::new(shape, values.map(|value| value != 0).collect()))
            } else {
                Tensor::I64(Array::new(shape, values.collect()))
            }
        }
    })
}

/// The model's inputs, as the reader of eval sets takes them.
pub fn model_inputs(inspection: &Inspection) -> Vec<ModelInput> {
    let axis = |axis: &Axis| match axis {
        Axis::Fixed(length) => ModelAxis::Fixed(*length),
        Axis::Free(name) => ModelAxis::Free(name.clone()),
    };
    let input = |port: &Port| ModelInput {
        name: port.name.clone(),
        dtype: port.dtype.to_owned(),
        axes: port.axes.as_ref().map(|axes| axes.iter().map(axis).collect()),
    };
    inspection.inputs.iter().map(input).collect()
}
