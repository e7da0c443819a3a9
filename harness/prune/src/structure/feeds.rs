//! Inputs for the run that shapes come from. Open axes get odd lengths that differ, so that the axes of a reshape can
//! be distinguished; integers are small enough to be an index into anything.

use std::collections::HashMap;

use espalier_engine::Tensor;

use crate::{
    PruneError, inputs,
    onnx::{Axis, GraphProto, ValueInfoProto, random::SplitMix64},
};

/// How long open axes are, and what inputs are filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// For open axes, in the order of their first use.
    few: [usize; 5],
    /// For open axes of images: images get smaller from layer to layer, down to nothing.
    large: usize,
    /// The value of integers.
    index: i64,
    /// Of the floats.
    seed: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        FIRST
    }
}

/// The fallbacks are tried where the first fails.
pub const FIRST: Sizes = Sizes { few: [3, 7, 5, 11, 13], large: 65, index: 1, seed: 1 };
pub const FALLBACKS: [Sizes; 3] = [
    Sizes { few: [3, 7, 5, 11, 13], large: 65, index: 0, seed: 1 },
    Sizes { few: [1, 4, 4, 4, 4], large: 224, index: 0, seed: 1 },
    Sizes { few: [1; 5], large: 32, index: 0, seed: 1 },
];

/// What the run is compared with, the first that works. All differ from the sizes above in every axis and, the last
/// aside, in every value: what is the same in both depends neither on the lengths nor on the values of the inputs.
pub const OTHERS: [Sizes; 4] = [
    Sizes { few: [5, 11, 7, 13, 17], large: 129, index: 0, seed: 2 },
    Sizes { few: [5, 11, 7, 13, 17], large: 129, index: 1, seed: 2 },
    Sizes { few: [2, 8, 8, 8, 8], large: 256, index: 1, seed: 2 },
    Sizes { few: [2, 8, 8, 8, 8], large: 256, index: 0, seed: 2 },
];

/// One tensor for each input that has to be fed, in the order of the graph. `given` are shapes that override the
/// file's, by input.
///
/// # Errors
/// Inputs that are no tensors, or of unknown rank.
pub fn feeds(graph: &GraphProto, given: &HashMap<String, Vec<usize>>, sizes: Sizes) -> Result<Vec<Tensor>, PruneError> {
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut next = 0;
    let mut feeds = Vec::new();
    for input in graph.fed() {
        let refused = |why: &str| PruneError::Samples { why: format!("input `{}` {why}", input.name()) };
        input.tensor_type().ok_or_else(|| refused("is not a tensor, so there is no synthetic input for it"))?;
        let shape = match (given.get(input.name()), input.axes()) {
            (Some(shape), _) => shape.clone(),
            (None, None) => return Err(refused("does not say how many axes it has; give its shape")),
            (None, Some(axes)) => {
                let rank = axes.len();
                let length = |(axis, declared): (usize, Axis)| {
                    let name = match declared {
                        Axis::Fixed(length) => return length as usize,
                        Axis::Free(name) if !name.is_empty() => name,
                        // Axes without a name: the first of each input is the batch.
                        Axis::Free(_) if axis == 0 => String::new(),
                        Axis::Free(_) => format!("{}#{axis}", input.name()),
                    };
                    *open.entry(name).or_insert_with(|| {
                        if axis >= 2 && rank >= 4 {
                            return sizes.large;
                        }
                        next += 1;
                        sizes.few[(next - 1) % sizes.few.len()]
                    })
                };
                axes.into_iter().enumerate().map(length).collect()
            }
        };
        feeds.push(inputs::filled(input, shape, |len| noise(len, sizes.seed), sizes.index)?);
    }
    Ok(feeds)
}

/// Whether an input has an axis whose length is not fixed.
pub fn is_open(input: &ValueInfoProto) -> bool {
    input.axes().is_none_or(|axes| axes.iter().any(|axis| axis.fixed().is_none()))
}

/// Numbers in [-1, 1), the same every time.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..len).map(|_| random.between(-1.0, 1.0)).collect()
}
