//! What is known of a node's surroundings: constants, declared shapes, and which values are used.

use std::collections::{HashMap, HashSet};

use crate::{Axis, GraphProto, NodeProto, TensorProto, axis_of, tensor::Values};

/// What a rule knows of a node's surroundings.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub opset: i64,
    /// Constants of the graph and of those around it.
    pub constants: &'a HashMap<String, TensorProto>,
    /// Of inputs and values whose shape the file declares; 0 for an open axis.
    pub shapes: &'a HashMap<String, Vec<i64>>,
    pub used: &'a HashSet<String>,
}

impl Around<'_> {
    /// The integers of a constant input.
    pub fn ints(&self, node: &NodeProto, slot: usize) -> Option<Vec<i64>> {
        let tensor = self.constants.get(node.input_at(slot)?)?;
        let raw = tensor.raw_data.as_deref().unwrap_or_default();
        match (tensor.data_type(), raw.is_empty()) {
            (7, true) => Some(tensor.int64_data.clone()),
            (7, false) => Some(raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
            (6 | 9, true) => Some(tensor.int32_data.iter().map(|value| i64::from(*value)).collect()),
            (6, false) => Some(raw.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()),
            (9, false) => Some(raw.iter().map(|byte| i64::from(*byte)).collect()),
            _ => None,
        }
    }

    /// The length of an axis of an input, where the file says it.
    pub fn length(&self, node: &NodeProto, slot: usize, axis: i64) -> Option<i64> {
        let shape = self.shapes.get(node.input_at(slot)?)?;
        shape.get(axis_of(axis, shape.len())?).copied().filter(|length| *length > 0)
    }

    /// The floats of a constant input.
    pub fn floats(&self, node: &NodeProto, slot: usize) -> Option<Vec<f32>> {
        let tensor = self.constants.get(node.input_at(slot)?).filter(|tensor| tensor.data_type() == 1)?;
        let values = Values::of("", tensor).ok()?;
        let mut floats = Vec::new();
        values.for_each(|value| floats.push(value));
        Some(floats)
    }
}

pub(super) fn constants_of(graph: &GraphProto, outer: &HashMap<String, TensorProto>) -> HashMap<String, TensorProto> {
    /// Larger ones are weights, which no rule looks at.
    const SMALL: i64 = 1024;
    let mut constants = outer.clone();
    let is_small = |tensor: &&TensorProto| tensor.dims.iter().product::<i64>() <= SMALL;
    constants
        .extend(graph.initializer.iter().filter(is_small).map(|tensor| (tensor.name().to_owned(), tensor.clone())));
    for node in graph.node.iter().filter(|node| node.op() == "Constant") {
        let value = node.attr("value").and_then(|attribute| attribute.t.as_ref()).filter(is_small);
        if let (Some(value), Some(name)) = (value, node.output_at(0)) {
            constants.insert(name.to_owned(), value.clone());
        }
    }
    constants
}

pub(super) fn shapes_of(graph: &GraphProto, constants: &HashMap<String, TensorProto>) -> HashMap<String, Vec<i64>> {
    let length = |axis: &Axis| match axis {
        Axis::Fixed(length) => *length as i64,
        Axis::Free(_) => 0,
    };
    let declared = graph.input.iter().chain(&graph.value_info).filter_map(|value| {
        let axes = value.axes()?;
        Some((value.name().to_owned(), axes.iter().map(length).collect()))
    });
    let mut shapes: HashMap<String, Vec<i64>> = declared.collect();
    let around = Around { opset: 0, constants, shapes: &HashMap::new(), used: &HashSet::new() };
    for node in graph.node.iter().filter(|node| node.op() == "Reshape") {
        if let (Some(target), Some(output)) = (around.ints(node, 1), node.output_at(0)) {
            shapes.insert(output.to_owned(), target);
        }
    }
    shapes
}
