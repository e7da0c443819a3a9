//! Axis classes, which are units that have to be removed together, and channel groups, which are classes of one
//! dimension of the network, as the channels between two convolutions.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    normalise::{self, Copies},
    probe::{self, Probe},
    reshape,
    rules::Rules,
    units::{Pin, UnitId, Units, pin},
};
use crate::{
    PruneError, Structure,
    onnx::{GraphProto, Model, NodeProto},
};

/// Units that have to be removed together, as far as they are indices of constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisClass {
    pub root: UnitId,
    /// (initialiser, axis, index), in order.
    pub members: Vec<(usize, usize, usize)>,
}

/// Classes of one dimension of the network: as long as one of them stays, no axis becomes empty.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelGroup {
    /// Channel, neuron, head or hidden.
    pub kind: Structure,
    /// (initialiser, axis), in order: what shrinks with it.
    pub axes: Vec<(usize, usize)>,
    /// Its first matrix.
    pub name: String,
    pub classes: Vec<AxisClass>,
}

/// An axis of a weight that cannot shrink, or not all of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub tensor: String,
    pub axis: usize,
    /// How many of its indices have to stay.
    pub indices: usize,
    /// The operator that holds them, and its node; empty where it is the network's inputs and outputs.
    pub op: String,
    pub node: String,
    pub why: String,
}

impl Kept {
    /// With no index so far.
    fn of(tensor: &str, axis: usize, pin: &Pin) -> Kept {
        Kept {
            tensor: tensor.to_owned(),
            axis,
            indices: 0,
            op: pin.op.clone(),
            node: pin.node.clone(),
            why: pin.why.to_owned(),
        }
    }
}

/// A model, normalised, with what has to be removed together.
pub struct DependencyGraph {
    /// Normalised.
    pub model: Model,
    pub copies: Copies,
    pub probe: Probe,
    pub units: Units,
    pub groups: Vec<ChannelGroup>,
    pub kept: Vec<Kept>,
    /// Operators without a rule, and how often each is in the graph.
    pub unknown: BTreeMap<String, usize>,
}

impl DependencyGraph {
    /// # Errors
    /// What the engine does not know or refuses: shapes come from a run.
    pub fn of(mut model: Model, shapes: &HashMap<String, Vec<usize>>) -> Result<DependencyGraph, PruneError> {
        let copies = normalise::normalise(&mut model)?;
        let probe = probe::probe(&mut model, shapes)?;
        let mut units = Units::default();
        let constants: HashSet<String> =
            model.graph().initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        let unknown = tie(&model, &probe, &constants, &mut units)?;
        let (groups, kept) = groups(model.graph(), &mut units);
        Ok(DependencyGraph { model, copies, probe, units, groups, kept, unknown })
    }
}

fn tie(
    model: &Model,
    probe: &Probe,
    constants: &HashSet<String>,
    units: &mut Units,
) -> Result<BTreeMap<String, usize>, PruneError> {
    let graph = model.graph();
    let single = pin(&NodeProto::default(), "there is only one");
    let values = graph.initializer.iter().map(|tensor| tensor.name());
    let values = values.chain(graph.input.iter().map(|input| input.name()));
    let values = values.chain(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    for name in values.filter(|name| !name.is_empty()) {
        let Some(shape) = probe.shape(name) else { continue };
        let value = units.add(name, shape)?;
        for (axis, len) in shape.iter().enumerate() {
            if *len == 1 {
                units.pin_axis(value, axis, &single);
            }
        }
    }
    let outside = pin(&NodeProto::default(), "it is an input or output of the network");
    for port in graph.input.iter().chain(&graph.output) {
        if let Some(value) = units.value(port.name()) {
            units.pin_value(value, &outside);
        }
    }
    let mut rules =
        Rules { units, probe, constants, opset: model.opset(), regroups: Vec::new(), unknown: BTreeMap::new() };
    for node in &graph.node {
        rules.apply(node);
    }
    let (regroups, unknown) = (std::mem::take(&mut rules.regroups), std::mem::take(&mut rules.unknown));
    let shape = NodeProto { op_type: Some("Shape".into()), ..NodeProto::default() };
    for (name, axis) in &probe.looked_at {
        if let Some(value) = units.value(name) {
            units.pin_axis(value, *axis, &pin(&shape, "its length is looked at"));
        }
    }
    reshape::decide(units, regroups);
    Ok(unknown)
}

/// What a constant is to the nodes that use it.
#[derive(Default)]
struct Role {
    convolution: bool,
    /// The weights of the states of a recurrent layer.
    recurrent: bool,
    matrix: bool,
}

fn roles(graph: &GraphProto) -> HashMap<&str, Role> {
    let mut roles: HashMap<&str, Role> = HashMap::new();
    for node in &graph.node {
        for (slot, name) in node.input.iter().enumerate() {
            let role = roles.entry(name).or_default();
            match (node.op(), slot) {
                ("Conv" | "ConvTranspose", 1) => role.convolution = true,
                ("LSTM" | "GRU" | "RNN", 2) => role.recurrent = true,
                ("LSTM" | "GRU" | "RNN", 1) | ("MatMul" | "Gemm", 0 | 1) => role.matrix = true,
                _ => {}
            }
        }
    }
    roles
}

/// The axis classes that may be removed, with the index of each by its root; and the axes of weights that stay.
fn classes(
    graph: &GraphProto,
    roles: &HashMap<&str, Role>,
    units: &mut Units,
) -> (Vec<AxisClass>, HashMap<UnitId, usize>, Vec<Kept>) {
    let (mut classes, mut by_root, mut kept) = (Vec::new(), HashMap::new(), Vec::new());
    for (index, tensor) in graph.initializer.iter().enumerate() {
        let (Some(value), true) = (units.value(tensor.name()), probe::is_float(tensor.data_type())) else { continue };
        let role = roles.get(tensor.name());
        let is_weight = role.is_some_and(|role| role.convolution || role.recurrent || role.matrix);
        for axis in 0..units.shape(value).len() {
            let mut stays: Option<Kept> = None;
            for place in 0..units.len(value, axis) {
                let unit = units.unit(value, axis, place);
                if let Some(pin) = units.pinned(unit) {
                    stays.get_or_insert_with(|| Kept::of(tensor.name(), axis, pin)).indices += 1;
                    continue;
                }
                let root = units.root(unit);
                let class = *by_root.entry(root).or_insert_with(|| {
                    classes.push(AxisClass { root, members: Vec::new() });
                    classes.len() - 1
                });
                classes[class].members.push((index, axis, place));
            }
            // Kernels and axes of length 1 are not channels.
            let of_channels = is_weight && axis < if tensor.dims.len() == 3 { 3 } else { 2 };
            kept.extend(stays.filter(|kept| of_channels && kept.indices > 1));
        }
    }
    (classes, by_root, kept)
}

fn groups(graph: &GraphProto, units: &mut Units) -> (Vec<ChannelGroup>, Vec<Kept>) {
    let roles = roles(graph);
    let (classes, by_root, mut kept) = classes(graph, &roles, units);
    let reach = reach(units, &by_root, classes.len());
    let mut groups: Vec<ChannelGroup> = Vec::new();
    let mut by_reach: HashMap<Vec<(usize, usize)>, usize> = HashMap::new();
    for (class, reach) in classes.into_iter().zip(reach) {
        let group = *by_reach.entry(reach).or_insert_with(|| {
            groups.push(group(graph, &roles, units, &class));
            groups.len() - 1
        });
        groups[group].classes.push(class);
    }
    // One class of a group always stays.
    let (single, groups): (Vec<ChannelGroup>, Vec<ChannelGroup>) =
        groups.into_iter().partition(|group| group.classes.len() == 1);
    let pin = Pin { op: String::new(), node: String::new(), why: "all of it would have to go at once" };
    for (tensor, axis, _) in single.iter().flat_map(|group| group.classes[0].members.iter()) {
        let name = graph.initializer[*tensor].name();
        match kept.iter_mut().find(|kept| kept.axis == *axis && kept.tensor == name) {
            Some(kept) => kept.indices += 1,
            None => kept.push(Kept { indices: 1, ..Kept::of(name, *axis, &pin) }),
        }
    }
    (groups, kept)
}

/// The group of a class, still without classes.
fn group(graph: &GraphProto, roles: &HashMap<&str, Role>, units: &mut Units, class: &AxisClass) -> ChannelGroup {
    let mut axes: Vec<(usize, usize)> = class.members.iter().map(|(tensor, axis, _)| (*tensor, *axis)).collect();
    axes.dedup();
    let any = |test: fn(&Role, usize) -> bool| {
        axes.iter()
            .any(|(tensor, axis)| roles.get(graph.initializer[*tensor].name()).is_some_and(|role| test(role, *axis)))
    };
    let kind = if any(|role, axis| role.recurrent && axis == 2) {
        Structure::Hidden
    } else if units.is_head(class.root) {
        Structure::Head
    } else if any(|role, _| role.convolution) {
        Structure::Channel
    } else {
        Structure::Neuron
    };
    let matrix = axes.iter().find(|(tensor, _)| graph.initializer[*tensor].dims.len() > 1).or(axes.first());
    let name = matrix.map_or("", |(tensor, _)| graph.initializer[*tensor].name()).to_owned();
    ChannelGroup { kind, axes, name, classes: Vec::new() }
}

/// By class, every axis of every value that it reaches, in order. Classes with the same reach are a group: as long as
/// one class of each group stays, no axis becomes empty.
fn reach(units: &mut Units, by_root: &HashMap<UnitId, usize>, classes: usize) -> Vec<Vec<(usize, usize)>> {
    let mut reach: Vec<Vec<(usize, usize)>> = vec![Vec::new(); classes];
    for value in 0..units.values() {
        for axis in 0..units.shape(value).len() {
            for index in 0..units.len(value, axis) {
                let root = units.root(units.unit(value, axis, index));
                if let Some(class) = by_root.get(&root)
                    && reach[*class].last() != Some(&(value, axis))
                {
                    reach[*class].push((value, axis));
                }
            }
        }
    }
    reach
}
