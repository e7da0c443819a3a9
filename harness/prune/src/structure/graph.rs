//! What every part of structured pruning needs of a graph's protobuf: labels, attributes, constants made and read.

use std::collections::{HashMap, HashSet};

use espalier_engine::Tensor;

use crate::onnx::{
    AttributeProto, GraphProto, Model, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

pub fn is_standard(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx")
}

/// The operator of a node of the standard domain; of others a name no rule knows.
pub fn op(node: &NodeProto) -> &str {
    if is_standard(node) { node.op_type() } else { "" }
}

/// As it is called in messages: with its domain where that is not the standard one.
pub fn op_name(node: &NodeProto) -> String {
    if is_standard(node) { node.op_type().to_owned() } else { format!("{}.{}", node.domain(), node.op_type()) }
}

/// A node's name, or the first thing it computes where it has none.
pub fn label(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    if node.name().is_empty() { output.to_owned() } else { node.name().to_owned() }
}

/// Version of the standard operator set.
pub fn opset(model: &Model) -> i64 {
    let standard = model.proto.opset_import.iter().find(|set| matches!(set.domain(), "" | "ai.onnx"));
    standard.map_or(1, |set| set.version())
}

/// An input of a node; `None` where it is left out.
pub fn input(node: &NodeProto, slot: usize) -> Option<&str> {
    node.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
}

pub fn output(node: &NodeProto, slot: usize) -> Option<&str> {
    node.output.get(slot).map(String::as_str).filter(|name| !name.is_empty())
}

pub fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

pub fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|attribute| attribute.i).unwrap_or(default)
}

pub fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

pub fn set_int(node: &mut NodeProto, name: &str, value: i64) {
    node.attribute.retain(|attribute| attribute.name() != name);
    node.attribute.push(AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    });
}

pub fn set_ints(node: &mut NodeProto, name: &str, values: Vec<i64>) {
    node.attribute.retain(|attribute| attribute.name() != name);
    node.attribute.push(AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values,
        ..AttributeProto::default()
    });
}

pub fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        name: Some(name.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A vector of int64.
pub fn int64s(name: &str, values: &[i64]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    raw(name, &[values.len() as i64], DataType::Int64, bytes)
}

pub fn raw(name: &str, dims: &[i64], data_type: DataType, bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type as i32),
        raw_data: Some(bytes.into()),
        ..TensorProto::default()
    }
}

/// A computed value as a constant of type `data_type`; `None` where the type is one that the engine computes with less exactly than a file
/// keeps it.
pub fn constant(name: &str, value: &Tensor, data_type: i32) -> Option<TensorProto> {
    let dims: Vec<i64> = value.shape().iter().map(|axis| *axis as i64).collect();
    let data_type = DataType::try_from(data_type).ok()?;
    let bytes = match (value, data_type) {
        (Tensor::F32(array), DataType::Float) => array.data().iter().flat_map(|value| value.to_le_bytes()).collect(),
        (Tensor::I64(array), DataType::Int64) => array.data().iter().flat_map(|value| value.to_le_bytes()).collect(),
        (Tensor::I64(array), DataType::Int32) => {
            let narrow: Option<Vec<i32>> = array.data().iter().map(|value| i32::try_from(*value).ok()).collect();
            narrow?.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        (Tensor::Bool(array), DataType::Bool) => array.data().iter().map(|value| u8::from(*value)).collect(),
        _ => return None,
    };
    Some(raw(name, &dims, data_type, bytes))
}

/// Names nothing else in a graph has.
#[derive(Debug, Default)]
pub struct Names(HashSet<String>);

impl Names {
    pub fn of(graph: &GraphProto) -> Names {
        let mut names: HashSet<String> = HashSet::new();
        names.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
        names.extend(graph.input.iter().map(|input| input.name().to_owned()));
        for node in &graph.node {
            names.extend(node.output.iter().cloned());
            names.insert(node.name().to_owned());
        }
        Names(names)
    }

    pub fn fresh(&mut self, wish: &str) -> String {
        let mut name = wish.to_owned();
        let mut number = 1;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }
}

/// Where each value is computed: by the index of its node.
pub fn producers(graph: &GraphProto) -> HashMap<&str, usize> {
    let nodes = graph.node.iter().enumerate();
    nodes.flat_map(|(index, node)| node.output.iter().map(move |output| (output.as_str(), index))).collect()
}

/// Constants by name.
pub fn initializers(graph: &GraphProto) -> HashMap<&str, usize> {
    graph.initializer.iter().enumerate().map(|(index, tensor)| (tensor.name(), index)).collect()
}

/// Takes out nodes whose results nobody uses, and constants nobody uses.
pub fn sweep(graph: &mut GraphProto) {
    let mut used: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| used.contains(output)) {
            used.extend(node.input.iter().cloned());
            for attribute in &node.attribute {
                attribute.g.iter().chain(&attribute.graphs).for_each(|graph| names_within(graph, &mut used));
            }
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|tensor| used.contains(tensor.name()));
}

fn names_within(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.output.iter().map(|output| output.name().to_owned()));
    for node in &graph.node {
        names.extend(node.input.iter().cloned());
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| names_within(graph, names));
        }
    }
}
