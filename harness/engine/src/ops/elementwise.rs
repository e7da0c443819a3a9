//! Operators that compute each element of one tensor by itself.
//!
//! At kinks the gradient is that of the flat side, as in PyTorch (0 for `Relu` at 0 and for `Clip` at its bounds). The
//! gradient of rounding is 0.

use libm::erff;

use super::{Backward, Family, Forward, InputGradients, Operator, boxed, support::*};
use crate::{Array, Tensor};
use Function as F;

pub const FAMILY: &Family = &[
    ("Relu", |_| boxed(F::Relu)),
    ("LeakyRelu", |node| boxed(F::LeakyRelu { alpha: node.float("alpha", 0.01) })),
    ("ThresholdedRelu", |node| boxed(F::ThresholdedRelu { alpha: node.float("alpha", 1.0) })),
    ("Elu", |node| boxed(F::Elu { alpha: node.float("alpha", 1.0) })),
    ("Celu", |node| boxed(F::Celu { alpha: node.float("alpha", 1.0) })),
    ("Selu", |node| boxed(F::Selu { alpha: node.float("alpha", 1.673_263_2), gamma: node.float("gamma", 1.050_701) })),
    ("HardSigmoid", |node| boxed(F::HardSigmoid { alpha: node.float("alpha", 0.2), beta: node.float("beta", 0.5) })),
    ("HardSwish", |_| boxed(F::HardSwish)),
    ("Tanh", |_| boxed(F::Tanh)),
    ("Sigmoid", |_| boxed(F::Sigmoid)),
    ("Swish", |node| boxed(F::Swish { alpha: node.float("alpha", 1.0) })),
    ("Mish", |_| boxed(F::Mish)),
    ("Erf", |_| boxed(F::Erf)),
    ("Gelu", |node| match node.text("approximate").unwrap_or("none") {
        "none" => boxed(F::Gelu),
        "tanh" => boxed(F::GeluTanh),
        other => Err(format!("there is no approximation `{other}`")),
    }),
    ("Shrink", |node| boxed(F::Shrink { bias: node.float("bias", 0.0), lambda: node.float("lambd", 0.5) })),
    ("Sqrt", |_| boxed(F::Sqrt)),
    ("Exp", |_| boxed(F::Exp)),
    ("Log", |_| boxed(F::Log)),
    ("Neg", |_| boxed(F::Neg)),
    ("Abs", |_| boxed(F::Abs)),
    ("Reciprocal", |_| boxed(F::Reciprocal)),
    ("Softplus", |_| boxed(F::Softplus)),
    ("Softsign", |_| boxed(F::Softsign)),
    ("Sin", |_| boxed(F::Sin)),
    ("Cos", |_| boxed(F::Cos)),
    ("Tan", |_| boxed(F::Tan)),
    ("Asin", |_| boxed(F::Asin)),
    ("Acos", |_| boxed(F::Acos)),
    ("Atan", |_| boxed(F::Atan)),
    ("Sinh", |_| boxed(F::Sinh)),
    ("Cosh", |_| boxed(F::Cosh)),
    ("Asinh", |_| boxed(F::Asinh)),
    ("Acosh", |_| boxed(F::Acosh)),
    ("Atanh", |_| boxed(F::Atanh)),
    ("Floor", |_| boxed(F::Floor)),
    ("Ceil", |_| boxed(F::Ceil)),
    ("Round", |_| boxed(F::Round)),
    ("Sign", |_| boxed(F::Sign)),
    ("Not", |_| boxed(Test::Not)),
    ("IsNaN", |_| boxed(Test::IsNan)),
    ("IsInf", |node| {
        boxed(Test::IsInf {
            negative: node.int("detect_negative", 1) != 0,
            positive: node.int("detect_positive", 1) != 0,
        })
    }),
    ("Clip", |node| boxed(Clip { least: node.optional_float("min"), most: node.optional_float("max") })),
];

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
    Shrink { bias: f32, lambda: f32 },
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
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Floor,
    Ceil,
    Round,
    Sign,
}

impl Operator for Function {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        Ok(match input(inputs, 0)? {
            Tensor::I64(x) => Forward::one(Tensor::I64(match self {
                F::Relu => x.map(|x| *x.max(&0)),
                F::Neg => x.map(|x| x.wrapping_neg()),
                F::Abs => x.map(|x| x.wrapping_abs()),
                F::Sign => x.map(|x| x.signum()),
                _ => return Err("a float tensor is needed, not an integer one".into()),
            })),
            x => {
                let x = x.f32()?;
                Forward::floats(Array::new(x.shape(), self.values(x.data())))
            }
        })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, y) = (pass.input(0)?.f32()?, pass.output(0)?.f32()?);
        let gradient = pass.gradient(0, y.shape());
        pass.only_first(Array::new(x.shape(), self.gradients(x.data(), y.data(), gradient.data())))
    }
}

// Each arm is a loop of its own, so that the function is matched once, not for every element.
impl Function {
    fn values(self, x: &[f32]) -> Vec<f32> {
        fn each(x: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
            x.iter().map(|x| f(*x)).collect()
        }
        match self {
            // Written so that a NaN stays one.
            F::Relu => each(x, |x| if x < 0.0 { 0.0 } else { x }),
            F::LeakyRelu { alpha } => each(x, |x| if x < 0.0 { alpha * x } else { x }),
            F::ThresholdedRelu { alpha } => each(x, |x| if x > alpha { x } else { 0.0 }),
            F::Elu { alpha } => each(x, |x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
            F::Celu { alpha } => each(x, |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x }),
            F::Selu { alpha, gamma } => each(x, |x| gamma * if x < 0.0 { alpha * x.exp_m1() } else { x }),
            F::HardSigmoid { alpha, beta } => each(x, |x| (alpha * x + beta).clamp(0.0, 1.0)),
            F::HardSwish => each(x, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            F::Tanh => each(x, f32::tanh),
            F::Sigmoid => each(x, sigmoid),
            F::Swish { alpha } => each(x, |x| x * sigmoid(alpha * x)),
            F::Mish => each(x, |x| x * softplus(x).tanh()),
            F::Erf => each(x, erff),
            F::Gelu => each(x, |x| x * normal_cdf(x)),
            F::GeluTanh => each(x, |x| 0.5 * x * (1.0 + gelu_inner(x).tanh())),
            F::Shrink { bias, lambda } => each(x, |x| {
                if x < -lambda {
                    x + bias
                } else if x > lambda {
                    x - bias
                } else {
                    // Not 0.0: a NaN stays one.
                    0.0 * x
                }
            }),
            F::Sqrt => each(x, f32::sqrt),
            F::Exp => each(x, f32::exp),
            F::Log => each(x, f32::ln),
            F::Neg => each(x, |x| -x),
            F::Abs => each(x, f32::abs),
            F::Reciprocal => each(x, |x| 1.0 / x),
            F::Softplus => each(x, softplus),
            F::Softsign => each(x, |x| x / (1.0 + x.abs())),
            F::Sin => each(x, f32::sin),
            F::Cos => each(x, f32::cos),
            F::Tan => each(x, f32::tan),
            F::Asin => each(x, f32::asin),
            F::Acos => each(x, f32::acos),
            F::Atan => each(x, f32::atan),
            F::Sinh => each(x, f32::sinh),
            F::Cosh => each(x, f32::cosh),
            F::Asinh => each(x, f32::asinh),
            F::Acosh => each(x, f32::acosh),
            F::Atanh => each(x, f32::atanh),
            F::Floor => each(x, f32::floor),
            F::Ceil => each(x, f32::ceil),
            F::Round => each(x, f32::round_ties_even),
            F::Sign => each(x, |x| if x == 0.0 { 0.0 } else { x.signum() }),
        }
    }

    /// From inputs, outputs and the outputs' gradients.
    fn gradients(self, x: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
        let by_input = |f: &dyn Fn(f32) -> f32| x.iter().zip(g).map(|(x, g)| f(*x) * g).collect();
        fn by_output(y: &[f32], g: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
            y.iter().zip(g).map(|(y, g)| f(*y) * g).collect()
        }
        match self {
            F::Relu => y.iter().zip(g).map(|(y, g)| if *y > 0.0 { *g } else { 0.0 }).collect(),
            F::LeakyRelu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { alpha }),
            F::ThresholdedRelu { alpha } => by_input(&|x| if x > alpha { 1.0 } else { 0.0 }),
            F::Elu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { alpha * x.exp() }),
            F::Celu { alpha } => by_input(&|x| if x > 0.0 { 1.0 } else { (x / alpha).exp() }),
            F::Selu { alpha, gamma } => by_input(&|x| gamma * if x > 0.0 { 1.0 } else { alpha * x.exp() }),
            F::HardSigmoid { alpha, .. } => by_output(y, g, |y| if y > 0.0 && y < 1.0 { alpha } else { 0.0 }),
            F::HardSwish => by_input(&|x| {
                if x <= -3.0 {
                    0.0
                } else if x < 3.0 {
                    x / 3.0 + 0.5
                } else {
                    1.0
                }
            }),
            F::Tanh => by_output(y, g, |y| 1.0 - y * y),
            F::Sigmoid => by_output(y, g, |y| y * (1.0 - y)),
            F::Swish { alpha } => by_input(&|x| {
                let s = sigmoid(alpha * x);
                s + alpha * x * s * (1.0 - s)
            }),
            F::Mish => by_input(&|x| {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }),
            F::Erf => by_input(&|x| std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
            F::Gelu => by_input(&|x| normal_cdf(x) + x * normal_density(x)),
            F::GeluTanh => by_input(&|x| {
                let t = gelu_inner(x).tanh();
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x)
            }),
            F::Shrink { lambda, .. } => by_input(&|x| if x.abs() > lambda { 1.0 } else { 0.0 }),
            F::Sqrt => by_output(y, g, |y| 0.5 / y),
            F::Exp => by_output(y, g, |y| y),
            F::Log => by_input(&|x| 1.0 / x),
            F::Neg => g.iter().map(|g| -g).collect(),
            F::Abs => by_input(&|x| if x == 0.0 { 0.0 } else { x.signum() }),
            F::Reciprocal => by_output(y, g, |y| -y * y),
            F::Softplus => by_input(&sigmoid),
            F::Softsign => by_input(&|x| (1.0 + x.abs()).powi(-2)),
            F::Sin => by_input(&f32::cos),
            F::Cos => by_input(&|x| -x.sin()),
            F::Tan => by_output(y, g, |y| 1.0 + y * y),
            F::Asin => by_input(&|x| 1.0 / (1.0 - x * x).sqrt()),
            F::Acos => by_input(&|x| -1.0 / (1.0 - x * x).sqrt()),
            F::Atan => by_input(&|x| 1.0 / (1.0 + x * x)),
            F::Sinh => by_input(&f32::cosh),
            F::Cosh => by_input(&f32::sinh),
            F::Asinh => by_input(&|x| 1.0 / (x * x + 1.0).sqrt()),
            F::Acosh => by_input(&|x| 1.0 / (x * x - 1.0).sqrt()),
            F::Atanh => by_input(&|x| 1.0 / (1.0 - x * x)),
            F::Floor | F::Ceil | F::Round | F::Sign => vec![0.0; g.len()],
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
        // Not `clamp`, which panics where the bounds are the wrong way round; ONNX then gives `most`.
        let clip = |x: &f32| {
            let x = if *x < least { least } else { *x };
            if x > most { most } else { x }
        };
        Ok(Forward::floats(input(inputs, 0)?.f32()?.map(clip)))
    }

    /// Bounds are not trained.
    fn backward(&self, pass: &Backward) -> InputGradients {
        let (least, most) = self.bounds(&pass.inputs)?;
        let x = pass.input(0)?.f32()?;
        let gradient = pass.gradient(0, x.shape());
        let inside = |(x, g): (&f32, &f32)| if *x > least && *x < most { *g } else { 0.0 };
        pass.only_first(Array::new(x.shape(), x.data().iter().zip(gradient.data()).map(inside).collect()))
    }
}

/// Booleans from elements.
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
    use std::collections::BTreeSet;

    use super::{super::check::*, FAMILY};
    use crate::Tensor;

    #[test]
    fn gradients_are_finite_differences() {
        let kinked = apart(7, &[3, 7]);
        let mut checked = BTreeSet::from(["Not", "IsNaN", "IsInf"]);
        let mut each = |op_types: &'static str, at: Tensor| {
            for op_type in op_types.split_whitespace() {
                check(&*operator(op_type, 20, vec![]), std::slice::from_ref(&at), 1, &[0]);
                checked.insert(op_type);
            }
        };
        each(
            "Relu LeakyRelu Elu Celu Selu Tanh Sigmoid Swish Mish Erf Gelu Exp Neg Abs Softplus Softsign Sin Cos \
             HardSwish HardSigmoid ThresholdedRelu Sinh Cosh Asinh Atan",
            kinked.clone(),
        );
        each("Tan", random(7, &[3, 7]));
        each("Asin Acos Atanh", between(3, &[40], -0.8, 0.8));
        each("Acosh", between(3, &[40], 1.5, 4.0));
        each("Sqrt Log Reciprocal", between(3, &[40], 0.5, 3.0));
        each("Floor Ceil Sign", between(5, &[20], 0.2, 0.8));
        each("Round", between(5, &[20], 0.55, 0.95));
        let shrink = vec![float("bias", 0.5), float("lambd", 1.0)];
        check(&*operator("Shrink", 20, shrink), &[kinked], 1, &[0]);
        check(&*operator("Gelu", 20, vec![string("approximate", "tanh")]), &[random(5, &[2, 3])], 1, &[0]);
        check(&*operator("LeakyRelu", 20, vec![float("alpha", 0.3)]), &[apart(5, &[20])], 1, &[0]);
        let bounds = [apart(2, &[20]), floats(&[], &[-1.04]), floats(&[], &[1.04])];
        check(&*operator("Clip", 13, vec![]), &bounds, 1, &[0]);
        check(&*operator("Clip", 6, vec![float("min", -1.04), float("max", 1.04)]), &bounds[..1], 1, &[0]);
        check_optional(
            &*operator("Clip", 13, vec![]),
            &[Some(apart(2, &[20])), None, Some(floats(&[1], &[1.04]))],
            1,
            &[0],
        );
        checked.extend(["Shrink", "Clip"]);
        let family: BTreeSet<&str> = FAMILY.iter().map(|(op_type, _)| *op_type).collect();
        assert_eq!(family.difference(&checked).collect::<Vec<_>>(), [&""; 0], "without a check of the gradient");
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for op_type in ["Relu", "Clip", "HardSigmoid", "HardSwish", "Elu", "Sign", "Shrink"] {
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
