//! LSTM and GRU over whole sequences.
//!
//! Weights are packed once; a sequence goes in and states come out, as ONNX defines them. The contribution of the
//! inputs is one product for a few dozen steps, whose results stay in the cache until they are used. Each step then
//! adds the product with the state and applies the gates. On request, units whose state hardly changed are left out of
//! that product (`changes`). No step allocates memory. The recurrent weights are read downwards and upwards in turn, so
//! that the part of them that fits the second-level cache is found there.

mod changes;
mod gates;

use self::changes::Changes;
use crate::matvec::{PackedMatrix, RowOrder, Vectors};

/// About so many steps times samples have their input products computed together: the results of more would leave the
/// cache before they are used.
const ROWS_AT_ONCE: usize = 48;

/// A sequence in memory: step `t` of sample `b` begins at `t * step_stride + b * batch_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceShape {
    pub steps: usize,
    pub batch: usize,
    pub step_stride: usize,
    pub batch_stride: usize,
}

impl SequenceShape {
    /// `[steps, batch, width]`.
    pub fn steps_first(steps: usize, batch: usize, width: usize) -> SequenceShape {
        SequenceShape { steps, batch, step_stride: batch * width, batch_stride: width }
    }

    /// `[batch, steps, width]`.
    pub fn batch_first(steps: usize, batch: usize, width: usize) -> SequenceShape {
        SequenceShape { steps, batch, step_stride: width, batch_stride: steps * width }
    }

    /// Values up to the end of the last vector.
    fn reach(&self, width: usize) -> usize {
        if self.steps == 0 || self.batch == 0 {
            return 0;
        }
        (self.steps - 1) * self.step_stride + (self.batch - 1) * self.batch_stride + width
    }
}

/// Inputs and outputs of one direction of a layer.
pub struct Sequence<'a> {
    pub x: &'a [f32],
    pub x_shape: SequenceShape,
    /// From the last step to the first.
    pub backwards: bool,
    /// Receives the state after every step, at the place of that step.
    pub y: Option<(&'a mut [f32], SequenceShape)>,
}

/// Gates in ONNX's order: input, output, forget, cell.
#[derive(Clone, Debug)]
pub struct Lstm {
    hidden: usize,
    inputs: PackedMatrix,
    recurrence: PackedMatrix,
    /// The sum of ONNX's two biases, or empty.
    bias: Vec<f32>,
    skip_below: f32,
}

/// Gates in ONNX's order: update, reset, hidden.
#[derive(Clone, Debug)]
pub struct Gru {
    hidden: usize,
    inputs: PackedMatrix,
    recurrence: GruProducts,
    /// Added to the input products: the inputs' bias, and the state's where the reset gate does not apply to it.
    bias: Vec<f32>,
    /// The state's bias that the reset gate applies to, or empty.
    bias_before_reset: Vec<f32>,
}

/// The recurrent weights of a [`Gru`].
#[derive(Clone, Debug)]
pub enum GruProducts {
    /// The reset gate is applied to the state, before the product. Weights of the update and reset gates, and of the
    /// hidden gate.
    ResetFirst { gates: PackedMatrix, hidden: PackedMatrix },
    /// `linear_before_reset`: the reset gate is applied to the product of the hidden gate. Weights of all three gates.
    ResetLast(PackedMatrix),
}

/// Buffers of a run. They keep their size from one run to the next.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    products: Vec<f32>,
    of_state: Vec<f32>,
    changes: Changes,
}

impl Lstm {
    /// `biases` is ONNX's: 4 of the inputs, 4 of the state.
    ///
    /// # Panics
    /// Where sizes do not match.
    pub fn new(inputs: PackedMatrix, recurrence: PackedMatrix, biases: Option<&[f32]>) -> Lstm {
        let hidden = recurrence.columns();
        assert!(hidden > 0, "no state");
        assert_eq!((inputs.rows(), recurrence.rows()), (4 * hidden, 4 * hidden));
        Lstm { hidden, inputs, recurrence, bias: sum_of_halves(biases, 4 * hidden), skip_below: 0.0 }
    }

    /// Leaves units out of a step's product whose state changed by at most `below` since they were last part of one,
    /// where the format of the recurrent weights allows it.
    pub fn skipping(self, below: f32) -> Lstm {
        Lstm { skip_below: below, ..self }
    }

    pub fn products(&self) -> Vec<&PackedMatrix> {
        vec![&self.inputs, &self.recurrence]
    }

    /// `h` and `c`, `[batch, hidden]`, are the state before and after.
    ///
    /// # Panics
    /// Where a slice is too short for its shape.
    pub fn run(&self, sequence: Sequence, h: &mut [f32], c: &mut [f32], scratch: &mut Scratch) {
        let (hidden, batch, isa) = (self.hidden, sequence.x_shape.batch, self.recurrence.isa());
        sequence.check(self.inputs.columns(), hidden);
        assert!(h.len() == batch * hidden && c.len() == batch * hidden, "states of another size");
        let Scratch { products, changes, .. } = scratch;
        let skips = self.skip_below > 0.0 && self.recurrence.has_columns();
        if skips {
            changes.begin(batch, hidden, 4 * hidden);
        }
        sequence.for_each_step((&self.inputs, &self.bias), products, hidden, h, |products, h, order| {
            if skips {
                changes.add(&self.recurrence, self.skip_below, h, products);
            } else {
                let state = Vectors { values: h, stride: hidden, count: batch };
                self.recurrence.add(state, products, 4 * hidden, order);
            }
            gates::lstm(isa, hidden, products, c, h);
        });
    }
}

impl Gru {
    /// `biases` is ONNX's: 3 of the inputs, 3 of the state.
    ///
    /// # Panics
    /// Where sizes do not match.
    pub fn new(inputs: PackedMatrix, recurrence: GruProducts, biases: Option<&[f32]>) -> Gru {
        let (hidden, rows) = match &recurrence {
            GruProducts::ResetFirst { gates, hidden } => {
                assert_eq!((gates.rows(), gates.columns()), (2 * hidden.rows(), hidden.columns()));
                (hidden.columns(), 3 * hidden.rows())
            }
            GruProducts::ResetLast(all) => (all.columns(), all.rows()),
        };
        assert!(hidden > 0, "no state");
        assert_eq!((inputs.rows(), rows), (3 * hidden, 3 * hidden));
        let mut bias = sum_of_halves(biases, 3 * hidden);
        let mut bias_before_reset = Vec::new();
        if let (GruProducts::ResetLast(_), Some(biases)) = (&recurrence, biases) {
            bias[2 * hidden..].copy_from_slice(&biases[2 * hidden..3 * hidden]);
            bias_before_reset = biases[5 * hidden..].to_vec();
        }
        Gru { hidden, inputs, recurrence, bias, bias_before_reset }
    }

    pub fn products(&self) -> Vec<&PackedMatrix> {
        match &self.recurrence {
            GruProducts::ResetFirst { gates, hidden } => vec![&self.inputs, gates, hidden],
            GruProducts::ResetLast(all) => vec![&self.inputs, all],
        }
    }

    /// `h`, `[batch, hidden]`, is the state before and after.
    ///
    /// # Panics
    /// Where a slice is too short for its shape.
    pub fn run(&self, sequence: Sequence, h: &mut [f32], scratch: &mut Scratch) {
        let (hidden, batch, isa) = (self.hidden, sequence.x_shape.batch, self.inputs.isa());
        sequence.check(self.inputs.columns(), hidden);
        assert_eq!(h.len(), batch * hidden, "a state of another size");
        let Scratch { products, of_state, .. } = scratch;
        of_state.resize(batch * 3 * hidden, 0.0);
        sequence.for_each_step((&self.inputs, &self.bias), products, hidden, h, |products, h, order| {
            let state = Vectors { values: h, stride: hidden, count: batch };
            match &self.recurrence {
                GruProducts::ResetFirst { gates, hidden: last } => {
                    gates.add(state, products, 3 * hidden, order);
                    let reset = &mut of_state[..batch * hidden];
                    gates::reset(isa, hidden, products, h, reset);
                    let state = Vectors { values: reset, stride: hidden, count: batch };
                    last.add(state, &mut products[2 * hidden..], 3 * hidden, order);
                    gates::gru(isa, hidden, products, None, h);
                }
                GruProducts::ResetLast(all) => {
                    of_state.fill(0.0);
                    if !self.bias_before_reset.is_empty() {
                        for row in of_state.chunks_exact_mut(3 * hidden) {
                            row[2 * hidden..].copy_from_slice(&self.bias_before_reset);
                        }
                    }
                    all.add(state, of_state, 3 * hidden, order);
                    gates::gru(isa, hidden, products, Some(of_state), h);
                }
            }
        });
    }
}

/// ONNX has the biases of the inputs and then those of the state.
fn sum_of_halves(biases: Option<&[f32]>, length: usize) -> Vec<f32> {
    let Some(biases) = biases else { return Vec::new() };
    assert_eq!(biases.len(), 2 * length, "biases of another size");
    biases[..length].iter().zip(&biases[length..]).map(|(input, state)| input + state).collect()
}

impl Sequence<'_> {
    fn check(&self, inputs: usize, hidden: usize) {
        assert!(self.x.len() >= self.x_shape.reach(inputs), "too few inputs");
        if let Some((y, shape)) = &self.y {
            assert_eq!((shape.steps, shape.batch), (self.x_shape.steps, self.x_shape.batch));
            assert!(y.len() >= shape.reach(hidden), "too little room for the states");
        }
    }

    /// Calls `step` with the products of each step with its inputs, `[batch, rows]`, and the state, which `step`
    /// updates.
    fn for_each_step(
        mut self,
        (inputs, bias): (&PackedMatrix, &[f32]),
        products: &mut Vec<f32>,
        hidden: usize,
        h: &mut [f32],
        mut step: impl FnMut(&mut [f32], &mut [f32], RowOrder),
    ) {
        let SequenceShape { steps, batch, .. } = self.x_shape;
        let size = batch * inputs.rows();
        let at_once = (ROWS_AT_ONCE / batch.max(1)).max(1);
        let mut order = RowOrder::Down;
        for first in (0..steps).step_by(at_once) {
            let count = at_once.min(steps - first);
            self.input_products(inputs, bias, products, first, count);
            for index in 0..count {
                let place = if self.backwards { count - 1 - index } else { index };
                step(&mut products[place * size..][..size], h, order);
                self.keep(first + index, h, hidden);
                order = order.other();
            }
        }
    }

    /// Computes bias plus input products, `[count, batch, rows]`, of `count` steps after the first `taken`, in the
    /// order of memory.
    fn input_products(&self, inputs: &PackedMatrix, bias: &[f32], products: &mut Vec<f32>, taken: usize, count: usize) {
        let (rows, shape) = (inputs.rows(), self.x_shape);
        products.resize(count * shape.batch * rows, 0.0);
        for row in products.chunks_exact_mut(rows) {
            if bias.is_empty() {
                row.fill(0.0);
            } else {
                row.copy_from_slice(bias);
            }
        }
        let first = if self.backwards { shape.steps - taken - count } else { taken };
        for sample in 0..shape.batch {
            let values = &self.x[first * shape.step_stride + sample * shape.batch_stride..];
            let x = Vectors { values, stride: shape.step_stride, count };
            inputs.add(x, &mut products[sample * rows..], shape.batch * rows, RowOrder::Down);
        }
    }

    /// Stores the state after the `step`-th step in the order of computation.
    fn keep(&mut self, step: usize, h: &[f32], hidden: usize) {
        let step = if self.backwards { self.x_shape.steps - 1 - step } else { step };
        if let Some((y, shape)) = &mut self.y {
            for (sample, h) in h.chunks_exact(hidden).enumerate() {
                y[step * shape.step_stride + sample * shape.batch_stride..][..hidden].copy_from_slice(h);
            }
        }
    }
}

#[cfg(test)]
mod tests;
