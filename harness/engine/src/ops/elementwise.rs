//! Operators that treat each element alike.

use super::{Attributes, Backward, Forward, InputGradients, Operator};
use crate::{Array, Tensor};

pub fn parse(node: &Attributes) -> Option<Result<Box<dyn Operator>, String>> {
    let operator: Box<dyn Operator> = match node.proto.op_type() {
        "Relu" => Box::new(Relu),
        _ => return None,
    };
    Some(Ok(operator))
}

#[derive(Debug)]
struct Relu;

impl Operator for Relu {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = inputs.first().copied().flatten().ok_or("it has no input")?.f32()?;
        Ok(Forward::floats(x.map(|x| x.max(0.0))))
    }

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let (y, gradient) = (pass.outputs[0]?, pass.gradients[0].as_ref()?);
        Some(y.f32().map(|y| {
            let passed = y.data().iter().zip(gradient.data()).map(|(y, g)| if *y > 0.0 { *g } else { 0.0 });
            vec![Some(Array::new(y.shape(), passed.collect()))]
        }))
    }
}
