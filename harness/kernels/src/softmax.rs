//! Softmax down the columns of a table. Keys are rows and queries are columns, so that no sum crosses the lanes of a
//! vector.

use crate::{
    activations::exp,
    simd::{Kernel, Simd},
};

/// Added to scores before the softmax: `values[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Added {
    pub values: *const f32,
    pub row_stride: usize,
    /// 0 or 1.
    pub column_stride: usize,
}

/// Replaces each score `x` by e^(scale x + added - the column's largest), and writes the sum of each column, which it
/// still has to be divided by, to `sums`.
///
/// # Safety
/// `table` has `rows` of `columns` values, `sums` `columns`; `columns` is a multiple of 16.
pub(crate) struct Exponents {
    pub table: *mut f32,
    pub rows: usize,
    pub columns: usize,
    pub scale: f32,
    pub added: Option<Added>,
    pub sums: *mut f32,
}

impl Kernel for Exponents {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Exponents { table, rows, columns, scale, added, sums } = self;
        let mut done = 0;
        while done < columns {
            // A closure, but it only computes an address.
            let added = added.map(|added| Added { values: added.values.add(done * added.column_stride), ..added });
            let (table, sums) = (table.add(done), sums.add(done));
            if columns - done >= 4 * S::LANES {
                some::<S, 4>(table, rows, columns, scale, added, sums);
                done += 4 * S::LANES;
            } else {
                some::<S, 1>(table, rows, columns, scale, added, sums);
                done += S::LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn some<S: Simd, const C: usize>(
    table: *mut f32,
    rows: usize,
    stride: usize,
    scale: f32,
    added: Option<Added>,
    sums: *mut f32,
) {
    let scale = S::splat(scale);
    let mut largest = [S::splat(f32::NEG_INFINITY); C];
    for row in 0..rows {
        for vector in 0..C {
            let at = table.add(row * stride + vector * S::LANES);
            let score = match added {
                None => S::mul(S::load(at), scale),
                Some(Added { values, row_stride, column_stride: 0 }) => {
                    S::mul_add(S::load(at), scale, S::splat(*values.add(row * row_stride)))
                }
                Some(Added { values, row_stride, .. }) => {
                    S::mul_add(S::load(at), scale, S::load(values.add(row * row_stride + vector * S::LANES)))
                }
            };
            S::store(at, score);
            largest[vector] = S::max(largest[vector], score);
        }
    }
    let mut total = [S::splat(0.0); C];
    for row in 0..rows {
        for vector in 0..C {
            let at = table.add(row * stride + vector * S::LANES);
            let value = exp::<S>(S::sub(S::load(at), largest[vector]));
            S::store(at, value);
            total[vector] = S::add(total[vector], value);
        }
    }
    for vector in 0..C {
        S::store(sums.add(vector * S::LANES), total[vector]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{simd::Isa, testing::synthetic};

    fn exact(scores: &[f64]) -> Vec<f64> {
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    proptest! {
        #[test]
        fn columns_are_their_softmax(
            rows in 1usize..40,
            vectors in 1usize..5,
            scale in 0.1f32..60.0,
            // Adds nothing, a value a row, or a value a cell.
            adds in 0usize..3,
        ) {
            let columns = 16 * vectors;
            let scores = synthetic(rows * columns, 5);
            let values = synthetic(rows * columns, 6);
            let (row_stride, column_stride) = if adds == 2 { (columns, 1) } else { (1, 0) };
            let added = (adds > 0).then_some(Added { values: values.as_ptr(), row_stride, column_stride });
            for isa in Isa::available() {
                let (mut table, mut sums) = (scores.clone(), vec![f32::NAN; columns]);
                let (table_pointer, sums_pointer) = (table.as_mut_ptr(), sums.as_mut_ptr());
                // SAFETY: the processor has `isa`; the table has `rows` of `columns`, a multiple of 16.
                unsafe {
                    isa.run(Exponents { table: table_pointer, rows, columns, scale, added, sums: sums_pointer });
                }
                for column in 0..columns {
                    let at = |row: usize| row * row_stride + column * column_stride;
                    let more = |row: usize| if adds > 0 { f64::from(values[at(row)]) } else { 0.0 };
                    let score = |row: usize| f64::from(scores[row * columns + column]) * f64::from(scale) + more(row);
                    let exact = exact(&(0..rows).map(score).collect::<Vec<f64>>());
                    for row in 0..rows {
                        let found = f64::from(table[row * columns + column] / sums[column]);
                        prop_assert!((exact[row] - found).abs() <= 1e-5, "{} {found}, not {}", isa.name(), exact[row]);
                    }
                }
            }
        }
    }
}
