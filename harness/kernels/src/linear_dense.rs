//! The product of a dense weight with panels of tokens, and the register tile that attention's products use as well.
//!
//! In: a weight packed once, six outputs beside each other, and panels ([`Panels`]). Out: panels of the outputs. A tile
//! is six outputs by four vectors of tokens: four loads and six broadcasts per input for 24 multiplications, which
//! keeps the multipliers busy. Inputs are split where a panel of them would not fit the second-level cache. Each piece
//! of the weight is read from memory once, for all panels.

use std::{borrow::Cow, ops::Range, ptr};

use crate::{
    elementwise::{self, Activation},
    linear_panels::{Panels, Target},
    share_out::{in_parts, part},
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

/// Outputs of a tile.
const ROWS: usize = 6;

/// The most inputs in one pass: for 64 tokens they are 256 KiB.
const DEPTH: usize = 1024;

/// A view of a matrix of weights: the one of output `o` and input `i` is `values[o * output_stride + i *
/// input_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    values: &'a [f32],
    outputs: usize,
    inputs: usize,
    output_stride: usize,
    input_stride: usize,
}

impl<'a> WeightMatrix<'a> {
    /// As in ONNX's Gemm with `transB`: an output a row.
    ///
    /// # Panics
    /// Unless there are `outputs * inputs` values.
    pub fn by_output(values: &'a [f32], outputs: usize, inputs: usize) -> WeightMatrix<'a> {
        WeightMatrix { values, outputs, inputs, output_stride: inputs, input_stride: 1 }.checked()
    }

    /// As in ONNX's MatMul: an input a row.
    ///
    /// # Panics
    /// Unless there are `outputs * inputs` values.
    pub fn by_input(values: &'a [f32], outputs: usize, inputs: usize) -> WeightMatrix<'a> {
        WeightMatrix { values, outputs, inputs, output_stride: 1, input_stride: outputs }.checked()
    }

    fn checked(self) -> WeightMatrix<'a> {
        let WeightMatrix { values, outputs, inputs, .. } = self;
        assert_eq!(Some(values.len()), outputs.checked_mul(inputs), "{outputs} x {inputs} values");
        self
    }

    /// In the order of memory.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The values with an output a row.
    pub fn rows_of_outputs(&self) -> Cow<'a, [f32]> {
        if self.input_stride == 1 && self.output_stride == self.inputs {
            return Cow::Borrowed(self.values);
        }
        let at = |index: usize| self.at(index / self.inputs, index % self.inputs);
        Cow::Owned((0..self.outputs * self.inputs).map(at).collect())
    }

    #[inline]
    pub fn at(&self, output: usize, input: usize) -> f32 {
        self.values[output * self.output_stride + input * self.input_stride]
    }
}

/// A dense weight, packed.
#[derive(Clone, Debug)]
pub struct DenseWeight {
    outputs: usize,
    inputs: usize,
    /// Six outputs at a time, input by input; the last six are filled up with zeros.
    packed: Vec<f32>,
}

/// What is done with a product: `activation(product + bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value an output, or empty.
    pub bias: &'a [f32],
    pub activation: Activation,
    /// Panels like the output's.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// Checks the lengths that kernels rely on, for a weight of `outputs` x `inputs`.
    ///
    /// # Panics
    /// Unless every length is the one its shape asks for.
    pub(crate) fn check(&self, panels: Panels, (outputs, inputs): (usize, usize), (input, output): (&[f32], &[f32])) {
        assert_eq!(input.len(), panels.values(inputs), "panels of {inputs} inputs");
        assert_eq!(output.len(), panels.values(outputs), "panels of {outputs} outputs");
        assert!(self.bias.is_empty() || self.bias.len() == outputs, "a bias for each of {outputs} outputs");
        assert!(self.residual.is_none_or(|residual| residual.len() == output.len()), "a residual for each output");
    }
}

impl DenseWeight {
    pub fn pack(weights: WeightMatrix) -> DenseWeight {
        let WeightMatrix { outputs, inputs, .. } = weights;
        let mut packed = vec![0.0; outputs.next_multiple_of(ROWS) * inputs];
        for (block, to) in packed.chunks_exact_mut(ROWS * inputs.max(1)).enumerate() {
            for row in 0..ROWS.min(outputs - block * ROWS) {
                for input in 0..inputs {
                    to[input * ROWS + row] = weights.at(block * ROWS + row, input);
                }
            }
        }
        DenseWeight { outputs, inputs, packed }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// # Panics
    /// Unless every length is the one its shape asks for.
    pub fn run(
        &self,
        isa: Isa,
        threads: &Threads,
        panels: Panels,
        input: &[f32],
        epilogue: Epilogue,
        output: &mut [f32],
    ) {
        epilogue.check(panels, (self.outputs, self.inputs), (input, output));
        let target = Target::of(output);
        in_parts(threads, self.outputs.div_ceil(ROWS), &|blocks| {
            let product = Product { weight: self, isa, panels, input, epilogue, output: target.pointer() };
            // SAFETY: the processor has `isa`'s instructions; the lengths were checked, and blocks are written once
            // each.
            unsafe { product.blocks(blocks) }
        });
    }
}

struct Product<'a> {
    weight: &'a DenseWeight,
    isa: Isa,
    panels: Panels,
    input: &'a [f32],
    epilogue: Epilogue<'a>,
    output: *mut f32,
}

impl Product<'_> {
    /// Computes `blocks` of six outputs.
    unsafe fn blocks(&self, blocks: Range<usize>) {
        let DenseWeight { outputs, inputs, packed } = self.weight;
        let (outputs, inputs, epilogue) = (*outputs, *inputs, &self.epilogue);
        // Sums begin with the residual where there is no activation between the two.
        let after = epilogue.residual.filter(|_| epilogue.activation != Activation::None);
        let before = epilogue.residual.filter(|_| epilogue.activation == Activation::None);
        let pieces = inputs.div_ceil(DEPTH).max(1);
        for piece in 0..pieces {
            let at = part(inputs, piece, pieces);
            for row in blocks.clone().map(|block| block * ROWS) {
                let rows = ROWS.min(outputs - row);
                for index in 0..self.panels.count() {
                    let panel = self.panels.get(index);
                    let (width, place) = (panel.width, panel.column * outputs + row * panel.width);
                    let to = self.output.add(place);
                    let start = if piece > 0 {
                        Start { bias: ptr::null(), add: to }
                    } else {
                        let bias = epilogue.bias.get(row..).filter(|bias| !bias.is_empty());
                        let bias = bias.map_or(ptr::null(), <[f32]>::as_ptr);
                        Start { bias, add: before.map_or(ptr::null(), |residual| residual.as_ptr().add(place)) }
                    };
                    self.isa.run(Tiles {
                        left: packed.as_ptr().add(row * inputs + at.start * ROWS),
                        left_row: 1,
                        left_step: ROWS,
                        rows,
                        depth: at.len(),
                        right: self.input.as_ptr().add(panel.column * inputs + at.start * width),
                        columns: width,
                        to,
                        start,
                    });
                    if piece + 1 == pieces && epilogue.activation != Activation::None {
                        let to = std::slice::from_raw_parts_mut(to, rows * width);
                        epilogue.activation.apply(self.isa, to);
                        if let Some(residual) = after {
                            elementwise::sum(self.isa, to, &residual[place..][..rows * width]);
                        }
                    }
                }
            }
        }
    }
}

/// What a sum begins with: a number for each output, values in the output's layout, both, or nothing (null).
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub bias: *const f32,
    pub add: *const f32,
}

/// `to[row][column] = start + sum of left[row][k] right[k][column]`. It is a kernel of its own, so that its many sizes
/// of tiles are compiled once.
///
/// # Safety
/// The pointers are to matrices of these sizes: `right` and `to` have rows of `columns` values, a multiple of 16.
pub(crate) struct Tiles {
    /// Values to broadcast: the one of row `r` and `k` is at `left + r * left_row + k * left_step`.
    pub left: *const f32,
    pub left_row: usize,
    pub left_step: usize,
    pub rows: usize,
    pub depth: usize,
    pub right: *const f32,
    pub columns: usize,
    pub to: *mut f32,
    pub start: Start,
}

impl Kernel for Tiles {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let vectors = self.columns / S::LANES;
        let most = if S::REGISTERS >= 32 { 4 } else { 2 };
        let mut row = 0;
        while row < self.rows {
            let rows = match self.rows - row {
                6.. => 6,
                4.. => 4,
                2.. => 2,
                _ => 1,
            };
            let mut done = 0;
            while done < vectors {
                let some = match most.min(vectors - done) {
                    3 => 2,
                    some => some,
                };
                match (rows, some) {
                    (6, 4) if S::REGISTERS >= 32 => self.tile::<S, 6, 4>(row, done),
                    (4, 4) if S::REGISTERS >= 32 => self.tile::<S, 4, 4>(row, done),
                    (2, 4) if S::REGISTERS >= 32 => self.tile::<S, 2, 4>(row, done),
                    (1, 4) if S::REGISTERS >= 32 => self.tile::<S, 1, 4>(row, done),
                    (6, 2) => self.tile::<S, 6, 2>(row, done),
                    (4, 2) => self.tile::<S, 4, 2>(row, done),
                    (2, 2) => self.tile::<S, 2, 2>(row, done),
                    (1, 2) => self.tile::<S, 1, 2>(row, done),
                    (6, _) => self.tile::<S, 6, 1>(row, done),
                    (4, _) => self.tile::<S, 4, 1>(row, done),
                    (2, _) => self.tile::<S, 2, 1>(row, done),
                    _ => self.tile::<S, 1, 1>(row, done),
                }
                done += some;
            }
            row += rows;
        }
    }
}

impl Tiles {
    /// `R` rows from `row` on, `C` vectors from `vector` on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(&self, row: usize, vector: usize) {
        let (columns, left_row, left_step) = (self.columns, self.left_row, self.left_step);
        let place = row * columns + vector * S::LANES;
        let mut sums = [[S::splat(0.0); C]; R];
        if !self.start.bias.is_null() {
            for r in 0..R {
                sums[r] = [S::splat(*self.start.bias.add(row + r)); C];
            }
        }
        if !self.start.add.is_null() {
            for r in 0..R {
                for c in 0..C {
                    let add = S::load(self.start.add.add(place + r * columns + c * S::LANES));
                    sums[r][c] = S::add(sums[r][c], add);
                }
            }
        }
        let mut left = self.left.add(row * left_row);
        let mut right = self.right.add(vector * S::LANES);
        for _ in 0..self.depth {
            let mut values = [S::splat(0.0); C];
            for c in 0..C {
                values[c] = S::load(right.add(c * S::LANES));
            }
            for r in 0..R {
                let weight = S::splat(*left.add(r * left_row));
                for c in 0..C {
                    sums[r][c] = S::mul_add(weight, values[c], sums[r][c]);
                }
            }
            right = right.add(columns);
            left = left.add(left_step);
        }
        let to = self.to.add(place);
        for r in 0..R {
            for c in 0..C {
                S::store(to.add(r * columns + c * S::LANES), sums[r][c]);
            }
        }
    }
}
