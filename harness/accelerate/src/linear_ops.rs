//! Ops on panels of tokens: conversions from rows and back, products, sums. Between two layers activations stay panels:
//! a tensor of columns by features in the layout of [`Panels`], which no op of tract looks into.

use std::sync::Arc;

use espalier_kernels::{
    elementwise::{self, Activation},
    linear_dense::{DenseWeight, Epilogue, WeightMatrix},
    linear_panels::Panels,
    linear_sparse::SparseWeight,
    simd::Isa,
    threads::Threads,
};
use tract_onnx::{prelude::*, tract_core::internal::*};

use crate::op::{Layer, Shared, blank};

/// Converts rows of features to panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enter {
    pub isa: Isa,
    pub panels: Panels,
}

/// Converts panels to rows, in the shape of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    pub isa: Isa,
    pub panels: Panels,
    pub shape: TVec<usize>,
}

/// `activation(x W + bias)`, plus a second input if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    pub panels: Panels,
    pub product: Shared<LinearProduct>,
    /// The shape of the output, if input and output are rows: a layer is measured in this form. Else they are panels.
    pub rows: Option<TVec<usize>>,
}

/// The sum of two panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub isa: Isa,
}

pub struct LinearProduct {
    pub isa: Isa,
    pub threads: Arc<Threads>,
    pub weight: LinearWeight,
    pub bias: Vec<f32>,
    pub activation: Activation,
}

pub enum LinearWeight {
    Dense(DenseWeight),
    Sparse(SparseWeight),
}

/// How a weight is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearForm {
    Dense,
    /// Blocks of this many outputs; 1 for single cells.
    Blocks(usize),
}

impl LinearForm {
    pub fn name(self) -> String {
        match self {
            LinearForm::Dense => "dense".to_owned(),
            LinearForm::Blocks(1) => "csr".to_owned(),
            LinearForm::Blocks(height) => format!("block-{height}x1"),
        }
    }

    pub fn pack(self, weights: WeightMatrix) -> LinearWeight {
        match self {
            LinearForm::Dense => LinearWeight::Dense(DenseWeight::pack(weights)),
            LinearForm::Blocks(height) => LinearWeight::Sparse(SparseWeight::pack(weights, height)),
        }
    }
}

impl LinearWeight {
    pub fn outputs(&self) -> usize {
        match self {
            LinearWeight::Dense(dense) => dense.outputs(),
            LinearWeight::Sparse(sparse) => sparse.outputs(),
        }
    }

    pub fn inputs(&self) -> usize {
        match self {
            LinearWeight::Dense(dense) => dense.inputs(),
            LinearWeight::Sparse(sparse) => sparse.inputs(),
        }
    }

    fn form(&self) -> LinearForm {
        match self {
            LinearWeight::Dense(_) => LinearForm::Dense,
            LinearWeight::Sparse(sparse) => LinearForm::Blocks(sparse.height()),
        }
    }

    /// Multiplications per token.
    fn cells(&self) -> usize {
        match self {
            LinearWeight::Dense(dense) => dense.outputs() * dense.inputs(),
            LinearWeight::Sparse(sparse) => sparse.cells(),
        }
    }
}

impl LinearProduct {
    fn run(&self, panels: Panels, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) {
        let epilogue = Epilogue { bias: &self.bias, activation: self.activation, residual };
        match &self.weight {
            LinearWeight::Dense(dense) => dense.run(self.isa, &self.threads, panels, input, epilogue, output),
            LinearWeight::Sparse(sparse) => sparse.run(self.isa, &self.threads, panels, input, epilogue, output),
        }
    }

    pub fn kernel(&self) -> String {
        format!("{} {}", self.weight.form().name(), self.isa.name())
    }
}

pub fn panel_fact(panels: Panels, features: usize) -> TVec<TypedFact> {
    tvec!(DatumType::F32.fact([panels.columns(), features]))
}

impl Layer for Enter {
    fn op(&self) -> String {
        "to panels".to_owned()
    }

    fn kernel(&self) -> String {
        self.isa.name().to_owned()
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("a dimension is open")?;
        let features = *shape.last().context("a scalar has no features")?;
        ensure!(shape.iter().product::<usize>() == self.panels.rows() * features, "{shape:?} are no {:?}", self.panels);
        Ok(panel_fact(self.panels, features))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let features = *inputs[0].shape().last().context("a scalar has no features")?;
        let mut output = blank(&[self.panels.columns(), features])?;
        let (from, mut to) = (inputs[0].try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        self.panels.enter(self.isa, features, from.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Layer for Leave {
    fn op(&self) -> String {
        "from panels".to_owned()
    }

    fn kernel(&self) -> String {
        self.isa.name().to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(DatumType::F32.fact(&*self.shape)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let features = *self.shape.last().context("a scalar has no features")?;
        let mut output = blank(&self.shape)?;
        let (from, mut to) = (inputs[0].try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        self.panels.leave(self.isa, features, from.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Layer for Linear {
    fn op(&self) -> String {
        let LinearProduct { weight, activation, .. } = &*self.product;
        let size = format!("linear {}x{}", weight.inputs(), weight.outputs());
        if *activation == Activation::None { size } else { format!("{size} {}", activation.name()) }
    }

    fn kernel(&self) -> String {
        self.product.kernel()
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        if let Some(shape) = &self.rows {
            return Ok(tvec!(DatumType::F32.fact(&**shape)));
        }
        ensure!(inputs[0].shape.as_concrete() == Some(&[self.panels.columns(), self.product.weight.inputs()][..]));
        Ok(panel_fact(self.panels, self.product.weight.outputs()))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let LinearProduct { isa, weight, .. } = &*self.product;
        let columns = self.panels.columns();
        let input = inputs[0].try_as_plain_ram()?;
        let input = input.as_slice::<f32>()?;
        let mut panels = blank(&[columns, weight.outputs()])?;
        let mut plain = panels.try_as_plain_ram_mut()?;
        let result = plain.as_slice_mut::<f32>()?;
        let Some(shape) = &self.rows else {
            let residual = inputs.get(1).map(|residual| residual.try_as_plain_ram()).transpose()?;
            let residual = residual.as_ref().map(|residual| residual.as_slice::<f32>()).transpose()?;
            self.product.run(self.panels, input, residual, result);
            return Ok(tvec!(panels.into_tvalue()));
        };
        let (mut before, mut output) = (blank(&[columns, weight.inputs()])?, blank(shape)?);
        let (mut before, mut to) = (before.try_as_plain_ram_mut()?, output.try_as_plain_ram_mut()?);
        let before = before.as_slice_mut::<f32>()?;
        self.panels.enter(*isa, weight.inputs(), input, before);
        self.product.run(self.panels, before, None, result);
        self.panels.leave(*isa, weight.outputs(), result, to.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let products = self.product.weight.cells() * self.panels.rows();
        Ok(tvec!((Cost::FMA(DatumType::F32), products.to_dim())))
    }
}

impl Layer for Sum {
    fn op(&self) -> String {
        "sum of panels".to_owned()
    }

    fn kernel(&self) -> String {
        self.isa.name().to_owned()
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].shape == inputs[1].shape);
        Ok(tvec!(inputs[0].without_value()))
    }

    fn run(&self, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let other = inputs.pop().context("two inputs")?;
        let mut sum = inputs.pop().context("two inputs")?.into_tensor();
        let (mut to, from) = (sum.try_as_plain_ram_mut()?, other.try_as_plain_ram()?);
        elementwise::sum(self.isa, to.as_slice_mut::<f32>()?, from.as_slice::<f32>()?);
        Ok(tvec!(sum.into_tvalue()))
    }
}
