//! What every operator needs: its inputs, axes counted from either end, sizes that are bounded before anything is allocated, and floats,
//! integers and booleans treated alike.

use crate::{Array, Tensor};

/// The most elements one value may have: a GiB of floats. A model is a stranger's file, and a few bytes of it may ask for any size.
pub(crate) const MOST_ELEMENTS: usize = 1 << 28;

/// The same for each kind of tensor: `$array` is its [`Array`], `$body` an array of the same kind.
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

/// The gradient of an output, zeros where nothing depends on it.
pub(crate) fn output_gradient(gradients: &[Option<Array<f32>>], index: usize, shape: &[usize]) -> Array<f32> {
    gradients.get(index).cloned().flatten().unwrap_or_else(|| Array::zeros(shape))
}

/// An axis that may be counted from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let rank_i64 = rank as i64;
    if (-rank_i64..rank_i64).contains(&axis) {
        Ok(axis.rem_euclid(rank_i64) as usize)
    } else {
        Err(format!("there is no axis {axis} in a tensor of rank {rank}"))
    }
}

/// Axes that may be counted from the end, each of which may be named once.
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

/// The number of elements of a shape, where it is one that may be allocated.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, String> {
    let too_many =
        || format!("shape {shape:?} has more than {MOST_ELEMENTS} elements, which is beyond what the engine computes");
    // Without zeros first: what is empty may not hide a product that overflows.
    let product = shape
        .iter()
        .filter(|axis| **axis != 0)
        .try_fold(1usize, |product, axis| product.checked_mul(*axis))
        .filter(|product| *product <= MOST_ELEMENTS)
        .ok_or_else(too_many)?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// A list of integers out of a tensor of any rank below two.
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

/// A size out of a foreign number.
pub(crate) fn size(value: i64, what: &str) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("{what} cannot be {value}"))
}
