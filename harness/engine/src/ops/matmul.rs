//! Products of matrices: `MatMul` with batches that broadcast, and `Gemm`.

use rayon::prelude::*;

use super::{
    Backward, Family, Forward, InputGradients, Operator, boxed,
    product::{Matrix, Store, Threads, multiply},
    support,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("MatMul", |_| boxed(MatMul)),
    ("Gemm", |node| {
        boxed(Gemm {
            alpha: node.float("alpha", 1.0),
            beta: node.float("beta", 1.0),
            transpose_left: node.is_set("transA"),
            transpose_right: node.is_set("transB"),
        })
    }),
];

#[derive(Debug)]
struct MatMul;

/// Which matrices of both sides each matrix of the result is the product of.
struct Batches {
    /// Per matrix of the result: the index of the left and of the right one.
    pairs: Vec<(usize, usize)>,
    lefts: usize,
    rights: usize,
    rows: usize,
    depth: usize,
    columns: usize,
    output: Vec<usize>,
}

/// A longer list of them would alone take a gigabyte.
const MOST_BATCHES: usize = 1 << 26;

impl Batches {
    fn of(left: &[usize], right: &[usize]) -> Result<Batches, String> {
        let misfit = || format!("matrices of shapes {left:?} and {right:?} have no product");
        // A vector on the left is a row, on the right a column; the result lacks that axis.
        let (left_batch, rows, depth) = match left {
            [] => return Err(misfit()),
            [depth] => (&[][..], None, *depth),
            [batch @ .., rows, depth] => (batch, Some(*rows), *depth),
        };
        let (right_batch, right_depth, columns) = match right {
            [] => return Err(misfit()),
            [depth] => (&[][..], *depth, None),
            [batch @ .., depth, columns] => (batch, *depth, Some(*columns)),
        };
        if depth != right_depth {
            return Err(misfit());
        }
        let rank = left_batch.len().max(right_batch.len());
        let padded = |batch: &[usize]| [vec![1; rank - batch.len()], batch.to_vec()].concat();
        let (left_batch, right_batch) = (padded(left_batch), padded(right_batch));
        let mut output = Vec::with_capacity(rank + 2);
        for (left, right) in left_batch.iter().zip(&right_batch) {
            output.push(match (*left, *right) {
                (left, right) if left == right => left,
                (1, other) | (other, 1) => other,
                _ => return Err(misfit()),
            });
        }
        let count = support::elements(&output)?;
        if count > MOST_BATCHES {
            return Err(format!("{count} products in one are more than the engine takes on"));
        }
        let mut pairs = vec![(0, 0); count];
        for (index, pair) in pairs.iter_mut().enumerate() {
            let (mut rest, mut left_step, mut right_step) = (index, 1, 1);
            for axis in (0..rank).rev() {
                let at = rest % output[axis];
                rest /= output[axis];
                pair.0 += at.min(left_batch[axis] - 1) * left_step;
                pair.1 += at.min(right_batch[axis] - 1) * right_step;
                left_step *= left_batch[axis];
                right_step *= right_batch[axis];
            }
        }
        output.extend(rows);
        output.extend(columns);
        support::elements(&output)?;
        Ok(Batches {
            pairs,
            lefts: left_batch.iter().product(),
            rights: right_batch.iter().product(),
            rows: rows.unwrap_or(1),
            depth,
            columns: columns.unwrap_or(1),
            output,
        })
    }

    /// One matrix on the right for all on the left makes those one tall matrix: the usual case of weights.
    fn flatten(mut self) -> Batches {
        if self.rights == 1 && self.pairs.len() == self.lefts && self.lefts > 0 {
            self.rows *= self.lefts;
            self.lefts = 1;
            self.pairs = vec![(0, 0)];
        }
        self
    }

    /// Many products are shared among threads one by one; a few use all threads each.
    fn threads(&self, tasks: usize) -> Threads {
        if tasks < rayon::current_num_threads().max(2) { Threads::All } else { Threads::This }
    }
}

/// Calls `f` for each piece of `length` of `target`, on all threads where that is faster.
fn for_each_piece(target: &mut [f32], length: usize, cost: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if length == 0 {
        return;
    }
    if cost < 1 << 16 || target.len() == length {
        target.chunks_mut(length).enumerate().for_each(|(index, piece)| f(index, piece));
    } else {
        target.par_chunks_mut(length).enumerate().for_each(|(index, piece)| f(index, piece));
    }
}

impl Operator for MatMul {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (left, right) = (support::input(inputs, 0)?.f32()?, support::input(inputs, 1)?.f32()?);
        let batches = Batches::of(left.shape(), right.shape())?.flatten();
        let Batches { rows, depth, columns, .. } = batches;
        let mut output = vec![0.0; batches.pairs.len() * rows * columns];
        let threads = batches.threads(batches.pairs.len());
        let cost = output.len().saturating_mul(depth);
        for_each_piece(&mut output, rows * columns, cost, |index, output| {
            let (l, r) = batches.pairs[index];
            let left = Matrix::new(&left.data()[l * rows * depth..][..rows * depth], rows, depth);
            let right = Matrix::new(&right.data()[r * depth * columns..][..depth * columns], depth, columns);
            multiply(output, columns, left, right, 1.0, Store::Overwrite, threads);
        });
        Ok(Forward::floats(Array::new(batches.output, output)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let gradient = pass.seed()?;
        let (left, right) = (pass.input(0)?.f32()?, pass.input(1)?.f32()?);
        let batches = Batches::of(left.shape(), right.shape())?.flatten();
        let Batches { rows, depth, columns, .. } = batches;
        let seed = |index: usize| Matrix::new(&gradient.data()[index * rows * columns..], rows, columns);
        let cost = gradient.len().saturating_mul(depth);
        // A matrix that is a factor of several products sums up the parts of each, in their order.
        let mut products_of = [vec![Vec::new(); batches.lefts], vec![Vec::new(); batches.rights]];
        for (index, (l, r)) in batches.pairs.iter().enumerate() {
            products_of[0][*l].push(index);
            products_of[1][*r].push(index);
        }
        let left_gradient = pass.wants[0].then(|| {
            let mut sums = vec![0.0; left.len()];
            let threads = batches.threads(batches.lefts);
            for_each_piece(&mut sums, rows * depth, cost, |index, sum| {
                for &product in &products_of[0][index] {
                    let right = &right.data()[batches.pairs[product].1 * depth * columns..];
                    let right = Matrix::new(right, depth, columns).transposed();
                    multiply(sum, depth, seed(product), right, 1.0, Store::Add, threads);
                }
            });
            Array::new(left.shape(), sums)
        });
        let right_gradient = pass.wants[1].then(|| {
            let mut sums = vec![0.0; right.len()];
            let threads = batches.threads(batches.rights);
            for_each_piece(&mut sums, depth * columns, cost, |index, sum| {
                for &product in &products_of[1][index] {
                    let left = &left.data()[batches.pairs[product].0 * rows * depth..];
                    let left = Matrix::new(left, rows, depth).transposed();
                    multiply(sum, columns, left, seed(product), 1.0, Store::Add, threads);
                }
            });
            Array::new(right.shape(), sums)
        });
        Ok(vec![left_gradient, right_gradient])
    }
}

/// `alpha * A * B + beta * C`, with either factor transposed first if requested.
#[derive(Debug)]
struct Gemm {
    alpha: f32,
    beta: f32,
    transpose_left: bool,
    transpose_right: bool,
}

/// A matrix with its rows and columns as it is multiplied.
type Factor<'a> = (&'a Array<f32>, usize, usize);

impl Gemm {
    /// Both factors as they are multiplied.
    fn factors<'a>(&self, inputs: &[Option<&'a Tensor>]) -> Result<[Factor<'a>; 2], String> {
        let factor = |index: usize, transpose: bool| {
            let factor = support::input(inputs, index)?.f32()?;
            match factor.shape() {
                [rows, columns] if transpose => Ok((factor, *columns, *rows)),
                [rows, columns] => Ok((factor, *rows, *columns)),
                shape => Err(format!("it multiplies matrices, not a tensor of shape {shape:?}")),
            }
        };
        let (left, right) = (factor(0, self.transpose_left)?, factor(1, self.transpose_right)?);
        if left.2 != right.1 {
            let (left, right) = ((left.1, left.2), (right.1, right.2));
            return Err(format!("a {}x{} matrix has no product with a {}x{} one", left.0, left.1, right.0, right.1));
        }
        support::elements(&[left.1, right.2])?;
        Ok([left, right])
    }
}

/// Rows and columns of a matrix that broadcasts to the result: each is 1 or the result's.
fn broadcast(shape: &[usize], rows: usize, columns: usize) -> Result<(usize, usize), String> {
    let (own_rows, own_columns) = match shape {
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, columns] => (*rows, *columns),
        _ => (usize::MAX, usize::MAX),
    };
    let fits = (own_rows == 1 || own_rows == rows) && (own_columns == 1 || own_columns == columns);
    fits.then_some((own_rows, own_columns))
        .ok_or_else(|| format!("what is added has shape {shape:?}, which does not fit a {rows}x{columns} product"))
}

fn stored(array: &Array<f32>, rows: usize, columns: usize, transpose: bool) -> Matrix<'_> {
    if transpose {
        Matrix::new(array.data(), columns, rows).transposed()
    } else {
        Matrix::new(array.data(), rows, columns)
    }
}

impl Operator for Gemm {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let [(left, rows, depth), (right, _, columns)] = self.factors(inputs)?;
        let mut output = vec![0.0; rows * columns];
        if let Some(added) = inputs.get(2).copied().flatten() {
            let added = added.f32()?;
            let (own_rows, own_columns) = broadcast(added.shape(), rows, columns)?;
            for (index, output) in output.iter_mut().enumerate() {
                let (row, column) = (index / columns % own_rows, index % columns % own_columns);
                *output = self.beta * added.data()[row * own_columns + column];
            }
        }
        let (left, right) =
            (stored(left, rows, depth, self.transpose_left), stored(right, depth, columns, self.transpose_right));
        multiply(&mut output, columns, left, right, self.alpha, Store::Add, Threads::All);
        Ok(Forward::floats(Array::new([rows, columns], output)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let gradient = pass.seed()?;
        let [(left, rows, depth), (right, _, columns)] = self.factors(&pass.inputs)?;
        let seed = Matrix::new(gradient.data(), rows, columns);
        // Of a factor that is stored transposed, the gradient is too: (G B^T)^T = B G^T.
        let product = |array: &Array<f32>, transposed: bool, a: Matrix, b: Matrix| {
            let mut target = vec![0.0; array.len()];
            let (a, b) = if transposed { (b.transposed(), a.transposed()) } else { (a, b) };
            let row_stride = array.shape()[1];
            multiply(&mut target, row_stride, a, b, self.alpha, Store::Overwrite, Threads::All);
            Array::new(array.shape(), target)
        };
        let left_matrix = stored(left, rows, depth, self.transpose_left);
        let right_matrix = stored(right, depth, columns, self.transpose_right);
        let mut gradients = vec![
            pass.wants[0].then(|| product(left, self.transpose_left, seed, right_matrix.transposed())),
            pass.wants[1].then(|| product(right, self.transpose_right, left_matrix.transposed(), seed)),
        ];
        if let Some(added) = pass.inputs.get(2) {
            let added = added.filter(|_| pass.wants[2]).map(Tensor::f32).transpose()?;
            gradients.push(added.map(|added| self.added_gradient(added, gradient, rows, columns)).transpose()?);
        }
        Ok(gradients)
    }
}

impl Gemm {
    fn added_gradient(
        &self,
        added: &Array<f32>,
        gradient: &Array<f32>,
        rows: usize,
        columns: usize,
    ) -> Result<Array<f32>, String> {
        let (own_rows, own_columns) = broadcast(added.shape(), rows, columns)?;
        let mut sums = vec![0.0; added.len()];
        for (index, gradient) in gradient.data().iter().enumerate() {
            let (row, column) = (index / columns % own_rows, index % columns % own_columns);
            sums[row * own_columns + column] += self.beta * gradient;
        }
        Ok(Array::new(added.shape(), sums))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{check, float, floats, int, operator, output, random};

    #[test]
    fn batches_broadcast() {
        let matmul = operator("MatMul", 13, vec![]);
        let left = floats(&[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        let right = floats(&[2, 2, 1], &[10.0, 1.0, 20.0, 2.0]);
        let product = output(&*matmul, &[left, right]);
        assert_eq!(product.shape(), [2, 2, 1, 1]);
        assert_eq!(product.data(), [12.0, 24.0, 34.0, 68.0]);
        for (left, right, shape) in [
            (&[3][..], &[3][..], &[][..]),
            (&[3], &[3, 2], &[2]),
            (&[2, 3], &[3], &[2]),
            (&[5, 2, 3], &[3], &[5, 2]),
            (&[0, 3], &[3, 2], &[0, 2]),
            (&[2, 0], &[0, 2], &[2, 2]),
        ] {
            assert_eq!(output(&*matmul, &[random(1, left), random(2, right)]).shape(), shape);
        }
    }

    #[test]
    fn products_have_gradients() {
        let matmul = operator("MatMul", 13, vec![]);
        for (left, right) in [
            (&[3, 4][..], &[4, 5][..]),
            (&[4], &[4, 2]),
            (&[3, 4], &[4]),
            (&[4], &[4]),
            (&[2, 3, 4], &[4, 5]),
            (&[3, 4], &[2, 4, 5]),
            (&[2, 1, 3, 4], &[3, 4, 2]),
            (&[2, 3, 30, 40], &[2, 3, 40, 50]),
            (&[90, 80], &[80, 70]),
        ] {
            check(&*matmul, &[random(1, left), random(2, right)], 1, &[0, 1]);
        }
    }

    #[test]
    fn gemm_has_gradients_in_every_form() {
        for (transpose_left, transpose_right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let attributes = vec![
                int("transA", transpose_left),
                int("transB", transpose_right),
                float("alpha", 0.7),
                float("beta", -1.3),
            ];
            let gemm = operator("Gemm", 13, attributes);
            let left = random(1, if transpose_left == 1 { &[4, 3] } else { &[3, 4] });
            let right = random(2, if transpose_right == 1 { &[5, 4] } else { &[4, 5] });
            for added in [&[][..], &[5], &[1], &[3, 1], &[3, 5], &[1, 5]] {
                check(&*gemm, &[left.clone(), right.clone(), random(3, added)], 1, &[0, 1, 2]);
            }
            check(&*gemm, &[left, right], 1, &[0, 1]);
        }
    }
}
