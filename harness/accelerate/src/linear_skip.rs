//! A linear layer after an activation that leaves much at zero: where few enough are left, they alone are multiplied. Which way it goes is decided at each
//! inference, from some of the activations, because it is the input's doing and not the model's.

use espalier_kernels::{
    elementwise::{self, Activation},
    linear_panels::Panels,
    linear_skipping::{Active, SkippingWeight},
};
use tract_onnx::{prelude::*, tract_core::internal::*};

use crate::{
    linear_ops::{Linear, Product, blank, panel_fact},
    op::{Layer, Shared},
};

/// With more activations left than this share, the dense product is faster (3072 to 768 at 128 tokens: even at 0.28, 2.2 times at 0.1).
const MOST_ACTIVE: f64 = 0.25;

/// With fewer weights than this, finding what is left takes longer than to multiply all of it.
pub const FEWEST_WEIGHTS: usize = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSkipping {
    pub panels: Panels,
    /// For inputs that are not worth it.
    pub product: Shared<Product>,
    pub skipping: Shared<Weight>,
}

pub struct Weight {
    pub weight: SkippingWeight,
    pub threshold: f32,
}

impl Layer for LinearSkipping {
    fn op(&self) -> String {
        format!("{} skipping", Linear { panels: self.panels, product: self.product.clone() }.op())
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
        let Weight { weight, threshold } = &*self.skipping;
        let share = Active::share(self.panels, weight.inputs(), inputs[0].try_as_plain_ram()?.as_slice()?, *threshold);
        if share > MOST_ACTIVE {
            return Linear { panels: self.panels, product: self.product.clone() }.run(inputs);
        }
        let plain = inputs[0].try_as_plain_ram()?;
        let input = plain.as_slice::<f32>()?;
        let Product { isa, threads, bias, activation, .. } = &*self.product;
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
        Linear { panels: self.panels, product: self.product.clone() }.cost(inputs)
    }
}
