//! A linear layer after an activation that sets many values to zero. Where few enough values are left, only those are
//! multiplied. This is decided at each inference from a sample of the activations, because it depends on the input.

use espalier_kernels::{
    elementwise::{self, Activation},
    linear_panels::Panels,
    linear_skipping::{Active, SkippingWeight},
};
use tract_onnx::{prelude::*, tract_core::internal::*};

use crate::{
    linear_ops::{Linear, LinearProduct, panel_fact},
    op::{Layer, Shared, blank},
};

/// With a larger share of activations left the dense product is faster. For 3072 to 768 at 128 tokens the two are equal
/// at 0.28, and skipping is 2.2 times as fast at 0.1.
const MOST_ACTIVE: f64 = 0.25;

/// With fewer weights, finding the activations that are left takes longer than multiplying all of them.
pub const FEWEST_WEIGHTS: usize = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSkipping {
    pub panels: Panels,
    /// For inputs with too many activations left.
    pub product: Shared<LinearProduct>,
    pub skipping: Shared<SkippingLayer>,
}

pub struct SkippingLayer {
    pub weight: SkippingWeight,
    pub threshold: f32,
}

impl LinearSkipping {
    fn dense(&self) -> Linear {
        Linear { panels: self.panels, product: self.product.clone(), rows: None }
    }
}

impl Layer for LinearSkipping {
    fn op(&self) -> String {
        format!("{} skipping", self.dense().op())
    }

    fn kernel(&self) -> String {
        self.product.kernel()
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let weight = &self.skipping.weight;
        ensure!(inputs[0].shape.as_concrete() == Some(&[self.panels.columns(), weight.inputs()][..]));
        Ok(panel_fact(self.panels, weight.outputs()))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let SkippingLayer { weight, threshold } = &*self.skipping;
        let share = Active::share(self.panels, weight.inputs(), inputs[0].try_as_plain_ram()?.as_slice()?, *threshold);
        if share > MOST_ACTIVE {
            return self.dense().run(inputs);
        }
        let plain = inputs[0].try_as_plain_ram()?;
        let input = plain.as_slice::<f32>()?;
        let LinearProduct { isa, threads, bias, activation, .. } = &*self.product;
        let active = Active::find(*isa, self.panels, weight.inputs(), input, *threshold);
        let mut rows = blank(&[self.panels.rows(), weight.outputs()])?;
        let mut output = blank(&[self.panels.columns(), weight.outputs()])?;
        let (mut rows, mut to) = (rows.try_as_plain_ram_mut()?, output.try_as_plain_ram_mut()?);
        let (rows, to) = (rows.as_slice_mut::<f32>()?, to.as_slice_mut::<f32>()?);
        weight.run(*isa, threads, &active, bias, rows);
        self.panels.enter(*isa, weight.outputs(), rows, to);
        if *activation != Activation::None {
            activation.apply(*isa, to);
        }
        if let Some(residual) = inputs.get(1) {
            elementwise::sum(*isa, to, residual.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        Ok(tvec!(output.into_tvalue()))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        self.dense().cost(inputs)
    }
}
