//! Shapes of a graph's values without running it.
//!
//! What depends on values has no shape here, and neither has what is made of it. Counting the multiplications of a
//! large network by running it would take longer than pruning it.

use std::collections::HashMap;

use crate::{
    onnx::{GraphProto, NodeProto, axis_of},
    operators::{self, Axes},
    prunable::{constants, small_integers},
};

/// By name of the value.
pub type Shapes = HashMap<String, Vec<usize>>;

/// `inputs` are the shapes of what is fed.
pub fn infer(graph: &GraphProto, inputs: Shapes) -> Shapes {
    let mut shapes = inputs;
    shapes.retain(|_, shape| is_sane(shape));
    for (name, place) in constants(graph) {
        let dims = place.tensor(graph).dims.iter().map(|axis| usize::try_from(*axis).ok());
        if let Some(dims) = dims.collect::<Option<Vec<usize>>>().filter(|dims| is_sane(dims)) {
            shapes.insert(name.to_owned(), dims);
        }
    }
    let integers = small_integers(graph);
    for node in &graph.node {
        let shapes_of_inputs = node.input.iter().map(|name| shapes.get(name).map(Vec::as_slice)).collect();
        let shape = Inputs { node, shapes: shapes_of_inputs, integers: &integers }.output();
        if let (Some(shape), Some(output)) = (shape.filter(|shape| is_sane(shape)), node.output.first()) {
            shapes.insert(output.clone(), shape);
        }
    }
    shapes
}

/// Larger values are in no model; and products of lengths must not overflow.
fn is_sane(shape: &[usize]) -> bool {
    let len = shape.iter().try_fold(1usize, |product, axis| product.checked_mul((*axis).max(1)));
    len.is_some_and(|len| len < 1 << 40)
}

/// What is known of a node's inputs.
struct Inputs<'a> {
    node: &'a NodeProto,
    shapes: Vec<Option<&'a [usize]>>,
    /// Small constants, by name.
    integers: &'a HashMap<&'a str, Vec<i64>>,
}

impl<'a> Inputs<'a> {
    fn shape(&self, slot: usize) -> Option<&'a [usize]> {
        self.shapes.get(slot).copied().flatten()
    }

    fn integers(&self, slot: usize) -> Option<&'a [i64]> {
        self.integers.get(self.node.input_at(slot)?).map(Vec::as_slice)
    }

    /// The shape of the node's first output.
    fn output(&self) -> Option<Vec<usize>> {
        let (node, x) = (self.node, self.shape(0)?);
        match operators::axes(node.op())? {
            Axes::Activation
            | Axes::Gate
            | Axes::Elementwise
            | Axes::ChannelNormalisation { .. }
            | Axes::GroupNormalisation
            | Axes::RowNormalisation
            | Axes::Softmax
            | Axes::SameShape(_) => Some(x.to_vec()),
            Axes::Broadcast | Axes::Slopes => {
                self.shapes.iter().try_fold(Vec::new(), |common, shape| broadcast(&common, (*shape)?))
            }
            Axes::MatrixProduct => product(x, self.shape(1)?),
            Axes::Gemm => {
                let (&[a, b], &[c, d]) = (x, self.shape(1)?) else { return None };
                Some(vec![if node.is_set("transA") { b } else { a }, if node.is_set("transB") { c } else { d }])
            }
            kind @ (Axes::Convolution | Axes::TransposedConvolution | Axes::Pool | Axes::GlobalPool) => {
                self.windowed(kind, x)
            }
            Axes::Reduce => {
                let axes = match self.axes(x.len())? {
                    Some(axes) if !axes.is_empty() => axes,
                    _ if node.is_set("noop_with_empty_axes") => Vec::new(),
                    _ => (0..x.len()).collect(),
                };
                Some(reduced(x, &axes, node.int("keepdims", 1) != 0))
            }
            Axes::ReduceToIndex => {
                Some(reduced(x, &[axis_of(node.int("axis", 0), x.len())?], node.int("keepdims", 1) != 0))
            }
            // Steps, directions, samples, states.
            Axes::Recurrent { .. } if !node.is_set("layout") => match (x, self.shape(2)?) {
                (&[steps, samples, _], &[directions, _, hidden]) => Some(vec![steps, directions, samples, hidden]),
                _ => None,
            },
            Axes::Gather => {
                let axis = axis_of(node.int("axis", 0), x.len())?;
                Some([&x[..axis], self.shape(1)?, &x[axis + 1..]].concat())
            }
            Axes::Concat => {
                let mut shape = x.to_vec();
                let axis = axis_of(node.int("axis", 0), shape.len())?;
                shape[axis] = self.shapes.iter().try_fold(0usize, |sum, part| sum.checked_add(*(*part)?.get(axis)?))?;
                Some(shape)
            }
            kind @ (Axes::Transpose | Axes::Reshape | Axes::Flatten | Axes::Squeeze | Axes::Unsqueeze) => {
                self.rearranged(kind, x)
            }
            // Depend on values, or are laid out in another way.
            Axes::Recurrent { .. }
            | Axes::Split
            | Axes::Slice
            | Axes::Expand
            | Axes::ConstantOfShape
            | Axes::Pad
            | Axes::Lengths
            | Axes::Range
            | Axes::OtherShape(_) => None,
        }
    }

    /// Of an operator that slides a kernel over the axes behind batch and channels.
    fn windowed(&self, kind: Axes, x: &[usize]) -> Option<Vec<usize>> {
        let node = self.node;
        match kind {
            Axes::Convolution => {
                let weights = self.shape(1)?;
                let places = windows(node, x.get(2..)?, weights.get(2..)?)?;
                Some([&[*x.first()?, *weights.first()?], places.as_slice()].concat())
            }
            Axes::TransposedConvolution => {
                let weights = self.shape(1)?;
                let channels = usize::try_from(node.int("group", 1)).ok()?.checked_mul(*weights.get(1)?)?;
                let places = spread(node, x.get(2..)?, weights.get(2..)?)?;
                Some([&[*x.first()?, channels], places.as_slice()].concat())
            }
            Axes::Pool => {
                let kernel = node.ints("kernel_shape")?.iter().map(|axis| usize::try_from(*axis).ok());
                let places = windows(node, x.get(2..)?, &kernel.collect::<Option<Vec<usize>>>()?)?;
                Some([&x[..2], places.as_slice()].concat())
            }
            Axes::GlobalPool => Some(x.get(..2)?.iter().copied().chain(x[2..].iter().map(|_| 1)).collect()),
            _ => None,
        }
    }

    /// Of an operator that gives the same elements other axes.
    fn rearranged(&self, kind: Axes, x: &[usize]) -> Option<Vec<usize>> {
        let node = self.node;
        match kind {
            Axes::Transpose => match node.ints("perm") {
                None => Some(x.iter().rev().copied().collect()),
                Some(order) => order.iter().map(|axis| x.get(usize::try_from(*axis).ok()?).copied()).collect(),
            },
            Axes::Reshape => self.reshaped(x),
            Axes::Flatten => {
                let at = node.int("axis", 1);
                let at = if at == x.len() as i64 { x.len() } else { axis_of(at, x.len())? };
                Some(vec![x[..at].iter().product(), x[at..].iter().product()])
            }
            Axes::Squeeze => {
                let axes = self.axes(x.len())?;
                let goes = |axis: usize| axes.as_ref().map_or(x[axis] == 1, |axes| axes.contains(&axis));
                Some((0..x.len()).filter(|axis| !goes(*axis)).map(|axis| x[axis]).collect())
            }
            Axes::Unsqueeze => {
                let rank = x.len() + node.ints("axes").or_else(|| self.integers(1))?.len();
                let (axes, mut rest) = (self.axes(rank)??, x.iter());
                (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() }).collect()
            }
            _ => None,
        }
    }

    /// The axes that the attribute `axes` or the second input names; `Some(None)` where there is neither.
    fn axes(&self, rank: usize) -> Option<Option<Vec<usize>>> {
        let given = match (self.node.ints("axes"), self.node.input_at(1)) {
            (Some(axes), _) => axes,
            (None, Some(_)) => self.integers(1)?,
            (None, None) => return Some(None),
        };
        given.iter().map(|axis| axis_of(*axis, rank)).collect::<Option<Vec<usize>>>().map(Some)
    }

    fn reshaped(&self, x: &[usize]) -> Option<Vec<usize>> {
        let target = self.integers(1)?;
        let length = |(axis, length): (usize, &i64)| match length {
            0 if !self.node.is_set("allowzero") => x.get(axis).copied(),
            -1 => Some(1),
            _ => usize::try_from(*length).ok(),
        };
        let mut shape = target.iter().enumerate().map(length).collect::<Option<Vec<usize>>>()?;
        if let Some(open) = target.iter().position(|length| *length == -1) {
            let known = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis))?;
            shape[open] = x.iter().product::<usize>().checked_div(known)?;
        }
        Some(shape)
    }
}

fn reduced(x: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let axis = |(axis, length): (usize, &usize)| match axes.contains(&axis) {
        true => keep.then_some(1),
        false => Some(*length),
    };
    x.iter().enumerate().filter_map(axis).collect()
}

/// A kernel along one axis.
struct Side {
    stride: usize,
    /// From the kernel's first place to its last.
    reach: usize,
    before: usize,
    after: usize,
}

impl Side {
    fn of(node: &NodeProto, axis: usize, kernel: &[usize]) -> Option<Side> {
        let at = |name: &str, axis: usize, default: i64| {
            let value = node.ints(name).map_or(Some(default), |ints| ints.get(axis).copied())?;
            usize::try_from(value).ok()
        };
        let padded = matches!(node.text("auto_pad").unwrap_or("NOTSET"), "NOTSET" | "");
        let pad = |axis: usize| if padded { at("pads", axis, 0) } else { Some(0) };
        Some(Side {
            stride: at("strides", axis, 1)?,
            reach: kernel.get(axis)?.checked_sub(1)?.checked_mul(at("dilations", axis, 1)?)?.checked_add(1)?,
            before: pad(axis)?,
            after: pad(axis + kernel.len())?,
        })
    }
}

/// Whether padding depends on the input's length.
fn is_same(node: &NodeProto) -> bool {
    matches!(node.text("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"))
}

/// How many windows fit along each axis.
fn windows(node: &NodeProto, lengths: &[usize], kernel: &[usize]) -> Option<Vec<usize>> {
    let count = |(axis, length): (usize, &usize)| {
        let Side { stride, reach, before, after } = Side::of(node, axis, kernel)?;
        if is_same(node) {
            return (stride > 0).then(|| length.div_ceil(stride));
        }
        let begin = length.checked_add(before)?;
        let room = begin.checked_add(after)?.checked_sub(reach)?;
        let count = room.checked_div(stride)?.checked_add(1)?;
        // One more that sticks out, if it begins before the input ends.
        let more = node.is_set("ceil_mode") && room % stride != 0 && count.checked_mul(stride)? < begin;
        Some(count + usize::from(more))
    };
    lengths.iter().enumerate().map(count).collect()
}

/// How long the axes of a transposed convolution's output are.
fn spread(node: &NodeProto, lengths: &[usize], kernel: &[usize]) -> Option<Vec<usize>> {
    let length = |(axis, length): (usize, &usize)| {
        let Side { stride, reach, before, after } = Side::of(node, axis, kernel)?;
        if let Some(shape) = node.ints("output_shape") {
            return usize::try_from(*shape.get(shape.len().checked_sub(lengths.len())? + axis)?).ok();
        }
        if is_same(node) {
            return length.checked_mul(stride);
        }
        let padding = node.ints("output_padding").map_or(Some(0), |padding| padding.get(axis).copied())?;
        let last = length.checked_sub(1)?.checked_mul(stride)?.checked_add(usize::try_from(padding).ok()?)?;
        last.checked_add(reach)?.checked_sub(before)?.checked_sub(after)
    };
    lengths.iter().enumerate().map(length).collect()
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
