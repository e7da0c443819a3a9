//! Every form: decoded values, errors, sizes and names.

use espalier_weights::{Channels, Form, Index, Layout, Matrix, Sparse, Values, WeightsError, int8_scales};
use proptest::prelude::*;

use super::{CHANNELS, forms, gaussian, layouts, magnitude_pruned};

fn back(form: Form, matrix: &Matrix) -> Vec<f32> {
    let bytes = form.encode(matrix).unwrap();
    let sparse = form.decode(matrix.rows, matrix.columns, matrix.channels, &bytes).unwrap();
    let stored = sparse.index.stored(matrix.rows, matrix.columns);
    let (rows, columns) = (matrix.rows as u64, matrix.columns as u64);
    let size = form.bytes(rows, columns, matrix.channels, stored as u64).unwrap();
    if matches!(form.values, Values::Codebook { .. }) {
        assert!(bytes.len() as u64 <= size, "{form}");
    } else {
        assert_eq!(bytes.len() as u64, size, "{form}");
    }
    assert!(size <= form.most_bytes(rows, columns, matrix.channels).unwrap(), "{form}");
    sparse.to_dense()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Cells of a matrix: many zeros, and any other f32.
fn any_matrix(value: impl Strategy<Value = f32>) -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
    let cell = prop_oneof![4 => Just(0.0f32), 3 => value];
    (0usize..20, 0usize..40, prop::collection::vec(cell, 20 * 40)).prop_map(|(rows, columns, mut values)| {
        values.truncate(rows * columns);
        (rows, columns, values)
    })
}

proptest! {
    #[test]
    fn f32_comes_back_bit_for_bit((rows, columns, values) in any_matrix(any::<u32>().prop_map(f32::from_bits))) {
        for channels in CHANNELS {
            let matrix = Matrix::new(rows, columns, channels, &values).unwrap();
            for layout in layouts() {
                let form = Form { layout, values: Values::F32 };
                prop_assert_eq!(bits(&back(form, &matrix)), bits(&values), "{}", form);
            }
        }
    }

    /// Transposing gives the same as encoding the transposed matrix.
    #[test]
    fn rows_become_columns((rows, columns, values) in any_matrix(-100f32..100.0)) {
        let turned: Vec<f32> = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)))
            .map(|(row, column)| values[row * columns + column]).collect();
        let matrix = Matrix::new(rows, columns, Channels::Columns, &values).unwrap();
        let expected = Matrix::new(columns, rows, Channels::Rows, &turned).unwrap();
        for layout in layouts() {
            let turned_layout = match layout {
                Layout::BlockCsr { rows, columns } => Layout::BlockCsr { rows: columns, columns: rows },
                other => other,
            };
            let found = Sparse::new(layout, &matrix).unwrap().transposed();
            prop_assert_eq!(&found, &Sparse::new(turned_layout, &expected).unwrap(), "{:?}", layout);
            prop_assert_eq!(found.transposed(), Sparse::new(layout, &matrix).unwrap(), "{:?}", layout);
        }
    }

    #[test]
    fn what_is_lost_is_bounded((rows, columns, values) in any_matrix(-100f32..100.0)) {
        for channels in CHANNELS {
            let matrix = Matrix::new(rows, columns, channels, &values).unwrap();
            let scales = int8_scales(&Sparse::new(Layout::Dense, &matrix).unwrap());
            for form in forms() {
                let lossy = back(form, &matrix);
                for (cell, (was, is)) in values.iter().zip(&lossy).enumerate() {
                    let (row, column) = (cell / columns, cell % columns);
                    let scale = scales[if channels == Channels::Rows { row } else { column }];
                    let bound = match form.values {
                        Values::F32 => 0.0,
                        Values::F16 => (was.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
                        Values::Int8 => 0.5001 * scale,
                        Values::Codebook { .. } => 200.0,
                    };
                    prop_assert!((was - is).abs() <= bound, "{} of {} became {}", form, was, is);
                    prop_assert!(*was != 0.0 || *is == 0.0, "{}: a zero became {}", form, is);
                }
            }
        }
    }

    #[test]
    fn few_values_survive_a_codebook(
        cells in prop::collection::vec(0usize..17, 1..200),
        palette in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 16),
    ) {
        let values: Vec<f32> = cells.iter().map(|cell| if *cell == 16 { 0.0 } else { palette[*cell] }).collect();
        let matrix = Matrix::new(1, values.len(), Channels::Rows, &values).unwrap();
        for layout in layouts() {
            let form = Form { layout, values: Values::Codebook { size: 17 } };
            prop_assert_eq!(bits(&back(form, &matrix)), bits(&values), "{}", form);
        }
    }
}

#[test]
fn a_codebook_of_gaussian_weights_is_fine_enough() {
    let values = magnitude_pruned(gaussian(256 * 576, 3), 0.9);
    let matrix = Matrix::new(256, 576, Channels::Rows, &values).unwrap();
    for (size, most) in [(32, 0.035), (16, 0.06)] {
        let lossy = back(Form { layout: Layout::Bitmap, values: Values::Codebook { size } }, &matrix);
        let sum = |f: &dyn Fn(f32, f32) -> f32| -> f32 { values.iter().zip(&lossy).map(|(a, b)| f(*a, *b)).sum() };
        // Of what is not zero, as the survivors spread.
        let error = (sum(&|a, b| (a - b) * (a - b)) / sum(&|a, _| a * a)).sqrt();
        println!("{size} centroids: relative rms error {error:.4}");
        assert!(error < most, "{size}: {error}");
    }
}

#[test]
fn kernels_find_their_cells() {
    let values = [0.0, 1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 4.0];
    let matrix = Matrix::new(3, 3, Channels::Rows, &values).unwrap();
    let csr = Sparse::new(Layout::Csr, &matrix).unwrap();
    let Index::Csr { row_starts, columns } = &csr.index else { panic!("{csr:?}") };
    assert_eq!((row_starts.as_slice(), csr.values.as_slice()), (&[0, 1, 3, 4][..], &[1.0, 2.0, 3.0, 4.0][..]));
    assert_eq!((0..4).map(|entry| columns.get(entry)).collect::<Vec<_>>(), [1, 1, 2, 2]);

    let blocks = Sparse::new(Layout::BlockCsr { rows: 2, columns: 1 }, &matrix).unwrap();
    let Index::BlockCsr { row_starts, columns, .. } = &blocks.index else { panic!("{blocks:?}") };
    assert_eq!(row_starts, &[0, 2, 3]);
    assert_eq!((0..3).map(|entry| columns.get(entry)).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(blocks.values, [1.0, 2.0, 0.0, 3.0, 4.0, 0.0]);
    assert_eq!(blocks.to_dense(), values);
}

#[test]
fn wide_matrices_have_wide_indices() {
    for (columns, width) in [(1 << 16, 2), ((1 << 16) + 1, 4)] {
        let mut values = vec![0.0; columns];
        values[columns - 1] = 1.0;
        let matrix = Matrix::new(1, columns, Channels::Rows, &values).unwrap();
        let form = Form { layout: Layout::Csr, values: Values::F32 };
        assert_eq!(form.encode(&matrix).unwrap().len(), 8 + width + 4);
        assert_eq!(back(form, &matrix), values);
    }
}

#[test]
fn what_a_form_cannot_hold_is_named() {
    let check = |value: f32, values: Values, fits: bool| {
        let cells = [0.0, 1.0, 3.0, value, 5.0];
        let matrix = Matrix::new(1, 5, Channels::Rows, &cells).unwrap();
        match (Form { layout: Layout::Bitmap, values }).encode(&matrix) {
            Ok(_) => assert!(fits, "{value} in {values}"),
            Err(WeightsError::Unfit { index, .. }) => assert!(!fits && index == 2, "{value} in {values}"),
            Err(error) => panic!("{error}"),
        }
    };
    let codebook = Values::Codebook { size: 2 };
    for values in [Values::F16, Values::Int8, codebook] {
        check(f32::NAN, values, false);
        check(f32::NEG_INFINITY, values, false);
        check(-0.0, values, true);
        check(f32::MIN_POSITIVE / 4.0, values, true);
    }
    check(65519.0, Values::F16, true);
    check(-65520.0, Values::F16, false);
    check(f32::MAX, Values::Int8, true);
    check(f32::MAX, codebook, true);
    assert!(Matrix::new(2, 3, Channels::Rows, &[0.0; 5]).is_err());
}

#[test]
fn names_are_read_as_they_are_written() {
    for form in forms() {
        assert_eq!(form.to_string().parse::<Form>().unwrap(), form);
    }
    let form = |layout, values| Form { layout, values };
    let block = Layout::BlockCsr { rows: 4, columns: 1 };
    for (name, expected) in [
        ("csr", form(Layout::Csr, Values::F32)),
        ("block-csr-4x1", form(block, Values::F32)),
        ("block-csr-4x1-codebook-16", form(block, Values::Codebook { size: 16 })),
        ("bitmap-codebook", form(Layout::Bitmap, Values::Codebook { size: 32 })),
    ] {
        assert_eq!(name.parse::<Form>().unwrap(), expected);
    }
    for wrong in ["", "coo", "csr-f64", "block-csr", "block-csr-0x1", "block-csr-4x257", "csr-codebook-1", "bitmap-"] {
        let error = wrong.parse::<Form>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{wrong}` is no form of weights: ")), "{error}");
    }
}
