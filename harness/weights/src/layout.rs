//! Which cells of a matrix are stored: all of them, or those that are not zero, with an index of their places.
//!
//! Zero is `0.0` only. `-0.0` and NaN are stored like any value, so that decoding gives back what was encoded, bit for
//! bit.

mod bitmap;
mod csr;

use crate::{
    Channels, Matrix, WeightsError,
    bytes::{Reader, Streams},
};

pub use csr::Columns;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    Dense,
    /// Row starts and column indices.
    Csr,
    /// CSR of blocks of at most 256 x 256 cells. A whole block is stored if one of its cells is not zero.
    BlockCsr {
        rows: u16,
        columns: u16,
    },
    /// One bit a cell.
    Bitmap,
}

impl Layout {
    pub const MAX_BLOCK: u16 = 256;

    /// The size of the index in bytes, with `stored` cells (those of whole blocks in [`Layout::BlockCsr`]). `None`
    /// beyond u64.
    pub(crate) fn index_bytes(self, rows: u64, columns: u64, stored: u64) -> Option<u64> {
        let csr = |rows: u64, columns: u64, entries: u64| {
            let starts = rows.checked_add(1)?.checked_mul(4)?;
            starts.checked_add(entries.checked_mul(csr::index_width(columns))?)
        };
        match self {
            Layout::Dense => Some(0),
            Layout::Csr => csr(rows, columns, stored),
            Layout::BlockCsr { rows: height, columns: width } => {
                let cells = u64::from(height) * u64::from(width);
                csr(rows.div_ceil(height.into()), columns.div_ceil(width.into()), stored / cells)
            }
            Layout::Bitmap => Some(rows.checked_mul(columns)?.div_ceil(8)),
        }
    }

    /// An upper bound of bytes for the index of any matrix of this shape.
    pub(crate) fn most_index_bytes(self, rows: u64, columns: u64) -> Option<u64> {
        self.index_bytes(rows, columns, self.most_stored(rows, columns)?)
    }

    /// The most cells that can be stored: all, and the padding of blocks at the edges.
    pub(crate) fn most_stored(self, rows: u64, columns: u64) -> Option<u64> {
        match self {
            Layout::BlockCsr { rows: height, columns: width } => {
                let padded = |length: u64, block: u16| length.checked_next_multiple_of(block.into());
                padded(rows, height)?.checked_mul(padded(columns, width)?)
            }
            _ => rows.checked_mul(columns),
        }
    }
}

/// Where the stored cells are.
#[derive(Clone, Debug, PartialEq)]
pub enum Index {
    Dense,
    /// Row `r` has the cells from `row_starts[r]` to `row_starts[r + 1]`. Columns ascend within a row.
    Csr {
        row_starts: Vec<u32>,
        columns: Columns,
    },
    /// CSR of blocks of `height` x `width` cells, each stored row by row. Cells beyond the matrix's edge are zero.
    BlockCsr {
        height: usize,
        width: usize,
        row_starts: Vec<u32>,
        columns: Columns,
    },
    /// Cell `i` is stored where bit `i % 8` of byte `i / 8` is set.
    Bitmap {
        bits: Vec<u8>,
    },
}

impl Index {
    /// How many values are stored.
    pub fn stored(&self, rows: usize, columns: usize) -> usize {
        match self {
            Index::Dense => rows * columns,
            Index::Csr { columns, .. } => columns.len(),
            Index::BlockCsr { height, width, columns, .. } => columns.len() * height * width,
            Index::Bitmap { bits } => bitmap::count(bits),
        }
    }

    /// Calls `f` with the index into the values, row and column of each stored cell, in the order of the values,
    /// without cells that only pad a block.
    pub fn for_each(&self, rows: usize, columns: usize, mut f: impl FnMut(usize, usize, usize)) {
        match self {
            Index::Dense => {
                for row in 0..rows {
                    (0..columns).for_each(|column| f(row * columns + column, row, column));
                }
            }
            Index::Csr { row_starts, columns } => {
                csr::for_each(row_starts, columns, f);
            }
            Index::BlockCsr { height, width, row_starts, columns: places } => {
                csr::for_each(row_starts, places, |block, block_row, block_column| {
                    let (first_row, first_column) = (block_row * height, block_column * width);
                    let first = block * height * width;
                    for row in first_row..rows.min(first_row + height) {
                        for column in first_column..columns.min(first_column + width) {
                            f(first + (row - first_row) * width + column - first_column, row, column);
                        }
                    }
                });
            }
            Index::Bitmap { bits } => bitmap::for_each(bits, columns, f),
        }
    }

    pub(crate) fn write(&self, out: &mut Streams) {
        match self {
            Index::Dense => {}
            Index::Csr { row_starts, columns } | Index::BlockCsr { row_starts, columns, .. } => {
                csr::write(row_starts, columns, out);
            }
            Index::Bitmap { bits } => out.put(bits.iter().copied()),
        }
    }

    /// Reads what [`Index::write`] wrote, and checks that every cell is within the matrix and none is stored twice.
    pub(crate) fn read(layout: Layout, rows: usize, columns: usize, reader: &mut Reader) -> Result<Index, String> {
        match layout {
            Layout::Dense => Ok(Index::Dense),
            Layout::Csr => {
                let (row_starts, columns) = csr::read(rows, columns, reader)?;
                Ok(Index::Csr { row_starts, columns })
            }
            Layout::BlockCsr { rows: height, columns: width } => {
                let (height, width) = (usize::from(height), usize::from(width));
                let (row_starts, columns) = csr::read(rows.div_ceil(height), columns.div_ceil(width), reader)?;
                Ok(Index::BlockCsr { height, width, row_starts, columns })
            }
            Layout::Bitmap => Ok(Index::Bitmap { bits: bitmap::read(rows * columns, reader)? }),
        }
    }
}

/// A matrix as its stored cells. Kernels that skip zeros work on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    pub rows: usize,
    pub columns: usize,
    pub channels: Channels,
    pub index: Index,
    /// Of whole blocks in [`Index::BlockCsr`].
    pub values: Vec<f32>,
}

impl Sparse {
    /// # Errors
    /// [`WeightsError::TooManyValues`] where CSR's indices do not reach.
    pub fn new(layout: Layout, matrix: &Matrix) -> Result<Sparse, WeightsError> {
        let (index, values) = match layout {
            Layout::Dense => (Index::Dense, matrix.values.to_vec()),
            Layout::Csr => {
                let (row_starts, columns, values) = csr::find(matrix, 1, 1)?;
                (Index::Csr { row_starts, columns }, values)
            }
            Layout::BlockCsr { rows, columns } => {
                let (height, width) = (usize::from(rows), usize::from(columns));
                let (row_starts, columns, values) = csr::find(matrix, height, width)?;
                (Index::BlockCsr { height, width, row_starts, columns }, values)
            }
            Layout::Bitmap => {
                let (bits, values) = bitmap::find(matrix.values);
                (Index::Bitmap { bits }, values)
            }
        };
        Ok(Sparse { rows: matrix.rows, columns: matrix.columns, channels: matrix.channels, index, values })
    }

    /// The cells of the matrix `dense` that `index` stores.
    pub fn gathered(index: Index, rows: usize, columns: usize, channels: Channels, dense: &[f32]) -> Sparse {
        let mut values = vec![0.0; index.stored(rows, columns)];
        index.for_each(rows, columns, |place, row, column| values[place] = dense[row * columns + column]);
        Sparse { rows, columns, channels, index, values }
    }

    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.columns];
        self.index.for_each(self.rows, self.columns, |place, row, column| {
            dense[row * self.columns + column] = self.values[place];
        });
        dense
    }

    /// Swaps rows and columns, in the same layout. Blocks are transposed as well.
    pub fn transposed(&self) -> Sparse {
        let (rows, columns) = (self.columns, self.rows);
        let (index, values) = match &self.index {
            Index::Dense => (Index::Dense, self.transposed_cells()),
            Index::Csr { row_starts, columns: places } => {
                let (row_starts, places, order) = csr::transpose(row_starts, places, rows, columns);
                let values = order.iter().map(|entry| self.values[*entry as usize]).collect();
                (Index::Csr { row_starts, columns: places }, values)
            }
            Index::BlockCsr { height, width, row_starts, columns: places } => {
                let (block_rows, block_columns) = (rows.div_ceil(*width), columns.div_ceil(*height));
                let (row_starts, places, order) = csr::transpose(row_starts, places, block_rows, block_columns);
                let mut values = Vec::with_capacity(self.values.len());
                for entry in order {
                    let block = &self.values[entry as usize * height * width..][..height * width];
                    (0..*width).for_each(|column| values.extend(block.iter().skip(column).step_by(*width)));
                }
                (Index::BlockCsr { height: *width, width: *height, row_starts, columns: places }, values)
            }
            Index::Bitmap { .. } => {
                let (bits, values) = bitmap::find(&self.transposed_cells());
                (Index::Bitmap { bits }, values)
            }
        };
        let channels = self.channels.pick(Channels::Columns, Channels::Rows);
        Sparse { rows, columns, channels, index, values }
    }

    /// All cells of the transposed matrix.
    fn transposed_cells(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.columns];
        self.index.for_each(self.rows, self.columns, |place, row, column| {
            dense[column * self.rows + row] = self.values[place];
        });
        dense
    }
}
