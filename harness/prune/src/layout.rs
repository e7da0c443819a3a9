//! Which axes of a weight tensor are outputs of the node that multiplies with it, and which are inputs.
//!
//! Blocks, N:M, activations and scales by channel need rows (outputs) and columns (inputs), but every operator stores
//! them elsewhere: `[out, in * kh * kw]` in Conv, `[in, out]` in MatMul. [`Matrices`] gives a tensor's rows and columns
//! as offsets.

/// The layer that uses a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    Conv,
    ConvTranspose,
    Gemm,
    MatMul,
    /// LSTM, GRU, RNN.
    Recurrent,
}

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Independent matrices: directions of an LSTM, leading axes of a MatMul.
    Batch,
    /// Output channels, gates of an LSTM; the kernel's offsets of a ConvTranspose.
    Output,
    /// Input channels, and the kernel's offsets of a Conv, as in its implementation by a matrix product.
    Input,
}

/// One [`Direction`] for each axis of the tensor as the file stores it, whatever nodes lie between the tensor and its
/// use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: LayerKind,
    pub axes: Vec<Direction>,
}

impl Layout {
    /// The only axis of outputs, or of inputs with more than one value; `None` where there are several or none.
    pub fn axis(&self, direction: Direction) -> Option<usize> {
        let mut found = self.axes.iter().enumerate().filter(|(_, axis)| **axis == direction);
        let first = found.next()?.0;
        // A Conv's kernel follows its input channels.
        (self.kind == LayerKind::Conv || self.kind == LayerKind::ConvTranspose || found.next().is_none())
            .then_some(first)
    }

    /// `shape` has as many axes as the layout.
    pub fn matrices(&self, shape: &[u64]) -> Matrices {
        // One empty axis beside an endless one holds nothing, and must cost nothing.
        if shape.contains(&0) {
            return Matrices { batches: vec![], rows: vec![], columns: vec![] };
        }
        let offsets = |direction| {
            let mut offsets = vec![0];
            let mut stride: usize = shape.iter().map(|axis| *axis as usize).product();
            for (axis, length) in self.axes.iter().zip(shape) {
                let length = *length as usize;
                stride /= length;
                if *axis == direction {
                    offsets = offsets
                        .iter()
                        .flat_map(|offset| (0..length).map(move |index| offset + index * stride))
                        .collect();
                }
            }
            offsets
        };
        Matrices {
            batches: offsets(Direction::Batch),
            rows: offsets(Direction::Output),
            columns: offsets(Direction::Input),
        }
    }
}

/// A tensor as matrices, outputs by inputs: element (batch, row, column) is at the sum of the three offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrices {
    pub batches: Vec<usize>,
    pub rows: Vec<usize>,
    pub columns: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_in_one_place() {
        use Direction::{Batch, Input, Output};
        for (axes, shape) in [
            (vec![Output, Input, Input, Input], vec![3, 2, 2, 5]),
            (vec![Input, Output], vec![4, 3]),
            (vec![Batch, Output, Input], vec![2, 8, 3]),
            (vec![Input], vec![7]),
            (vec![], vec![]),
            (vec![Input, Output], vec![0, 3]),
        ] {
            let matrices = Layout { kind: LayerKind::MatMul, axes }.matrices(&shape);
            let mut seen = Vec::new();
            for batch in &matrices.batches {
                for row in &matrices.rows {
                    seen.extend(matrices.columns.iter().map(|column| batch + row + column));
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..shape.iter().product::<u64>() as usize).collect::<Vec<_>>());
        }
        let matrices = Layout { kind: LayerKind::MatMul, axes: vec![Input, Output] }.matrices(&[4, 3]);
        assert_eq!((matrices.rows, matrices.columns), (vec![0, 1, 2], vec![0, 3, 6, 9]));
    }
}
