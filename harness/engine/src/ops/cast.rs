//! Casts between kinds of numbers, and quantisation.
//!
//! A cast to a narrow integer wraps as it does in C; a cast to a narrow float does nothing, as floats are stored as f32
//! whatever the file says. Quantised tensors are integers like others; the way back to floats is exact.

use espalier_onnx::tensor_proto::DataType;

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, boxed,
    strided::{View, broadcast_shape},
    support::*,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Cast", |node| boxed(Cast { to: Some(element_kind(node.int("to", 0))?) })),
    ("CastLike", |_| boxed(Cast { to: None })),
    ("DequantizeLinear", |node| boxed(Dequantize { axis: axis_without_blocks(node)? })),
    ("QuantizeLinear", |node| {
        let declared = node.optional_int("output_dtype").filter(|declared| *declared != 0);
        let declared = declared.map(|declared| declared as i32).or_else(|| node.element_type(2));
        // uint8 where nothing says otherwise.
        let (least, most) = range(declared.unwrap_or(DataType::Uint8 as i32))?;
        boxed(Quantize { axis: axis_without_blocks(node)?, least, most })
    }),
    ("MatMulInteger", |_| boxed(MatMulInteger)),
    ("DynamicQuantizeLinear", |_| boxed(DynamicQuantize)),
];

/// The kinds of elements that the engine distinguishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ElementKind {
    Float,
    Int,
    Bool,
}

impl ElementKind {
    pub fn of(tensor: &Tensor) -> ElementKind {
        match tensor {
            Tensor::F32(_) => ElementKind::Float,
            Tensor::I64(_) => ElementKind::Int,
            Tensor::Bool(_) => ElementKind::Bool,
        }
    }
}

/// How an ONNX element type is stored.
pub(super) fn element_kind(element_type: i64) -> Result<(ElementKind, DataType), String> {
    use DataType as D;
    let known = i32::try_from(element_type).ok().and_then(|number| D::try_from(number).ok());
    let unknown = || format!("the engine does not compute with element type {element_type}");
    let known = known.ok_or_else(unknown)?;
    Ok(match known {
        D::Float | D::Double | D::Float16 | D::Bfloat16 => (ElementKind::Float, known),
        D::Int64 | D::Int32 | D::Int16 | D::Int8 | D::Uint8 | D::Uint16 | D::Uint32 | D::Uint64 => {
            (ElementKind::Int, known)
        }
        D::Bool => (ElementKind::Bool, known),
        _ => return Err(unknown()),
    })
}

/// The values of a quantised type.
fn range(element_type: i32) -> Result<(f32, f32), String> {
    use DataType as D;
    Ok(match D::try_from(element_type) {
        Ok(D::Uint8) => (0.0, 255.0),
        Ok(D::Int8) => (-128.0, 127.0),
        Ok(D::Uint16) => (0.0, 65535.0),
        Ok(D::Int16) => (-32768.0, 32767.0),
        _ => return Err(format!("the engine does not quantise to element type {element_type}")),
    })
}

fn axis_without_blocks(node: &Attributes) -> Result<i64, String> {
    match node.int("block_size", 0) {
        0 => Ok(node.int("axis", 1)),
        size => Err(format!("scales for blocks (`block_size` = {size}) are not known here")),
    }
}

#[derive(Debug)]
struct Cast {
    /// `None`: as the second input.
    to: Option<(ElementKind, DataType)>,
}

fn wrapped(value: i64, to: DataType) -> i64 {
    match to {
        DataType::Int8 => i64::from(value as i8),
        DataType::Uint8 => i64::from(value as u8),
        DataType::Int16 => i64::from(value as i16),
        DataType::Uint16 => i64::from(value as u16),
        DataType::Int32 => i64::from(value as i32),
        DataType::Uint32 => i64::from(value as u32),
        _ => value,
    }
}

impl Operator for Cast {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (kind, width) = match self.to {
            Some(to) => to,
            None => (ElementKind::of(input(inputs, 1)?), DataType::Int64),
        };
        Ok(Forward::one(match (kind, input(inputs, 0)?) {
            (ElementKind::Float, Tensor::F32(x)) => Tensor::F32(x.clone()),
            (ElementKind::Float, Tensor::I64(x)) => Tensor::F32(x.map(|x| *x as f32)),
            (ElementKind::Float, Tensor::Bool(x)) => Tensor::F32(x.map(|x| f32::from(u8::from(*x)))),
            // Towards zero.
            (ElementKind::Int, Tensor::F32(x)) => Tensor::I64(x.map(|x| wrapped(*x as i64, width))),
            (ElementKind::Int, Tensor::I64(x)) => Tensor::I64(x.map(|x| wrapped(*x, width))),
            (ElementKind::Int, Tensor::Bool(x)) => Tensor::I64(x.map(|x| i64::from(*x))),
            (ElementKind::Bool, Tensor::F32(x)) => Tensor::Bool(x.map(|x| *x != 0.0)),
            (ElementKind::Bool, Tensor::I64(x)) => Tensor::Bool(x.map(|x| *x != 0)),
            (ElementKind::Bool, Tensor::Bool(x)) => Tensor::Bool(x.clone()),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = pass.gradients[0].clone();
        Ok(gradients)
    }
}

/// A view in the shape of `x` of one value for all, or of one for each index of an axis.
fn along(parameter: &[usize], shape: &[usize], required: i64) -> Result<View, String> {
    let mut view = View { shape: shape.to_vec(), strides: vec![0; shape.len()], offset: 0 };
    if parameter.iter().product::<usize>() == 1 && parameter.len() <= 1 {
        return Ok(view);
    }
    let axis = axis(required, shape.len())?;
    if parameter != [shape[axis]] {
        return Err(format!("scales of shape {parameter:?} do not fit axis {axis} of shape {shape:?}"));
    }
    view.strides[axis] = 1;
    Ok(view)
}

/// Scale and zero point for each element of `x`.
fn scales(inputs: &[Option<&Tensor>], shape: &[usize], axis: i64) -> Result<(Vec<f32>, Vec<i64>), String> {
    let scale = input(inputs, 1)?.f32()?;
    let scales = along(scale.shape(), shape, axis)?.read(scale.data());
    let zeros = match optional(inputs, 2) {
        Some(Tensor::I64(zero)) => along(zero.shape(), shape, axis)?.read(zero.data()),
        Some(other) => return Err(format!("its zero point is an integer, not a {}", other.kind())),
        None => vec![0; scales.len()],
    };
    Ok((scales, zeros))
}

#[derive(Debug)]
struct Dequantize {
    axis: i64,
}

impl Operator for Dequantize {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?.i64()?;
        let (scales, zeros) = scales(inputs, x.shape(), self.axis)?;
        let values = x.data().iter().zip(zeros).zip(scales);
        let values = values.map(|((x, zero), scale)| x.wrapping_sub(zero) as f32 * scale).collect();
        Ok(Forward::floats(Array::new(x.shape(), values)))
    }
}

#[derive(Debug)]
struct Quantize {
    axis: i64,
    least: f32,
    most: f32,
}

impl Operator for Quantize {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?.f32()?;
        let (scales, zeros) = scales(inputs, x.shape(), self.axis)?;
        let values = x.data().iter().zip(zeros).zip(scales);
        let quantise = |((x, zero), scale): ((&f32, i64), f32)| {
            ((x / scale).round_ties_even() + zero as f32).max(self.least).min(self.most) as i64
        };
        Ok(Forward::one(Tensor::I64(Array::new(x.shape(), values.map(quantise).collect()))))
    }
}

/// To uint8, by the range of the values and zero.
#[derive(Debug)]
struct DynamicQuantize;

impl Operator for DynamicQuantize {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?.f32()?;
        let (least, most) = x.data().iter().fold((0f32, 0f32), |(least, most), x| (least.min(*x), most.max(*x)));
        let scale = if least == most { 1.0 } else { (most - least) / 255.0 };
        let zero = (-least / scale).clamp(0.0, 255.0).round_ties_even();
        let quantised = x.map(|x| ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) as i64);
        let outputs =
            vec![Tensor::I64(quantised), Tensor::F32(Array::scalar(scale)), Tensor::I64(Array::scalar(zero as i64))];
        Ok(Forward { outputs, saved: None })
    }
}

/// A product of quantised matrices. There is one zero point for all, or (of the right factor) one for each column.
#[derive(Debug)]
struct MatMulInteger;

impl Operator for MatMulInteger {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (a, b) = (input(inputs, 0)?.i64()?, input(inputs, 1)?.i64()?);
        let ([outer_a @ .., rows, depth], [outer_b @ .., other, columns]) = (a.shape(), b.shape()) else {
            return Err(format!("matrices are needed, not tensors of shapes {:?} and {:?}", a.shape(), b.shape()));
        };
        if depth != other {
            return Err(format!("shapes {:?} and {:?} do not fit for a product", a.shape(), b.shape()));
        }
        let outer = broadcast_shape([outer_a, outer_b])?;
        let shape = [&outer[..], &[*rows, *columns]].concat();
        let count = elements(&shape)?;
        let zero = |index, columns: usize| match optional(inputs, index) {
            None => Ok(vec![0; columns]),
            Some(zero) => match zero.i64()?.data() {
                [zero] => Ok(vec![*zero; columns]),
                zeros if zeros.len() == columns && zero.shape().len() == 1 => Ok(zeros.to_vec()),
                _ => Err(format!("zero points of shape {:?} are not known here", zero.shape())),
            },
        };
        let zero_a = match optional(inputs, 2) {
            None => 0,
            Some(zero) => single(zero.i64()?, "the zero point of the left factor")?,
        };
        let zero_b = zero(3, *columns)?;
        let starts = |from: &[usize], size: usize| -> Result<Vec<usize>, String> {
            Ok(View::broadcast(from, &outer)?.read(&(0..elements(from)?).map(|at| at * size).collect::<Vec<_>>()))
        };
        let (starts_a, starts_b) = (starts(outer_a, rows * depth)?, starts(outer_b, depth * columns)?);
        let mut out = vec![0i64; count];
        for (product, (start_a, start_b)) in starts_a.into_iter().zip(starts_b).enumerate() {
            for row in 0..*rows {
                let into = &mut out[(product * rows + row) * columns..][..*columns];
                for step in 0..*depth {
                    let left = a.data()[start_a + row * depth + step].wrapping_sub(zero_a);
                    let right = &b.data()[start_b + step * columns..][..*columns];
                    for ((sum, right), zero) in into.iter_mut().zip(right).zip(&zero_b) {
                        *sum = sum.wrapping_add(left.wrapping_mul(right.wrapping_sub(*zero)));
                    }
                }
            }
        }
        Ok(Forward::one(Tensor::I64(Array::new(shape, out))))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::*, *};

    #[test]
    fn casts_truncate_and_wrap() {
        let cast = |to: DataType, x| forward(&*operator("Cast", 13, vec![int("to", to as i64)]), &[x], 1).remove(0);
        let x = floats(&[4], &[-1.7, 1.7, 300.0, 0.0]);
        assert_eq!(cast(DataType::Int64, x.clone()), ints(&[4], &[-1, 1, 300, 0]));
        assert_eq!(cast(DataType::Uint8, x.clone()), ints(&[4], &[255, 1, 44, 0]));
        assert_eq!(cast(DataType::Bool, x.clone()), Tensor::Bool(Array::new([4], vec![true, true, true, false])));
        check(&*operator("Cast", 13, vec![int("to", DataType::Double as i64)]), &[x], 1, &[0]);
        try_operator("Cast", 13, vec![int("to", DataType::String as i64)]).unwrap_err();
    }

    #[test]
    fn scales_lie_along_an_axis() {
        let x = ints(&[2, 2], &[1, 2, 3, 4]);
        let scale = floats(&[2], &[1.0, 10.0]);
        let zero = ints(&[2], &[0, 1]);
        let by_column = output(&*operator("DequantizeLinear", 13, vec![]), &[x.clone(), scale.clone(), zero.clone()]);
        assert_eq!(by_column.data(), [1.0, 10.0, 3.0, 30.0]);
        let by_row = output(&*operator("DequantizeLinear", 13, vec![int("axis", 0)]), &[x, scale, zero]);
        assert_eq!(by_row.data(), [1.0, 2.0, 20.0, 30.0]);
    }
}
