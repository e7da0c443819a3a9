//! Building and editing a graph: attributes set, nodes and constants made, fresh names, dead nodes removed.

use std::collections::{HashMap, HashSet};

use espalier_engine::Tensor;

use crate::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

pub fn set_int(node: &mut NodeProto, name: &str, value: i64) {
    set(node, name, AttributeProto { i: Some(value), ..typed(AttributeType::Int) });
}

pub fn set_ints(node: &mut NodeProto, name: &str, values: Vec<i64>) {
    set(node, name, AttributeProto { ints: values, ..typed(AttributeType::Ints) });
}

pub fn set_tensor(node: &mut NodeProto, name: &str, value: TensorProto) {
    set(node, name, AttributeProto { t: Some(value), ..typed(AttributeType::Tensor) });
}

fn typed(kind: AttributeType) -> AttributeProto {
    AttributeProto { r#type: Some(kind as i32), ..AttributeProto::default() }
}

fn set(node: &mut NodeProto, name: &str, attribute: AttributeProto) {
    node.attribute.retain(|attribute| attribute.name() != name);
    node.attribute.push(AttributeProto { name: Some(name.to_owned()), ..attribute });
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

/// A computed value as a constant of type `data_type`; `None` where the engine computes less exactly than the file
/// stores.
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

/// The names used in a graph.
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

/// The index of the node that computes each value.
pub fn producers(graph: &GraphProto) -> HashMap<&str, usize> {
    let nodes = graph.node.iter().enumerate();
    nodes.flat_map(|(index, node)| node.output.iter().map(move |output| (output.as_str(), index))).collect()
}

/// The index of each initialiser, by name.
pub fn initializers(graph: &GraphProto) -> HashMap<&str, usize> {
    graph.initializer.iter().enumerate().map(|(index, tensor)| (tensor.name(), index)).collect()
}

/// Removes unused nodes and unused constants.
pub fn sweep(graph: &mut GraphProto) {
    let mut used: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| used.contains(output)) {
            used.extend(node.input.iter().cloned());
            used.extend(node.subgraphs().flat_map(GraphProto::used_names).map(str::to_owned));
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|tensor| used.contains(tensor.name()));
}
