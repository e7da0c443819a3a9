//! Where a constant is used: the nodes it reaches, directly or through nodes that only move values, and its role there.
//!
//! torch's exporters transpose and cut weights in the graph (gates of an LSTM reordered by Slice and Concat) and
//! de-duplicate equal tensors through Identity. A zero stays a zero on the way, so that such a constant is as good a
//! weight as one that a node uses directly.

use std::collections::{HashMap, HashSet};

use super::{Reason, constants};
use crate::{
    layout::{Direction, LayerKind, Layout},
    onnx::{GraphProto, NodeProto, axis_of},
};

/// The most moves that are followed for one constant: a bound on the cost of a hostile graph.
const MOST_MOVES: usize = 1000;

/// What one node does with one of its inputs.
enum Role {
    Weight(LayerKind),
    Not(Reason),
    /// Gives out the same values at other places.
    Moves,
    /// Does not look at its values.
    Nothing,
}

fn role(node: &NodeProto, input: usize) -> Role {
    let op = node.op_type();
    let unknown = || Role::Not(Reason::Operator { op: node.qualified_op(), input: input as u32 });
    if !node.is_standard() {
        return unknown();
    }
    match (op, input) {
        // Integer arithmetic has weights too; only their type keeps them from being pruned.
        ("Conv" | "ConvInteger", 1) | ("QLinearConv", 3) => Role::Weight(LayerKind::Conv),
        ("ConvTranspose", 1) => Role::Weight(LayerKind::ConvTranspose),
        ("Gemm", 0 | 1) => Role::Weight(LayerKind::Gemm),
        ("MatMul", 0 | 1) | ("MatMulInteger", 1) | ("QLinearMatMul", 3) => Role::Weight(LayerKind::MatMul),
        ("LSTM" | "GRU" | "RNN", 1 | 2) => Role::Weight(LayerKind::Recurrent),
        ("Conv" | "ConvTranspose" | "Gemm", 2) | ("LSTM" | "GRU" | "RNN", 3) | ("Add" | "Sub", _) => {
            Role::Not(Reason::Bias)
        }
        ("BatchNormalization", 1..=4)
        | ("LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "RMSNormalization", 1 | 2) => {
            Role::Not(Reason::Normalisation)
        }
        ("LSTM" | "GRU" | "RNN", 5 | 6) => Role::Not(Reason::InitialState),
        ("Gather", 0) => Role::Not(Reason::Embedding),
        (
            "Identity" | "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Slice" | "Split" | "Expand",
            0,
        )
        | ("Concat", _) => Role::Moves,
        ("Shape" | "Size", 0) => Role::Nothing,
        ("Cast" | "DequantizeLinear", 0) => Role::Not(Reason::Indirect { op: op.to_owned() }),
        _ => unknown(),
    }
}

enum Use {
    Node { node: usize, input: usize },
    Subgraph { node: usize },
    Output,
}

pub struct Uses<'a> {
    graph: &'a GraphProto,
    by_name: HashMap<&'a str, Vec<Use>>,
    /// Integer constants: axes and shapes.
    integers: HashMap<&'a str, Vec<i64>>,
}

/// Where a constant ends up.
#[derive(Default)]
pub struct Reached {
    /// The nodes it is a weight of: position in the graph, and which input.
    pub weight_of: Vec<(usize, usize)>,
    /// The roles of its axes there; `None` where uses do not agree, or a reshape lies between.
    pub layout: Option<Layout>,
    /// The first use as something else, and its operator.
    pub other: Option<(String, Reason)>,
}

impl<'a> Uses<'a> {
    pub fn of(graph: &'a GraphProto) -> Uses<'a> {
        let mut by_name: HashMap<&str, Vec<Use>> = HashMap::new();
        for (position, node) in graph.node.iter().enumerate() {
            for (input, name) in node.input.iter().enumerate() {
                by_name.entry(name).or_default().push(Use::Node { node: position, input });
            }
            // Names that a subgraph defines itself are noted too: that is only more careful.
            for name in node.subgraphs().flat_map(GraphProto::used_names) {
                by_name.entry(name).or_default().push(Use::Subgraph { node: position });
            }
        }
        for output in &graph.output {
            by_name.entry(output.name()).or_default().push(Use::Output);
        }
        Uses { graph, by_name, integers: small_integers(graph) }
    }

    /// Follows `name`, a constant with `rank` axes.
    pub fn follow(&self, name: &str, rank: usize) -> Reached {
        let mut reached = Reached::default();
        let mut layouts = Vec::new();
        // Each value with the constant's axis that each of its axes is; `None` for an axis that is not the constant's.
        let start: Option<Vec<Option<usize>>> = Some((0..rank).map(Some).collect());
        let mut waiting = vec![(name, start)];
        let mut seen = HashSet::from([name]);
        // In the order of the file, so that the first reason is reported.
        let mut next = 0;
        while next < waiting.len() {
            let (value, axes) = waiting[next].clone();
            next += 1;
            for usage in self.by_name.get(value).map_or(&[][..], Vec::as_slice) {
                let (position, input) = match usage {
                    Use::Node { node, input } => (*node, *input),
                    Use::Subgraph { node } => {
                        let node = &self.graph.node[*node];
                        reached.not(node.qualified_op(), Reason::Subgraph { node: node.label() });
                        continue;
                    }
                    Use::Output => {
                        reached.other = Some((String::new(), Reason::Output));
                        return reached;
                    }
                };
                let node = &self.graph.node[position];
                match role(node, input) {
                    Role::Weight(kind) => {
                        reached.weight_of.push((position, input));
                        layouts.push(axes.as_ref().and_then(|axes| layout(node, input, kind, axes, rank)));
                    }
                    Role::Not(reason) => reached.not(node.qualified_op(), reason),
                    Role::Nothing => {}
                    Role::Moves if waiting.len() >= MOST_MOVES => {
                        reached.not(node.qualified_op(), Reason::Indirect { op: node.qualified_op() });
                    }
                    Role::Moves => {
                        let axes = axes.as_ref().and_then(|axes| self.moved(node, axes));
                        for output in node.output.iter().filter(|output| !output.is_empty()) {
                            if seen.insert(output) {
                                waiting.push((output, axes.clone()));
                            }
                        }
                    }
                }
            }
        }
        // A node may be reached several times: through each part of a Concat.
        reached.weight_of.sort_unstable();
        reached.weight_of.dedup();
        let first = layouts.first().cloned().flatten();
        reached.layout = first.filter(|first| layouts.iter().all(|layout| layout.as_ref() == Some(first)));
        reached
    }

    /// Where the axes are after a node that moves values.
    fn moved(&self, node: &NodeProto, axes: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
        let attribute = |name: &str| node.ints(name).map(<[i64]>::to_vec);
        let listed = || attribute("axes").or_else(|| self.integers.get(node.input.get(1)?.as_str()).cloned());
        let rank = axes.len();
        match node.op_type() {
            "Identity" | "Slice" | "Split" | "Concat" => Some(axes.to_vec()),
            "Transpose" => match attribute("perm") {
                None => Some(axes.iter().rev().copied().collect()),
                Some(order) if order.len() == rank => {
                    order.iter().map(|axis| axes.get(usize::try_from(*axis).ok()?).copied()).collect()
                }
                Some(_) => None,
            },
            "Unsqueeze" => {
                let added = positions(&listed()?, rank + listed()?.len())?;
                let mut kept = axes.iter();
                (0..rank + added.len())
                    .map(|axis| if added.contains(&axis) { Some(None) } else { kept.next().copied() })
                    .collect()
            }
            "Squeeze" => {
                let removed = positions(&listed()?, rank)?;
                let kept = axes.iter().enumerate().filter(|(axis, _)| !removed.contains(axis));
                Some(kept.map(|(_, axis)| *axis).collect())
            }
            _ => None,
        }
    }
}

impl Reached {
    fn not(&mut self, op: String, reason: Reason) {
        self.other.get_or_insert((op, reason));
    }
}

/// The roles of the constant's axes in a node that multiplies with it. `None` where the node cannot use that shape.
fn layout(node: &NodeProto, input: usize, kind: LayerKind, axes: &[Option<usize>], rank: usize) -> Option<Layout> {
    use Direction::{Batch, Input, Output};
    let flag = |name: &str| node.is_set(name);
    let now = axes.len();
    let required: Vec<Direction> = match kind {
        LayerKind::Conv => [Output].into_iter().chain((1..now).map(|_| Input)).collect(),
        LayerKind::ConvTranspose => [Input].into_iter().chain((1..now).map(|_| Output)).collect(),
        LayerKind::Recurrent => vec![Batch, Output, Input],
        LayerKind::Gemm if (input == 1) == flag(if input == 1 { "transB" } else { "transA" }) => vec![Output, Input],
        LayerKind::Gemm => vec![Input, Output],
        LayerKind::MatMul if now <= 1 => vec![Input; now],
        LayerKind::MatMul => {
            let last = if input == 0 { [Output, Input] } else { [Input, Output] };
            (2..now).map(|_| Batch).chain(last).collect()
        }
    };
    if required.len() != now {
        return None;
    }
    let mut directions = vec![Batch; rank];
    for (axis, direction) in axes.iter().zip(required) {
        if let Some(axis) = axis {
            directions[*axis] = direction;
        }
    }
    Some(Layout { kind, axes: directions })
}

/// Axes, each named once; negative ones count from the end.
fn positions(axes: &[i64], rank: usize) -> Option<HashSet<usize>> {
    let found: HashSet<usize> = axes.iter().map(|axis| axis_of(*axis, rank)).collect::<Option<_>>()?;
    (found.len() == axes.len()).then_some(found)
}

/// Constants of at most 8 int64 numbers.
pub fn small_integers(graph: &GraphProto) -> HashMap<&str, Vec<i64>> {
    let mut found = HashMap::new();
    for (name, place) in constants(graph) {
        let tensor = place.tensor(graph);
        let raw = tensor.raw_data.as_deref().unwrap_or_default();
        if tensor.data_type() != crate::onnx::tensor_proto::DataType::Int64 as i32
            || raw.len() > 64
            || tensor.int64_data.len() > 8
        {
            continue;
        }
        let values = match raw {
            [] => tensor.int64_data.clone(),
            _ => raw.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value)).collect(),
        };
        found.insert(name, values);
    }
    found
}
