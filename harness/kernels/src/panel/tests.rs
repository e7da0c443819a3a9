//! Compares every form of a product with the plain one.

use espalier_weights::{Channels, Layout, Matrix};
use proptest::prelude::*;

use super::*;
use crate::testing::synthetic;

/// The products in f64, one after another.
fn reference(
    (rows, columns): (usize, usize),
    matrix: &[f32],
    offset: impl Fn(usize) -> usize,
    input: &[f32],
    epilogue: Epilogue,
    (stride, positions): (usize, Range<usize>),
) -> Vec<(usize, f64)> {
    let mut expected = Vec::new();
    for row in 0..rows {
        for position in positions.clone() {
            let products = (0..columns)
                .map(|column| f64::from(matrix[row * columns + column]) * f64::from(input[offset(column) + position]));
            let mut sum = products.sum::<f64>() + epilogue.bias.map_or(0.0, |bias| bias[row].into());
            let at = row * stride + position;
            sum += epilogue.residual.map_or(0.0, |residual| residual[at].into());
            if let Some((low, high)) = epilogue.clamp {
                sum = sum.max(low.into()).min(high.into());
            }
            expected.push((at, sum));
        }
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_form_is_the_plain_product(
        (rows, columns) in (1usize..20, 0usize..40), start in 0usize..5, count in 1usize..150,
        apart in 0usize..30, zeros in 0u32..11, seed: u64,
        biased: bool, more: bool, clamped: bool,
        chunk in prop_oneof![1usize..200, Just(usize::MAX)],
    ) {
        let end = start + count;
        let mut matrix = synthetic(rows * columns, seed);
        let keep = synthetic(matrix.len(), seed ^ 1);
        for (value, keep) in matrix.iter_mut().zip(keep) {
            if (keep + 1.0) * 5.0 < zeros as f32 {
                *value = 0.0;
            }
        }
        // Columns overlap, as in a convolution.
        let offset = |column: usize| column * apart;
        let input = synthetic(offset(columns) + end, seed ^ 2);
        let bias = synthetic(rows, seed ^ 3);
        let stride = end + apart;
        let residual = synthetic(rows * stride, seed ^ 4);
        let epilogue = Epilogue {
            bias: biased.then_some(&bias),
            residual: more.then_some(&residual),
            clamp: clamped.then_some((-0.5, 0.75)),
        };
        let expected = reference((rows, columns), &matrix, offset, &input, epilogue, (stride, start..end));
        for isa in Isa::available() {
            for height in [Height::One, Height::Four, Height::Eight] {
                for pack in [PackedRows::dense, PackedRows::sparse] {
                    let packed = pack(rows, columns, &matrix, height);
                    let mut output = vec![f32::NAN; rows * stride];
                    let offsets = packed.offsets(offset);
                    let portion = Portion { blocks: 0..packed.blocks(), positions: start..end, chunk };
                    // SAFETY: no other thread has the output.
                    unsafe {
                        let output = Output::new(&mut output, stride);
                        multiply(isa, &packed, &offsets, &input, epilogue, output, portion);
                    }
                    for (at, expected) in &expected {
                        let found = output[*at];
                        let error = (f64::from(found) - expected).abs();
                        prop_assert!(error < 1e-4, "{} {height:?}: {found}, not {expected}", isa.name());
                        output[*at] = f32::NAN;
                    }
                    let untouched = output.iter().all(|value| value.is_nan());
                    prop_assert!(untouched, "{} {height:?} writes elsewhere", isa.name());
                }
            }
        }
    }
}

#[test]
fn zeros_have_no_entry() {
    let matrix = [0.0, 1.0, 0.0, 0.0, 2.0, 3.0];
    assert_eq!(PackedRows::sparse(2, 3, &matrix, Height::One).stored(), 3);
    // Two columns, padded to four rows.
    assert_eq!(PackedRows::sparse(2, 3, &matrix, Height::Four).stored(), 8);
    assert_eq!(PackedRows::dense(2, 3, &matrix, Height::Four).stored(), 12);
}

/// Indices have 32 bits: a larger weight was packed with places that had wrapped around.
#[test]
fn more_weights_than_indices_count_are_refused() {
    check_counts(1 << 16, (1 << 16) - 1);
    let too_many = [(1 << 16, 1 << 16), (usize::MAX, 2), (0, usize::MAX)];
    // Where addresses have 32 bits, no number of columns alone is too large.
    let cases = if cfg!(target_pointer_width = "64") { &too_many[..] } else { &too_many[..2] };
    for &(rows, columns) in cases {
        assert!(std::panic::catch_unwind(|| check_counts(rows, columns)).is_err(), "{rows} x {columns}");
    }
}

#[test]
#[should_panic(expected = "an offset leads beyond the input")]
fn inputs_end_where_they_end() {
    let packed = PackedRows::dense(1, 2, &[1.0, 1.0], Height::One);
    let offsets = packed.offsets(|column| column * 4);
    let mut output = [0.0; 4];
    let portion = Portion { blocks: 0..1, positions: 0..4, chunk: 4 };
    // SAFETY: no other thread has the output.
    unsafe {
        multiply(Isa::best(), &packed, &offsets, &[0.0; 7], Epilogue::default(), Output::new(&mut output, 4), portion)
    };
}

proptest! {
    #[test]
    fn cells_are_packed_as_the_matrix_they_are_of(
        (rows, columns) in (1usize..20, 0usize..150), (height, width) in (1usize..6, 1usize..4),
        zeros in 0u32..11, layout in 0usize..4, seed: u64,
    ) {
        let mut matrix = synthetic(rows * columns, seed);
        let keep = synthetic(matrix.len(), seed ^ 1);
        for (value, keep) in matrix.iter_mut().zip(keep) {
            if (keep + 1.0) * 5.0 < zeros as f32 {
                *value = 0.0;
            }
        }
        let blocks = Layout::BlockCsr { rows: height as u16, columns: width as u16 };
        let layout = [Layout::Dense, Layout::Csr, Layout::Bitmap, blocks][layout];
        let cells = Sparse::new(layout, &Matrix::new(rows, columns, Channels::Rows, &matrix).unwrap()).unwrap();
        let factors = synthetic(rows, seed ^ 2);
        let scaled: Vec<f32> =
            matrix.iter().enumerate().map(|(at, value)| value * factors[at / columns.max(1)]).collect();
        for height in [Height::One, Height::Four, Height::Eight] {
            let expected = PackedRows::sparse(rows, columns, &scaled, height);
            prop_assert_eq!(PackedRows::of_cells(&cells, &factors, height), expected);
        }
    }
}
