//! Matrices that multiply vectors: what a recurrent layer does at each step, and with its inputs for all steps at once.
//!
//! `out[p] += M x[p]` for as many vectors as there are, each a row of memory, as the steps of a sequence lie. The lanes of a vector register are rows of
//! M, so that one packed form serves one vector (bound by memory) as well as many (bound by arithmetic), and no input has to be turned around. Groups of
//! 16 rows are one after the other, within them column after column: the weights are one stream. Which form suits a matrix is measured ([`choose`]).

mod blocks;
mod csr;
mod dense;

use std::fmt;

use self::{blocks::Blocks, csr::Csr, dense::Dense};
use crate::simd::Isa;

/// Rows that lie together.
pub(crate) const GROUP: usize = 16;

/// How a matrix is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Dense,
    /// Blocks of so many rows (16, 8 or 4) in one column; those with nothing in them are left out.
    Blocks(usize),
    /// Single cells, row after row.
    Csr,
}

impl Format {
    pub const ALL: [Format; 5] = [Format::Dense, Format::Blocks(16), Format::Blocks(8), Format::Blocks(4), Format::Csr];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Dense => f.write_str("dense"),
            Format::Blocks(rows) => write!(f, "block-{rows}x1"),
            Format::Csr => f.write_str("csr"),
        }
    }
}

/// A matrix made ready for one instruction set.
#[derive(Clone, Debug)]
pub struct Product {
    rows: usize,
    columns: usize,
    isa: Isa,
    packed: Packed,
}

#[derive(Clone, Debug)]
enum Packed {
    Dense(Dense),
    Blocks(Blocks),
    Csr(Csr),
}

/// Vectors in memory: the `p`-th begins at `p * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub count: usize,
}

/// From which end the rows are gone through. A matrix that is used again and again, each time the other way, finds in the cache what was used last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Down,
    Up,
}

impl Product {
    /// `values` is the matrix row after row.
    ///
    /// # Panics
    /// Unless there are `rows * columns` values.
    pub fn new(isa: Isa, format: Format, rows: usize, columns: usize, values: &[f32]) -> Product {
        assert_eq!(rows.checked_mul(columns), Some(values.len()), "{rows} x {columns} values");
        let packed = match format {
            Format::Blocks(height) if fits_indices(rows, columns) => {
                Packed::Blocks(Blocks::new(height, rows, columns, values))
            }
            Format::Csr if fits_indices(rows, columns) => Packed::Csr(Csr::new(rows, columns, values)),
            _ => Packed::Dense(Dense::new(rows, columns, values)),
        };
        Product { rows, columns, isa, packed }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn format(&self) -> Format {
        match &self.packed {
            Packed::Dense(_) => Format::Dense,
            Packed::Blocks(blocks) => Format::Blocks(blocks.height()),
            Packed::Csr(_) => Format::Csr,
        }
    }

    /// Whether [`Product::add_columns`] can be had.
    pub fn has_columns(&self) -> bool {
        matches!(self.packed, Packed::Dense(_))
    }

    /// Adds to `out` only some columns, each times its value: the product with a vector that is zero elsewhere.
    ///
    /// # Panics
    /// Where there are not as many values as columns, a column is beyond the matrix, `out` is too short, or the format has rows but no columns.
    pub fn add_columns(&self, columns: &[u32], values: &[f32], out: &mut [f32]) {
        assert_eq!(columns.len(), values.len());
        assert!(columns.iter().all(|column| (*column as usize) < self.columns), "a column beyond the matrix");
        assert!(out.len() >= self.rows, "too few outputs");
        match &self.packed {
            // SAFETY: checked above.
            Packed::Dense(dense) => unsafe { dense.add_columns(self.isa, columns, values, out) },
            Packed::Blocks(_) | Packed::Csr(_) => panic!("{} has no columns to choose from", self.format()),
        }
    }

    /// What one product reads of the matrix.
    pub fn bytes(&self) -> usize {
        match &self.packed {
            Packed::Dense(dense) => dense.bytes(),
            Packed::Blocks(blocks) => blocks.bytes(),
            Packed::Csr(csr) => csr.bytes(),
        }
    }

    /// `out[p] += M x[p]`; the `p`-th output begins at `p * out_stride`.
    ///
    /// # Panics
    /// Where `x` or `out` is shorter than that takes.
    pub fn add(&self, x: Vectors, out: &mut [f32], out_stride: usize, way: Way) {
        if x.count == 0 || self.rows == 0 {
            return;
        }
        let reach = |stride: usize, length: usize| {
            let last = (x.count - 1).checked_mul(stride).and_then(|last| last.checked_add(length));
            last.expect("more than memory can hold")
        };
        assert!(x.values.len() >= reach(x.stride, self.columns), "too few inputs");
        assert!(out.len() >= reach(out_stride, self.rows), "too few outputs");
        assert!(x.count == 1 || out_stride >= self.rows, "outputs that overlap");
        // SAFETY: lengths are checked above.
        unsafe {
            match &self.packed {
                Packed::Dense(dense) => dense.add(self.isa, x, out, out_stride, way),
                Packed::Blocks(blocks) => blocks.add(self.isa, x, out, out_stride, way),
                Packed::Csr(csr) => csr.add(self.isa, x, out, out_stride),
            }
        }
    }
}

/// Columns of a sparse format have numbers of 16 bits, and its entries of 32: no recurrent layer is larger than that.
fn fits_indices(rows: usize, columns: usize) -> bool {
    columns <= 1 << 16 && rows.checked_mul(columns).is_some_and(|cells| u32::try_from(cells).is_ok())
}

/// Formats worth trying for a matrix: one that stores no more than another and is as simple to go through leaves that one out.
pub fn candidates(rows: usize, columns: usize, values: &[f32]) -> Vec<Format> {
    if !fits_indices(rows, columns) || rows == 0 || columns == 0 {
        return vec![Format::Dense];
    }
    let cells = rows * columns;
    let filled = values.iter().filter(|value| **value != 0.0).count();
    // Nothing pays off with less than a quarter of zeros.
    if filled * 4 > cells * 3 {
        return vec![Format::Dense];
    }
    let mut formats = vec![Format::Dense];
    let mut stored = cells;
    for height in [16, 8, 4] {
        let blocks = blocks::count(height, rows, columns, values) * height;
        // A smaller block costs more instructions a value: it has to leave out a good part of what the larger one keeps.
        if blocks * 8 < stored * 7 {
            formats.push(Format::Blocks(height));
            stored = blocks;
        }
    }
    if filled * 4 < stored * 3 {
        formats.push(Format::Csr);
    }
    formats
}

impl Way {
    pub fn other(self) -> Way {
        match self {
            Way::Down => Way::Up,
            Way::Up => Way::Down,
        }
    }

    /// The `step`-th of `count` things.
    #[inline(always)]
    fn at(self, step: usize, count: usize) -> usize {
        match self {
            Way::Down => step,
            Way::Up => count - 1 - step,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
