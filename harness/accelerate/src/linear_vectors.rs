//! A linear layer with few tokens, e.g. a classifier with one: a matrix times a few vectors.

use espalier_kernels::{
    elementwise::Activation,
    matvec::{PackedMatrix, RowOrder, Vectors},
};
use tract_onnx::{prelude::*, tract_core::internal::*};

use crate::op::{Layer, Shared, blank};

/// `activation(x W + bias)`, an output a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearVectors {
    pub shape: TVec<usize>,
    pub product: Shared<VectorProduct>,
}

pub struct VectorProduct {
    pub matrix: PackedMatrix,
    pub bias: Vec<f32>,
    pub activation: Activation,
}

impl Layer for LinearVectors {
    fn op(&self) -> String {
        let VectorProduct { matrix, activation, .. } = &*self.product;
        let size = format!("linear {}x{}", matrix.columns(), matrix.rows());
        if *activation == Activation::None { size } else { format!("{size} {}", activation.name()) }
    }

    fn kernel(&self) -> String {
        format!("vectors {} {}", self.product.matrix.format(), self.product.matrix.isa().name())
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(DatumType::F32.fact(&*self.shape)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let VectorProduct { matrix, bias, activation } = &*self.product;
        let mut output = blank(&self.shape)?;
        let (from, mut to) = (inputs[0].try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (values, to) = (from.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        let outputs = matrix.rows();
        if bias.is_empty() {
            to.fill(0.0);
        } else {
            to.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
        }
        let count = to.len() / outputs.max(1);
        matrix.add(Vectors { values, stride: matrix.columns(), count }, to, outputs, RowOrder::Down);
        activation.apply(matrix.isa(), to);
        Ok(tvec!(output.into_tvalue()))
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let rows = self.shape.iter().rev().skip(1).product::<usize>();
        Ok(tvec!((Cost::FMA(DatumType::F32), (rows * self.product.matrix.bytes() / size_of::<f32>()).to_dim())))
    }
}
