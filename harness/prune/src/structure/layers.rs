//! Whole residual branches: `y = x + f(x)` becomes `y = x`.
//!
//! A branch ends in an `Add` of which one side is computed from the other and both have the shape of the sum. Of nested
//! branches the inner ones count, not those around them: a long skip around half of the network is no layer.

use std::collections::{BTreeSet, HashMap, HashSet};

use espalier_engine::{Keep, Network, Tensor};

use super::{
    dependencies::DependencyGraph,
    graph::{self, Names},
};
use crate::{
    Bytes, PruneError, Samples,
    onnx::{GraphProto, Model, tensor_proto::DataType},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Index of the `Add`.
    pub add: usize,
    pub node: String,
    /// The value that bypasses the branch, and the branch's result.
    pub skip: String,
    pub result: String,
    pub sum: String,
    /// Constants that only the branch uses.
    pub constants: Vec<String>,
}

pub fn branches(dependencies: &DependencyGraph) -> Vec<Branch> {
    let graph = dependencies.model.graph();
    let producers = graph::producers(graph);
    let constants = graph::initializers(graph);
    let outputs: HashSet<&str> = graph.output.iter().map(|output| output.name()).collect();
    let mut uses: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        node.input.iter().for_each(|name| uses.entry(name).or_default().push(index));
    }
    let mut found: Vec<(Branch, HashSet<usize>)> = Vec::new();
    for (add, node) in graph.node.iter().enumerate().filter(|(_, node)| node.op() == "Add") {
        let (Some(a), Some(b), Some(sum)) = (node.input_at(0), node.input_at(1), node.output_at(0)) else { continue };
        let shape = |name: &str| dependencies.probe.shape(name);
        if shape(a).is_none() || shape(a) != shape(sum) || shape(b) != shape(sum) || a == b {
            continue;
        }
        for (skip, result) in [(a, b), (b, a)] {
            if constants.contains_key(skip) {
                continue;
            }
            let Some(above) = between(graph, &producers, skip, result) else { continue };
            let only_within = |nodes: &HashSet<usize>, name: &str| {
                uses.get(name).is_none_or(|users| users.iter().all(|user| nodes.contains(user)))
            };
            // The sum, and nodes whose results only the branch uses, from the end upwards.
            let mut inner = HashSet::from([add]);
            for index in (0..add).rev().filter(|index| above.contains(index)) {
                let mut results = graph.node[index].output.iter().filter(|name| !name.is_empty());
                if results.all(|name| !outputs.contains(name.as_str()) && only_within(&inner, name)) {
                    inner.insert(index);
                }
            }
            let names = inner.iter().flat_map(|index| &graph.node[*index].input).filter(|name| {
                let weights = constants.get(name.as_str()).map(|tensor| &graph.initializer[*tensor]);
                weights.is_some_and(|tensor| tensor.dims.len() > 1) && only_within(&inner, name)
            });
            let own: BTreeSet<String> = names.cloned().collect();
            if !own.is_empty() {
                let [skip, result, sum] = [skip, result, sum].map(str::to_owned);
                let constants = own.into_iter().collect();
                found.push((Branch { add, node: node.label(), skip, result, sum, constants }, inner));
            }
            break;
        }
    }
    let adds: Vec<usize> = found.iter().map(|(branch, _)| branch.add).collect();
    found.retain(|(branch, inner)| adds.iter().all(|add| *add == branch.add || !inner.contains(add)));
    found.into_iter().map(|(branch, _)| branch).collect()
}

/// The nodes between `skip` and `result`; `None` where `result` is not computed from `skip`.
fn between(graph: &GraphProto, producers: &HashMap<&str, usize>, skip: &str, result: &str) -> Option<HashSet<usize>> {
    let mut nodes = HashSet::new();
    let mut waiting = vec![result];
    let mut reached = false;
    while let Some(name) = waiting.pop() {
        if name == skip {
            reached = true;
            continue;
        }
        if let Some(node) = producers.get(name)
            && nodes.insert(*node)
        {
            waiting.extend(graph.node[*node].input.iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    reached.then_some(nodes)
}

/// The mean over batches of the norm of what each branch adds, relative to the norm of what it is added to.
///
/// # Errors
/// Samples that do not fit.
pub fn strength(model: &Model, branches: &[Branch], samples: &Samples, batch: usize) -> Result<Vec<f64>, PruneError> {
    let network = Network::new(model)?;
    let mut sums = vec![0.0; branches.len()];
    let by_sum: HashMap<&str, usize> =
        branches.iter().enumerate().map(|(index, branch)| (branch.sum.as_str(), index)).collect();
    let mut batches = 0.0;
    for part in samples.batches(batch) {
        batches += 1.0;
        network.run_observed(&part.inputs, Keep::Outputs, &mut |node, inputs, _| {
            let Some(sum) = node.outputs.first().copied().flatten() else { return };
            let Some(index) = by_sum.get(network.name(sum)) else { return };
            let norm = |slot: usize| match inputs.get(slot).copied().flatten() {
                Some(Tensor::F32(array)) => array.data().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt(),
                _ => 0.0,
            };
            let skips =
                node.inputs.first().copied().flatten().is_some_and(|id| network.name(id) == branches[*index].skip);
            let (skip, result) = if skips { (norm(0), norm(1)) } else { (norm(1), norm(0)) };
            sums[*index] += result / skip.max(f64::MIN_POSITIVE);
        })?;
    }
    Ok(sums.into_iter().map(|sum| sum / f64::max(batches, 1.0)).collect())
}

/// The model without these branches.
pub fn without(dependencies: &DependencyGraph, branches: &[&Branch]) -> Bytes {
    let mut model = dependencies.model.clone();
    let graph = model.graph_mut();
    let outputs: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    // What replaces a sum may itself be a removed sum.
    let mut stands: HashMap<String, String> = HashMap::new();
    for branch in branches {
        let skip = stands.get(&branch.skip).unwrap_or(&branch.skip).clone();
        if outputs.contains(&branch.sum) {
            // The name of an output has to stay.
            let node = &mut graph.node[branch.add];
            node.op_type = Some("Identity".into());
            node.input = vec![branch.skip.clone()];
        } else {
            stands.insert(branch.sum.clone(), skip);
        }
    }
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(other) = stands.get(name) {
            name.clone_from(other);
        }
    }
    graph::sweep(graph);
    model.encode()
}

/// The model with the results of these branches multiplied by zero.
pub fn masked(dependencies: &DependencyGraph, branches: &[&Branch]) -> Bytes {
    let mut model = dependencies.model.clone();
    let graph = model.graph_mut();
    let mut names = Names::of(graph);
    for branch in branches.iter().rev() {
        let [zero, masked] = ["zero", "masked"].map(|part| names.fresh(&format!("{}/{part}", branch.node)));
        graph.initializer.push(graph::raw(&zero, &[], DataType::Float, vec![0; 4]));
        for name in graph.node[branch.add].input.iter_mut().filter(|name| **name == branch.result) {
            name.clone_from(&masked);
        }
        graph.node.insert(branch.add, graph::node("Mul", &masked, &[&branch.result, &zero], &masked));
    }
    model.encode()
}
