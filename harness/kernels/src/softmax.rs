//! Softmax down the rows of a table, a column for itself: keys are rows and queries columns, so that no sum crosses the lanes of a vector.

use crate::{
    activations::exp,
    simd::{Isa, Kernel, Simd},
};

/// What is added to scores before they are compared: `values[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Added {
    pub values: *const f32,
    pub row_stride: usize,
    /// 0 or 1.
    pub column_stride: usize,
}

/// In place: e^(scale x + added - the column's largest). `sums` gets what the columns are to be divided by.
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
            unsafe {
                // A closure, but of an address alone.
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
    unsafe {
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
}

/// Softmax down the columns of `table`, `columns` values a row; any number of both.
///
/// # Panics
/// Unless `table` is whole rows.
pub fn softmax_columns(isa: Isa, columns: usize, table: &mut [f32]) {
    assert!(columns > 0 && table.len().is_multiple_of(columns));
    // SAFETY: the processor has `isa`'s instructions; the table is whole.
    unsafe { isa.run(Columns { table: table.as_mut_ptr(), rows: table.len() / columns, columns }) }
}

struct Columns {
    table: *mut f32,
    rows: usize,
    columns: usize,
}

impl Kernel for Columns {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Columns { table, rows, columns } = self;
        let mut done = 0;
        while done < columns {
            let some = S::LANES.min(columns - done);
            unsafe {
                let table = table.add(done);
                let mut largest = S::splat(f32::NEG_INFINITY);
                for row in 0..rows {
                    largest = S::max(largest, S::load_partial(table.add(row * columns), some));
                }
                let mut total = S::splat(0.0);
                for row in 0..rows {
                    let at = table.add(row * columns);
                    let value = exp::<S>(S::sub(S::load_partial(at, some), largest));
                    S::store_partial(at, value, some);
                    total = S::add(total, value);
                }
                let factor = S::div(S::splat(1.0), total);
                for row in 0..rows {
                    let at = table.add(row * columns);
                    S::store_partial(at, S::mul(S::load_partial(at, some), factor), some);
                }
            }
            done += some;
        }
    }
}

/// Softmax along each row of `columns` values, in place.
///
/// # Panics
/// Unless `table` is whole rows.
pub fn softmax_rows(isa: Isa, columns: usize, table: &mut [f32]) {
    assert!(columns > 0 && table.len().is_multiple_of(columns));
    // SAFETY: the processor has `isa`'s instructions; the table is whole.
    unsafe { isa.run(Rows { table: table.as_mut_ptr(), rows: table.len() / columns, columns }) }
}

struct Rows {
    table: *mut f32,
    rows: usize,
    columns: usize,
}

impl Kernel for Rows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let columns = self.columns;
        let whole = columns - columns % S::LANES;
        let rest = columns - whole;
        for row in 0..self.rows {
            unsafe {
                let row = self.table.add(row * columns);
                let mut largest = S::splat(f32::NEG_INFINITY);
                let mut at = 0;
                while at < whole {
                    largest = S::max(largest, S::load(row.add(at)));
                    at += S::LANES;
                }
                let mut most = S::largest(largest);
                for column in whole..columns {
                    let value = *row.add(column);
                    most = if value > most { value } else { most };
                }
                let most = S::splat(most);
                let mut total = S::splat(0.0);
                at = 0;
                while at < whole {
                    let value = exp::<S>(S::sub(S::load(row.add(at)), most));
                    S::store(row.add(at), value);
                    total = S::add(total, value);
                    at += S::LANES;
                }
                let mut sum = S::sum(total);
                if rest > 0 {
                    let value = exp::<S>(S::sub(S::load_partial(row.add(whole), rest), most));
                    S::store_partial(row.add(whole), value, rest);
                    sum += S::sum(S::load_partial(row.add(whole), rest));
                }
                let factor = S::splat(1.0 / sum);
                at = 0;
                while at < whole {
                    S::store(row.add(at), S::mul(S::load(row.add(at)), factor));
                    at += S::LANES;
                }
                if rest > 0 {
                    S::store_partial(row.add(whole), S::mul(S::load_partial(row.add(whole), rest), factor), rest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::linear_panels::tests::made_up;

    fn exact(values: &[f32]) -> Vec<f64> {
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = values.iter().map(|value| f64::from(value - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    proptest! {
        #[test]
        fn rows_and_columns_sum_to_one(rows in 1usize..40, columns in 1usize..70, spread in 0.1f32..60.0) {
            let table: Vec<f32> = made_up(rows * columns, 5).iter().map(|value| value * spread).collect();
            for isa in Isa::available() {
                let mut found = table.clone();
                softmax_rows(isa, columns, &mut found);
                for (row, found) in table.chunks(columns).zip(found.chunks(columns)) {
                    for (exact, found) in exact(row).iter().zip(found) {
                        prop_assert!((exact - f64::from(*found)).abs() <= 2e-6);
                    }
                }
                let mut found = table.clone();
                softmax_columns(isa, columns, &mut found);
                for column in 0..columns {
                    let values: Vec<f32> = table.iter().skip(column).step_by(columns).copied().collect();
                    for (exact, found) in exact(&values).iter().zip(found.iter().skip(column).step_by(columns)) {
                        prop_assert!((exact - f64::from(*found)).abs() <= 2e-6);
                    }
                }
            }
        }
    }
}
