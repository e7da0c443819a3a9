//! Cuts axis classes out of a model: constants are cut, and every stated length is updated.

use std::collections::HashSet;

use super::{
    dependencies::DependencyGraph,
    graph::{self, Names, set_int, set_ints},
    probe::axes_of,
    slices,
    units::{UnitId, Value},
};
use crate::{
    Bytes, PruneError,
    onnx::{Model, NodeProto, TensorProto, axis_of},
};

/// The roots of removed classes.
pub type Removed = HashSet<UnitId>;

/// Makes a constant without some indices; the pairs are an axis and its indices that stay.
type Change = fn(&TensorProto, &[(usize, Vec<usize>)]) -> Result<TensorProto, PruneError>;

impl DependencyGraph {
    /// The model without these classes.
    ///
    /// # Errors
    /// Broken constants.
    pub fn without(&mut self, removed: &Removed) -> Result<Bytes, PruneError> {
        let mut model = self.model.clone();
        self.constants(&mut model, removed, slices::keep)?;
        let mut names = Names::of(model.graph());
        let graph = model.graph_mut();
        let mut nodes = Vec::with_capacity(graph.node.len());
        for mut node in std::mem::take(&mut graph.node) {
            let mut patch =
                Patch { dependencies: self, removed, names: &mut names, nodes: Vec::new(), tensors: Vec::new() };
            patch.node(&mut node)?;
            let Patch { nodes: made, tensors, .. } = patch;
            nodes.extend(made);
            nodes.push(node);
            graph.initializer.extend(tensors);
        }
        graph.node = nodes;
        self.join_copies(&mut model);
        graph::sweep(model.graph_mut());
        let constants: HashSet<String> =
            model.graph().initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        let graph = model.graph_mut();
        graph.quantization_annotation.retain(|annotation| constants.contains(annotation.tensor_name()));
        Ok(model.encode())
    }

    /// The model with these classes set to zero, in its old size: what the pruned one must agree with.
    ///
    /// # Errors
    /// Broken constants.
    pub fn masked(&mut self, removed: &Removed) -> Result<Bytes, PruneError> {
        let mut model = self.model.clone();
        self.constants(&mut model, removed, slices::zero)?;
        Ok(model.encode())
    }

    fn constants(&mut self, model: &mut Model, removed: &Removed, change: Change) -> Result<(), PruneError> {
        for tensor in &mut model.graph_mut().initializer {
            let Some(value) = self.units.value(tensor.name()) else { continue };
            let axes = 0..tensor.dims.len();
            let axes: Vec<_> = axes.filter_map(|axis| Some((axis, self.kept(value, axis, removed)?))).collect();
            if !axes.is_empty() {
                *tensor = change(tensor, &axes)?;
            }
        }
        Ok(())
    }

    /// The indices of an axis that stay; `None` where all do.
    pub fn kept(&mut self, value: Value, axis: usize, removed: &Removed) -> Option<Vec<usize>> {
        let len = self.units.len(value, axis);
        let kept: Vec<usize> = (0..len)
            .filter(|index| !removed.contains(&self.units.root(self.units.unit(value, axis, *index))))
            .collect();
        (kept.len() < len).then_some(kept)
    }

    /// Joins copies that are still equal to their original with it.
    fn join_copies(&self, model: &mut Model) {
        let graph = model.graph_mut();
        // The newest first: a copy may have been made of a copy.
        for (copy, origin) in self.copies.iter().rev() {
            let find = |name: &str| graph.initializer.iter().find(|tensor| tensor.name() == name);
            let (Some(a), Some(b)) = (find(copy), find(origin)) else { continue };
            if a.dims == b.dims
                && a.raw_data == b.raw_data
                && a.float_data == b.float_data
                && a.int64_data == b.int64_data
            {
                for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
                    if name == copy {
                        name.clone_from(origin);
                    }
                }
            }
        }
    }
}

struct Patch<'a> {
    dependencies: &'a mut DependencyGraph,
    removed: &'a Removed,
    names: &'a mut Names,
    /// Nodes to insert before the node.
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
}

impl Patch<'_> {
    fn node(&mut self, node: &mut NodeProto) -> Result<(), PruneError> {
        match node.op() {
            "Conv" | "ConvTranspose" => self.groups(node),
            "LSTM" | "GRU" | "RNN" => {
                if let Some(hidden) = self.changed_len(node.input_at(2), 2) {
                    set_int(node, "hidden_size", hidden as i64);
                }
            }
            "Reshape" => self.lengths(node, 1, |node| node.int("allowzero", 0) == 0, true),
            "Expand" => self.lengths(node, 1, |_| false, false),
            "ConstantOfShape" => self.lengths(node, 0, |_| false, false),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            _ => {}
        }
        Ok(())
    }

    fn value(&self, name: Option<&str>) -> Option<Value> {
        self.dependencies.units.value(name?)
    }

    fn len(&mut self, value: Value, axis: usize) -> usize {
        let kept = self.dependencies.kept(value, axis, self.removed);
        kept.map_or_else(|| self.dependencies.units.len(value, axis), |kept| kept.len())
    }

    fn changed_len(&mut self, name: Option<&str>, axis: usize) -> Option<usize> {
        let value = self.value(name)?;
        Some(self.dependencies.kept(value, axis, self.removed)?.len())
    }

    fn is_changed(&mut self, value: Value) -> bool {
        let rank = self.dependencies.units.shape(value).len();
        (0..rank).any(|axis| self.dependencies.kept(value, axis, self.removed).is_some())
    }

    /// Depthwise convolutions have as many groups as channels; all others keep their groups.
    fn groups(&mut self, node: &mut NodeProto) {
        let groups = node.int("group", 1);
        let channels = self.value(node.input_at(0)).map(|x| self.dependencies.units.len(x, 1) as i64);
        if groups > 1
            && channels == Some(groups)
            && let Some(left) = self.changed_len(node.input_at(0), 1)
        {
            set_int(node, "group", left as i64);
        }
    }

    /// Updates the vector of lengths that is input `slot`. `copies`: 0 stands for the input's length; `infers`: -1
    /// stands for what is left.
    fn lengths(&mut self, node: &mut NodeProto, slot: usize, copies: fn(&NodeProto) -> bool, infers: bool) {
        let (Some(y), Some(name)) = (self.value(node.output_at(0)), node.input_at(slot).map(str::to_owned)) else {
            return;
        };
        let Some(elements) = self.dependencies.probe.elements(&name) else { return };
        if !self.is_changed(y) {
            // A merged axis cannot shrink along one factor and be cut to its old length afterwards: both are tied.
            return;
        }
        let rank = self.dependencies.units.shape(y).len();
        let shift = rank.saturating_sub(elements.len());
        let expands = node.op() == "Expand";
        let mut lengths: Vec<Option<i64>> = Vec::with_capacity(elements.len());
        for (place, element) in elements.iter().enumerate() {
            let axis = place + shift;
            lengths.push(match element {
                None => None,
                Some(0) if copies(node) && self.is_copied(node, y, axis) => Some(0),
                Some(-1) if infers => Some(-1),
                Some(1) if expands => Some(1),
                Some(_) if axis < rank => Some(self.len(y, axis) as i64),
                Some(other) => Some(*other),
            });
        }
        if lengths.iter().flatten().eq(elements.iter().flatten()) {
            return;
        }
        node.input[slot] = self.vector(&name, &lengths);
    }

    /// Whether an axis of the output is as long as that of the input at the same place.
    fn is_copied(&mut self, node: &NodeProto, y: Value, axis: usize) -> bool {
        let Some(x) = self.value(node.input_at(0)) else { return true };
        let rank = self.dependencies.units.shape(x).len();
        axis >= rank || self.len(x, axis) == self.len(y, axis)
    }

    /// A vector of constants and of elements of `from`.
    fn vector(&mut self, from: &str, lengths: &[Option<i64>]) -> String {
        if let Some(constant) = lengths.iter().copied().collect::<Option<Vec<i64>>>() {
            return self.constant(&format!("{from}_pruned"), &constant);
        }
        let mut parts = Vec::new();
        let mut place = 0;
        while place < lengths.len() {
            let known: Vec<i64> = lengths[place..].iter().map_while(|length| *length).collect();
            if known.is_empty() {
                let index = self.constant(&format!("{from}_index"), &[place as i64]);
                let part = self.names.fresh(&format!("{from}_part"));
                self.nodes.push(graph::node("Gather", &part, &[from, &index], &part));
                parts.push(part);
                place += 1;
            } else {
                place += known.len();
                parts.push(self.constant(&format!("{from}_part"), &known));
            }
        }
        let whole = self.names.fresh(&format!("{from}_pruned"));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut concat = graph::node("Concat", &whole, &parts, &whole);
        set_int(&mut concat, "axis", 0);
        self.nodes.push(concat);
        whole
    }

    fn constant(&mut self, wish: &str, values: &[i64]) -> String {
        let name = self.names.fresh(wish);
        self.tensors.push(graph::int64s(&name, values));
        name
    }

    fn slice(&mut self, node: &mut NodeProto) {
        let Some(x) = self.value(node.input_at(0)) else { return };
        let shape = self.dependencies.units.shape(x).to_vec();
        let vector = |name: &str, slot: usize| match node.ints(name) {
            Some(values) => Some(values.to_vec()),
            None => self.dependencies.probe.integers(node.input_at(slot)?),
        };
        let Some(Some(axes)) = axes_of(node, 3, shape.len(), &self.dependencies.probe)
            .map(|axes| axes.or_else(|| Some((0..vector("starts", 1)?.len()).collect())))
        else {
            return;
        };
        let (Some(mut starts), Some(mut ends)) = (vector("starts", 1), vector("ends", 2)) else { return };
        if starts.len() != axes.len() || ends.len() != axes.len() {
            return;
        }
        let mut changed = false;
        for (place, axis) in axes.into_iter().enumerate() {
            let Some(kept) = self.dependencies.kept(x, axis, self.removed) else { continue };
            let len = shape[axis] as i64;
            let clamp = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(0, len) as usize;
            let before = |at: usize| kept.partition_point(|index| *index < at) as i64;
            (starts[place], ends[place]) = (before(clamp(starts[place])), before(clamp(ends[place])));
            changed = true;
        }
        if !changed {
            return;
        }
        if node.ints("starts").is_some() {
            set_ints(node, "starts", starts);
            set_ints(node, "ends", ends);
        } else {
            let label = node.label();
            node.input[1] = self.constant(&format!("{label}/starts"), &starts);
            node.input[2] = self.constant(&format!("{label}/ends"), &ends);
        }
    }

    fn split(&mut self, node: &mut NodeProto) {
        let Some(x) = self.value(node.input_at(0)) else { return };
        let Some(axis) = axis_of(node.int("axis", 0), self.dependencies.units.shape(x).len()) else { return };
        if self.dependencies.kept(x, axis, self.removed).is_none() {
            return;
        }
        let outputs: Option<Vec<Value>> = (0..node.output.len()).map(|slot| self.value(node.output_at(slot))).collect();
        let Some(outputs) = outputs else { return };
        let sizes: Vec<i64> = outputs.into_iter().map(|value| self.len(value, axis) as i64).collect();
        if self.dependencies.model.opset() < 13 {
            set_ints(node, "split", sizes);
            return;
        }
        node.attribute.retain(|attribute| attribute.name() != "num_outputs");
        let name = self.constant(&format!("{}/sizes", node.label()), &sizes);
        node.input.truncate(1);
        node.input.push(name);
    }
}
