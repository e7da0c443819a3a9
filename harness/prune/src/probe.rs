//! Inputs made up to run a network without data.

use espalier_engine::{Array, Network, Tensor};

use crate::{
    PruneError, Samples,
    onnx::{Model, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto},
};

/// More than that is nobody's sample.
const LARGEST: usize = 1 << 26;

/// Ones for one sample: shaped as the file says, and where it leaves axes open as the samples are, or else short.
///
/// # Errors
/// Inputs that are no tensors, or of unknown rank, or absurdly large.
pub fn ones(model: &Model, network: &Network, samples: Option<&Samples>) -> Result<Vec<Tensor>, PruneError> {
    let mut feeds = Vec::new();
    for (index, input) in network.inputs.iter().enumerate() {
        let name = network.name(*input);
        let refused = |why: &str| PruneError::Samples { why: format!("input `{name}` {why}") };
        let info = model.graph().input.iter().find(|info| info.name() == name);
        let given = samples.and_then(|samples| samples.inputs.get(index)).map(Tensor::shape);
        let (dtype, axes) = info.and_then(declared).ok_or_else(|| refused("is no tensor of known rank"))?;
        let length = |(axis, fixed): (usize, &Option<usize>)| match (fixed, given.and_then(|shape| shape.get(axis))) {
            (Some(fixed), _) => *fixed,
            (None, _) if axis == 0 => 1,
            (None, Some(given)) => *given,
            // Images are made smaller on their way, down to nothing; sequences are not.
            (None, None) if axis >= 2 && axes.len() >= 4 => 64,
            (None, None) => 8,
        };
        let shape: Vec<usize> = axes.iter().enumerate().map(length).collect();
        let count = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let count = count.filter(|count| *count <= LARGEST).ok_or_else(|| refused("is too large to be made up"))?;
        feeds.push(match DataType::try_from(dtype) {
            Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
                Tensor::F32(Array::new(shape, vec![1.0; count]))
            }
            Ok(DataType::Bool) => Tensor::Bool(Array::new(shape, vec![true; count])),
            _ => Tensor::I64(Array::new(shape, vec![1; count])),
        });
    }
    Ok(feeds)
}

/// Element type and axes of an input, `None` for those of any length.
pub fn declared(info: &ValueInfoProto) -> Option<(i32, Vec<Option<usize>>)> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref() else { return None };
    let axis = |value: &Option<dimension::Value>| match value {
        // Some exporters write a free axis as 0 or -1.
        Some(dimension::Value::DimValue(length @ 1..)) => usize::try_from(*length).ok(),
        _ => None,
    };
    let axes = tensor.shape.as_ref()?.dim.iter().map(|dim| axis(&dim.value)).collect();
    Some((tensor.elem_type(), axes))
}
