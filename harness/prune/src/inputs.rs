//! Synthetic inputs, to run a network without data.

use espalier_engine::{Array, Network, Tensor};

use crate::{
    PruneError, Samples,
    onnx::{Axis, Model, ValueInfoProto, tensor_proto::DataType},
};

/// No sample has more elements.
const LARGEST: usize = 1 << 26;

/// Ones for one sample. Open axes have the lengths of the samples, or else short ones.
///
/// # Errors
/// Inputs that are no tensors, or of unknown rank, or absurdly large.
pub fn ones(model: &Model, network: &Network, samples: Option<&Samples>) -> Result<Vec<Tensor>, PruneError> {
    let mut feeds = Vec::new();
    for (index, input) in network.inputs.iter().enumerate() {
        let name = network.name(*input);
        let info = model.graph().input.iter().find(|info| info.name() == name);
        let given = samples.and_then(|samples| samples.inputs.get(index)).map(Tensor::shape);
        let (info, axes) = info
            .and_then(|info| Some((info, info.axes()?)))
            .ok_or_else(|| PruneError::Samples { why: format!("input `{name}` is no tensor of known rank") })?;
        let length = |(axis, declared): (usize, &Axis)| match (declared, given.and_then(|shape| shape.get(axis))) {
            (Axis::Fixed(length), _) => *length as usize,
            (Axis::Free(_), _) if axis == 0 => 1,
            (Axis::Free(_), Some(given)) => *given,
            // Images get smaller from layer to layer, down to nothing; sequences do not.
            (Axis::Free(_), None) if axis >= 2 && axes.len() >= 4 => 64,
            (Axis::Free(_), None) => 8,
        };
        let shape = axes.iter().enumerate().map(length).collect();
        feeds.push(filled(info, shape, |len| vec![1.0; len], 1)?);
    }
    Ok(feeds)
}

/// An input of this shape: floats as `floats` gives them, integers `integer`, booleans `true`.
///
/// # Errors
/// A type the engine does not compute with; a shape that is absurdly large.
pub fn filled(
    info: &ValueInfoProto,
    shape: Vec<usize>,
    floats: impl Fn(usize) -> Vec<f32>,
    integer: i64,
) -> Result<Tensor, PruneError> {
    let refused = |why: &str| PruneError::Samples { why: format!("input `{}` {why}", info.name()) };
    let len = shape.iter().try_fold(1usize, |product, len| product.checked_mul(*len)).filter(|len| *len <= LARGEST);
    let len = len.ok_or_else(|| refused("is too large for a synthetic one"))?;
    let data_type = info.tensor_type().map_or(0, |tensor| tensor.elem_type());
    Ok(match DataType::try_from(data_type) {
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
            Tensor::F32(Array::new(shape, floats(len)))
        }
        Ok(DataType::Bool) => Tensor::Bool(Array::new(shape, vec![true; len])),
        Ok(DataType::String | DataType::Complex64 | DataType::Complex128 | DataType::Undefined) | Err(_) => {
            return Err(refused("is of a type the engine does not compute with"));
        }
        Ok(_) => Tensor::I64(Array::new(shape, vec![integer; len])),
    })
}
