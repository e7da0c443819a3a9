//! Inputs made up for a run that shows shapes: open axes get odd sizes that differ, integers are small enough to be anybody's index.

use std::collections::HashMap;

use espalier_engine::{Array, Tensor};

use crate::{
    PruneError,
    onnx::{GraphProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto},
};

/// What to make up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// For open axes, in the order in which they turn up.
    few: [usize; 5],
    /// For open axes beyond the second of an input: images are made smaller on their way, down to nothing.
    large: usize,
    /// What integers are.
    index: i64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        FIRST
    }
}

/// Two that differ in every axis, so that what is the same in both does not depend on what is fed. Then what else may work.
pub const FIRST: Sizes = Sizes { few: [3, 7, 5, 11, 13], large: 65, index: 1 };
pub const SECOND: Sizes = Sizes { few: [5, 11, 7, 13, 17], large: 129, index: 1 };
pub const FALLBACKS: [Sizes; 3] = [
    Sizes { few: [3, 7, 5, 11, 13], large: 65, index: 0 },
    Sizes { few: [1, 4, 4, 4, 4], large: 224, index: 0 },
    Sizes { few: [1; 5], large: 32, index: 0 },
];

const LARGEST: usize = 1 << 28;

/// One tensor for each input that has to be fed, in the order of the graph. `given` are shapes that the caller knows better, by input.
///
/// # Errors
/// Inputs that are no tensors, or of unknown rank.
pub fn feeds(graph: &GraphProto, given: &HashMap<String, Vec<usize>>, sizes: Sizes) -> Result<Vec<Tensor>, PruneError> {
    let constants: std::collections::HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut next = 0;
    let mut feeds = Vec::new();
    for input in graph.input.iter().filter(|input| !constants.contains(input.name())) {
        let refused = |why: &str| PruneError::Samples { why: format!("input `{}` {why}", input.name()) };
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(refused("is not a tensor, so no input can be made up for it"));
        };
        let shape = match (given.get(input.name()), &tensor.shape) {
            (Some(shape), _) => shape.clone(),
            (None, Some(shape)) => {
                let axes = shape.dim.iter().enumerate().map(|(axis, dim)| match &dim.value {
                    Some(dimension::Value::DimValue(len @ 1..)) => *len as usize,
                    value => {
                        let name = match value {
                            Some(dimension::Value::DimParam(name)) if !name.is_empty() => name.clone(),
                            // Axes without a name: the first of each input is the batch.
                            _ if axis == 0 => String::new(),
                            _ => format!("{}#{axis}", input.name()),
                        };
                        *open.entry(name).or_insert_with(|| {
                            if axis >= 2 && shape.dim.len() >= 4 {
                                return sizes.large;
                            }
                            next += 1;
                            sizes.few[(next - 1) % sizes.few.len()]
                        })
                    }
                });
                axes.collect()
            }
            (None, None) => return Err(refused("does not say how many axes it has; give its shape")),
        };
        let len = shape.iter().try_fold(1usize, |product, len| product.checked_mul(*len)).filter(|len| *len <= LARGEST);
        let len = len.ok_or_else(|| refused("is too large to be made up"))?;
        feeds.push(match DataType::try_from(tensor.elem_type()) {
            Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
                Tensor::F32(Array::new(shape, noise(len)))
            }
            Ok(DataType::Bool) => Tensor::Bool(Array::new(shape, vec![true; len])),
            Ok(DataType::String | DataType::Complex64 | DataType::Complex128 | DataType::Undefined) | Err(_) => {
                return Err(refused("is of a type the engine does not compute with"));
            }
            Ok(_) => Tensor::I64(Array::new(shape, vec![sizes.index; len])),
        });
    }
    Ok(feeds)
}

/// Whether an input has an axis whose length is not fixed.
pub fn is_open(input: &ValueInfoProto) -> bool {
    match input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_ref().is_none_or(|shape| {
            shape.dim.iter().any(|dim| !matches!(dim.value, Some(dimension::Value::DimValue(1..))))
        }),
        _ => true,
    }
}

/// Numbers in [-1, 1), the same every time.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
