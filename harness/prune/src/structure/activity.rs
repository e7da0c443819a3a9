//! Importance of channels from samples: the mean absolute value of what each channel gives to the weights that use it.

use std::collections::HashMap;

use espalier_engine::{Keep, Network, Node, Tensor};

use super::{
    dependencies::{ChannelGroup, DependencyGraph},
    units::UnitId,
};
use crate::{PruneError, Samples, onnx::NodeProto};

/// By class of each group: the mean over all uses of a class, 0 for one that nothing uses.
///
/// # Errors
/// Samples that are missing or do not fit.
pub fn importance(
    dependencies: &mut DependencyGraph,
    groups: &[ChannelGroup],
    samples: Option<&Samples>,
    batch: usize,
) -> Result<Vec<Vec<f64>>, PruneError> {
    let samples = samples.filter(|samples| !samples.is_empty());
    let samples = samples.ok_or_else(|| PruneError::Samples { why: "activation needs some".into() })?;
    let network = Network::new(&dependencies.model)?;
    let indices: Vec<usize> = (0..samples.len()).collect();
    // By node: the sums of absolute values, by index of the axis, and how many values each sums up.
    let mut sums: HashMap<usize, (Vec<f64>, usize)> = HashMap::new();
    let nodes = &dependencies.model.graph().node;
    for part in indices.chunks(batch.max(1)) {
        network.run_observed(&samples.take(part).inputs, Keep::Outputs, &mut |node: &Node, inputs, _| {
            let (Some(axis), Some(Tensor::F32(x))) =
                (taken_in(&nodes[node.position]), inputs.first().copied().flatten())
            else {
                return;
            };
            let Some(axis) = axis.of(x.rank()) else { return };
            let len = x.shape()[axis];
            let inner: usize = x.shape()[axis + 1..].iter().product::<usize>().max(1);
            let (sum, count) = sums.entry(node.position).or_insert_with(|| (vec![0.0; len], 0));
            if sum.len() != len || len == 0 {
                return;
            }
            for (block, values) in x.data().chunks(inner).enumerate() {
                sum[block % len] += values.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            }
            *count += x.len() / len;
        })?;
    }
    let mut by_root: HashMap<UnitId, (f64, usize)> = HashMap::new();
    let mut positions: Vec<usize> = sums.keys().copied().collect();
    positions.sort_unstable();
    for position in positions {
        let (sum, count) = &sums[&position];
        let node = &dependencies.model.graph().node[position];
        let Some(value) = dependencies.units.value(&node.input[0]) else { continue };
        let rank = dependencies.units.shape(value).len();
        let Some(axis) = taken_in(node).and_then(|axis| axis.of(rank)) else { continue };
        for (index, sum) in sum.iter().enumerate().take(dependencies.units.len(value, axis)) {
            let root = dependencies.units.root(dependencies.units.unit(value, axis, index));
            let entry = by_root.entry(root).or_default();
            entry.0 += sum / (*count).max(1) as f64;
            entry.1 += 1;
        }
    }
    let of = |root: &UnitId| by_root.get(root).map_or(0.0, |(sum, count)| sum / *count as f64);
    Ok(groups.iter().map(|group| group.classes.iter().map(|class| of(&class.root)).collect()).collect())
}

/// An axis counted from the front or from the back.
enum Place {
    Front(usize),
    Back(usize),
}

impl Place {
    fn of(&self, rank: usize) -> Option<usize> {
        match self {
            Place::Front(axis) => Some(*axis).filter(|axis| *axis < rank),
            Place::Back(axis) => rank.checked_sub(*axis),
        }
    }
}

/// The axis of a node's first input that its weights sum over.
fn taken_in(node: &NodeProto) -> Option<Place> {
    match node.op() {
        "Conv" | "ConvTranspose" => Some(Place::Front(1)),
        "MatMul" => Some(Place::Back(1)),
        "Gemm" => Some(Place::Front(if node.int("transA", 0) == 0 { 1 } else { 0 })),
        "LSTM" | "GRU" | "RNN" => Some(Place::Front(2)),
        _ => None,
    }
}
