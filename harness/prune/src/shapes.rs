//! Shapes of a graph's values without running it, as far as the usual operators of convolutional and fully connected networks go.
//!
//! What it does not know has no shape, and nothing that comes of it has one. It exists because running a large network to count its
//! multiplications takes longer than pruning it.

use std::collections::HashMap;

use crate::{
    attributes::Attributes,
    onnx::{GraphProto, NodeProto},
    prunable::constants,
};

/// By name of the value.
pub type Shapes = HashMap<String, Vec<usize>>;

/// `inputs` are the shapes of what is fed.
pub fn infer(graph: &GraphProto, inputs: Shapes) -> Shapes {
    let mut shapes = inputs;
    shapes.retain(|_, shape| is_sane(shape));
    let mut integers: HashMap<&str, Vec<i64>> = HashMap::new();
    for (name, place) in constants(graph) {
        let tensor = place.tensor(graph);
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        if let Some(dims) = dims.filter(|dims| is_sane(dims)) {
            shapes.insert(name.to_owned(), dims);
        }
        let raw = tensor.raw_data.as_deref().unwrap_or_default();
        if tensor.data_type() == crate::onnx::tensor_proto::DataType::Int64 as i32 && raw.len() <= 64 {
            let listed = raw.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value)).collect();
            integers.insert(name, if raw.is_empty() { tensor.int64_data.clone() } else { listed });
        }
    }
    for node in &graph.node {
        let input = |index: usize| shapes.get(node.input.get(index)?.as_str()).map(Vec::as_slice);
        let integers = |index: usize| integers.get(node.input.get(index)?.as_str()).map(Vec::as_slice);
        let inputs: Vec<Option<&[usize]>> = (0..node.input.len()).map(input).collect();
        if let (Some(shape), Some(output)) = (shape(node, &inputs, &integers), node.output.first())
            && is_sane(&shape)
        {
            shapes.insert(output.clone(), shape);
        }
    }
    shapes
}

/// Nobody's value is that large; and what is made of shapes must not overflow.
fn is_sane(shape: &[usize]) -> bool {
    let len = shape.iter().try_fold(1usize, |product, axis| product.checked_mul((*axis).max(1)));
    len.is_some_and(|len| len < 1 << 40)
}

/// The shape of a node's first output.
fn shape<'a>(
    node: &NodeProto,
    inputs: &[Option<&[usize]>],
    integers: &dyn Fn(usize) -> Option<&'a [i64]>,
) -> Option<Vec<usize>> {
    let attributes = Attributes(node);
    let first = inputs.first().copied().flatten();
    let second = || inputs.get(1).copied().flatten();
    match node.op_type() {
        "Relu"
        | "LeakyRelu"
        | "PRelu"
        | "Clip"
        | "Elu"
        | "Selu"
        | "Gelu"
        | "Sigmoid"
        | "HardSigmoid"
        | "HardSwish"
        | "Tanh"
        | "Erf"
        | "Exp"
        | "Sqrt"
        | "Neg"
        | "Abs"
        | "Identity"
        | "Dropout"
        | "Softmax"
        | "LogSoftmax"
        | "Cast"
        | "BatchNormalization"
        | "LayerNormalization"
        | "InstanceNormalization"
        | "QuantizeLinear"
        | "DequantizeLinear" => Some(first?.to_vec()),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => broadcast(first?, second()?),
        "MatMul" => product(first?, second()?),
        "Gemm" => {
            let (a, b) = (first?, second()?);
            let (rows, columns) = (usize::from(attributes.is_set("transA")), usize::from(!attributes.is_set("transB")));
            (a.len() == 2 && b.len() == 2).then(|| vec![a[rows], b[columns]])
        }
        "Conv" => {
            let (x, w) = (first?, second()?);
            let mut shape = vec![*x.first()?, *w.first()?];
            shape.extend(windows(&attributes, x.get(2..)?, w.get(2..)?)?);
            Some(shape)
        }
        "MaxPool" | "AveragePool" => {
            let x = first?;
            let kernel: Vec<usize> = attributes.ints("kernel_shape")?.iter().map(|axis| *axis as usize).collect();
            let mut shape = x.get(..2)?.to_vec();
            shape.extend(windows(&attributes, &x[2..], &kernel)?);
            Some(shape)
        }
        "GlobalAveragePool" | "GlobalMaxPool" => {
            let x = first?;
            Some(x.get(..2)?.iter().copied().chain(x[2..].iter().map(|_| 1)).collect())
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" => {
            let x = first?;
            let axes = positions(attributes.ints("axes").or_else(|| integers(1))?, x.len())?;
            let keep = attributes.int("keepdims", 1) != 0;
            let axis = |(axis, length): (usize, &usize)| match axes.contains(&axis) {
                true => keep.then_some(1),
                false => Some(*length),
            };
            Some(x.iter().enumerate().filter_map(axis).collect())
        }
        "Flatten" => {
            let x = first?;
            let at = attributes.int("axis", 1);
            let at = usize::try_from(if at < 0 { at + x.len() as i64 } else { at }).ok().filter(|at| *at <= x.len())?;
            Some(vec![x[..at].iter().product(), x[at..].iter().product()])
        }
        "Reshape" => {
            let (x, target) = (first?, integers(1)?);
            let mut shape: Vec<usize> = Vec::new();
            for (axis, length) in target.iter().enumerate() {
                shape.push(match length {
                    0 => *x.get(axis)?,
                    -1 => 1,
                    _ => usize::try_from(*length).ok()?,
                });
            }
            if let Some(open) = target.iter().position(|length| *length == -1) {
                shape[open] = x
                    .iter()
                    .product::<usize>()
                    .checked_div(shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis))?)?;
            }
            Some(shape)
        }
        "Transpose" => {
            let x = first?;
            match attributes.ints("perm") {
                None => Some(x.iter().rev().copied().collect()),
                Some(order) => order.iter().map(|axis| x.get(usize::try_from(*axis).ok()?).copied()).collect(),
            }
        }
        "Gather" => {
            let (x, indices) = (first?, second()?);
            let axis = *positions(&[attributes.int("axis", 0)], x.len())?.first()?;
            Some([&x[..axis], indices, &x[axis + 1..]].concat())
        }
        // Steps, directions, samples, states.
        "LSTM" | "GRU" | "RNN" if !attributes.is_set("layout") => {
            let ([steps, samples, _], [directions, _, hidden]) = (first?, inputs.get(2).copied().flatten()?) else {
                return None;
            };
            Some(vec![*steps, *directions, *samples, *hidden])
        }
        "Squeeze" => {
            let x = first?;
            let axes = positions(attributes.ints("axes").or_else(|| integers(1))?, x.len())?;
            Some(x.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, length)| *length).collect())
        }
        "Unsqueeze" => {
            let x = first?;
            let listed = attributes.ints("axes").or_else(|| integers(1))?;
            let axes = positions(listed, x.len() + listed.len())?;
            let mut rest = x.iter();
            (0..x.len() + listed.len())
                .map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() })
                .collect()
        }
        "Concat" => {
            let mut shape = first?.to_vec();
            let axis = *positions(&[attributes.int("axis", 0)], shape.len())?.first()?;
            shape[axis] = 0;
            for input in inputs {
                shape[axis] += input.and_then(|input| input.get(axis))?;
            }
            Some(shape)
        }
        _ => None,
    }
}

/// How many windows fit along each axis.
fn windows(attributes: &Attributes<'_>, lengths: &[usize], kernel: &[usize]) -> Option<Vec<usize>> {
    let by_axis = |name: &str, axis: usize, default: i64| {
        attributes
            .ints(name)
            .map_or(Some(default), |ints| ints.get(axis).copied())
            .and_then(|value| usize::try_from(value).ok())
    };
    let window = |(axis, length): (usize, &usize)| {
        let stride = by_axis("strides", axis, 1)?;
        let reach = (kernel.get(axis)?.checked_sub(1)?).checked_mul(by_axis("dilations", axis, 1)?)?.checked_add(1)?;
        match attributes.string("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" | "SAME_LOWER" => return (stride > 0).then(|| length.div_ceil(stride)),
            "VALID" => return Some(length.checked_sub(reach)?.checked_div(stride)? + 1),
            _ => {}
        }
        let padded =
            length.checked_add(by_axis("pads", axis, 0)?)?.checked_add(by_axis("pads", axis + lengths.len(), 0)?)?;
        let room = padded.checked_sub(reach)?;
        let steps = if attributes.is_set("ceil_mode") { room.checked_add(stride.checked_sub(1)?)? } else { room };
        Some(steps.checked_div(stride)? + 1)
    };
    lengths.iter().enumerate().map(window).collect()
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let length = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let both = |axis| match (length(a, axis), length(b, axis)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(both).collect()
}

fn product(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let ([a_leads @ .., rows, inner], [b_leads @ .., other, columns]) = (a, b) else { return None };
    let mut shape = (inner == other).then(|| broadcast(a_leads, b_leads))??;
    shape.extend([rows, columns]);
    Some(shape)
}

/// Axes counted from either end as positions below `rank`.
fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let position = |axis: &i64| {
        let axis = if *axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { *axis };
        usize::try_from(axis).ok().filter(|axis| *axis < rank)
    };
    axes.iter().map(position).collect()
}
