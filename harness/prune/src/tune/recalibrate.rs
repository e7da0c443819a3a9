//! The running statistics of BatchNormalization, estimated anew from samples.
//!
//! Pruning changes what flows into a normalisation, but its mean and variance are those of the dense network. No
//! gradients are needed: nodes run one after another on all samples, and each normalisation gets the statistics of its
//! actual input before the nodes after it run. This is exact in one pass, but holds the live values of all samples at
//! once: a few hundred samples suffice.

use std::collections::HashMap;

use espalier_engine::{Array, EngineError, Network, Node, Tensor, ValueId};

use super::trainable::TrainableModel;
use crate::{Bytes, PruneError, Samples, remove};

/// A model with recalibrated normalisations.
#[derive(Clone, Debug, PartialEq)]
pub struct Recalibrated {
    pub bytes: Bytes,
    pub nodes: usize,
    /// Those left unchanged: their statistics are shared, computed, or not float32.
    pub left: Vec<String>,
}

const BATCH: usize = 32;

/// # Errors
/// Samples that do not fit, and whatever the engine refuses. A model without BatchNormalization is returned unchanged.
pub fn recalibrate(model: &Bytes, samples: &Samples) -> Result<Recalibrated, PruneError> {
    let TrainableModel { network, .. } = &mut TrainableModel::new(model)?;
    let Some(last) = network.nodes.iter().rposition(is_normalisation) else {
        return Ok(Recalibrated { bytes: model.clone(), nodes: 0, left: Vec::new() });
    };
    let batches = TrainableModel::new(model)?.batches(samples, BATCH)?;
    let live = batches.into_iter().map(|inputs| network.inputs.iter().copied().zip(inputs).collect());
    let mut batches: Vec<Live> = live.collect();
    let mut uses = uses(network, last);
    let mut statistics: HashMap<ValueId, Vec<f32>> = HashMap::new();
    let (mut done, mut left) = (0, Vec::new());
    for index in 0..=last {
        let node = &network.nodes[index];
        if is_normalisation(node) {
            match own_statistics(network, node) {
                Some((mean_id, variance_id)) => {
                    let input = node.inputs[0].expect("a normalisation that was parsed has an input");
                    let (mean, variance) = moments(batches.iter().filter_map(|live| live[&input].f32().ok()));
                    done += 1;
                    for (id, values) in [(mean_id, mean), (variance_id, variance)] {
                        // Without values the old statistics are better than none.
                        if let (Some(Tensor::F32(constant)), false) = (network.constant_mut(id), values.is_empty()) {
                            constant.data_mut().copy_from_slice(&values);
                            statistics.insert(id, values);
                        }
                    }
                }
                None => left.push(node.name.clone()),
            }
        }
        let node = &network.nodes[index];
        for live in &mut batches {
            run_node(live, network, node)?;
        }
        for input in node.inputs.iter().flatten() {
            uses[*input] -= 1;
            if uses[*input] == 0 {
                batches.iter_mut().for_each(|live| drop(live.remove(input)));
            }
        }
    }
    let named = statistics.into_iter().map(|(id, values)| (network.name(id).to_owned(), values));
    Ok(Recalibrated { bytes: remove::write(model, &named.collect::<HashMap<_, _>>())?, nodes: done, left })
}

/// The live values of one batch.
type Live = HashMap<ValueId, Tensor>;

fn run_node(live: &mut Live, network: &Network, node: &Node) -> Result<(), PruneError> {
    let value = |id: ValueId| live.get(&id).or_else(|| network.constant(id));
    let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(|input| input.and_then(value)).collect();
    let failed = |why| EngineError::Node { node: node.name.clone(), op: node.op_type.clone(), why };
    let forward = node.operator.forward(&inputs, node.outputs.len()).map_err(failed)?;
    let outputs = node.outputs.iter().zip(forward.outputs);
    live.extend(outputs.filter_map(|(output, value)| Some(((*output)?, value))));
    Ok(())
}

fn is_normalisation(node: &Node) -> bool {
    node.op_type == "BatchNormalization"
}

/// The constants of a normalisation's mean and variance, if no other node uses them.
fn own_statistics(network: &Network, node: &Node) -> Option<(ValueId, ValueId)> {
    let id = |slot: usize| node.inputs.get(slot).copied().flatten();
    let (mean, variance) = (id(3)?, id(4)?);
    let is_own = |id: ValueId| {
        let users = network.nodes.iter().flat_map(|node| &node.inputs).filter(|input| **input == Some(id)).count();
        users == 1 && matches!(network.constant(id), Some(Tensor::F32(_)))
    };
    (mean != variance && is_own(mean) && is_own(variance)).then_some((mean, variance))
}

/// Mean and variance of each channel (axis 1) over all other axes. In two passes: a difference of squares would lose
/// the variance of large numbers that differ little.
fn moments<'a>(arrays: impl Iterator<Item = &'a Array<f32>> + Clone) -> (Vec<f32>, Vec<f32>) {
    let channels = arrays.clone().next().and_then(|array| array.shape().get(1).copied()).unwrap_or(0);
    let each = |sums: &mut [f64], f: &dyn Fn(usize, f64) -> f64| {
        let mut count = 0usize;
        for array in arrays.clone() {
            let inner: usize = array.shape().iter().skip(2).product();
            for (index, values) in array.data().chunks(inner.max(1)).enumerate() {
                let channel = index % channels;
                sums[channel] += values.iter().map(|value| f(channel, f64::from(*value))).sum::<f64>();
            }
            count += array.len() / channels;
        }
        sums.iter_mut().for_each(|sum| *sum /= count as f64);
    };
    if channels == 0 || arrays.clone().all(Array::is_empty) {
        return (Vec::new(), Vec::new());
    }
    let (mut means, mut variances) = (vec![0.0; channels], vec![0.0; channels]);
    each(&mut means, &|_, value| value);
    each(&mut variances, &|channel, value| (value - means[channel]).powi(2));
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    (narrow(means), narrow(variances))
}

/// How many of the nodes up to `last` use each value.
fn uses(network: &Network, last: usize) -> Vec<usize> {
    let mut uses = vec![0; network.values()];
    network.nodes[..=last].iter().flat_map(|node| node.inputs.iter().flatten()).for_each(|input| uses[*input] += 1);
    uses
}
