//! Products of matrices anywhere in memory, by the `gemm` kernels: a checked interface for the rest of the engine.

use gemm_common::Parallelism;

/// A matrix in a slice: element `(row, column)` is at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Matrix<'a> {
        Matrix::strided(data, rows, columns, columns)
    }

    /// Rows that are `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Matrix<'a> {
        assert!(fits(data.len(), rows, columns, row_stride, 1), "a {rows}x{columns} matrix in {} values", data.len());
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Matrix<'a> {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

fn fits(len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len
}

/// What happens to the target's old values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// They are overwritten.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// Which threads compute a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling one, which is one of many.
    This,
    All,
}

/// `factor * left * right` into `target`, whose rows are `row_stride` apart.
pub fn multiply(
    target: &mut [f32],
    row_stride: usize,
    left: Matrix,
    right: Matrix,
    factor: f32,
    store: Store,
    threads: Threads,
) {
    let (rows, depth, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(depth, right.rows, "columns of the left matrix, rows of the right one");
    assert!(row_stride >= columns && fits(target.len(), rows, columns, row_stride, 1), "the product does not fit");
    if rows == 0 || columns == 0 {
        return;
    }
    let parallelism = match threads {
        // Below this, waking other threads costs more than it saves.
        Threads::All if rows * columns * depth > 1 << 18 => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: by `Matrix` and the assertions above, every element the kernel touches is inside its slice; `target` is
    // borrowed for writing and so overlaps neither factor. Strides are below the lengths of slices, so they fit isize.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            target.as_mut_ptr(),
            1,
            row_stride as isize,
            store == Store::Add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[test]
fn products_of_strided_and_transposed_matrices() {
    // 2x2 parts of larger matrices.
    let left = [1.0, 2.0, 0.0, 3.0, 4.0, 0.0];
    let right = [5.0, 7.0, 0.0, 6.0, 8.0, 0.0];
    let mut target = [1.0; 5];
    let (a, b) = (Matrix::strided(&left, 2, 2, 3), Matrix::strided(&right, 2, 2, 3).transposed());
    multiply(&mut target, 3, a, b, 1.0, Store::Overwrite, Threads::This);
    assert_eq!(target, [19.0, 22.0, 1.0, 43.0, 50.0]);
    multiply(&mut target, 3, a, b, -1.0, Store::Add, Threads::All);
    assert_eq!(target, [0.0, 0.0, 1.0, 0.0, 0.0]);
}
