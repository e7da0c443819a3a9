//! Classes of units that go together, and groups of classes alike: a group is one dimension of the network, as the channels between two
//! convolutions.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    normalise::{self, Copies},
    probe::{self, Probe},
    reshape,
    rules::Rules,
    units::{UnitId, Units, pin},
};
use crate::{
    PruneError, Structure,
    onnx::{Model, NodeProto},
};

/// What a group is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    Channel,
    Neuron,
    Head,
    Hidden,
}

impl GroupKind {
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::Channel => "channel",
            GroupKind::Neuron => "neuron",
            GroupKind::Head => "head",
            GroupKind::Hidden => "hidden",
        }
    }

    pub fn is_of(self, structure: Structure) -> bool {
        match structure {
            Structure::Any => true,
            Structure::Layer => false,
            Structure::Channel => self == GroupKind::Channel,
            Structure::Neuron => self == GroupKind::Neuron,
            Structure::Head => self == GroupKind::Head,
            Structure::Hidden => self == GroupKind::Hidden,
        }
    }
}

/// Units that go together, as far as constants have a part in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisClass {
    pub root: UnitId,
    /// (initialiser, axis, index), in order.
    pub members: Vec<(usize, usize, usize)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ChannelGroup {
    pub kind: GroupKind,
    /// (initialiser, axis), in order: what shrinks with it.
    pub axes: Vec<(usize, usize)>,
    /// What it is called: after the first matrix it is rows of.
    pub name: String,
    pub classes: Vec<AxisClass>,
}

/// An axis of a weight that stays as long as it is, or some of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub tensor: String,
    pub axis: usize,
    /// How many of its indices cannot go.
    pub indices: usize,
    /// The operator that holds them, and its node; empty where it is the network's inputs and outputs.
    pub op: String,
    pub node: String,
    pub why: String,
}

/// A model made ready to be cut.
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
        let (groups, kept) = groups(&model, &mut units);
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

/// What a weight is to the nodes that use it, and in which order they come.
struct Role {
    convolution: bool,
    recurrent: bool,
    matrix: bool,
}

fn roles(model: &Model) -> HashMap<&str, Role> {
    let mut roles: HashMap<&str, Role> = HashMap::new();
    for node in &model.graph().node {
        for slot in 0..node.input.len() {
            let Some(name) = node.input_at(slot) else { continue };
            let role = roles.entry(name).or_insert(Role { convolution: false, recurrent: false, matrix: false });
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

fn groups(model: &Model, units: &mut Units) -> (Vec<ChannelGroup>, Vec<Kept>) {
    let graph = model.graph();
    let roles = roles(model);
    let mut classes: Vec<AxisClass> = Vec::new();
    let mut by_root: HashMap<UnitId, usize> = HashMap::new();
    let mut kept = Vec::new();
    for (index, tensor) in graph.initializer.iter().enumerate() {
        let (Some(value), true) = (units.value(tensor.name()), probe::is_float(tensor.data_type())) else { continue };
        let role = roles.get(tensor.name());
        let weight = role.is_some_and(|role| role.convolution || role.recurrent || role.matrix);
        for axis in 0..units.shape(value).len() {
            let mut stays: Option<Kept> = None;
            for place in 0..units.len(value, axis) {
                let unit = units.unit(value, axis, place);
                if let Some(pin) = units.pinned(unit) {
                    stays.get_or_insert_with(|| Kept {
                        tensor: tensor.name().to_owned(),
                        axis,
                        indices: 0,
                        op: pin.op.clone(),
                        node: pin.node.clone(),
                        why: pin.why.to_owned(),
                    });
                    stays.iter_mut().for_each(|kept| kept.indices += 1);
                    continue;
                }
                let root = units.root(unit);
                let class = *by_root.entry(root).or_insert_with(|| {
                    classes.push(AxisClass { root, members: Vec::new() });
                    classes.len() - 1
                });
                classes[class].members.push((index, axis, place));
            }
            // Kernels and axes of length 1 are nobody's channels.
            kept.extend(
                stays.filter(|kept| weight && kept.indices > 1 && axis < if tensor.dims.len() == 3 { 3 } else { 2 }),
            );
        }
    }
    let reach = reach(units, &by_root, classes.len());
    let mut groups: Vec<ChannelGroup> = Vec::new();
    let mut by_reach: HashMap<Vec<(usize, usize)>, usize> = HashMap::new();
    for (class, reach) in classes.into_iter().zip(reach) {
        let mut axes: Vec<(usize, usize)> = class.members.iter().map(|(tensor, axis, _)| (*tensor, *axis)).collect();
        axes.dedup();
        let group = *by_reach.entry(reach).or_insert_with(|| {
            let is = |test: fn(&Role) -> bool| {
                axes.iter().any(|(tensor, _)| roles.get(graph.initializer[*tensor].name()).is_some_and(test))
            };
            let kind = if is(|role| role.recurrent) && recurrent_rows(&axes, &roles, model) {
                GroupKind::Hidden
            } else if units.is_head(class.root) {
                GroupKind::Head
            } else if is(|role| role.convolution) {
                GroupKind::Channel
            } else {
                GroupKind::Neuron
            };
            let matrix = axes.iter().find(|(tensor, _)| graph.initializer[*tensor].dims.len() > 1).or(axes.first());
            let name = matrix.map_or("", |(tensor, _)| graph.initializer[*tensor].name()).to_owned();
            groups.push(ChannelGroup { kind, axes, name, classes: Vec::new() });
            groups.len() - 1
        });
        groups[group].classes.push(class);
    }
    // One of a group always stays.
    let (single, groups): (Vec<ChannelGroup>, Vec<ChannelGroup>) =
        groups.into_iter().partition(|group| group.classes.len() == 1);
    for (tensor, axis, _) in single.iter().flat_map(|group| group.classes[0].members.iter()) {
        let name = graph.initializer[*tensor].name();
        match kept.iter_mut().find(|kept| kept.axis == *axis && kept.tensor == name) {
            Some(kept) => kept.indices += 1,
            None => kept.push(Kept {
                tensor: name.to_owned(),
                axis: *axis,
                indices: 1,
                op: String::new(),
                node: String::new(),
                why: "all of it would have to go at once".to_owned(),
            }),
        }
    }
    (groups, kept)
}

/// By class, every axis of every value it has a part in, in order. Classes alike in this are a group: as long as one of each group stays, no
/// axis is left without any.
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

/// Whether units of a group are those of a recurrent layer, not only what it takes in.
fn recurrent_rows(axes: &[(usize, usize)], roles: &HashMap<&str, Role>, model: &Model) -> bool {
    axes.iter().any(|(tensor, axis)| {
        *axis == 2 && roles.get(model.graph().initializer[*tensor].name()).is_some_and(|role| role.recurrent)
    })
}
