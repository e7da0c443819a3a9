//! SynFlow, importance without data: how much of a flow from the inputs reaches the outputs through a weight (Tanaka et
//! al., 2020).
//!
//! The network is made positive and, apart from gates and attention, linear: absolute weights, no biases, no activation
//! functions or normalisations, ones as inputs. With R the sum of all outputs, `|w ∂R/∂w|` is the share of R that flows
//! through a weight. R of a deep network overflows f32, so each layer is divided by the mean sum of its rows. Along a
//! chain of layers that changes no ranking, as `w ∂R/∂w` does not depend on a layer's scale; in a sum of branches no
//! branch dominates. Removing everything at once might remove a whole layer, so [`Flow::last_step`] removes in steps
//! and scores again after each.

use espalier_engine::{Array, Keep, Network, Tensor, ValueId};

use super::values;
use crate::{
    Amount, Mask, PruneError, Recipe, Samples, Scores, Unit, inputs,
    layout::{Direction, Layout},
    onnx::{Model, NodeProto},
    operators::{self, Axes},
    prunable::{Reason, Survey, Weight},
    select,
};

/// Steps from the dense model to the ratio, each removing the same share of what is left.
const STEPS: usize = 20;

/// A network that ones flow through.
pub(crate) struct Flow<'a> {
    survey: &'a Survey,
    network: Network,
    feeds: Vec<Tensor>,
    /// Absolute weights, by tensor of the survey.
    weights: Vec<Vec<f32>>,
    ids: Vec<ValueId>,
}

impl<'a> Flow<'a> {
    /// Of `samples` only the shapes matter, and only where the file leaves them open.
    ///
    /// # Errors
    /// Weights that are NaN, operators the engine does not know.
    pub fn new(model: &Model, survey: &'a Survey, samples: Option<&Samples>) -> Result<Flow<'a>, PruneError> {
        let weights: Vec<Vec<f32>> = survey
            .weights
            .iter()
            .map(|weight| Ok(values(model, weight)?.iter().map(|weight| weight.abs()).collect()))
            .collect::<Result<_, PruneError>>()?;
        let mut linear = model.clone();
        let outputs: Vec<String> = linear.graph().output.iter().map(|output| output.name().to_owned()).collect();
        for node in &mut linear.graph_mut().node {
            let last = node.output.first().is_some_and(|output| outputs.contains(output));
            if is_left_out(node.op(), last) {
                *node = NodeProto {
                    op_type: Some("Identity".into()),
                    input: node.input.iter().take(1).cloned().collect(),
                    output: node.output.iter().take(1).cloned().collect(),
                    name: node.name.clone(),
                    ..NodeProto::default()
                };
            }
        }
        let mut network = Network::new(&linear)?;
        for tensor in &survey.untouched {
            let new: fn(f32) -> f32 = match tensor.reason {
                Reason::Bias => |_| 0.0,
                Reason::Embedding => f32::abs,
                _ => continue,
            };
            if let Some(Tensor::F32(array)) = network.find(&tensor.name).and_then(|id| network.constant_mut(id)) {
                array.data_mut().iter_mut().for_each(|value| *value = new(*value));
            }
        }
        let ids =
            survey.weights.iter().map(|weight| network.find(&weight.name).expect("the network has every constant"));
        let ids = ids.collect();
        let feeds = inputs::ones(model, &network, samples)?;
        Ok(Flow { survey, network, feeds, weights, ids })
    }

    /// The scores with the weights of the mask removed.
    ///
    /// # Errors
    /// Where nothing comes out, or more than a number can hold.
    pub fn scores(&mut self, removed: Option<&Mask>) -> Result<Scores, PruneError> {
        for (index, weight) in self.survey.weights.iter().enumerate() {
            let mut values = self.weights[index].clone();
            if let Some(removed) = removed {
                values.iter_mut().zip(&removed.0[index]).filter(|(_, removed)| **removed).for_each(|(w, _)| *w = 0.0);
            }
            let scale = mean_row(weight, &values);
            if scale > 0.0 && scale.is_finite() {
                values.iter_mut().for_each(|value| *value = (f64::from(*value) / scale) as f32);
            }
            let shape: Vec<usize> = weight.shape.iter().map(|axis| *axis as usize).collect();
            if let Some(constant) = self.network.constant_mut(self.ids[index]) {
                *constant = Tensor::F32(Array::new(shape, values));
            }
        }
        let run = self.network.run(&self.feeds, Keep::All)?;
        let mut seeds = Vec::new();
        let mut flow = 0.0f64;
        for output in &self.network.outputs {
            if let Some(Tensor::F32(array)) = run.value(*output) {
                flow += array.data().iter().map(|value| f64::from(*value)).sum::<f64>();
                seeds.push((*output, Array::filled(array.shape(), 1.0)));
            }
        }
        // Where so much is removed that no path is left, all remaining weights are equal.
        if !flow.is_finite() || (flow == 0.0 && removed.is_none()) {
            let why = format!("with ones for inputs and absolute weights the outputs add up to {flow}");
            return Err(PruneError::Samples { why });
        }
        let gradients = self.network.backward(&run, &seeds, &self.ids)?;
        let scores = self.ids.iter().zip(&self.weights).map(|(id, weights)| {
            let (Some(gradient), Some(Tensor::F32(present))) = (gradients.of(*id), self.network.constant(*id)) else {
                return vec![0.0; weights.len()];
            };
            present.data().iter().zip(gradient.data()).map(|(weight, gradient)| (weight * gradient).abs()).collect()
        });
        Ok(Scores(scores.collect()))
    }

    /// The scores that decide the last step of a recipe, and what is removed before. A threshold, and N:M, are decided
    /// at once.
    ///
    /// # Errors
    /// Those of [`select::mask`] and [`Flow::scores`].
    pub fn last_step(&mut self, recipe: &Recipe) -> Result<(Scores, Option<Mask>), PruneError> {
        let steps = match (recipe.amount(), recipe.unit) {
            (Amount::Threshold(_), _) | (_, Unit::NOfM { .. }) => 1,
            _ => STEPS,
        };
        let mut mask: Option<Mask> = None;
        for step in 1..steps {
            let ratio = 1.0 - (1.0 - recipe.ratio).powf(step as f64 / steps as f64);
            let scores = self.scores(mask.as_ref())?;
            mask = Some(select::mask(&scores, self.survey, recipe.scope, recipe.unit, ratio, mask.as_ref())?);
        }
        Ok((self.scores(mask.as_ref())?, mask))
    }
}

/// Activation functions and normalisations, and what makes probabilities of the network's outputs. Softmax within an
/// attention stays, as do the gates of an LSTM: without them products of products would grow beyond bounds.
fn is_left_out(op: &str, last: bool) -> bool {
    match operators::axes(op) {
        Some(Axes::Activation | Axes::Slopes) => true,
        Some(Axes::ChannelNormalisation { .. } | Axes::GroupNormalisation | Axes::RowNormalisation) => true,
        Some(Axes::Gate | Axes::Softmax) => last,
        // Layers, and what moves, combines or counts values.
        Some(
            Axes::Convolution
            | Axes::TransposedConvolution
            | Axes::MatrixProduct
            | Axes::Gemm
            | Axes::Recurrent { .. }
            | Axes::Elementwise
            | Axes::Broadcast
            | Axes::Pool
            | Axes::GlobalPool
            | Axes::Reduce
            | Axes::ReduceToIndex
            | Axes::Transpose
            | Axes::Concat
            | Axes::Split
            | Axes::Slice
            | Axes::Gather
            | Axes::Expand
            | Axes::ConstantOfShape
            | Axes::Pad
            | Axes::Reshape
            | Axes::Flatten
            | Axes::Squeeze
            | Axes::Unsqueeze
            | Axes::Lengths
            | Axes::Range
            | Axes::SameShape(_)
            | Axes::OtherShape(_),
        )
        | None => false,
    }
}

/// The mean over outputs of the sum over inputs.
fn mean_row(weight: &Weight, values: &[f32]) -> f64 {
    let inputs = |layout: &Layout| {
        let lengths = layout.axes.iter().zip(&weight.shape);
        lengths.filter(|(axis, _)| **axis == Direction::Input).map(|(_, length)| *length as f64).product::<f64>()
    };
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    // Without known rows: as if the tensor were square.
    let inputs = weight.layout.as_ref().map_or((values.len() as f64).sqrt(), inputs);
    sum / (values.len().max(1) as f64) * inputs
}
