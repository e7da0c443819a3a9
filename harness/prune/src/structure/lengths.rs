//! Lengths that a graph computes from shapes, made plain.
//!
//! A number that a graph computes from lengths is that of the dense network, whatever is removed: the lengths that are
//! the same for every input become constants where a `Shape` or a `Size` gives them out. Only open axes are still
//! looked at, and those stay. Otherwise a count such as `channels * height` would shrink with the channels.

use std::{collections::HashSet, ops::Range};

use espalier_engine::{Array, Tensor};

use super::{
    graph::{self, Names},
    probe::{Info, Probe, Second, looks},
};
use crate::onnx::{GraphProto, Model, NodeProto, TensorProto};

/// The axes that a `Shape` gives out, of an input of this rank.
pub fn looked_at(node: &NodeProto, rank: usize) -> Range<usize> {
    let clamp = |axis: i64| {
        let rank = rank as i64;
        (if axis < 0 { axis.saturating_add(rank) } else { axis }).clamp(0, rank) as usize
    };
    let start = clamp(node.int("start", 0));
    start..clamp(node.int("end", rank as i64)).max(start)
}

/// Writes targets of `Reshape` that are partly fixed as constants: an open axis is copied from the input, or inferred.
pub fn plain_targets(model: &mut Model, probe: &mut Probe) {
    if matches!(probe.second, Second::None) {
        return;
    }
    let graph = model.graph_mut();
    let mut names = Names::of(graph);
    let constants: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
    let mut made = Vec::new();
    for node in graph.node.iter_mut().filter(|node| node.op() == "Reshape") {
        let (Some(data), Some(target)) = (node.input_at(0), node.input_at(1)) else { continue };
        if constants.contains(target) {
            continue;
        }
        let (Some(elements), Some(from)) = (probe.elements(target), probe.shape(data).map(<[usize]>::to_vec)) else {
            continue;
        };
        let Some(to) = node.output_at(0).and_then(|name| probe.shape(name)).map(<[usize]>::to_vec) else { continue };
        if elements.len() != to.len() || to.contains(&0) || from.contains(&0) {
            continue;
        }
        let second = |name: &str| probe.second_shape(name).map(<[usize]>::to_vec);
        let (Some(from_too), Some(to_too)) = (second(data), node.output_at(0).and_then(second)) else { continue };
        // An axis with no change before it is the input's axis.
        let copies = |axis: usize| {
            let same = |from: &[usize], to: &[usize]| from[..from.len().min(axis + 1)] == to[..=axis];
            same(&from, &to) && same(&from_too, &to_too)
        };
        let mut target = Vec::new();
        let mut left = elements.iter().filter(|element| **element == Some(-1)).count();
        for (axis, element) in elements.iter().enumerate() {
            target.push(match element {
                Some(0) if node.int("allowzero", 0) == 0 => 0,
                Some(len) => *len,
                None if copies(axis) => 0,
                None => {
                    left += 1;
                    -1
                }
            });
        }
        if left > 1 {
            continue;
        }
        let name = names.fresh(&format!("{}/target", node.label()));
        made.push(constant(probe, &name, &target));
        node.input[1] = name;
        node.attribute.retain(|attribute| attribute.name() != "allowzero");
    }
    graph.initializer.extend(made);
}

/// Makes each `Shape` and `Size` give out constants for all axes of fixed length.
pub fn keep_fixed(model: &mut Model, probe: &mut Probe) {
    let graph = model.graph_mut();
    let rewritten: Vec<bool> = graph.node.iter().map(|node| needs_constants(graph, node, probe)).collect();
    let mut made = Made { names: Names::of(graph), nodes: Vec::new(), tensors: Vec::new(), probe };
    for (node, rewritten) in std::mem::take(&mut graph.node).into_iter().zip(rewritten) {
        if !rewritten || made.plain(&node).is_none() {
            made.nodes.push(node);
        }
    }
    (graph.node, _) = (made.nodes, graph.initializer.extend(made.tensors));
}

/// Whether something is computed from an axis of fixed length that this node gives out.
fn needs_constants(graph: &GraphProto, node: &NodeProto, probe: &Probe) -> bool {
    let Some((input, output)) = node.input_at(0).zip(node.output_at(0)).filter(|_| looks(node)) else { return false };
    let Some(rank) = probe.shape(input).map(<[usize]>::len) else { return false };
    let axes = if node.op() == "Size" { 0..rank } else { looked_at(node, rank) };
    let fixed = |name: &str| probe.infos.get(name).and_then(|info| info.fixed.as_ref());
    let picks_open_axes = |user: &NodeProto| {
        matches!(user.op(), "Gather" | "Slice")
            && user.output_at(0).and_then(fixed).is_some_and(|fixed| fixed.iter().all(|fixed| !fixed))
    };
    let mut users = graph.node.iter().filter(|user| user.input.iter().any(|name| name == output));
    let used = graph.output.iter().any(|port| port.name() == output) || users.any(|user| !picks_open_axes(user));
    used && axes.into_iter().any(|axis| probe.has_fixed_length(input, axis))
}

struct Made<'a> {
    names: Names,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    probe: &'a mut Probe,
}

impl Made<'_> {
    /// The nodes that give out what `node` does. `None` where its input is of unknown shape.
    fn plain(&mut self, node: &NodeProto) -> Option<()> {
        let (input, output) = (node.input_at(0)?.to_owned(), node.output_at(0)?.to_owned());
        let shape = self.probe.shape(&input)?.to_vec();
        let fixed: Vec<bool> = (0..shape.len()).map(|axis| self.probe.has_fixed_length(&input, axis)).collect();
        let whole = self.names.fresh(&format!("{output}/lengths"));
        let lens: Vec<i64> = shape.iter().map(|len| *len as i64).collect();
        self.know(&whole, vec![lens.len()], &lens, false);
        self.nodes.push(graph::node("Shape", &whole, &[&input], &whole));
        if node.op() == "Size" {
            self.product(node, &whole, &lens, &fixed);
        } else {
            self.list(node, &whole, &lens, &fixed);
        }
        Some(())
    }

    /// The elements of a `Shape`, in one vector.
    fn list(&mut self, node: &NodeProto, whole: &str, lens: &[i64], fixed: &[bool]) {
        let output = &node.output[0];
        let mut parts = Vec::new();
        for axis in looked_at(node, lens.len()) {
            let len = [lens[axis]];
            let name = self.names.fresh(&format!("{output}/{axis}"));
            if fixed[axis] {
                self.tensors.push(constant(self.probe, &name, &len));
            } else {
                self.pick(whole, &name, &[axis as i64], &len, vec![1]);
            }
            parts.push(name);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut concat = graph::node("Concat", node.name(), &parts, output);
        graph::set_int(&mut concat, "axis", 0);
        self.nodes.push(concat);
    }

    /// The product of all lengths, for a `Size`.
    fn product(&mut self, node: &NodeProto, whole: &str, lens: &[i64], fixed: &[bool]) {
        let output = &node.output[0];
        let of_fixed = lens.iter().zip(fixed).filter(|(_, fixed)| **fixed).map(|(len, _)| *len).product();
        let mut product = self.names.fresh(&format!("{output}/fixed"));
        let count = TensorProto { dims: Vec::new(), ..graph::int64s(&product, &[of_fixed]) };
        self.know(&product, Vec::new(), &[of_fixed], true);
        self.tensors.push(count);
        let open: Vec<usize> = (0..lens.len()).filter(|axis| !fixed[*axis]).collect();
        let mut value = of_fixed;
        for (place, axis) in open.iter().enumerate() {
            let part = self.names.fresh(&format!("{output}/{axis}"));
            self.pick(whole, &part, &[*axis as i64], &[lens[*axis]], Vec::new());
            value = value.wrapping_mul(lens[*axis]);
            let is_last = place + 1 == open.len();
            let next = if is_last { output.clone() } else { self.names.fresh(&format!("{output}/product")) };
            self.nodes.push(graph::node("Mul", &next, &[&product, &part], &next));
            self.know(&next, Vec::new(), &[value], false);
            product = next;
        }
    }

    /// Elements of a vector, as a value of shape `shape`, which is that of the indices too.
    fn pick(&mut self, from: &str, name: &str, places: &[i64], values: &[i64], shape: Vec<usize>) {
        let index = self.names.fresh(&format!("{name}/place"));
        let dims = shape.iter().map(|len| *len as i64).collect();
        self.tensors.push(TensorProto { dims, ..graph::int64s(&index, places) });
        self.know(&index, shape.clone(), places, true);
        self.know(name, shape, values, false);
        self.nodes.push(graph::node("Gather", name, &[from, &index], name));
    }

    fn know(&mut self, name: &str, shape: Vec<usize>, values: &[i64], fixed: bool) {
        know(self.probe, name, shape, values, fixed);
    }
}

/// A new vector of constants.
fn constant(probe: &mut Probe, name: &str, values: &[i64]) -> TensorProto {
    know(probe, name, vec![values.len()], values, true);
    graph::int64s(name, values)
}

/// What the run would have shown of a new value.
fn know(probe: &mut Probe, name: &str, shape: Vec<usize>, values: &[i64], fixed: bool) {
    let value = Some(Tensor::I64(Array::new(shape.clone(), values.to_vec())));
    probe.infos.insert(name.to_owned(), Info { shape, fixed: Some(vec![fixed; values.len()]), value });
}
