//! Importance of channels from samples: the mean absolute value of what each channel gives to the weights that use it.

use std::collections::HashMap;

use espalier_engine::{Keep, Network, Node, Tensor};

use super::{
    dependencies::{ChannelGroup, DependencyGraph},
    rank::add_along,
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
    // By node: the sums of absolute values, by index of the axis, and how many values each sums up.
    let mut sums: HashMap<usize, (Vec<f64>, usize)> = HashMap::new();
    let nodes = &dependencies.model.graph().node;
    for part in samples.batches(batch) {
        network.run_observed(&part.inputs, Keep::Outputs, &mut |node: &Node, inputs, _| {
            let Some(Tensor::F32(x)) = inputs.first().copied().flatten() else { return };
            let Some(axis) = summed_axis(&nodes[node.position], x.rank()) else { return };
            let len = x.shape()[axis];
            let (sum, count) = sums.entry(node.position).or_insert_with(|| (vec![0.0; len], 0));
            if sum.len() == len && len > 0 {
                add_along(sum, x.data(), x.shape(), axis, |x| f64::from(x.abs()));
                *count += x.len() / len;
            }
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
        let Some(axis) = summed_axis(node, rank) else { continue };
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

/// The axis of a node's first input, of this rank, that its weights sum over.
fn summed_axis(node: &NodeProto, rank: usize) -> Option<usize> {
    let axis = match node.op() {
        "Conv" | "ConvTranspose" => 1,
        "MatMul" => rank.checked_sub(1)?,
        "Gemm" => usize::from(node.int("transA", 0) == 0),
        "LSTM" | "GRU" | "RNN" => 2,
        _ => return None,
    };
    (axis < rank).then_some(axis)
}
