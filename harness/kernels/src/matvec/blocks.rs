//! Blocks of 16, 8 or 4 rows in one column: the number of the column and the weights, block after block. Of what is read nearly all is weights, and a
//! block is one multiply-add a vector.

use super::{GROUP, Vectors, Way, dense::add_rows};
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
    /// The blocks of band `b` of rows are those from `starts[b]` to `starts[b + 1]`.
    starts: Vec<u32>,
    columns: Vec<u16>,
    /// `height` a block.
    values: Aligned,
}

/// Calls `f` with band and column of each block with anything in it, band after band.
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

/// How many blocks have anything in them.
pub(super) fn count(height: usize, rows: usize, columns: usize, values: &[f32]) -> usize {
    let mut count = 0;
    for_each(height, rows, columns, values, |_, _| count += 1);
    count
}

impl Blocks {
    /// `columns` is at most 2^16.
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
    /// The processor has `isa`; `x` and `out` are as long as the matrix and their strides ask.
    pub unsafe fn add(&self, isa: Isa, x: Vectors, out: &mut [f32], out_stride: usize, way: Way) {
        let add = Add { blocks: self, x, out: out.as_mut_ptr(), out_stride, way };
        // SAFETY: passed on; whoever has vectors of 16 has those of 8 and 4 as well.
        unsafe {
            match (self.height, isa.0) {
                #[cfg(target_arch = "x86_64")]
                (4, Set::Avx2 | Set::Avx512) => crate::simd::run_quarter(add),
                #[cfg(target_arch = "x86_64")]
                (8, Set::Avx512) => Isa(Set::Avx2).run(add),
                _ => isa.run(add),
            }
        }
    }
}

struct Add<'a> {
    blocks: &'a Blocks,
    x: Vectors<'a>,
    out: *mut f32,
    out_stride: usize,
    way: Way,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on; a block is as many vectors.
        unsafe {
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
}

impl Add<'_> {
    /// With POSITIONS vectors at a time as long as there are, and SUMS sums for the rest.
    #[inline(always)]
    unsafe fn bands<S: Simd, const VECTORS: usize, const SUMS: usize, const POSITIONS: usize>(&self) {
        let bands = self.blocks.starts.len() - 1;
        for step in 0..bands {
            let band = self.way.at(step, bands);
            let mut position = 0;
            // SAFETY: the caller's lengths hold for each band and vector.
            unsafe {
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
    }

    /// One vector, with several sums for each place.
    #[inline(always)]
    unsafe fn one<S: Simd, const VECTORS: usize, const SUMS: usize>(&self, band: usize, position: usize) {
        unsafe {
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
            let mut totals = sums[0];
            for sums in &sums[1..] {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total = S::add(*total, *sum);
                }
            }
            let first = band * height;
            let out = self.out.add(position * self.out_stride + first);
            add_rows::<S, VECTORS>(out, totals, self.blocks.rows - first);
        }
    }

    /// Several vectors at once: a block's weights are loaded once for all of them.
    #[inline(always)]
    unsafe fn tile<S: Simd, const VECTORS: usize, const POSITIONS: usize>(&self, band: usize, position: usize) {
        unsafe {
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
    }

    /// Blocks of four where vectors have eight lanes: arrays of four.
    #[inline(always)]
    unsafe fn half_a_vector(&self) {
        unsafe {
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
}
