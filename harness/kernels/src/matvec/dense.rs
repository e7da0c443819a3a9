//! All cells. With one vector the weights are read once, 16 rows at a time, into several sums so that no addition waits
//! for the one before. With many vectors a tile of sums stays in registers, and a group's weights, which fit the
//! second-level cache, are used for all vectors.

use super::vectors::{GROUP, RowOrder, Vectors};
use crate::{
    aligned::Aligned,
    simd::{Isa, Kernel, Simd},
};

#[derive(Clone, Debug)]
pub(super) struct Dense {
    rows: usize,
    columns: usize,
    /// Group after group, column after column, 16 rows.
    values: Aligned,
}

impl Dense {
    pub fn new(rows: usize, columns: usize, values: &[f32]) -> Dense {
        let groups = rows.div_ceil(GROUP);
        let mut packed = Aligned::zeros(groups * columns * GROUP);
        if columns > 0 {
            for (row, cells) in values.chunks_exact(columns).enumerate() {
                let first = row / GROUP * columns * GROUP + row % GROUP;
                for (column, cell) in cells.iter().enumerate() {
                    packed.as_mut_slice()[first + column * GROUP] = *cell;
                }
            }
        }
        Dense { rows, columns, values: packed }
    }

    pub fn bytes(&self) -> usize {
        self.values.len() * 4
    }

    /// # Safety
    /// `x` and `out` are as long as the matrix and the strides require.
    pub unsafe fn add(&self, isa: Isa, x: Vectors, out: &mut [f32], out_stride: usize, order: RowOrder) {
        isa.run(Add { dense: self, x, out: out.as_mut_ptr(), out_stride, order })
    }

    /// # Safety
    /// There are as many values as columns, the matrix has all of these columns, and there is an output for each row.
    pub unsafe fn add_columns(&self, isa: Isa, columns: &[u32], values: &[f32], out: &mut [f32]) {
        isa.run(SomeColumns { dense: self, columns, values, out: out.as_mut_ptr() })
    }
}

/// Some columns of a matrix, each times its value.
struct SomeColumns<'a> {
    dense: &'a Dense,
    columns: &'a [u32],
    values: &'a [f32],
    out: *mut f32,
}

impl Kernel for SomeColumns<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let groups = self.dense.rows.div_ceil(GROUP);
        for group in 0..groups {
            match (GROUP / S::LANES, S::REGISTERS >= 16) {
                (1, _) => self.group::<S, 1, 4>(group),
                (2, true) => self.group::<S, 2, 2>(group),
                (2, false) => self.group::<S, 2, 1>(group),
                _ => self.group::<S, 4, 1>(group),
            }
        }
    }
}

impl SomeColumns<'_> {
    #[inline(always)]
    unsafe fn group<S: Simd, const VECTORS: usize, const SUMS: usize>(&self, group: usize) {
        let weights = self.dense.values.as_ptr().add(group * self.dense.columns * GROUP);
        let (columns, values) = (self.columns.as_ptr(), self.values.as_ptr());
        let mut sums = [[S::splat(0.0); VECTORS]; SUMS];
        let whole = self.columns.len() / SUMS * SUMS;
        let mut at = 0;
        while at < self.columns.len() {
            let count = if at < whole { SUMS } else { 1 };
            for sum in 0..SUMS {
                if sum < count {
                    let weights = weights.add(*columns.add(at + sum) as usize * GROUP);
                    let value = S::splat(*values.add(at + sum));
                    for vector in 0..VECTORS {
                        let weight = S::load(weights.add(vector * S::LANES));
                        sums[sum][vector] = S::mul_add(weight, value, sums[sum][vector]);
                    }
                }
            }
            at += count;
        }
        let row = group * GROUP;
        add_rows::<S, VECTORS>(self.out.add(row), total::<S, VECTORS>(&sums), self.dense.rows - row);
    }
}

struct Add<'a> {
    dense: &'a Dense,
    x: Vectors<'a>,
    out: *mut f32,
    out_stride: usize,
    order: RowOrder,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let groups = self.dense.rows.div_ceil(GROUP);
        if self.x.count == 1 {
            // Several groups are several streams, of which more are in flight from the third-level cache at a time.
            match (GROUP / S::LANES, S::REGISTERS >= 16) {
                (1, _) => self.one_vector::<S, 4, 1, 2>(groups),
                (2, true) => self.one_vector::<S, 4, 2, 1>(groups),
                (2, false) => self.one_vector::<S, 1, 2, 1>(groups),
                (_, true) => self.one_vector::<S, 1, 4, 2>(groups),
                (_, false) => self.one_vector::<S, 1, 4, 1>(groups),
            }
            return;
        }
        // Two groups at once where the registers hold the sums of both.
        let pair = S::LANES == GROUP;
        let mut group = 0;
        while group < groups {
            if pair && group + 2 <= groups {
                self.all_positions::<S, 2>(group);
                group += 2;
            } else {
                self.all_positions::<S, 1>(group);
                group += 1;
            }
        }
    }
}

impl Add<'_> {
    /// One vector, all groups of rows.
    #[inline(always)]
    unsafe fn one_vector<S: Simd, const GROUPS: usize, const VECTORS: usize, const SUMS: usize>(&self, groups: usize) {
        let whole = groups / GROUPS;
        // The groups that are left over are the last ones in memory.
        if self.order == RowOrder::Up {
            (whole * GROUPS..groups).for_each(|group| self.groups::<S, 1, VECTORS, SUMS>(group));
        }
        for step in 0..whole {
            self.groups::<S, GROUPS, VECTORS, SUMS>(self.order.at(step, whole) * GROUPS);
        }
        if self.order == RowOrder::Down {
            (whole * GROUPS..groups).for_each(|group| self.groups::<S, 1, VECTORS, SUMS>(group));
        }
    }

    /// One vector and GROUPS groups, with SUMS sums for each row.
    #[inline(always)]
    unsafe fn groups<S: Simd, const GROUPS: usize, const VECTORS: usize, const SUMS: usize>(&self, first: usize) {
        let columns = self.dense.columns;
        let size = columns * GROUP;
        let mut weights = self.dense.values.as_ptr().add(first * size);
        let mut x = self.x.values.as_ptr();
        let mut sums = [[[S::splat(0.0); VECTORS]; SUMS]; GROUPS];
        for _ in 0..columns / SUMS {
            for sum in 0..SUMS {
                let value = S::splat(*x.add(sum));
                for group in 0..GROUPS {
                    for vector in 0..VECTORS {
                        let weight = S::load(weights.add(group * size + sum * GROUP + vector * S::LANES));
                        sums[group][sum][vector] = S::mul_add(weight, value, sums[group][sum][vector]);
                    }
                }
            }
            weights = weights.add(SUMS * GROUP);
            x = x.add(SUMS);
        }
        for column in 0..columns % SUMS {
            let value = S::splat(*x.add(column));
            for group in 0..GROUPS {
                for vector in 0..VECTORS {
                    let weight = S::load(weights.add(group * size + column * GROUP + vector * S::LANES));
                    sums[group][0][vector] = S::mul_add(weight, value, sums[group][0][vector]);
                }
            }
        }
        for (group, sums) in sums.iter().enumerate() {
            let row = (first + group) * GROUP;
            add_rows::<S, VECTORS>(self.out.add(row), total::<S, VECTORS>(sums), self.dense.rows - row);
        }
    }

    /// All vectors, with GROUPS groups of rows.
    #[inline(always)]
    unsafe fn all_positions<S: Simd, const GROUPS: usize>(&self, group: usize) {
        let mut position = 0;
        let count = self.x.count;
        macro_rules! tiles {
                ($vectors:literal: $($positions:literal)*) => {{
                    $(while count - position >= $positions {
                        self.tile::<S, GROUPS, $vectors, $positions>(group, position);
                        position += $positions;
                    })*
                }};
            }
        match (GROUP / S::LANES, S::REGISTERS) {
            (1, _) => tiles!(1: 12 4 2 1),
            (2, 16..) => tiles!(2: 6 4 2 1),
            (2, _) => tiles!(2: 1),
            (_, 32..) => tiles!(4: 6 4 2 1),
            _ => tiles!(4: 1),
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const GROUPS: usize, const VECTORS: usize, const POSITIONS: usize>(
        &self,
        group: usize,
        position: usize,
    ) {
        let columns = self.dense.columns;
        let weights = self.dense.values.as_ptr().add(group * columns * GROUP);
        let x = self.x.values.as_ptr().add(position * self.x.stride);
        let stride = self.x.stride;
        let mut sums = [[[S::splat(0.0); VECTORS]; GROUPS]; POSITIONS];
        for column in 0..columns {
            let mut loaded = [[S::splat(0.0); VECTORS]; GROUPS];
            for (group, loaded) in loaded.iter_mut().enumerate() {
                for (vector, loaded) in loaded.iter_mut().enumerate() {
                    *loaded = S::load(weights.add((group * columns + column) * GROUP + vector * S::LANES));
                }
            }
            for (position, sums) in sums.iter_mut().enumerate() {
                let value = S::splat(*x.add(position * stride + column));
                for (sums, loaded) in sums.iter_mut().zip(&loaded) {
                    for (total, weight) in sums.iter_mut().zip(loaded) {
                        *total = S::mul_add(*weight, value, *total);
                    }
                }
            }
        }
        for (offset, sums) in sums.iter().enumerate() {
            for (next, totals) in sums.iter().enumerate() {
                let first = (group + next) * GROUP;
                let out = self.out.add((position + offset) * self.out_stride + first);
                add_rows::<S, VECTORS>(out, *totals, self.dense.rows - first);
            }
        }
    }
}

/// The sum of several sums of the same rows.
#[inline(always)]
pub(super) unsafe fn total<S: Simd, const VECTORS: usize>(sums: &[[S::V; VECTORS]]) -> [S::V; VECTORS] {
    let mut totals = sums[0];
    for sums in &sums[1..] {
        for vector in 0..VECTORS {
            totals[vector] = S::add(totals[vector], sums[vector]);
        }
    }
    totals
}

/// Adds the totals of a group, or of a block, to `out`, of which `rows` rows are left.
///
/// # Safety
/// As for [`Simd`]; `out` has `rows` values or as many as the totals.
#[inline(always)]
pub(super) unsafe fn add_rows<S: Simd, const VECTORS: usize>(out: *mut f32, totals: [S::V; VECTORS], rows: usize) {
    for (vector, total) in totals.into_iter().enumerate() {
        let first = vector * S::LANES;
        let out = out.add(first);
        if first + S::LANES <= rows {
            S::store(out, S::add(S::load(out), total));
        } else if first < rows {
            let count = rows - first;
            S::store_partial(out, S::add(S::load_partial(out, count), total), count);
        }
    }
}
