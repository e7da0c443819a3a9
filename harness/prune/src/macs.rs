//! Multiply-accumulates of one sample in the nodes that have prunable weights: each weight as often as it is used.
//!
//! Shapes come from the file where that is enough, else from a run on one sample, where there are samples: an untrusted
//! graph never runs unless the caller asks for it. Where neither gives shapes, counts are missing, not zero. Borders of
//! a convolution count like its middle.

use espalier_engine::{Keep, Network, Tensor};

use crate::{
    Samples, inputs,
    onnx::{Axis, Model, NodeProto},
    prunable::{Survey, Weight},
    shapes::{self, Shapes},
};

/// A larger file, in bytes, is not run for a count: that would take longer than pruning, and as much memory.
const LARGEST_RUN: usize = 256 << 20;

/// How often each weight of a tensor is used for one sample, by tensor of the survey. `None` where shapes are unknown.
pub fn uses(model: &Model, survey: &Survey, samples: Option<&Samples>) -> Option<Vec<u64>> {
    let (shapes, batch) = from_the_file(model, samples)?;
    if let Some(uses) = count(model, survey, &shapes, batch) {
        return Some(uses);
    }
    if samples.is_none() || model.source().len() > LARGEST_RUN {
        return None;
    }
    let (shapes, batch) = from_a_run(model, samples)?;
    count(model, survey, &shapes, batch)
}

/// Multiply-accumulates with all weights, and with those that are not zero; `zeros` by tensor of the survey.
pub fn total(survey: &Survey, uses: &[u64], zeros: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut total = (0u64, 0u64);
    for ((weight, uses), zeros) in survey.weights.iter().zip(uses).zip(zeros) {
        total.0 = total.0.saturating_add(weight.count.saturating_mul(*uses));
        total.1 = total.1.saturating_add(weight.count.saturating_sub(zeros).saturating_mul(*uses));
    }
    total
}

fn count(model: &Model, survey: &Survey, shapes: &Shapes, batch: usize) -> Option<Vec<u64>> {
    let of = |weight: &Weight| {
        let node = |site: &(usize, usize)| at(&model.graph().node[site.0], site.1, shapes);
        let uses = weight.weight_of.iter().try_fold(0u64, |sum, site| sum.checked_add(node(site)?));
        uses?.checked_div(batch as u64)
    };
    survey.weights.iter().map(of).collect()
}

/// How often one node uses each of its weights in one run.
fn at(node: &NodeProto, input: usize, shapes: &Shapes) -> Option<u64> {
    let shape = |name: Option<&String>| shapes.get(name?.as_str());
    let elements = |shape: &Vec<usize>| shape.iter().map(|axis| *axis as u64).product::<u64>();
    let weights = shape(node.input.get(input))?;
    let output = || shape(node.output.first());
    match node.op_type() {
        "Conv" => elements(output()?).checked_div(*weights.first()? as u64),
        // Each input value is multiplied with the whole kernel.
        "ConvTranspose" => elements(shape(node.input.first())?).checked_div(*weights.first()? as u64),
        "LSTM" | "GRU" | "RNN" => Some(shape(node.input.first())?.iter().take(2).map(|axis| *axis as u64).product()),
        // All multiplications of the node, by the weights they are shared among.
        "MatMul" | "Gemm" => {
            let other = shape(node.input.get(1 - input.min(1)))?;
            let inner = match (node.op_type(), input, weights.as_slice()) {
                ("Gemm", 0, [rows, columns]) => *if node.is_set("transA") { rows } else { columns },
                ("Gemm", _, [rows, columns]) => *if node.is_set("transB") { columns } else { rows },
                ("MatMul", 0, [.., last]) => *last,
                ("MatMul", _, [only]) => *only,
                ("MatMul", _, [.., inner, _]) => *inner,
                _ => return None,
            };
            let output = match output() {
                Some(output) => elements(output),
                // Without the output's shape: one output vector for each input vector.
                None => {
                    let vectors = elements(other).checked_div(inner as u64)?;
                    vectors.checked_mul(elements(weights).checked_div(inner as u64)?)?
                }
            };
            output.checked_mul(inner as u64)?.checked_div(elements(weights))
        }
        _ => None,
    }
}

/// The shapes that follow from those of the inputs, and how many samples those are of.
fn from_the_file(model: &Model, samples: Option<&Samples>) -> Option<(Shapes, usize)> {
    let mut shapes = Shapes::new();
    let mut batch = 1;
    for (index, info) in model.graph().fed().enumerate() {
        let sample = samples.and_then(|samples| samples.inputs.get(index)).map(Tensor::shape);
        let declared: Vec<Option<usize>> = match (info.axes(), sample) {
            (Some(axes), _) => axes.iter().map(Axis::fixed).collect(),
            (None, sample) => vec![None; sample?.len()],
        };
        let length = |(axis, fixed): (usize, Option<usize>)| match fixed {
            None if axis == 0 => Some(1),
            None => sample.and_then(|shape| shape.get(axis)).copied(),
            fixed => fixed,
        };
        let shape = declared.into_iter().enumerate().map(length).collect::<Option<Vec<usize>>>()?;
        batch = shape.first().copied().unwrap_or(1);
        shapes.insert(info.name().to_owned(), shape);
    }
    Some((shapes::infer(model.graph(), shapes), batch))
}

fn from_a_run(model: &Model, samples: Option<&Samples>) -> Option<(Shapes, usize)> {
    // A network that cannot be run has no counts; whoever runs it later gets the error.
    let network = Network::new(model).ok()?;
    let feeds = inputs::ones(model, &network, samples).ok()?;
    let mut shapes = Shapes::new();
    let named = |id: &Option<usize>, tensor: &Tensor| Some((network.name((*id)?).to_owned(), tensor.shape().to_vec()));
    network
        .run_observed(&feeds, Keep::Outputs, &mut |node, inputs, outputs| {
            let inputs = node.inputs.iter().zip(inputs).filter_map(|(id, tensor)| named(id, (*tensor)?));
            let outputs = node.outputs.iter().zip(outputs).filter_map(|(id, tensor)| named(id, tensor));
            shapes.extend(inputs.chain(outputs));
        })
        .ok()?;
    let batch = feeds.first().and_then(|feed| feed.shape().first().copied()).unwrap_or(1);
    Some((shapes, batch))
}
