//! How large an output may become. Models are strangers' files: a product that overflows or wants more memory than any real layer is an error
//! before it is an allocation.

/// 16 GiB of f32.
const MOST_ELEMENTS: usize = 1 << 32;

/// The number of elements of `shape`.
///
/// # Errors
/// More than 16 GiB.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    // A zero anywhere makes it empty, however large the rest is.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, axis| product.checked_mul(*axis))
        .filter(|elements| *elements <= MOST_ELEMENTS)
        .ok_or_else(|| format!("an output of shape {shape:?} is more than the 16 GiB the engine computes with"))
}

/// `axis` of a tensor of that many axes, where negative ones count from the end.
///
/// # Errors
/// One the tensor does not have.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    from_start
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|axis| *axis < rank)
        .ok_or_else(|| format!("a tensor of {rank} axes has no axis {axis}"))
}
