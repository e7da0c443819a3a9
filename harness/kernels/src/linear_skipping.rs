//! The product of a dense weight with activations most of which are zero, as after a ReLU: those are skipped.
//!
//! In: a weight packed once, and panels. Out: rows, a token each. Every token has a list of the inputs that are not
//! (nearly) zero. Their rows of the weight are added up in registers, 64 outputs at a time, so that the part of the
//! weight in use stays in the second-level cache from token to token. This pays off where at most a quarter of the
//! activations is left: a dense product makes better use of what it loads.

use std::{ops::Range, ptr};

use crate::{
    aligned::Aligned,
    linear_dense::WeightMatrix,
    linear_panels::{Panels, Target},
    share_out::in_parts,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

/// Outputs at a time.
const WIDTH: usize = 64;

/// The share is estimated from one feature in so many.
const SAMPLED: usize = 16;

#[derive(Clone, Debug)]
pub struct SkippingWeight {
    outputs: usize,
    inputs: usize,
    /// 64 outputs at a time, input by input; the last are filled up with zeros.
    packed: Aligned,
}

/// Which inputs of each token are not skipped.
pub struct Active {
    features: usize,
    /// Token `t` has those from `starts[t]` to `starts[t] + counts[t]`.
    starts: Vec<usize>,
    counts: Vec<usize>,
    inputs: Vec<u32>,
    values: Vec<f32>,
}

impl SkippingWeight {
    pub fn pack(weights: WeightMatrix) -> SkippingWeight {
        let (outputs, inputs) = (weights.outputs(), weights.inputs());
        let mut packed = Aligned::zeros(outputs.div_ceil(WIDTH) * inputs * WIDTH);
        for (index, row) in packed.as_mut_slice().chunks_exact_mut(WIDTH).enumerate() {
            let (block, input) = (index / inputs, index % inputs);
            for (value, output) in row.iter_mut().zip(block * WIDTH..outputs) {
                *value = weights.at(output, input);
            }
        }
        SkippingWeight { outputs, inputs, packed }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Writes the product plus `bias` (which may be empty) to `rows`.
    ///
    /// # Panics
    /// Unless every length is the one its shape asks for.
    pub fn run(&self, isa: Isa, threads: &Threads, active: &Active, bias: &[f32], rows: &mut [f32]) {
        assert_eq!(Some(rows.len()), active.counts.len().checked_mul(self.outputs), "rows of {} outputs", self.outputs);
        assert!(bias.is_empty() || bias.len() == self.outputs, "a bias for each output");
        assert_eq!(active.features, self.inputs, "activations of another layer");
        let target = Target::of(rows);
        in_parts(threads, self.outputs.div_ceil(WIDTH), &|blocks| {
            // SAFETY: the processor has `isa`'s instructions; the lengths were checked, blocks are written once each,
            // and inputs are below `features`.
            unsafe { isa.run(Sums { weight: self, blocks, active, bias, rows: target.pointer() }) }
        });
    }
}

impl Active {
    /// The share of activations with a magnitude above `threshold`, estimated from some of the features.
    ///
    /// # Panics
    /// Unless `input` is panels of `features`.
    pub fn share(panels: Panels, features: usize, input: &[f32], threshold: f32) -> f64 {
        assert_eq!(input.len(), panels.values(features), "panels of {features} features");
        let (mut all, mut active) = (0usize, 0usize);
        for index in 0..panels.count() {
            let panel = panels.get(index);
            for feature in (index % SAMPLED..features).step_by(SAMPLED) {
                let row = &input[panel.column * features + feature * panel.width..][..panel.tokens];
                all += row.len();
                active += row.iter().filter(|value| value.abs() > threshold).count();
            }
        }
        active as f64 / all.max(1) as f64
    }

    /// # Panics
    /// Unless `input` is panels of `features`, of which 32 bits count the features.
    pub fn find(isa: Isa, panels: Panels, features: usize, input: &[f32], threshold: f32) -> Active {
        assert!(u32::try_from(features).is_ok(), "{features} features are more than 32 bits count");
        let tokens = panels.rows();
        // A row has all activations of one token, so that those kept of it are written one after another.
        let mut rows = vec![0.0; tokens * features];
        panels.leave(isa, features, input, &mut rows);
        let (mut starts, mut counts) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        let (mut inputs, mut values) = (Vec::new(), Vec::new());
        let mut end = 0;
        for row in rows.chunks_exact(features.max(1)) {
            if inputs.len() < end + features {
                inputs.resize(2 * end + 8 * features, 0u32);
                values.resize(2 * end + 8 * features, 0.0f32);
            }
            let (to_inputs, to_values) = (&mut inputs[end..end + features], &mut values[end..end + features]);
            let mut count = 0;
            for (feature, value) in row.iter().enumerate() {
                // Written in any case, and kept if it counts: there is no branch to mispredict. NaN is not small.
                to_inputs[count] = feature as u32;
                to_values[count] = *value;
                count += usize::from(value.abs() > threshold || value.is_nan());
            }
            starts.push(end);
            counts.push(count);
            end += count;
        }
        Active { features, starts, counts, inputs, values }
    }

    /// Of all tokens.
    pub fn count(&self) -> usize {
        self.counts.iter().sum()
    }
}

struct Sums<'a> {
    weight: &'a SkippingWeight,
    /// Of 64 outputs each.
    blocks: Range<usize>,
    active: &'a Active,
    bias: &'a [f32],
    rows: *mut f32,
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Sums { weight: SkippingWeight { outputs, inputs, packed }, blocks, active, bias, rows } = self;
        let vectors = WIDTH / S::LANES;
        // Two sums for each vector in turn, so that no addition waits for the one before.
        let most = if S::REGISTERS >= 32 { 4 } else { 2 };
        for block in blocks {
            let first = block * WIDTH;
            for token in 0..active.counts.len() {
                let (start, count) = (active.starts[token], active.counts[token]);
                let mut done = 0;
                while done < vectors && first + done * S::LANES < *outputs {
                    let place = first + done * S::LANES;
                    let from = packed.as_ptr().add(block * inputs * WIDTH + done * S::LANES);
                    let (inputs, values) = (active.inputs.as_ptr().add(start), active.values.as_ptr().add(start));
                    let to = rows.add(token * outputs + place);
                    let left = outputs - place;
                    let bias = if bias.is_empty() { ptr::null() } else { bias.as_ptr().add(place) };
                    if most == 4 {
                        sums::<S, 4>(from, inputs, values, count, bias, to, left);
                    } else {
                        sums::<S, 2>(from, inputs, values, count, bias, to, left);
                    }
                    done += most;
                }
            }
        }
    }
}

/// `C` vectors of outputs of one token; `left` values of them are kept.
#[inline(always)]
unsafe fn sums<S: Simd, const C: usize>(
    from: *const f32,
    inputs: *const u32,
    values: *const f32,
    count: usize,
    bias: *const f32,
    to: *mut f32,
    left: usize,
) {
    let (mut even, mut odd) = ([S::splat(0.0); C], [S::splat(0.0); C]);
    let mut index = 0;
    while index + 2 <= count {
        let a = from.add(*inputs.add(index) as usize * WIDTH);
        let b = from.add(*inputs.add(index + 1) as usize * WIDTH);
        let (x, y) = (S::splat(*values.add(index)), S::splat(*values.add(index + 1)));
        for c in 0..C {
            even[c] = S::mul_add(x, S::load(a.add(c * S::LANES)), even[c]);
            odd[c] = S::mul_add(y, S::load(b.add(c * S::LANES)), odd[c]);
        }
        index += 2;
    }
    if index < count {
        let a = from.add(*inputs.add(index) as usize * WIDTH);
        let x = S::splat(*values.add(index));
        for c in 0..C {
            even[c] = S::mul_add(x, S::load(a.add(c * S::LANES)), even[c]);
        }
    }
    for c in 0..C {
        let place = c * S::LANES;
        if place < left {
            let some = S::LANES.min(left - place);
            let mut sum = S::add(even[c], odd[c]);
            if !bias.is_null() {
                sum = S::add(sum, S::load_partial(bias.add(place), some));
            }
            S::store_partial(to.add(place), sum, some);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{is_close, synthetic};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_small_is_zero(
            sequences in 1usize..3,
            tokens in 1usize..80,
            outputs in 1usize..150,
            inputs in 1usize..40,
            threshold in 0.0f32..1.2,
            by_output in any::<bool>(),
            biased in any::<bool>(),
        ) {
            let panels = Panels::new(sequences, tokens);
            let values = synthetic(outputs * inputs, 1);
            let weights = if by_output {
                WeightMatrix::by_output(&values, outputs, inputs)
            } else {
                WeightMatrix::by_input(&values, outputs, inputs)
            };
            let bias = if biased { synthetic(outputs, 3) } else { Vec::new() };
            let mut x = synthetic(panels.rows() * inputs, 2);
            x.iter_mut().step_by(3).for_each(|x| *x = 0.0);
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let mut input = vec![0.0; panels.columns() * inputs];
                    panels.enter(isa, inputs, &x, &mut input);
                    let active = Active::find(isa, panels, inputs, &input, threshold);
                    prop_assert_eq!(active.count(), x.iter().filter(|x| x.abs() > threshold).count());
                    let mut rows = vec![f32::NAN; panels.rows() * outputs];
                    SkippingWeight::pack(weights).run(isa, &Threads::new(threads), &active, &bias, &mut rows);
                    for token in 0..panels.rows() {
                        for output in 0..outputs {
                            let row = x[token * inputs..][..inputs].iter().enumerate();
                            let exact: f64 = row
                                .filter(|(_, x)| x.abs() > threshold)
                                .map(|(input, x)| f64::from(*x) * f64::from(weights.at(output, input)))
                                .sum();
                            let exact = exact + bias.get(output).map_or(0.0, |bias| f64::from(*bias));
                            let found = rows[token * outputs + output];
                            prop_assert!(is_close(found, exact), "{} {output}: {found}, not {exact}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_share_is_about_that() {
        let panels = Panels::new(1, 50);
        let input: Vec<f32> = synthetic(panels.columns() * 320, 4).iter().map(|x| x.max(0.0)).collect();
        let share = Active::share(panels, 320, &input, 0.0);
        assert!((0.4..0.6).contains(&share), "{share}");
    }
}
