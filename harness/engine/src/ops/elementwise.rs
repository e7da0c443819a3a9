//! Operators that treat each element of one tensor alike.
//!
//! Gradients at kinks: that of the flat side, as PyTorch has it (`Relu` at 0, `Clip` at its bounds: 0). Rounding has gradient zero.

use libm::erff;

use super::{Attributes, Backward, Forward, InputGradients, Operator, support::*};
use crate::{Array, Tensor};

pub fn parse(node: &Attributes) -> Option<Result<Box<dyn Operator>, String>> {
    use Function as F;
    let alpha = |default| node.float("alpha", default);
    let function = match node.proto.op_type() {
        "Relu" => F::Relu,
        "LeakyRelu" => F::LeakyRelu { alpha: alpha(0.01) },
        "ThresholdedRelu" => F::ThresholdedRelu { alpha: alpha(1.0) },
        "Elu" => F::Elu { alpha: alpha(1.0) },
        "Celu" => F::Celu { alpha: alpha(1.0) },
        "Selu" => F::Selu { alpha: alpha(1.673_263_2), gamma: node.float("gamma", 1.050_701) },
        "HardSigmoid" => F::HardSigmoid { alpha: alpha(0.2), beta: node.float("beta", 0.5) },
        "HardSwish" => F::HardSwish,
        "Tanh" => F::Tanh,
        "Sigmoid" => F::Sigmoid,
        "Swish" => F::Swish { alpha: alpha(1.0) },
        "Mish" => F::Mish,
        "Erf" => F::Erf,
        "Gelu" => match node.string("approximate").unwrap_or("none") {
            "none" => F::Gelu,
            "tanh" => F::GeluTanh,
            other => return Some(Err(format!("there is no approximation `{other}`"))),
        },
        "Sqrt" => F::Sqrt,
        "Exp" => F::Exp,
        "Log" => F::Log,
        "Neg" => F::Neg,
        "Abs" => F::Abs,
        "Reciprocal" => F::Reciprocal,
        "Softplus" => F::Softplus,
        "Softsign" => F::Softsign,
        "Sin" => F::Sin,
        "Cos" => F::Cos,
        "Floor" => F::Floor,
        "Ceil" => F::Ceil,
        "Round" => F::Round,
        "Sign" => F::Sign,
        "Not" => return Some(Ok(Box::new(Test::Not))),
        "IsNaN" => return Some(Ok(Box::new(Test::IsNan))),
        "IsInf" => {
            let wanted = |name| node.int(name, 1) != 0;
            return Some(Ok(Box::new(Test::IsInf {
                negative: wanted("detect_negative"),
                positive: wanted("detect_positive"),
            })));
        }
        "Clip" => {
            let bound = |name| node.get(name).and_then(|attribute| attribute.f);
            return Some(Ok(Box::new(Clip { least: bound("min"), most: bound("max") })));
        }
        _ => return None,
    };
    Some(Ok(Box::new(function)))
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Relu,
    LeakyRelu { alpha: f32 },
    ThresholdedRelu { alpha: f32 },
    Elu { alpha: f32 },
    Celu { alpha: f32 },
    Selu { alpha: f32, gamma: f32 },
    HardSigmoid { alpha: f32, beta: f32 },
    HardSwish,
    Tanh,
    Sigmoid,
    Swish { alpha: f32 },
    Mish,
    Erf,
    Gelu,
    GeluTanh,
    Sqrt,
    Exp,
    Log,
    Neg,
    Abs,
    Reciprocal,
    Softplus,
    Softsign,
    Sin,
    Cos,
    Floor,
    Ceil,
    Round,
    Sign,
}

impl Operator for Function {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        Ok(match input(inputs, 0)? {
            Tensor::I64(x) => Forward::one(Tensor::I64(match self {
                Function::Relu => x.map(|x| *x.max(&0)),
                Function::Neg => x.map(|x| x.wrapping_neg()),
                Function::Abs => x.map(|x| x.wrapping_abs()),
                Function::Sign => x.map(|x| x.signum()),
                _ => return Err("a float tensor is needed, not an integer one".into()),
            })),
            x => {
                let x = x.f32()?;
                Forward::floats(Array::new(x.shape(), self.values(x.data())))
            }
        })
    }

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let gradient = || -> InputGradients {
            let (x, y) = (input(&pass.inputs, 0)?.f32()?, input(&pass.outputs, 0)?.f32()?);
            let gradient = output_gradient(&pass.gradients, 0, y.shape());
            Ok(vec![Some(Array::new(x.shape(), self.gradients(x.data(), y.data(), gradient.data())))])
        };
        Some(gradient())
    }
}

// Each arm is a loop of its own: which function it is is asked once, not for every element.
impl Function {
    fn values(self, x: &[f32]) -> Vec<f32> {
        fn each(x: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
            x.iter().map(|x| f(*x)).collect()
        }
        match self {
            // Written so that what is no number stays none.
            Function::Relu => each(x, |x| if x < 0.0 { 0.0 } else { x }),
            Function::LeakyRelu { alpha } => each(x, |x| if x < 0.0 { alpha * x } else { x }),
            Function::ThresholdedRelu { alpha } => each(x, |x| if x > alpha { x } else { 0.0 }),
            Function::Elu { alpha } => each(x, |x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
            Function::Celu { alpha } => each(x, |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x }),
            Function::Selu { alpha, gamma } => each(x, |x| gamma * if x < 0.0 { alpha * x.exp_m1() } else { x }),
            Function::HardSigmoid { alpha, beta } => each(x, |x| (alpha * x + beta).clamp(0.0, 1.0)),
            Function::HardSwish => each(x, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            Function::Tanh => each(x, f32::tanh),
            Function::Sigmoid => each(x, sigmoid),
            Function::Swish { alpha } => each(x, |x| x * sigmoid(alpha * x)),
            Function::Mish => each(x, |x| x * softplus(x).tanh()),
            Function::Erf => each(x, erff),
            Function::Gelu => each(x, |x| x * normal_cdf(x)),
            Function::GeluTanh => each(x, |x| 0.5 * x * (1.0 + gelu_inner(x).tanh())),
            Function::Sqrt => each(x, f32::sqrt),
            Function::Exp => each(x, f32::exp),
            Function::Log => each(x, f32::ln),
            Function::Neg => each(x, |x| -x),
            Function::Abs => each(x, f32::abs),
            Function::Reciprocal => each(x, |x| 1.0 / x),
            Function::Softplus => each(x, softplus),
            Function::Softsign => each(x, |x| x / (1.0 + x.abs())),
            Function::Sin => each(x, f32::sin),
            Function::Cos => each(x, f32::cos),
            Function::Floor => each(x, f32::floor),
            Function::Ceil => each(x, f32::ceil),
            Function::Round => each(x, f32::round_ties_even),
            Function::Sign => each(x, |x| if x == 0.0 { 0.0 } else { x.signum() }),
        }
    }

    /// From inputs, outputs and the gradients of these.
    fn gradients(self, x: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
        let by_input = |f: &dyn Fn(f32) -> f32| x.iter().zip(g).map(|(x, g)| f(*x) * g).collect();
        fn by_output(y: &[f32], g: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
            y.iter().zip(g).map(|(y, g)| f(*y) * g).collect()
        }
        match self {
            Function::Relu => y.iter().zip(g).map(|(y, g)| if *y > 0.0 { *g } else { 0.0 }).collect(),
            Function::LeakyRelu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { alpha }),
            Function::ThresholdedRelu { alpha } => by_input(&|x| if x > alpha { 1.0 } else { 0.0 }),
            Function::Elu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { alpha * x.exp() }),
            Function::Celu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { (x / alpha).exp() }),
            Function::Selu { alpha, gamma } => by_input(&|x| gamma * if x > 0.0 { 1.0 } else { alpha * x.exp() }),
            Function::HardSigmoid { alpha, .. } => by_output(y, g, |y| if y > 0.0 && y < 1.0 { alpha } else { 0.0 }),
            Function::HardSwish => by_input(&|x| {
                if x <= -3.0 {
                    0.0
                } else if x < 3.0 {
                    x / 3.0 + 0.5
                } else {
                    1.0
                }
            }),
            Function::Tanh => by_output(y, g, |y| 1.0 - y * y),
            Function::Sigmoid => by_output(y, g, |y| y * (1.0 - y)),
            Function::Swish { alpha } => by_input(&|x| {
                let s = sigmoid(alpha * x);
                s + alpha * x * s * (1.0 - s)
            }),
            Function::Mish => by_input(&|x| {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }),
            Function::Erf => by_input(&|x| std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
            Function::Gelu => by_input(&|x| normal_cdf(x) + x * normal_density(x)),
            Function::GeluTanh => by_input(&|x| {
                let t = gelu_inner(x).tanh();
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x)
            }),
            Function::Sqrt => by_output(y, g, |y| 0.5 / y),
            Function::Exp => by_output(y, g, |y| y),
            Function::Log => by_input(&|x| 1.0 / x),
            Function::Neg => g.iter().map(|g| -g).collect(),
            Function::Abs => by_input(&|x| if x == 0.0 { 0.0 } else { x.signum() }),
            Function::Reciprocal => by_output(y, g, |y| -y * y),
            Function::Softplus => by_input(&sigmoid),
            Function::Softsign => by_input(&|x| (1.0 + x.abs()).powi(-2)),
            Function::Sin => by_input(&f32::cos),
            Function::Cos => by_input(&|x| -x.sin()),
            Function::Floor | Function::Ceil | Function::Round | Function::Sign => vec![0.0; g.len()],
        }
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

fn gelu_inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)
}

fn normal_cdf(x: f32) -> f32 {
    0.5 * (1.0 + erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn normal_density(x: f32) -> f32 {
    0.5 * SQRT_2_OVER_PI * (-0.5 * x * x).exp()
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Bounds are attributes up to opset 10, inputs since.
#[derive(Debug)]
struct Clip {
    least: Option<f32>,
    most: Option<f32>,
}

impl Clip {
    fn bounds(&self, inputs: &[Option<&Tensor>]) -> Result<(f32, f32), String> {
        let bound = |index, attribute: Option<f32>, name| match optional(inputs, index) {
            Some(bound) => single(bound.f32()?, name).map(Some),
            None => Ok(attribute),
        };
        let least = bound(1, self.least, "its least value")?.unwrap_or(f32::NEG_INFINITY);
        Ok((least, bound(2, self.most, "its greatest value")?.unwrap_or(f32::INFINITY)))
    }
}

impl Operator for Clip {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        if let Tensor::I64(x) = input(inputs, 0)? {
            let bound = |index, default| match optional(inputs, index) {
                Some(bound) => single(bound.i64()?, "a bound"),
                None => Ok(default),
            };
            let (least, most) = (bound(1, i64::MIN)?, bound(2, i64::MAX)?);
            return Ok(Forward::one(Tensor::I64(x.map(|x| (*x).max(least).min(most)))));
        }
        let (least, most) = self.bounds(inputs)?;
        // Not `clamp`, which panics where the bounds are the wrong way round; ONNX says that then all are `most`.
        let clip = |x: &f32| {
            let x = if *x < least { least } else { *x };
            if x > most { most } else { x }
        };
        Ok(Forward::floats(input(inputs, 0)?.f32()?.map(clip)))
    }

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let gradient = || -> InputGradients {
            let (least, most) = self.bounds(&pass.inputs)?;
            let x = input(&pass.inputs, 0)?.f32()?;
            let gradient = output_gradient(&pass.gradients, 0, x.shape());
            let inside = |(x, g): (&f32, &f32)| if *x > least && *x < most { *g } else { 0.0 };
            let mut gradients = vec![None; pass.inputs.len()];
            gradients[0] = Some(Array::new(x.shape(), x.data().iter().zip(gradient.data()).map(inside).collect()));
            Ok(gradients)
        };
        // Bounds are not trained.
        Some(gradient())
    }
}

/// Booleans out of elements.
#[derive(Debug)]
enum Test {
    Not,
    IsNan,
    IsInf { negative: bool, positive: bool },
}

impl Operator for Test {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?;
        let found = match self {
            Test::Not => x.bool()?.map(|x| !x),
            Test::IsNan => x.f32()?.map(|x| x.is_nan()),
            Test::IsInf { negative, positive } => {
                x.f32()?.map(|x| x.is_infinite() && if *x < 0.0 { *negative } else { *positive })
            }
        };
        Ok(Forward::one(Tensor::Bool(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;

    #[test]
    fn gradients_are_finite_differences() {
        let plain = [
            "Relu",
            "LeakyRelu",
            "Elu",
            "Celu",
            "Selu",
            "Tanh",
            "Sigmoid",
            "Swish",
            "Mish",
            "Erf",
            "Gelu",
            "Exp",
            "Neg",
            "Abs",
            "Softplus",
            "Softsign",
            "Sin",
            "Cos",
            "HardSwish",
            "HardSigmoid",
            "ThresholdedRelu",
        ];
        for op_type in plain {
            check(&*operator(op_type, 20, vec![]), &[apart(7, &[3, 7])], 1, &[0]);
        }
        for op_type in ["Sqrt", "Log", "Reciprocal"] {
            check(&*operator(op_type, 20, vec![]), &[between(3, &[40], 0.5, 3.0)], 1, &[0]);
        }
        check(&*operator("Gelu", 20, vec![string("approximate", "tanh")]), &[random(5, &[2, 3])], 1, &[0]);
        check(&*operator("LeakyRelu", 20, vec![float("alpha", 0.3)]), &[apart(5, &[20])], 1, &[0]);
        check(&*operator("Floor", 20, vec![]), &[between(5, &[20], 0.2, 0.8)], 1, &[0]);
        let bounds = [apart(2, &[20]), floats(&[], &[-1.04]), floats(&[], &[1.04])];
        check(&*operator("Clip", 13, vec![]), &bounds, 1, &[0]);
        check(&*operator("Clip", 6, vec![float("min", -1.04), float("max", 1.04)]), &bounds[..1], 1, &[0]);
        check_optional(
            &*operator("Clip", 13, vec![]),
            &[Some(apart(2, &[20])), None, Some(floats(&[1], &[1.04]))],
            1,
            &[0],
        );
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for op_type in ["Relu", "Clip", "HardSigmoid", "HardSwish", "Elu", "Sign"] {
            assert!(
                output(&*operator(op_type, 20, vec![]), &[floats(&[], &[f32::NAN])]).data()[0].is_nan(),
                "{op_type}"
            );
        }
    }

    #[test]
    fn bounds_the_wrong_way_round_are_no_panic() {
        let y = output(&*operator("Clip", 13, vec![]), &[random(1, &[3]), floats(&[], &[2.0]), floats(&[], &[1.0])]);
        assert_eq!(y.data(), [1.0; 3]);
    }

    #[test]
    fn nothing_and_scalars_are_tensors_too() {
        assert_eq!(output(&*operator("Relu", 20, vec![]), &[floats(&[0, 3], &[])]).shape(), [0, 3]);
        assert_eq!(output(&*operator("Relu", 20, vec![]), &[floats(&[], &[-2.0])]).data(), [0.0]);
    }
}
