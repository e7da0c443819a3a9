//! The operators: each a type that holds its attributes, computes its outputs, and knows its vector-Jacobian product.

use std::{any::Any, collections::HashMap, fmt};

use espalier_onnx::{AttributeProto, NodeProto, OnnxError};

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

/// What an operator keeps from its forward for its gradient.
pub type Saved = Box<dyn Any + Send + Sync>;

/// One for each input of a node, or a sentence fragment.
pub type InputGradients = Result<Vec<Option<Array<f32>>>, String>;

/// One node's computation. Inputs that are left out are `None`.
pub trait Operator: fmt::Debug + Send + Sync {
    /// Computes the outputs; at least as many as `outputs` says the node has, in their order.
    ///
    /// # Errors
    /// A sentence fragment that says what of the inputs does not fit.
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String>;

    /// Gradients of the inputs, one for each input of the node in order; `None` where there is none or it is not wanted. The whole is `None` for
    /// an operator without a gradient.
    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let _ = pass;
        None
    }
}

/// What came out of a node.
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
    /// Which inputs' gradients are wanted.
    pub wants: Vec<bool>,
}

/// A node's attributes, and the version of its operator set.
pub struct Attributes<'a> {
    pub proto: &'a NodeProto,
    pub opset: i64,
    /// Element types of the graph's constants, by name: what a [`Tensor`] does not keep.
    pub types: &'a HashMap<String, i32>,
}

impl<'a> Attributes<'a> {
    pub fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name() == name)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|attribute| attribute.ints.as_slice())
    }

    /// The element type of an input that is a constant.
    pub fn element_type(&self, input: usize) -> Option<i32> {
        self.types.get(self.proto.input.get(input)?).copied()
    }

    pub fn string(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|attribute| std::str::from_utf8(attribute.s.as_deref()?).ok())
    }
}

/// The operator a node of the standard domain asks for; `None` where the engine does not know it.
pub fn parse(node: &Attributes) -> Option<Result<Box<dyn Operator>, String>> {
    let families = [
        elementwise::parse,
        arithmetic::parse,
        cast::parse,
        shape::parse,
        view::parse,
        indexing::parse,
        reduce::parse,
        recurrent::parse,
        matmul::parse,
        convolution::parse,
        pool::parse,
        normalisation::parse,
        softmax::parse,
    ];
    families.into_iter().find_map(|parse| parse(node))
}

/// The value of a `Constant` node.
///
/// # Errors
/// One that holds nothing the engine computes with.
pub fn constant(name: &str, node: &NodeProto) -> Result<Tensor, OnnxError> {
    let vector = |len: usize| vec![len];
    for attribute in &node.attribute {
        match attribute.name() {
            "value" => {
                if let Some(tensor) = &attribute.t {
                    return Tensor::of(name, tensor);
                }
            }
            "value_float" => return Ok(Tensor::F32(Array::scalar(attribute.f()))),
            "value_floats" => {
                return Ok(Tensor::F32(Array::new(vector(attribute.floats.len()), attribute.floats.clone())));
            }
            "value_int" => return Ok(Tensor::I64(Array::scalar(attribute.i()))),
            "value_ints" => return Ok(Tensor::I64(Array::new(vector(attribute.ints.len()), attribute.ints.clone()))),
            _ => {}
        }
    }
    Err(OnnxError::BadTensor {
        tensor: name.to_owned(),
        why: "is a constant without a value the engine computes with".into(),
    })
}
