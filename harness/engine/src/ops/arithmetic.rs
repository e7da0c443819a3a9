//! Operators of several tensors that broadcast to one shape: arithmetic, comparison, choice.
//!
//! Gradients are summed over the axes along which an input was repeated. Integers are computed in 64 bits and wrap
//! there, where a narrower type would have wrapped before. Of equal values `Min` and `Max` pass the gradient to the
//! first.

use super::{
    Backward, Family, Forward, InputGradients, Operator, boxed,
    strided::{View, broadcast_shape, walk},
    support::*,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Add", |_| boxed(Arithmetic::Add)),
    ("Sub", |_| boxed(Arithmetic::Sub)),
    ("Mul", |_| boxed(Arithmetic::Mul)),
    ("Div", |_| boxed(Arithmetic::Div)),
    ("Pow", |_| boxed(Arithmetic::Pow)),
    ("PRelu", |_| boxed(Arithmetic::PRelu)),
    ("Mod", |node| boxed(Arithmetic::Mod { like_c: node.is_set("fmod") })),
    ("Min", |_| boxed(Extreme::Min)),
    ("Max", |_| boxed(Extreme::Max)),
    ("Sum", |_| boxed(Sum { mean: false })),
    ("Mean", |_| boxed(Sum { mean: true })),
    ("Where", |_| boxed(Where)),
    ("Equal", |_| boxed(Comparison::Equal)),
    ("Greater", |_| boxed(Comparison::Greater)),
    ("GreaterOrEqual", |_| boxed(Comparison::GreaterOrEqual)),
    ("Less", |_| boxed(Comparison::Less)),
    ("LessOrEqual", |_| boxed(Comparison::LessOrEqual)),
    ("And", |_| boxed(Comparison::And)),
    ("Or", |_| boxed(Comparison::Or)),
    ("Xor", |_| boxed(Comparison::Xor)),
];

/// `f` of each pair of elements, broadcast.
pub(super) fn pairs<A: Copy, B: Copy, C: Clone>(
    a: &Array<A>,
    b: &Array<B>,
    f: impl Fn(A, B) -> C,
) -> Result<Array<C>, String>
where
{
    let (x, y) = (a.data(), b.data());
    if a.shape() == b.shape() {
        return Ok(Array::new(a.shape(), x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()));
    }
    let shape = broadcast_shape([a.shape(), b.shape()])?;
    let views = (View::broadcast(a.shape(), &shape)?, View::broadcast(b.shape(), &shape)?);
    let mut out = Vec::with_capacity(views.0.len());
    walk([&views.0, &views.1], |[a, b], strides, len| match strides {
        [1, 1] => out.extend(x[a..a + len].iter().zip(&y[b..b + len]).map(|(x, y)| f(*x, *y))),
        [1, 0] => {
            let y = y[b];
            out.extend(x[a..a + len].iter().map(|x| f(*x, y)));
        }
        [0, 1] => {
            let x = x[a];
            out.extend(y[b..b + len].iter().map(|y| f(x, *y)));
        }
        // Broadcasting goes forwards only.
        [by_a, by_b] => {
            let (by_a, by_b) = (by_a as usize, by_b as usize);
            out.extend((0..len).map(|step| f(x[a + step * by_a], y[b + step * by_b])));
        }
    });
    Ok(Array::new(shape, out))
}

/// The gradient of an input of shape `shape` that was broadcast.
pub(super) fn summed_to(gradient: Array<f32>, shape: &[usize]) -> Result<Array<f32>, String> {
    if gradient.shape() == shape {
        return Ok(gradient);
    }
    let mut sums = Array::zeros(shape);
    View::broadcast(shape, gradient.shape())?.add(gradient.data(), sums.data_mut());
    Ok(sums)
}

#[derive(Debug)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    PRelu,
    Mod { like_c: bool },
}

impl Arithmetic {
    fn floats(&self, a: &Array<f32>, b: &Array<f32>) -> Result<Array<f32>, String> {
        match self {
            Arithmetic::Add => pairs(a, b, |a, b| a + b),
            Arithmetic::Sub => pairs(a, b, |a, b| a - b),
            Arithmetic::Mul => pairs(a, b, |a, b| a * b),
            Arithmetic::Div => pairs(a, b, |a, b| a / b),
            // Graphs mostly compute squares, and `powf` is slow.
            Arithmetic::Pow if b.data() == [2.0] => pairs(a, b, |a, _| a * a),
            Arithmetic::Pow if b.data() == [0.5] => pairs(a, b, |a, _| a.sqrt()),
            Arithmetic::Pow => pairs(a, b, f32::powf),
            Arithmetic::PRelu => pairs(a, b, |x, slope| if x < 0.0 { slope * x } else { x }),
            Arithmetic::Mod { like_c: true } => pairs(a, b, |a, b| a % b),
            Arithmetic::Mod { like_c: false } => Err("floats have only the remainder of C (`fmod` = 1)".into()),
        }
    }

    fn ints(&self, a: &Array<i64>, b: &Array<i64>) -> Result<Array<i64>, String> {
        let divides = matches!(self, Arithmetic::Div | Arithmetic::Mod { .. });
        if divides && b.data().contains(&0) {
            return Err("an integer is divided by zero".into());
        }
        match self {
            Arithmetic::Add => pairs(a, b, i64::wrapping_add),
            Arithmetic::Sub => pairs(a, b, i64::wrapping_sub),
            Arithmetic::Mul => pairs(a, b, i64::wrapping_mul),
            Arithmetic::Div => pairs(a, b, i64::wrapping_div),
            Arithmetic::Pow => pairs(a, b, |a, b| match u32::try_from(b) {
                Ok(b) => a.wrapping_pow(b),
                Err(_) => (a as f64).powf(b as f64) as i64,
            }),
            Arithmetic::PRelu => pairs(a, b, |x, slope| if x < 0 { slope.wrapping_mul(x) } else { x }),
            Arithmetic::Mod { like_c: true } => pairs(a, b, i64::wrapping_rem),
            // The sign is that of the divisor, as in Python.
            Arithmetic::Mod { like_c: false } => pairs(a, b, |a, b| {
                let rest = a.wrapping_rem(b);
                if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
            }),
        }
    }
}

impl Operator for Arithmetic {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        Ok(Forward::one(match (self, input(inputs, 0)?, input(inputs, 1)?) {
            (_, Tensor::F32(a), Tensor::F32(b)) => Tensor::F32(self.floats(a, b)?),
            (_, Tensor::I64(a), Tensor::I64(b)) => Tensor::I64(self.ints(a, b)?),
            // A power has the type of its base.
            (Arithmetic::Pow, Tensor::F32(a), Tensor::I64(b)) => Tensor::F32(self.floats(a, &b.map(|b| *b as f32))?),
            (Arithmetic::Pow, Tensor::I64(a), Tensor::F32(b)) => {
                Tensor::I64(pairs(a, b, |a, b| (a as f64).powf(f64::from(b)) as i64)?)
            }
            (_, a, b) => return Err(format!("its inputs are of different kinds, {} and {}", a.kind(), b.kind())),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        self.gradients(pass)
    }
}

impl Arithmetic {
    fn gradients(&self, pass: &Backward) -> InputGradients {
        let a = pass.input(0)?.f32()?;
        // An exponent may be of integers.
        let widened;
        let b = match pass.input(1)? {
            Tensor::I64(b) => {
                widened = b.map(|b| *b as f32);
                &widened
            }
            b => b.f32()?,
        };
        let y = pass.output(0)?.f32()?;
        let g = pass.gradient(0, y.shape());
        let by_a = || match self {
            Arithmetic::Add | Arithmetic::Sub | Arithmetic::Mod { .. } => Ok(g.clone()),
            Arithmetic::Mul => pairs(&g, b, |g, b| g * b),
            Arithmetic::Div => pairs(&g, b, |g, b| g / b),
            Arithmetic::Pow => {
                let slope = pairs(a, b, |a, b| match b {
                    // Of a constant, even where the base is 0.
                    0.0 => 0.0,
                    2.0 => 2.0 * a,
                    _ => b * a.powf(b - 1.0),
                })?;
                pairs(&g, &slope, |g, slope| g * slope)
            }
            Arithmetic::PRelu => {
                let slope = pairs(a, b, |x, slope| if x > 0.0 { 1.0 } else { slope })?;
                pairs(&g, &slope, |g, slope| g * slope)
            }
        };
        let by_b = || match self {
            Arithmetic::Add => Ok(g.clone()),
            Arithmetic::Sub => Ok(g.map(|g| -g)),
            Arithmetic::Mul => pairs(&g, a, |g, a| g * a),
            // y / b instead of a / b²: one overflow less.
            Arithmetic::Div => pairs(&pairs(&g, y, |g, y| -g * y)?, b, |gy, b| gy / b),
            Arithmetic::Pow => {
                let slope = pairs(a, y, |a, y| if a > 0.0 { y * a.ln() } else { 0.0 })?;
                pairs(&g, &slope, |g, slope| g * slope)
            }
            Arithmetic::PRelu => pairs(&g, a, |g, x| g * x.min(0.0)),
            Arithmetic::Mod { .. } => pairs(&pairs(a, b, |a, b| -(a / b).trunc())?, &g, |slope, g| g * slope),
        };
        Ok(vec![
            if pass.wants[0] { Some(summed_to(by_a()?, a.shape())?) } else { None },
            if pass.wants[1] { Some(summed_to(by_b()?, b.shape())?) } else { None },
        ])
    }
}

#[derive(Clone, Copy, Debug)]
enum Extreme {
    Min,
    Max,
}

impl Extreme {
    fn of(self, a: f32, b: f32) -> f32 {
        let keeps_a = match self {
            Extreme::Min => a <= b,
            Extreme::Max => a >= b,
        };
        if a.is_nan() || keeps_a { a } else { b }
    }
}

impl Operator for Extreme {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let mut extreme = input(inputs, 0)?.clone();
        for index in 1..inputs.len() {
            extreme = match (&extreme, input(inputs, index)?) {
                (Tensor::F32(a), Tensor::F32(b)) => Tensor::F32(pairs(a, b, |a, b| self.of(a, b))?),
                (Tensor::I64(a), Tensor::I64(b)) => Tensor::I64(pairs(a, b, |a, b| match self {
                    Extreme::Min => a.min(b),
                    Extreme::Max => a.max(b),
                })?),
                (a, b) => return Err(format!("its inputs are of kinds {} and {}", a.kind(), b.kind())),
            };
        }
        Ok(Forward::one(extreme))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let y = pass.output(0)?.f32()?;
        let mut rest = pass.gradient(0, y.shape());
        let mut gradients = Vec::with_capacity(pass.inputs.len());
        for (index, required) in pass.wants.iter().enumerate() {
            let x = pass.input(index)?.f32()?;
            let chosen = pairs(y, x, |y, x| x == y)?;
            let taken = pairs(&rest, &chosen, |g, chosen| if chosen { g } else { 0.0 })?;
            rest = pairs(&rest, &chosen, |g, chosen| if chosen { 0.0 } else { g })?;
            gradients.push(if *required { Some(summed_to(taken, x.shape())?) } else { None });
        }
        Ok(gradients)
    }
}

/// Of any number of tensors.
#[derive(Debug)]
struct Sum {
    mean: bool,
}

impl Operator for Sum {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let mut sum = input(inputs, 0)?.f32()?.clone();
        for index in 1..inputs.len() {
            sum = pairs(&sum, input(inputs, index)?.f32()?, |a, b| a + b)?;
        }
        let count = inputs.len() as f32;
        Ok(Forward::floats(if self.mean { sum.map(|sum| sum / count) } else { sum }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let count = pass.inputs.len() as f32;
        let g = pass.gradient(0, pass.output(0)?.shape());
        let g = if self.mean { g.map(|g| g / count) } else { g };
        let each = (0..pass.inputs.len()).map(|index| {
            let shape = pass.input(index)?.shape();
            if pass.wants[index] { summed_to(g.clone(), shape).map(Some) } else { Ok(None) }
        });
        Ok(each.collect::<Result<_, String>>()?)
    }
}

#[derive(Debug)]
struct Where;

fn choose<T: Copy>(condition: &Array<bool>, x: &Array<T>, y: &Array<T>) -> Result<Array<T>, String> {
    let shape = broadcast_shape([condition.shape(), x.shape(), y.shape()])?;
    let view = |from: &[usize]| View::broadcast(from, &shape);
    let views = [view(condition.shape())?, view(x.shape())?, view(y.shape())?];
    let mut out = Vec::with_capacity(views[0].len());
    walk([&views[0], &views[1], &views[2]], |[at, a, b], strides, len| {
        let [by, by_a, by_b] = strides.map(|stride| stride as usize);
        out.extend((0..len).map(|step| {
            if condition.data()[at + step * by] { x.data()[a + step * by_a] } else { y.data()[b + step * by_b] }
        }));
    });
    Ok(Array::new(shape, out))
}

impl Operator for Where {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let condition = input(inputs, 0)?.bool()?;
        Ok(Forward::one(match (input(inputs, 1)?, input(inputs, 2)?) {
            (Tensor::F32(x), Tensor::F32(y)) => Tensor::F32(choose(condition, x, y)?),
            (Tensor::I64(x), Tensor::I64(y)) => Tensor::I64(choose(condition, x, y)?),
            (Tensor::Bool(x), Tensor::Bool(y)) => Tensor::Bool(choose(condition, x, y)?),
            (x, y) => return Err(format!("it chooses between tensors of kinds {} and {}", x.kind(), y.kind())),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let condition = pass.input(0)?.bool()?;
        let g = pass.gradient(0, pass.output(0)?.shape());
        let part = |index: usize, side: bool| {
            if !pass.wants[index] {
                return Ok(None);
            }
            let passed = pairs(&g, condition, |g, chosen| if chosen == side { g } else { 0.0 })?;
            summed_to(passed, pass.input(index)?.shape()).map(Some)
        };
        Ok(vec![None, part(1, true)?, part(2, false)?])
    }
}

/// Booleans from two tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    And,
    Or,
    Xor,
}

impl Comparison {
    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Comparison::Equal => a == b,
            Comparison::Greater => a > b,
            Comparison::GreaterOrEqual => a >= b,
            Comparison::Less => a < b,
            Comparison::LessOrEqual => a <= b,
            Comparison::And | Comparison::Or | Comparison::Xor => unreachable!("of booleans only"),
        }
    }
}

impl Operator for Comparison {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        use Comparison as C;
        let logical = matches!(self, C::And | C::Or | C::Xor);
        let found = match (input(inputs, 0)?, input(inputs, 1)?) {
            (Tensor::F32(a), Tensor::F32(b)) if !logical => pairs(a, b, |a, b| self.holds(a, b)),
            (Tensor::I64(a), Tensor::I64(b)) if !logical => pairs(a, b, |a, b| self.holds(a, b)),
            (Tensor::Bool(a), Tensor::Bool(b)) if logical || *self == C::Equal => pairs(a, b, |a, b| match self {
                C::And => a && b,
                C::Or => a || b,
                C::Xor => a != b,
                _ => a == b,
            }),
            (a, b) => Err(format!("it does not compare tensors of kinds {} and {}", a.kind(), b.kind())),
        };
        Ok(Forward::one(Tensor::Bool(found?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::*, *};

    #[test]
    fn gradients_are_finite_differences() {
        let shapes: [(&[usize], &[usize]); 6] = [
            (&[2, 3], &[2, 3]),
            (&[2, 3, 4], &[3, 1]),
            (&[3, 1], &[2, 1, 4]),
            (&[], &[2, 2]),
            (&[5], &[]),
            (&[1], &[4]),
        ];
        for (a, b) in shapes {
            for op_type in ["Add", "Sub", "Mul", "Sum", "Mean"] {
                check(&*operator(op_type, 14, vec![]), &[random(1, a), random(2, b)], 1, &[0, 1]);
            }
            let (a, b) = (between(3, a, 0.5, 2.0), between(4, b, 0.5, 2.0));
            for op_type in ["Div", "Pow"] {
                check(&*operator(op_type, 14, vec![]), &[a.clone(), b.clone()], 1, &[0, 1]);
            }
        }
        check(&*operator("Pow", 14, vec![]), &[random(1, &[7]), floats(&[], &[2.0])], 1, &[0]);
        check(&*operator("Pow", 14, vec![]), &[random(1, &[7]), ints(&[1], &[3])], 1, &[0]);
        check(&*operator("PRelu", 16, vec![]), &[apart(1, &[2, 3, 4]), random(2, &[3, 1])], 1, &[0, 1]);
        let all = apart(9, &[18]).f32().unwrap().clone().into_data();
        let three = [floats(&[2, 3], &all[..6]), floats(&[2, 3], &all[6..12]), floats(&[3], &all[12..15])];
        check(&*operator("Max", 13, vec![]), &three, 1, &[0, 1, 2]);
        check(&*operator("Min", 13, vec![]), &three[..2], 1, &[0, 1]);
        let condition = Tensor::Bool(Array::new([3, 1], vec![true, false, true]));
        check(&*operator("Where", 16, vec![]), &[condition, random(1, &[4]), random(2, &[2, 3, 4])], 1, &[1, 2]);
        let divisor = floats(&[1], &[1.0]);
        check(&*operator("Mod", 13, vec![int("fmod", 1)]), &[between(1, &[9], 1.1, 1.9), divisor], 1, &[0]);
    }

    #[test]
    fn integers_divide_as_in_onnx() {
        let of = |op_type: &str, attributes| {
            forward(&*operator(op_type, 13, attributes), &[ints(&[4], &[7, -7, 7, -7]), ints(&[4], &[2, 2, -2, -2])], 1)
        };
        assert_eq!(of("Div", vec![]), [ints(&[4], &[3, -3, -3, 3])]);
        assert_eq!(of("Mod", vec![]), [ints(&[4], &[1, 1, -1, -1])]);
        assert_eq!(of("Mod", vec![int("fmod", 1)]), [ints(&[4], &[1, -1, 1, -1])]);
        let by_zero = [ints(&[1], &[1]), ints(&[1], &[0])];
        let why = operator("Div", 13, vec![]).forward(&[Some(&by_zero[0]), Some(&by_zero[1])], 1).err().unwrap();
        assert!(why.contains("by zero"), "{why}");
        let least = [ints(&[1], &[i64::MIN]), ints(&[1], &[-1])];
        assert_eq!(forward(&*operator("Div", 13, vec![]), &least, 1), [ints(&[1], &[i64::MIN])]);
    }

    #[test]
    fn empty_tensors_broadcast() {
        let y = output(&*operator("Add", 13, vec![]), &[floats(&[0, 3], &[]), floats(&[3], &[1.0, 2.0, 3.0])]);
        assert_eq!(y.shape(), [0, 3]);
        check(&*operator("Add", 13, vec![]), &[floats(&[0, 3], &[]), floats(&[3], &[1.0, 2.0, 3.0])], 1, &[0, 1]);
    }
}
