//! Compares every format on every instruction set with sums in f64, at sizes that no vector or tile divides.

use proptest::prelude::*;

use super::*;
use crate::testing::Numbers;

/// `out[p] += M x[p]` in f64, and the sum of magnitudes that says how exact an f32 can be.
fn exact(columns: usize, matrix: &[f32], x: &[f32], before: f32, row: usize) -> (f64, f64) {
    let cells = &matrix[row * columns..(row + 1) * columns];
    let products = cells.iter().zip(x).map(|(weight, value)| f64::from(*weight) * f64::from(*value));
    let magnitude = products.clone().map(f64::abs).sum::<f64>() + f64::from(before.abs());
    (f64::from(before) + products.sum::<f64>(), magnitude)
}

#[track_caller]
fn check(rows: usize, columns: usize, positions: usize, height: usize, kept: u32, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let matrix = numbers.matrix(rows, columns, height, kept);
    // Gaps between vectors and after outputs must not be written.
    let (stride, out_stride) = (columns + 3, rows + 5);
    let x = numbers.some(positions * stride);
    let before = numbers.some(positions * out_stride);
    for isa in Isa::available() {
        for format in Format::ALL {
            let product = PackedMatrix::new(isa, format, rows, columns, &matrix);
            assert_eq!((product.format(), product.rows(), product.columns()), (format, rows, columns));
            for order in [RowOrder::Down, RowOrder::Up] {
                let mut out = before.clone();
                product.add(Vectors { values: &x, stride, count: positions }, &mut out, out_stride, order);
                for position in 0..positions {
                    let (x, first) = (&x[position * stride..], position * out_stride);
                    for row in 0..rows {
                        let (exact, magnitude) = exact(columns, &matrix, x, before[first + row], row);
                        let found = f64::from(out[first + row]);
                        assert!(
                            (found - exact).abs() <= 1e-5 * magnitude + 1e-9,
                            "{format} {}: row {row} of vector {position} is {found}, not {exact}",
                            isa.name()
                        );
                    }
                    let gap = first + rows..(first + out_stride).min(out.len());
                    assert_eq!(out[gap.clone()], before[gap], "{format} {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn sizes_of_real_layers() {
    check(96 * 4, 96, 1, 16, 2, 1);
    check(64, 40, 100, 8, 4, 2);
    check(48, 33, 65, 1, 5, 3);
}

#[test]
fn nothing_in_it() {
    check(5, 7, 3, 4, 0, 4);
    check(16, 0, 2, 4, 0, 5);
    check(0, 9, 2, 4, 0, 6);
    check(9, 9, 0, 4, 16, 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_format_is_the_matrix(
        rows in 1usize..90, columns in 1usize..70, positions in 1usize..27,
        height in 0usize..4, kept in 0u32..17, seed: u64,
    ) {
        check(rows, columns, positions, [1, 4, 8, 16][height], kept, seed);
    }
}

#[test]
fn what_is_worth_trying() {
    let mut numbers = Numbers::new(8);
    let mut tried = |height: usize, kept: u32| {
        let matrix = numbers.matrix(64, 64, height, kept);
        candidates(64, 64, &matrix).iter().map(Format::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(tried(16, 16), "dense");
    assert_eq!(tried(16, 2), "dense block-16x1");
    assert_eq!(tried(8, 2), "dense block-16x1 block-8x1");
    assert_eq!(tried(1, 1), "dense block-16x1 block-8x1 block-4x1 csr");
    assert_eq!(tried(1, 15), "dense");
    // Column numbers of a sparse form have 16 bits.
    assert_eq!(candidates(1, 70_000, &vec![0.0; 70_000]), [Format::Dense]);
    let wide = PackedMatrix::new(Isa::best(), Format::Csr, 1, 70_000, &vec![0.0; 70_000]);
    assert_eq!(wide.format(), Format::Dense);
}

#[test]
#[should_panic(expected = "too few inputs")]
fn short_inputs_are_refused() {
    let product = PackedMatrix::new(Isa::best(), Format::Dense, 2, 3, &[1.0; 6]);
    product.add(Vectors { values: &[1.0; 5], stride: 3, count: 2 }, &mut [0.0; 4], 2, RowOrder::Down);
}

#[test]
#[should_panic(expected = "too few outputs")]
fn short_outputs_are_refused() {
    let product = PackedMatrix::new(Isa::best(), Format::Dense, 2, 3, &[1.0; 6]);
    product.add(Vectors { values: &[1.0; 6], stride: 3, count: 2 }, &mut [0.0; 3], 2, RowOrder::Down);
}

#[test]
fn some_columns_are_a_vector_with_zeros() {
    for (rows, columns) in [(70, 41), (16, 5), (64, 1)] {
        let mut numbers = Numbers::new(10);
        let matrix = numbers.some(rows * columns);
        let chosen: Vec<u32> = (0..columns as u32).filter(|column| column % 3 == 0).collect();
        let values = numbers.some(chosen.len());
        let mut x = vec![0.0; columns];
        chosen.iter().zip(&values).for_each(|(column, value)| x[*column as usize] = *value);
        for isa in Isa::available() {
            let product = PackedMatrix::new(isa, Format::Dense, rows, columns, &matrix);
            let (mut some, mut all) = (vec![1.0; rows], vec![1.0; rows]);
            product.add_columns(&chosen, &values, &mut some);
            product.add(Vectors { values: &x, stride: columns, count: 1 }, &mut all, rows, RowOrder::Down);
            assert!(some.iter().zip(&all).all(|(some, all)| (some - all).abs() < 1e-5), "{some:?} {all:?}");
        }
    }
}
