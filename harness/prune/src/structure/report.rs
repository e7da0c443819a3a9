//! What structured pruning did, for the manifest; and what it could do, for `inspect`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dependencies::{ChannelGroup, DependencyGraph, GroupKind, Kept};

/// Part of the manifest of a structured variant. Names are those of the normalised graph: see `changes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    #[serde(rename = "families")]
    pub groups: Vec<GroupReport>,
    /// Whole residual branches, where those were asked for.
    #[serde(default)]
    pub branches: Vec<BranchReport>,
    /// Parameters of the file before, and after.
    pub parameters: u64,
    pub parameters_left: u64,
    /// Kept counts were rounded up to multiples of it; 1 for not at all.
    pub round_to: usize,
    pub keep_at_least: f64,
    /// Axes of weights that stay, and what holds them.
    pub kept: Vec<Kept>,
    /// Operators that no rule knows and that held all they touch, with how often each is there.
    pub unknown: BTreeMap<String, usize>,
    /// What kept the count from being what was asked for.
    pub notes: Vec<String>,
    /// What was done to the graph that is not removal.
    pub changes: String,
}

/// One dimension of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    pub name: String,
    pub kind: GroupKind,
    pub units: usize,
    pub removed: usize,
    /// What shrinks with it: constants and their axes.
    pub axes: Vec<(String, usize)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BranchReport {
    /// The `Add` at its end.
    pub node: String,
    pub parameters: u64,
    pub importance: f64,
    pub removed: bool,
}

pub const CHANGES: &str = "constants the graph computed were folded, lengths it computed from fixed axes too; unused nodes and constants, and \
                           shapes noted for inner values, were left out; zero initial states were made anew for each recurrent layer";

pub fn group(dependencies: &DependencyGraph, group: &ChannelGroup, removed: usize) -> GroupReport {
    let name = |tensor: usize| dependencies.model.graph().initializer[tensor].name().to_owned();
    GroupReport {
        name: group.name.clone(),
        kind: group.kind,
        units: group.classes.len(),
        removed,
        axes: group.axes.iter().map(|(tensor, axis)| (name(*tensor), *axis)).collect(),
    }
}
