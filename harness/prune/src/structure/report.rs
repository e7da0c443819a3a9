//! What structured pruning did, for the manifest; and what it could do, for `inspect`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dependencies::{ChannelGroup, DependencyGraph, Kept};
use crate::Structure;

/// Part of the manifest of a structured variant. Names are those of the normalised graph: see `changes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    #[serde(rename = "families")]
    pub groups: Vec<GroupReport>,
    /// Whole residual branches, where those were requested.
    #[serde(default)]
    pub branches: Vec<BranchReport>,
    /// Parameters of the file before, and after.
    pub parameters: u64,
    pub parameters_left: u64,
    /// Kept counts were rounded up to multiples of it; 1 for no rounding.
    pub round_to: usize,
    pub keep_at_least: f64,
    /// Axes of weights that cannot shrink, and what holds them.
    pub kept: Vec<Kept>,
    /// Operators without a rule, which hold all their axes, and how often each occurs.
    pub unknown: BTreeMap<String, usize>,
    /// Why the count is not the requested one.
    pub notes: Vec<String>,
    /// Changes to the graph beside removal.
    pub changes: String,
}

/// One dimension of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    pub name: String,
    pub kind: Structure,
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

pub const CHANGES: &str = "constants the graph computed were folded, lengths it computed from fixed axes too; unused \
                           nodes and constants, and shapes noted for inner values, were left out; zero initial states \
                           were made anew for each recurrent layer";

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
