//! A matrix times one vector or a few: what a recurrent layer does at each step, and with its inputs for all steps at
//! once.
//!
//! `out[p] += M x[p]` for each vector `p`. Vectors are rows of memory, as are the steps of a sequence. The lanes of a
//! vector register are rows of M, so that one packed form serves one vector (bound by memory) as well as many (bound by
//! arithmetic), and no input is transposed. Groups of 16 rows follow one another, column after column within a group:
//! the weights are one stream. The caller measures which of the [`candidates`] is the fastest for a matrix.

mod blocks;
mod csr;
mod dense;
mod vectors;

use std::fmt;

use self::{blocks::Blocks, csr::Csr, dense::Dense};
use crate::simd::Isa;

pub use self::vectors::{RowOrder, Vectors};

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Dense,
    /// Blocks of 16, 8 or 4 rows in one column. Blocks of zeros are left out.
    Blocks(usize),
    /// Single cells that are not zero, row after row.
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

/// A matrix packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    isa: Isa,
    cells: Cells,
}

#[derive(Clone, Debug)]
enum Cells {
    Dense(Dense),
    Blocks(Blocks),
    Csr(Csr),
}

impl PackedMatrix {
    /// `values` is the matrix row after row.
    ///
    /// # Panics
    /// Unless there are `rows * columns` values.
    pub fn new(isa: Isa, format: Format, rows: usize, columns: usize, values: &[f32]) -> PackedMatrix {
        assert_eq!(rows.checked_mul(columns), Some(values.len()), "{rows} x {columns} values");
        let cells = match format {
            Format::Blocks(height) if fits_indices(rows, columns) => {
                Cells::Blocks(Blocks::new(height, rows, columns, values))
            }
            Format::Csr if fits_indices(rows, columns) => Cells::Csr(Csr::new(rows, columns, values)),
            _ => Cells::Dense(Dense::new(rows, columns, values)),
        };
        PackedMatrix { rows, columns, isa, cells }
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
        match &self.cells {
            Cells::Dense(_) => Format::Dense,
            Cells::Blocks(blocks) => Format::Blocks(blocks.height()),
            Cells::Csr(_) => Format::Csr,
        }
    }

    /// Whether the format has columns for [`PackedMatrix::add_columns`].
    pub fn has_columns(&self) -> bool {
        matches!(self.cells, Cells::Dense(_))
    }

    /// Adds some columns, each times its value, to `out`: the product with a vector that is zero elsewhere.
    ///
    /// # Panics
    /// Unless there is a value for each column, the matrix has every column, `out` is long enough, and
    /// [`PackedMatrix::has_columns`].
    pub fn add_columns(&self, columns: &[u32], values: &[f32], out: &mut [f32]) {
        assert_eq!(columns.len(), values.len());
        assert!(columns.iter().all(|column| (*column as usize) < self.columns), "a column beyond the matrix");
        assert!(out.len() >= self.rows, "too few outputs");
        match &self.cells {
            // SAFETY: checked above.
            Cells::Dense(dense) => unsafe { dense.add_columns(self.isa, columns, values, out) },
            Cells::Blocks(_) | Cells::Csr(_) => panic!("{} has no columns to choose from", self.format()),
        }
    }

    /// Bytes of the matrix that one product reads.
    pub fn bytes(&self) -> usize {
        match &self.cells {
            Cells::Dense(dense) => dense.bytes(),
            Cells::Blocks(blocks) => blocks.bytes(),
            Cells::Csr(csr) => csr.bytes(),
        }
    }

    /// `out[p] += M x[p]`; the `p`-th output begins at `p * out_stride`.
    ///
    /// # Panics
    /// Where `x` or `out` is shorter than that takes.
    pub fn add(&self, x: Vectors, out: &mut [f32], out_stride: usize, order: RowOrder) {
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
            match &self.cells {
                Cells::Dense(dense) => dense.add(self.isa, x, out, out_stride, order),
                Cells::Blocks(blocks) => blocks.add(self.isa, x, out, out_stride, order),
                Cells::Csr(csr) => csr.add(self.isa, x, out, out_stride),
            }
        }
    }
}

/// Columns of a sparse format have numbers of 16 bits, and its entries of 32: no recurrent layer is larger than that.
fn fits_indices(rows: usize, columns: usize) -> bool {
    columns <= 1 << 16 && rows.checked_mul(columns).is_some_and(|cells| u32::try_from(cells).is_ok())
}

/// Formats worth trying for a matrix: a format with more instructions per value has to store clearly fewer values than
/// the ones before it.
pub fn candidates(rows: usize, columns: usize, values: &[f32]) -> Vec<Format> {
    if !fits_indices(rows, columns) || rows == 0 || columns == 0 {
        return vec![Format::Dense];
    }
    let cells = rows * columns;
    let filled = values.iter().filter(|value| **value != 0.0).count();
    // With fewer than a quarter of zeros, nothing is faster than dense.
    if filled * 4 > cells * 3 {
        return vec![Format::Dense];
    }
    let mut formats = vec![Format::Dense];
    let mut stored = cells;
    for height in [16, 8, 4] {
        let blocks = blocks::count(height, rows, columns, values) * height;
        // A smaller block costs more instructions per value: it has to leave out an eighth of what the larger one
        // stores.
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

#[cfg(test)]
mod tests;
