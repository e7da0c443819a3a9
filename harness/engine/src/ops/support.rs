//! What every operator needs: its inputs, axes counted from either end, sizes that are bounded before anything is
//! allocated, and floats, integers and booleans treated alike.

use espalier_onnx::axis_of;

use crate::{Array, Tensor};

/// The most elements one value may have: a GiB of floats. A model is untrusted input, and a few bytes of it may ask for
/// any size.
pub(crate) const MOST_ELEMENTS: usize = 1 << 28;

/// The same for each element kind: `$array` is the tensor's [`Array`], `$body` an array of the same kind.
macro_rules! for_any {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            $crate::Tensor::F32($array) => $crate::Tensor::F32($body),
            $crate::Tensor::I64($array) => $crate::Tensor::I64($body),
            $crate::Tensor::Bool($array) => $crate::Tensor::Bool($body),
        }
    };
}
pub(crate) use for_any;

pub(crate) fn input<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Result<&'a Tensor, String> {
    optional(inputs, index).ok_or_else(|| format!("its input {index} is missing"))
}

/// An input that may be left out.
pub(crate) fn optional<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten()
}

/// An axis; a negative one counts from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    axis_of(axis, rank).ok_or_else(|| format!("there is no axis {axis} in a tensor of rank {rank}"))
}

/// Axes, each named once; negative ones count from the end.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut found = Vec::with_capacity(list.len().min(rank));
    for item in list {
        let item = axis(*item, rank)?;
        if found.contains(&item) {
            return Err(format!("axis {item} is named twice"));
        }
        found.push(item);
    }
    Ok(found)
}

/// The number of elements of a shape.
///
/// # Errors
/// More than [`MOST_ELEMENTS`].
pub(crate) fn elements(shape: &[usize]) -> Result<usize, String> {
    let too_many =
        || format!("shape {shape:?} has more than {MOST_ELEMENTS} elements, which is beyond what the engine computes");
    // Without zeros first: an empty axis must not hide a product that overflows.
    let product = shape
        .iter()
        .filter(|axis| **axis != 0)
        .try_fold(1usize, |product, axis| product.checked_mul(*axis))
        .filter(|product| *product <= MOST_ELEMENTS)
        .ok_or_else(too_many)?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// The integers of a tensor of rank 0 or 1.
pub(crate) fn list<'a>(tensor: &'a Tensor, what: &str) -> Result<&'a [i64], String> {
    let array = tensor.i64().map_err(|why| format!("{what}: {why}"))?;
    if array.rank() > 1 {
        return Err(format!("{what} is a list, not a tensor of shape {:?}", array.shape()));
    }
    Ok(array.data())
}

/// The one value of a tensor.
pub(crate) fn single<T: Copy + Clone>(array: &Array<T>, what: &str) -> Result<T, String> {
    match array.data() {
        [value] => Ok(*value),
        _ => Err(format!("{what} is one value, not a tensor of shape {:?}", array.shape())),
    }
}

/// A number from the file as a size.
pub(crate) fn size(value: i64, what: &str) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("{what} cannot be {value}"))
}
