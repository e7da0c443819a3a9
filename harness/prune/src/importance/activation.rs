//! `|w| ‖x‖₂`, where `x` is what a weight multiplies, over all samples and positions (Wanda: Sun et al., 2024).
//!
//! `x` depends on the operator: the k-th input of a MatMul or Gemm; of a Conv the input channel under one offset of the
//! kernel, without borders, which multiply zeros; the input or the hidden state before each step of an LSTM. Samples
//! stream through the network; for each use of a weight only one sum per feature is kept. Squares are propagated back
//! to the tensor in the file, through the nodes that moved its values, like a gradient: they add up where a weight is
//! used twice.

use espalier_engine::{Array, EngineError, Keep, Network, Node, Tensor};

use super::{batches::Batches, values};
use crate::{
    PruneError, Scores,
    layout::LayerKind,
    onnx::{Model, NodeProto},
    prunable::Survey,
};

pub fn scores(model: &Model, network: &Network, survey: &Survey, batches: &Batches<'_>) -> Result<Scores, PruneError> {
    let mut sites = sites(model, survey);
    for batch in 0..batches.count() {
        let mut failed = None;
        network.run_observed(&batches.batch(batch).inputs, Keep::Outputs, &mut |node, inputs, outputs| {
            for site in sites.iter_mut().filter(|site| site.node == node.position) {
                if let Err(why) = site.add(inputs, outputs) {
                    failed.get_or_insert(refused(node, why));
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }

    let mut seeds = Vec::new();
    for site in &sites {
        let node = network.nodes.iter().find(|node| node.position == site.node);
        if let Some(value) = node.and_then(|node| node.inputs[site.input]) {
            seeds.push((value, site.squares()));
        }
    }
    let required: Vec<usize> = survey.weights.iter().filter_map(|weight| network.find(&weight.name)).collect();
    // Going back needs only shapes: one sample suffices.
    let run = network.run(&batches.smallest(), Keep::All)?;
    let mut squares = network.backward(&run, &seeds, &required)?;
    let mut scores = Vec::new();
    for weight in &survey.weights {
        let present = values(model, weight)?;
        let squares = network.find(&weight.name).and_then(|id| squares.take(id));
        scores.push(match squares {
            Some(squares) => present.iter().zip(squares.data()).map(|(w, square)| w.abs() * square.sqrt()).collect(),
            None => vec![0.0; present.len()],
        });
    }
    Ok(Scores(scores))
}

fn refused(node: &Node, why: String) -> EngineError {
    EngineError::Node { node: node.name.clone(), op: node.op_type.clone(), why: format!("its activations: {why}") }
}

/// One use of weights: the node, its input, and the sum of squares of each feature that they multiply.
struct Site<'a> {
    node: usize,
    input: usize,
    kind: LayerKind,
    proto: &'a NodeProto,
    /// Shape of the weights at that input.
    shape: Vec<usize>,
    sums: Vec<f64>,
}

fn sites<'a>(model: &'a Model, survey: &Survey) -> Vec<Site<'a>> {
    let mut uses: Vec<(usize, usize)> =
        survey.weights.iter().flat_map(|weight| weight.weight_of.iter().copied()).collect();
    uses.sort_unstable();
    uses.dedup();
    let site = |(node, input): (usize, usize)| {
        let proto = &model.graph().node[node];
        let kind = match proto.op_type() {
            "Conv" => LayerKind::Conv,
            "ConvTranspose" => LayerKind::ConvTranspose,
            "Gemm" => LayerKind::Gemm,
            "MatMul" => LayerKind::MatMul,
            _ => LayerKind::Recurrent,
        };
        Site { node, input, kind, proto, shape: Vec::new(), sums: Vec::new() }
    };
    uses.into_iter().map(site).collect()
}

impl Site<'_> {
    /// Adds the squares of what the weights multiply in one run of the node.
    fn add(&mut self, inputs: &[Option<&Tensor>], outputs: &[Tensor]) -> Result<(), String> {
        let float = |index: usize| -> Result<&Array<f32>, String> {
            inputs.get(index).copied().flatten().ok_or_else(|| format!("it has no input {index}"))?.f32()
        };
        self.shape = float(self.input)?.shape().to_vec();
        let node = self.proto;
        let found = match (self.kind, self.input) {
            (LayerKind::Conv, _) => under_the_kernel(float(0)?, &self.shape, outputs[0].shape(), node)?,
            (LayerKind::ConvTranspose, _) => along(float(0)?, 1)?,
            (LayerKind::MatMul, 0) => along(float(1)?, float(1)?.rank().saturating_sub(2))?,
            (LayerKind::MatMul, _) => along(float(0)?, float(0)?.rank().saturating_sub(1))?,
            (LayerKind::Gemm, 0) => along(float(1)?, usize::from(node.is_set("transB")))?,
            (LayerKind::Gemm, _) => along(float(0)?, usize::from(!node.is_set("transA")))?,
            (LayerKind::Recurrent, 1) => along(float(0)?, 2)?,
            (LayerKind::Recurrent, _) => {
                let initial = inputs.get(5).copied().flatten().map(Tensor::f32).transpose()?;
                hidden(outputs.first().ok_or("it has no output of states")?.f32()?, initial, node)?
            }
        };
        if self.sums.is_empty() {
            self.sums = vec![0.0; found.len()];
        }
        if self.sums.len() != found.len() {
            return Err(format!("{} features, {} before", found.len(), self.sums.len()));
        }
        self.sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        Ok(())
    }

    /// For each weight, the sum of squares of the feature that it multiplies.
    fn squares(&self) -> Array<f32> {
        let shape = &self.shape;
        let last = shape.last().copied().unwrap_or(1).max(1);
        let after: usize = shape.iter().skip(1).product::<usize>().max(1);
        let transposed = |name| self.proto.is_set(name);
        // Whether the inputs of a matrix run along its last axis, or the one before.
        let inputs_last = match (self.kind, self.input) {
            (LayerKind::Gemm, 0) => !transposed("transA"),
            (LayerKind::Gemm, _) => transposed("transB"),
            (LayerKind::MatMul, _) => self.input == 0 || shape.len() < 2,
            _ => true,
        };
        let feature: Box<dyn Fn(usize) -> usize> = match (self.kind, self.input) {
            (LayerKind::Conv, _) => {
                // Of the features of all input channels, those of the output channel's group.
                let groups = self.sums.len() / after;
                let outputs = shape.first().copied().unwrap_or(1).div_ceil(groups.max(1)).max(1);
                Box::new(move |index| index / after / outputs * after + index % after)
            }
            (LayerKind::ConvTranspose, _) => Box::new(move |index| index / after),
            (LayerKind::Recurrent, 2) => {
                let gates = shape.get(1).copied().unwrap_or(1);
                Box::new(move |index| index / (gates * last).max(1) * last + index % last)
            }
            _ if inputs_last => Box::new(move |index| index % last),
            _ => {
                let rows = shape[shape.len() - 2].max(1);
                Box::new(move |index| index / last % rows)
            }
        };
        let len = shape.iter().product();
        let square = |index| self.sums.get(feature(index)).copied().unwrap_or(0.0) as f32;
        Array::new(shape.clone(), (0..len).map(square).collect())
    }
}

/// Sums of squares over all axes but one.
fn along(x: &Array<f32>, axis: usize) -> Result<Vec<f64>, String> {
    let Some(length) = x.shape().get(axis).copied() else {
        return Err(format!("shape {:?} has no axis {axis}", x.shape()));
    };
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let mut sums = vec![0.0; length];
    for (index, value) in x.data().iter().enumerate() {
        sums[index / inner % length] += f64::from(*value) * f64::from(*value);
    }
    Ok(sums)
}

/// By input channel and offset of the kernel: the squares of what that weight multiplies.
fn under_the_kernel(x: &Array<f32>, weights: &[usize], output: &[usize], node: &NodeProto) -> Result<Vec<f64>, String> {
    let spatial = x.rank().saturating_sub(2);
    if x.rank() < 2 || weights.len() != x.rank() || output.len() != x.rank() {
        return Err(format!("shapes {:?}, {weights:?} and {output:?} do not go together", x.shape()));
    }
    let (kernel, lengths) = (&weights[2..], &x.shape()[2..]);
    let by_axis = |name: &str| node.ints(name).filter(|ints| ints.len() >= spatial);
    let positive = |name: &str, axis: usize| by_axis(name).map_or(1, |ints| ints[axis].max(1)) as usize;
    let before = |axis: usize| -> i64 {
        let reach = (output[2 + axis].saturating_sub(1) * positive("strides", axis)
            + (kernel[axis].saturating_sub(1)) * positive("dilations", axis)
            + 1) as i64;
        let missing = (reach - lengths[axis] as i64).max(0);
        match node.text("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" => missing / 2,
            "SAME_LOWER" => (missing + 1) / 2,
            "VALID" => 0,
            _ => by_axis("pads").map_or(0, |pads| pads[axis]),
        }
    };
    // By axis and offset: the first position, the distance to the next, and how many are within the input.
    let mut ranges: Vec<Vec<(usize, usize, usize)>> = Vec::new();
    for axis in 0..spatial {
        let (stride, dilation) = (positive("strides", axis) as i64, positive("dilations", axis) as i64);
        let range = |offset: usize| {
            let start = offset as i64 * dilation - before(axis);
            let first = if start < 0 { (-start + stride - 1) / stride } else { 0 };
            let end = (lengths[axis] as i64 - start + stride - 1).max(0) / stride;
            let end = end.min(output[2 + axis] as i64);
            ((start + first * stride).max(0) as usize, stride as usize, (end - first).max(0) as usize)
        };
        ranges.push((0..kernel[axis]).map(range).collect());
    }
    let (channels, plane, offsets) =
        (x.shape()[1], lengths.iter().product::<usize>(), kernel.iter().product::<usize>());
    let mut sums = vec![0.0; channels * offsets];
    if plane == 0 {
        return Ok(sums);
    }
    for (index, values) in x.data().chunks_exact(plane).enumerate() {
        let squares: Vec<f32> = values.iter().map(|value| value * value).collect();
        for offset in 0..offsets {
            let (mut rest, mut picked) = (offset, vec![(0, 1, 0); spatial]);
            for axis in (0..spatial).rev() {
                picked[axis] = ranges[axis][rest % kernel[axis]];
                rest /= kernel[axis];
            }
            sums[index % channels * offsets + offset] += boxed(&squares, lengths, &picked);
        }
    }
    Ok(sums)
}

/// The sum over a box with strides.
fn boxed(values: &[f32], lengths: &[usize], ranges: &[(usize, usize, usize)]) -> f64 {
    let ([_, lengths @ ..], [(first, step, count), ranges @ ..]) = (lengths, ranges) else {
        return values.first().map_or(0.0, |value| f64::from(*value));
    };
    let inner: usize = lengths.iter().product();
    let positions = (0..*count).map(|index| (first + index * step) * inner);
    if ranges.is_empty() {
        return positions.map(|position| f64::from(values[position])).sum();
    }
    positions.map(|position| boxed(&values[position..position + inner], lengths, ranges)).sum()
}

/// By direction and hidden unit: the squares of the states that go into a step, which are those after the step before.
fn hidden(states: &Array<f32>, initial: Option<&Array<f32>>, node: &NodeProto) -> Result<Vec<f64>, String> {
    let batch_first = node.is_set("layout");
    let (steps, directions, batch, units) = match *states.shape() {
        [batch, steps, directions, units] if batch_first => (steps, directions, batch, units),
        [steps, directions, batch, units] => (steps, directions, batch, units),
        _ => return Err(format!("its states have shape {:?}", states.shape())),
    };
    let mut sums = vec![0.0; directions * units];
    let reverse = |direction: usize| direction == 1 || node.text("direction") == Some("reverse");
    for step in 0..steps {
        for direction in 0..directions {
            // The state after the last step goes into none.
            if step == if reverse(direction) { 0 } else { steps - 1 } {
                continue;
            }
            for sample in 0..batch {
                let row = if batch_first {
                    (sample * steps + step) * directions + direction
                } else {
                    (step * directions + direction) * batch + sample
                };
                let states = &states.data()[row * units..(row + 1) * units];
                let sums = &mut sums[direction * units..(direction + 1) * units];
                sums.iter_mut().zip(states).for_each(|(sum, h)| *sum += f64::from(*h) * f64::from(*h));
            }
        }
    }
    if let Some(initial) = initial.filter(|initial| initial.len() == directions * batch * units) {
        for (index, h) in initial.data().iter().enumerate() {
            let rows = index / units;
            let direction = if batch_first { rows % directions } else { rows / batch.max(1) };
            sums[direction * units + index % units] += f64::from(*h) * f64::from(*h);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::AttributeProto;

    /// Two steps, two directions, one sample, two units; states are 1, 2, 3, … in the order of the operator's first
    /// output.
    #[track_caller]
    fn check(direction: &str, batch_first: bool, initial: Option<&[f32]>, expected: &[f64]) {
        let directions = if direction == "bidirectional" { 2 } else { 1 };
        let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
        let proto = NodeProto {
            attribute: vec![
                AttributeProto { s: Some(direction.to_owned().into()), ..attribute("direction") },
                AttributeProto { i: Some(i64::from(batch_first)), ..attribute("layout") },
            ],
            ..NodeProto::default()
        };
        let shape = if batch_first { [1, 2, directions, 2] } else { [2, directions, 1, 2] };
        let states = Array::new(shape, (1..=4 * directions).map(|state| state as f32).collect());
        let initial = initial.map(|initial| Array::new([directions, 1, 2], initial.to_vec()));
        assert_eq!(hidden(&states, initial.as_ref(), &proto).unwrap(), expected);
    }

    /// The state before each step goes into it: into the first the initial one, and the last state goes nowhere.
    #[test]
    fn states_before_each_step() {
        check("forward", false, None, &[1.0, 4.0]);
        check("reverse", false, None, &[9.0, 16.0]);
        check("forward", false, Some(&[1.0, 1.0]), &[2.0, 5.0]);
        // Step 0 has states 1 2 | 3 4, step 1 has 5 6 | 7 8.
        check("bidirectional", false, None, &[1.0, 4.0, 49.0, 64.0]);
        check("bidirectional", true, None, &[1.0, 4.0, 49.0, 64.0]);
        check("bidirectional", false, Some(&[1.0, 0.0, 0.0, 2.0]), &[2.0, 4.0, 49.0, 68.0]);
    }
}
