//! The operators: each a type that holds its attributes, computes its outputs, and knows its vector-Jacobian product.

use std::{any::Any, collections::HashMap, fmt, ops::Deref};

use espalier_onnx::{NodeProto, OnnxError};

use crate::{Array, Tensor};

mod arithmetic;
mod cast;
mod convolution;
mod depthwise;
mod elementwise;
mod indexing;
mod matmul;
mod normalisation;
mod pool;
mod product;
mod recurrent;
mod reduce;
mod shape;
mod softmax;
mod strided;
mod support;
mod vector;
mod view;
mod window;

#[cfg(test)]
#[allow(dead_code, reason = "families of operators use what they need")]
mod check;
#[cfg(test)]
mod hostile;

/// What an operator keeps from its forward pass for its gradient.
pub type Saved = Box<dyn Any + Send + Sync>;

/// One gradient for each input of a node.
pub type InputGradients = Result<Vec<Option<Array<f32>>>, BackwardError>;

/// Why there are no gradients.
#[derive(Debug)]
pub enum BackwardError {
    /// The operator has none.
    NoGradient,
    /// A sentence fragment that says what went wrong.
    Failed(String),
}

impl From<&str> for BackwardError {
    fn from(why: &str) -> BackwardError {
        BackwardError::Failed(why.to_owned())
    }
}

impl From<String> for BackwardError {
    fn from(why: String) -> BackwardError {
        BackwardError::Failed(why)
    }
}

/// The computation of one node. Inputs that are left out are `None`.
pub trait Operator: fmt::Debug + Send + Sync {
    /// Computes the outputs in their order, at least the first `outputs` of them.
    ///
    /// # Errors
    /// A sentence fragment that says what of the inputs does not fit.
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String>;

    /// The vector-Jacobian product: gradients of the inputs in their order; `None` for one that has none or is not
    /// required.
    ///
    /// # Errors
    /// [`BackwardError::NoGradient`] for an operator that has no gradient.
    fn backward(&self, pass: &Backward) -> InputGradients {
        let _ = pass;
        Err(BackwardError::NoGradient)
    }
}

/// What comes out of a node.
pub struct Forward {
    pub outputs: Vec<Tensor>,
    /// Whatever the gradient needs beyond inputs and outputs.
    pub saved: Option<Saved>,
}

impl Forward {
    pub fn one(output: Tensor) -> Forward {
        Forward { outputs: vec![output], saved: None }
    }

    pub fn floats(output: Array<f32>) -> Forward {
        Forward::one(Tensor::F32(output))
    }
}

/// What a gradient is computed from.
pub struct Backward<'a> {
    pub inputs: Vec<Option<&'a Tensor>>,
    pub outputs: Vec<Option<&'a Tensor>>,
    pub saved: Option<&'a (dyn Any + Send + Sync)>,
    /// Gradients of the outputs; at least one is there.
    pub gradients: Vec<Option<Array<f32>>>,
    /// Which inputs' gradients are required.
    pub wants: Vec<bool>,
}

impl<'a> Backward<'a> {
    fn input(&self, index: usize) -> Result<&'a Tensor, String> {
        support::input(&self.inputs, index)
    }

    fn output(&self, index: usize) -> Result<&'a Tensor, String> {
        support::input(&self.outputs, index)
    }

    /// The gradient of the first output, for operators with one output of floats.
    fn seed(&self) -> Result<&Array<f32>, String> {
        self.gradients[0].as_ref().ok_or_else(|| "no gradient arrives at its first output".to_owned())
    }

    /// The gradient of an output of this shape; zeros where no gradient arrives.
    fn gradient(&self, output: usize, shape: &[usize]) -> Array<f32> {
        self.gradients.get(output).cloned().flatten().unwrap_or_else(|| Array::zeros(shape))
    }

    /// A gradient for the first input alone.
    fn only_first(&self, gradient: Array<f32>) -> InputGradients {
        let mut gradients = vec![None; self.inputs.len()];
        gradients[0] = Some(gradient);
        Ok(gradients)
    }
}

/// A node's attributes (those of [`NodeProto`]), the version of its operator set, and the element types of the graph's
/// constants, by name: a [`Tensor`] does not keep them.
pub struct Attributes<'a> {
    pub proto: &'a NodeProto,
    pub opset: i64,
    pub types: &'a HashMap<String, i32>,
}

impl Deref for Attributes<'_> {
    type Target = NodeProto;

    fn deref(&self) -> &NodeProto {
        self.proto
    }
}

impl Attributes<'_> {
    /// The element type of an input that is a constant.
    fn element_type(&self, input: usize) -> Option<i32> {
        self.types.get(self.proto.input.get(input)?).copied()
    }

    /// A copy of a list of integers.
    fn list(&self, name: &str) -> Option<Vec<i64>> {
        self.ints(name).map(<[i64]>::to_vec)
    }
}

/// An operator out of a node's attributes, or a sentence fragment that says what of them is wrong or not supported.
type Parsed = Result<Box<dyn Operator>, String>;

/// The operators of one file, by name.
type Family = [(&'static str, fn(&Attributes) -> Parsed)];

const FAMILIES: [&Family; 13] = [
    elementwise::FAMILY,
    arithmetic::FAMILY,
    cast::FAMILY,
    shape::FAMILY,
    view::FAMILY,
    indexing::FAMILY,
    reduce::FAMILY,
    recurrent::FAMILY,
    matmul::FAMILY,
    convolution::FAMILY,
    pool::FAMILY,
    normalisation::FAMILY,
    softmax::FAMILY,
];

fn boxed(operator: impl Operator + 'static) -> Parsed {
    Ok(Box::new(operator))
}

/// The names of all operators, in no particular order. `Constant` is none: [`constant`] reads its value.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().flatten().map(|(name, _)| *name)
}

/// The operator of a node of the standard domain; `None` where the engine does not know it.
pub fn parse(node: &Attributes) -> Option<Parsed> {
    let (_, parse) = FAMILIES.into_iter().flatten().find(|(name, _)| *name == node.op())?;
    Some(parse(node))
}

/// The value of a `Constant` node.
///
/// # Errors
/// One that holds nothing the engine computes with.
pub fn constant(name: &str, node: &NodeProto) -> Result<Tensor, OnnxError> {
    for attribute in &node.attribute {
        return match (attribute.name(), &attribute.t) {
            ("value", Some(tensor)) => Tensor::of(name, tensor),
            ("value_float", _) => Ok(Tensor::F32(Array::scalar(attribute.f()))),
            ("value_floats", _) => Ok(Tensor::F32(Array::list(&attribute.floats))),
            ("value_int", _) => Ok(Tensor::I64(Array::scalar(attribute.i()))),
            ("value_ints", _) => Ok(Tensor::I64(Array::list(&attribute.ints))),
            _ => continue,
        };
    }
    Err(OnnxError::BadTensor {
        tensor: name.to_owned(),
        why: "is a constant without a value that the engine computes with".into(),
    })
}
