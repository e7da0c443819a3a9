//! Blocks of 16, 8 or 4 rows in one column, stored as the number of the column and the weights. Nearly all of what is
//! read is weights, and a block takes one multiply-add a vector register.

use super::{
    dense::{add_rows, total},
    vectors::{GROUP, RowOrder, Vectors},
};
#[cfg(target_arch = "x86_64")]
use crate::simd::Set;
use crate::{
    aligned::Aligned,
    simd::{Isa, Kernel, Simd},
};

#[derive(Clone, Debug)]
pub(super) struct Blocks {
    height: usize,
    rows: usize,
    /// Band `b` of rows has the blocks from `starts[b]` to `starts[b + 1]`.
    starts: Vec<u32>,
    columns: Vec<u16>,
    /// `height` a block.
    values: Aligned,
}

/// Calls `f` with band and column of each block that is not all zero, band after band.
fn for_each(height: usize, rows: usize, columns: usize, values: &[f32], mut f: impl FnMut(usize, usize)) {
    for band in 0..rows.div_ceil(height) {
        let cells = &values[band * height * columns..rows.min((band + 1) * height) * columns];
        for column in 0..columns {
            if cells[column..].iter().step_by(columns).any(|cell| *cell != 0.0) {
                f(band, column);
            }
        }
    }
}

/// The number of blocks that are not all zero.
pub(super) fn count(height: usize, rows: usize, columns: usize, values: &[f32]) -> usize {
    let mut count = 0;
    for_each(height, rows, columns, values, |_, _| count += 1);
    count
}

impl Blocks {
    /// `columns` is at most 2^16, and 32 bits count the cells.
    pub fn new(height: usize, rows: usize, columns: usize, values: &[f32]) -> Blocks {
        assert!(matches!(height, 4 | 8 | GROUP), "blocks of {height} rows");
        let mut starts = vec![0; rows.div_ceil(height) + 1];
        let mut places = Vec::new();
        for_each(height, rows, columns, values, |band, column| {
            places.push(column as u16);
            starts[band + 1] += 1;
        });
        for band in 1..starts.len() {
            starts[band] += starts[band - 1];
        }
        let mut packed = Aligned::zeros(places.len() * height);
        let blocks = packed.as_mut_slice();
        for band in 0..rows.div_ceil(height) {
            for block in starts[band] as usize..starts[band + 1] as usize {
                let column = usize::from(places[block]);
                for row in 0..height.min(rows - band * height) {
                    blocks[block * height + row] = values[(band * height + row) * columns + column];
                }
            }
        }
        Blocks { height, rows, starts, columns: places, values: packed }
    }

    pub fn height(&self) -> usize {
        self.height
    }

    pub fn bytes(&self) -> usize {
        self.starts.len() * 4 + self.columns.len() * 2 + self.values.len() * 4
    }

    /// # Safety
    /// `x` and `out` are as long as the matrix and the strides require.
    pub unsafe fn add(&self, isa: Isa, x: Vectors, out: &mut [f32], out_stride: usize, order: RowOrder) {
        let add = Add { blocks: self, x, out: out.as_mut_ptr(), out_stride, order };
        match (self.height, isa.0) {
            #[cfg(target_arch = "x86_64")]
            (4, Set::Avx2 | Set::Avx512) => crate::simd::run_quarter(add),
            #[cfg(target_arch = "x86_64")]
            (8, Set::Avx512) => Isa(Set::Avx2).run(add),
            _ => isa.run(add),
        }
    }
}

struct Add<'a> {
    blocks: &'a Blocks,
    x: Vectors<'a>,
    out: *mut f32,
    out_stride: usize,
    order: RowOrder,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        match (self.blocks.height / S::LANES, S::REGISTERS >= 16) {
            (1, true) => self.bands::<S, 1, 8, 8>(),
            (2, true) => self.bands::<S, 2, 4, 4>(),
            (4, true) => self.bands::<S, 4, 2, 2>(),
            (1, false) => self.bands::<S, 1, 2, 1>(),
            (2, false) => self.bands::<S, 2, 1, 1>(),
            (4, false) => self.bands::<S, 4, 1, 1>(),
            _ => self.half_a_vector(),
        }
    }
}

impl Add<'_> {
    /// POSITIONS vectors at a time, and the rest one by one with SUMS sums each.
    #[inline(always)]
    unsafe fn bands<S: Simd, const VECTORS: usize, const SUMS: usize, const POSITIONS: usize>(&self) {
        let bands = self.blocks.starts.len() - 1;
        for step in 0..bands {
            let band = self.order.at(step, bands);
            let mut position = 0;
            while POSITIONS > 1 && self.x.count - position >= POSITIONS {
                self.tile::<S, VECTORS, POSITIONS>(band, position);
                position += POSITIONS;
            }
            while position < self.x.count {
                self.one::<S, VECTORS, SUMS>(band, position);
                position += 1;
            }
        }
    }

    /// One vector, with SUMS sums for each row, so that no addition waits for the one before.
    #[inline(always)]
    unsafe fn one<S: Simd, const VECTORS: usize, const SUMS: usize>(&self, band: usize, position: usize) {
        let height = self.blocks.height;
        let (start, end) = (self.blocks.starts[band] as usize, self.blocks.starts[band + 1] as usize);
        let mut weights = self.blocks.values.as_ptr().add(start * height);
        let mut columns = self.blocks.columns.as_ptr().add(start);
        let x = self.x.values.as_ptr().add(position * self.x.stride);
        let mut sums = [[S::splat(0.0); VECTORS]; SUMS];
        for _ in 0..(end - start) / SUMS {
            for (block, sums) in sums.iter_mut().enumerate() {
                let value = S::splat(*x.add(usize::from(*columns.add(block))));
                for (vector, total) in sums.iter_mut().enumerate() {
                    let weight = S::load(weights.add(block * VECTORS * S::LANES + vector * S::LANES));
                    *total = S::mul_add(weight, value, *total);
                }
            }
            weights = weights.add(SUMS * VECTORS * S::LANES);
            columns = columns.add(SUMS);
        }
        for block in 0..(end - start) % SUMS {
            let value = S::splat(*x.add(usize::from(*columns.add(block))));
            for (vector, total) in sums[0].iter_mut().enumerate() {
                let weight = S::load(weights.add(block * VECTORS * S::LANES + vector * S::LANES));
                *total = S::mul_add(weight, value, *total);
            }
        }
        let first = band * height;
        let out = self.out.add(position * self.out_stride + first);
        add_rows::<S, VECTORS>(out, total::<S, VECTORS>(&sums), self.blocks.rows - first);
    }

    /// POSITIONS vectors at once: a block's weights are loaded once for all of them.
    #[inline(always)]
    unsafe fn tile<S: Simd, const VECTORS: usize, const POSITIONS: usize>(&self, band: usize, position: usize) {
        let height = self.blocks.height;
        let (start, end) = (self.blocks.starts[band] as usize, self.blocks.starts[band + 1] as usize);
        let weights = self.blocks.values.as_ptr();
        let columns = self.blocks.columns.as_ptr();
        let x = self.x.values.as_ptr().add(position * self.x.stride);
        let stride = self.x.stride;
        let mut sums = [[S::splat(0.0); VECTORS]; POSITIONS];
        for block in start..end {
            let x = x.add(usize::from(*columns.add(block)));
            let mut loaded = [S::splat(0.0); VECTORS];
            for (vector, loaded) in loaded.iter_mut().enumerate() {
                *loaded = S::load(weights.add(block * VECTORS * S::LANES + vector * S::LANES));
            }
            for (position, sums) in sums.iter_mut().enumerate() {
                let value = S::splat(*x.add(position * stride));
                for (total, weight) in sums.iter_mut().zip(&loaded) {
                    *total = S::mul_add(*weight, value, *total);
                }
            }
        }
        let first = band * height;
        for (offset, totals) in sums.iter().enumerate() {
            let out = self.out.add((position + offset) * self.out_stride + first);
            add_rows::<S, VECTORS>(out, *totals, self.blocks.rows - first);
        }
    }

    /// Blocks that are smaller than a vector.
    #[inline(always)]
    unsafe fn half_a_vector(&self) {
        let height = self.blocks.height;
        for band in 0..self.blocks.starts.len() - 1 {
            let (start, end) = (self.blocks.starts[band] as usize, self.blocks.starts[band + 1] as usize);
            for position in 0..self.x.count {
                let x = self.x.values.as_ptr().add(position * self.x.stride);
                let mut totals = [0.0f32; 4];
                for block in start..end {
                    let value = *x.add(usize::from(*self.blocks.columns.as_ptr().add(block)));
                    let weights = self.blocks.values.as_ptr().add(block * height);
                    for (row, total) in totals.iter_mut().enumerate() {
                        *total += *weights.add(row) * value;
                    }
                }
                let first = band * height;
                let out = self.out.add(position * self.out_stride + first);
                for (row, total) in totals.iter().enumerate().take(self.blocks.rows - first) {
                    *out.add(row) += total;
                }
            }
        }
    }
}
