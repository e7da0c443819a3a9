//! Single cells, row after row. With one vector, a row is a sum of products, in several sums so that no addition waits
//! for the one before. Many vectors are transposed first, so that a cell multiplies a whole register of them.

use super::vectors::{GROUP, Vectors};
use crate::{
    aligned::Aligned,
    simd::{Isa, Kernel, Simd},
};

#[derive(Clone, Debug)]
pub(super) struct Csr {
    rows: usize,
    width: usize,
    starts: Vec<u32>,
    columns: Vec<u16>,
    values: Vec<f32>,
}

/// From this many vectors on it pays off to transpose them.
const MANY: usize = 8;
/// Vectors that are transposed at a time.
const TILE: usize = 64;

impl Csr {
    /// `columns` is at most 2^16, and 32 bits count the cells.
    pub fn new(rows: usize, columns: usize, cells: &[f32]) -> Csr {
        let mut starts = vec![0];
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for (column, cell) in cells[row * columns..(row + 1) * columns].iter().enumerate() {
                if *cell != 0.0 {
                    places.push(column as u16);
                    values.push(*cell);
                }
            }
            starts.push(values.len() as u32);
        }
        Csr { rows, width: columns, starts, columns: places, values }
    }

    pub fn bytes(&self) -> usize {
        self.starts.len() * 4 + self.columns.len() * 2 + self.values.len() * 4
    }

    /// # Safety
    /// `x` and `out` are as long as the matrix and the strides require.
    pub unsafe fn add(&self, isa: Isa, x: Vectors, out: &mut [f32], out_stride: usize) {
        if x.count < MANY {
            for position in 0..x.count {
                self.one(&x.values[position * x.stride..], &mut out[position * out_stride..])
            }
            return;
        }
        let mut transposed = Aligned::zeros(TILE * self.width);
        for first in (0..x.count).step_by(TILE) {
            let count = TILE.min(x.count - first);
            let to = transposed.as_mut_slice();
            for position in 0..count {
                let from = &x.values[(first + position) * x.stride..][..self.width];
                for (column, value) in from.iter().enumerate() {
                    to[column * TILE + position] = *value;
                }
            }
            let out = out[first * out_stride..].as_mut_ptr();
            isa.run(Tile { csr: self, transposed: &transposed, out, out_stride, count })
        }
    }

    /// # Safety
    /// `x` is as long as the matrix is wide, `out` as it is high.
    unsafe fn one(&self, x: &[f32], out: &mut [f32]) {
        const SUMS: usize = 4;
        for (row, out) in out[..self.rows].iter_mut().enumerate() {
            let (start, end) = (self.starts[row] as usize, self.starts[row + 1] as usize);
            let (columns, values) = (&self.columns[start..end], &self.values[start..end]);
            let product = |column: u16, value: f32| value * x.get_unchecked(usize::from(column));
            let mut sums = [0.0f32; SUMS];
            let (columns, last_columns) = columns.as_chunks::<SUMS>();
            let (values, last_values) = values.as_chunks::<SUMS>();
            for (columns, values) in columns.iter().zip(values) {
                for sum in 0..SUMS {
                    sums[sum] += product(columns[sum], values[sum]);
                }
            }
            for (column, value) in last_columns.iter().zip(last_values) {
                sums[0] += product(*column, *value);
            }
            *out += (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
}

/// `transposed` has TILE values a column; the first `count` of them are used.
struct Tile<'a> {
    csr: &'a Csr,
    transposed: &'a [f32],
    out: *mut f32,
    out_stride: usize,
    count: usize,
}

impl Kernel for Tile<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // The sums of 16 rows, which are then written a cache line at a time.
        let mut sums = [0.0f32; GROUP * TILE];
        let rows = self.csr.rows;
        for group in (0..rows).step_by(GROUP) {
            let height = GROUP.min(rows - group);
            for row in 0..height {
                let to = sums.as_mut_ptr().add(row * TILE);
                let mut position = 0;
                while position < self.count {
                    if S::LANES * 4 <= TILE && position + S::LANES < self.count {
                        self.row::<S, 4>(group + row, position, to);
                        position += S::LANES * 4;
                    } else {
                        self.row::<S, 1>(group + row, position, to);
                        position += S::LANES;
                    }
                }
            }
            for position in 0..self.count {
                let out = self.out.add(position * self.out_stride + group);
                for row in 0..height {
                    *out.add(row) += sums[row * TILE + position];
                }
            }
        }
    }
}

impl Tile<'_> {
    /// One row times VECTORS vectors of positions from `position` on. Results beyond `count` are meaningless.
    #[inline(always)]
    unsafe fn row<S: Simd, const VECTORS: usize>(&self, row: usize, position: usize, to: *mut f32) {
        let (start, end) = (self.csr.starts[row] as usize, self.csr.starts[row + 1] as usize);
        let x = self.transposed.as_ptr().add(position);
        let mut totals = [S::splat(0.0); VECTORS];
        for cell in start..end {
            let x = x.add(usize::from(*self.csr.columns.as_ptr().add(cell)) * TILE);
            let value = S::splat(*self.csr.values.as_ptr().add(cell));
            for (vector, total) in totals.iter_mut().enumerate() {
                *total = S::mul_add(S::load(x.add(vector * S::LANES)), value, *total);
            }
        }
        for (vector, total) in totals.into_iter().enumerate() {
            S::store(to.add(position + vector * S::LANES), total);
        }
    }
}
