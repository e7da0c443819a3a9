//! What all formats of a matrix share: the vectors, and the order of rows.

/// Rows that are packed together.
pub(super) const GROUP: usize = 16;

/// Vectors in memory: the `p`-th begins at `p * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub count: usize,
}

/// The order in which rows are read. A matrix that is used again and again, in alternating order, finds the rows it
/// used last in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    Down,
    Up,
}

impl RowOrder {
    pub fn other(self) -> RowOrder {
        match self {
            RowOrder::Down => RowOrder::Up,
            RowOrder::Up => RowOrder::Down,
        }
    }

    /// The `step`-th of `count` items in this order.
    #[inline(always)]
    pub(super) fn at(self, step: usize, count: usize) -> usize {
        match self {
            RowOrder::Down => step,
            RowOrder::Up => count - 1 - step,
        }
    }
}
