//! The product of a sparse weight with panels of tokens: single cells, or blocks of four or eight outputs of one input.
//!
//! In: a weight packed once, and panels ([`Panels`]). Out: panels of the outputs. A block loads one input of the panel
//! for all its outputs and broadcasts four (or eight) weights. Sums stay in registers until the outputs are done. A
//! panel is in the second-level cache, where any input is as fast to reach as another.

use std::{ops::Range, ptr};

use crate::{
    elementwise::{self, Activation},
    linear_dense::{Epilogue, WeightMatrix},
    linear_panels::{Panels, Target},
    panel::check_counts,
    share_out::in_parts,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

/// Up to this many bytes of panels stay in the second-level cache while a weight streams past them.
const NEAR: usize = 512 << 10;

/// The blocks of `height` outputs of one input in which at least one cell is not zero.
#[derive(Clone, Debug)]
pub struct SparseWeight {
    outputs: usize,
    inputs: usize,
    /// 1, 4 or 8.
    height: usize,
    /// Where the blocks of each `height` outputs begin, and where the last of them end.
    starts: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl SparseWeight {
    /// # Panics
    /// Unless `height` is 1, 4 or 8, and 32 bits count the weights.
    pub fn pack(weights: WeightMatrix, height: usize) -> SparseWeight {
        assert!([1, 4, 8].contains(&height), "blocks of {height} outputs");
        let (outputs, inputs) = (weights.outputs(), weights.inputs());
        check_counts(outputs, inputs);
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for first in (0..outputs).step_by(height) {
            let rows = height.min(outputs - first);
            for input in 0..inputs {
                let mut block = [0.0; 8];
                for row in 0..rows {
                    block[row] = weights.at(first + row, input);
                }
                if block.iter().any(|value| *value != 0.0) {
                    columns.push(input as u32);
                    values.extend_from_slice(&block[..height]);
                }
            }
            starts.push(columns.len() as u32);
        }
        SparseWeight { outputs, inputs, height, starts, columns, values }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a block.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Multiplications for one token, those with zeros in blocks included.
    pub fn cells(&self) -> usize {
        self.values.len()
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
        in_parts(threads, self.starts.len() - 1, &|blocks| {
            let product = Product { weight: self, blocks, panels, input, epilogue, output: target.pointer() };
            // SAFETY: the processor has `isa`'s instructions; the lengths were checked, blocks are written once each,
            // and `pack` made every column one of the inputs.
            unsafe { isa.run(product) }
        });
    }
}

struct Product<'a> {
    weight: &'a SparseWeight,
    /// Of `height` outputs each.
    blocks: Range<usize>,
    panels: Panels,
    input: &'a [f32],
    epilogue: Epilogue<'a>,
    output: *mut f32,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let panels = self.panels.count();
        if self.panels.columns() * self.weight.inputs * size_of::<f32>() <= NEAR {
            for block in self.blocks.clone() {
                for panel in 0..panels {
                    self.block::<S>(block, panel);
                }
            }
        } else {
            for panel in 0..panels {
                for block in self.blocks.clone() {
                    self.block::<S>(block, panel);
                }
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, block: usize, panel: usize) {
        match self.weight.height {
            1 => self.sized::<S, 1>(block, panel),
            4 => self.sized::<S, 4>(block, panel),
            _ => self.sized::<S, 8>(block, panel),
        }
    }

    #[inline(always)]
    unsafe fn sized<S: Simd, const H: usize>(&self, block: usize, panel: usize) {
        let SparseWeight { outputs, inputs, starts, columns, values, .. } = self.weight;
        let panel = self.panels.get(panel);
        let row = block * H;
        let rows = H.min(outputs - row);
        let epilogue = &self.epilogue;
        let place = panel.column * outputs + row * panel.width;
        let (first, end) = (*starts.get_unchecked(block) as usize, *starts.get_unchecked(block + 1) as usize);
        let blocks = Blocks {
            columns: columns.as_ptr().add(first),
            values: values.as_ptr().add(first * H),
            count: end - first,
            input: self.input.as_ptr().add(panel.column * inputs),
            stride: panel.width,
        };
        let to = self.output.add(place);
        let bias = if epilogue.bias.is_empty() { ptr::null() } else { epilogue.bias.as_ptr().add(row) };
        let residual = epilogue.residual.map_or(ptr::null(), |residual| residual.as_ptr().add(place));
        let plain = epilogue.activation == Activation::None;
        let add = if plain { residual } else { ptr::null() };
        let vectors = panel.width / S::LANES;
        // As many vectors of sums as fit the registers beside the inputs and the weight.
        let most = match (S::REGISTERS >= 32, H) {
            (true, 8) | (false, 4) => 2,
            (false, 8) => 1,
            _ => 4,
        };
        let mut done = 0;
        while done < vectors {
            let some = most.min(vectors - done);
            let at = done * S::LANES;
            let add = if add.is_null() { add } else { add.add(at) };
            let blocks = Blocks { input: blocks.input.add(at), ..blocks };
            match some {
                4 if most >= 4 => sums::<S, H, 4>(blocks, rows, bias, add, to.add(at)),
                3 if most >= 4 => sums::<S, H, 3>(blocks, rows, bias, add, to.add(at)),
                2 if most >= 2 => sums::<S, H, 2>(blocks, rows, bias, add, to.add(at)),
                _ => sums::<S, H, 1>(blocks, rows, bias, add, to.add(at)),
            }
            done += some;
        }
        if !plain {
            let count = rows * panel.width;
            elementwise::apply::<S>(epilogue.activation, to, count);
            if !residual.is_null() {
                elementwise::add::<S>(to, residual, count);
            }
        }
    }
}

/// The blocks of `H` outputs, and the panel they multiply.
#[derive(Clone, Copy)]
struct Blocks {
    columns: *const u32,
    values: *const f32,
    count: usize,
    input: *const f32,
    stride: usize,
}

/// `rows` of `H` outputs, `C` vectors of tokens.
#[inline(always)]
unsafe fn sums<S: Simd, const H: usize, const C: usize>(
    blocks: Blocks,
    rows: usize,
    bias: *const f32,
    add: *const f32,
    to: *mut f32,
) {
    let Blocks { columns, values, count, input, stride } = blocks;
    let mut sums = [[S::splat(0.0); C]; H];
    for row in 0..H {
        if row < rows {
            if !bias.is_null() {
                sums[row] = [S::splat(*bias.add(row)); C];
            }
            if !add.is_null() {
                for vector in 0..C {
                    let add = S::load(add.add(row * stride + vector * S::LANES));
                    sums[row][vector] = S::add(sums[row][vector], add);
                }
            }
        }
    }
    let mut index = 0;
    if H == 1 {
        // One row has too few sums to hide the latency: a second set takes every other cell.
        let mut others = [S::splat(0.0); C];
        while index + 2 <= count {
            let (a, b) = (*columns.add(index) as usize, *columns.add(index + 1) as usize);
            let (a, b) = (input.add(a * stride), input.add(b * stride));
            let (x, y) = (S::splat(*values.add(index)), S::splat(*values.add(index + 1)));
            for vector in 0..C {
                sums[0][vector] = S::mul_add(x, S::load(a.add(vector * S::LANES)), sums[0][vector]);
                others[vector] = S::mul_add(y, S::load(b.add(vector * S::LANES)), others[vector]);
            }
            index += 2;
        }
        for vector in 0..C {
            sums[0][vector] = S::add(sums[0][vector], others[vector]);
        }
    }
    while index < count {
        let from = input.add(*columns.add(index) as usize * stride);
        let mut inputs = [S::splat(0.0); C];
        for vector in 0..C {
            inputs[vector] = S::load(from.add(vector * S::LANES));
        }
        for row in 0..H {
            let value = S::splat(*values.add(index * H + row));
            for vector in 0..C {
                sums[row][vector] = S::mul_add(value, inputs[vector], sums[row][vector]);
            }
        }
        index += 1;
    }
    for row in 0..H {
        if row < rows {
            for vector in 0..C {
                S::store(to.add(row * stride + vector * S::LANES), sums[row][vector]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        linear_dense::DenseWeight,
        testing::{is_close, pruned, synthetic},
    };

    /// Compares dense and sparse kernels with sums in double precision.
    fn check(panels: Panels, outputs: usize, inputs: usize, block: usize, zeros: f64, by_output: bool, extras: usize) {
        let values = pruned(outputs, inputs, block, zeros, by_output);
        let weights = if by_output {
            WeightMatrix::by_output(&values, outputs, inputs)
        } else {
            WeightMatrix::by_input(&values, outputs, inputs)
        };
        let rows = synthetic(panels.rows() * inputs, 11);
        let activation = [Activation::None, Activation::Gelu, Activation::Relu][extras % 3];
        let bias = if extras & 4 == 0 { Vec::new() } else { synthetic(outputs, 12) };
        let residual_rows = synthetic(panels.rows() * outputs, 13);
        let with_residual = extras & 8 != 0;
        let exact = |token: usize, output: usize| {
            let products =
                (0..inputs).map(|input| f64::from(rows[token * inputs + input]) * f64::from(weights.at(output, input)));
            let sum = products.sum::<f64>() + bias.get(output).map_or(0.0, |bias| f64::from(*bias));
            let residual = if with_residual { f64::from(residual_rows[token * outputs + output]) } else { 0.0 };
            activation.exact(sum) + residual
        };
        for isa in Isa::available() {
            let mut input = vec![0.0; panels.columns() * inputs];
            panels.enter(isa, inputs, &rows, &mut input);
            let mut residual = vec![0.0; panels.columns() * outputs];
            panels.enter(isa, outputs, &residual_rows, &mut residual);
            let epilogue = Epilogue { bias: &bias, activation, residual: with_residual.then_some(&residual) };
            for (height, threads) in [(0, 1), (0, 3), (1, 1), (4, 1), (8, 1), (8, 2)] {
                let mut output = vec![f32::NAN; panels.columns() * outputs];
                let threads = Threads::new(threads);
                if height == 0 {
                    DenseWeight::pack(weights).run(isa, &threads, panels, &input, epilogue, &mut output);
                } else {
                    SparseWeight::pack(weights, height).run(isa, &threads, panels, &input, epilogue, &mut output);
                }
                let mut found = vec![f32::NAN; panels.rows() * outputs];
                panels.leave(isa, outputs, &output, &mut found);
                for token in 0..panels.rows() {
                    for output in 0..outputs {
                        let (found, exact) = (found[token * outputs + output], exact(token, output));
                        assert!(
                            is_close(found, exact),
                            "{} block-{height}x1 ({token}, {output}): {found}, not {exact}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_are_those_of_the_dense_matrix(
            sequences in 1usize..3,
            tokens in 1usize..100,
            outputs in 1usize..30,
            inputs in 1usize..40,
            block in 1usize..9,
            zeros in 0.0f64..1.0,
            by_output in any::<bool>(),
            extras in 0usize..16,
        ) {
            check(Panels::new(sequences, tokens), outputs, inputs, block, zeros, by_output, extras);
        }
    }

    #[test]
    fn deep_products_are_cut_in_pieces() {
        check(Panels::new(1, 70), 13, 2100, 4, 0.8, false, 13);
    }

    #[test]
    fn nothing_is_nothing() {
        check(Panels::new(1, 17), 9, 5, 4, 1.0, true, 4);
        let sparse = SparseWeight::pack(WeightMatrix::by_output(&[0.0; 40], 8, 5), 4);
        assert_eq!(sparse.cells(), 0);
    }

    #[test]
    #[should_panic(expected = "panels of 3 outputs")]
    fn outputs_have_the_length_of_the_weight() {
        let weight = SparseWeight::pack(WeightMatrix::by_output(&[1.0; 6], 3, 2), 4);
        let (panels, threads) = (Panels::new(1, 16), Threads::new(1));
        weight.run(Isa::best(), &threads, panels, &[0.0; 32], Epilogue::default(), &mut [0.0; 47]);
    }

    /// The pruner's blocks are neighbouring outputs of one input, whichever way the matrix lies.
    #[test]
    fn blocks_are_along_the_outputs() {
        for by_output in [false, true] {
            let values = pruned(32, 24, 4, 0.9, by_output);
            let kept = values.iter().filter(|value| **value != 0.0).count();
            let weights = if by_output {
                WeightMatrix::by_output(&values, 32, 24)
            } else {
                WeightMatrix::by_input(&values, 32, 24)
            };
            assert_eq!(SparseWeight::pack(weights, 4).cells(), kept);
        }
    }
}
