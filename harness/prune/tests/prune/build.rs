//! Small models, message by message.

use espalier_prune::{Bytes, onnx::*};
use prost::Message;

/// A constant of f32 values as raw bytes, the form every exporter writes.
pub fn raw(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    typed(name, dims, tensor_proto::DataType::Float, bytes)
}

/// The same as a list of floats.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { raw_data: None, float_data: values.to_vec(), ..raw(name, dims, &[]) }
}

pub fn typed(name: &str, dims: &[i64], data_type: tensor_proto::DataType, bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type as i32),
        raw_data: Some(bytes.into()),
        ..TensorProto::default()
    }
}

/// `node("Conv", "x w b", "y")`.
pub fn node(op: &str, inputs: &str, output: &str) -> NodeProto {
    let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
    NodeProto {
        op_type: Some(op.to_owned()),
        domain: (!domain.is_empty()).then(|| domain.to_owned()),
        input: inputs
            .split_whitespace()
            .map(|name| if name == "-" { String::new() } else { name.to_owned() })
            .collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A `Constant` node that outputs `tensor`, which has no name of its own there.
pub fn constant(output: &str, tensor: TensorProto) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("value".into()),
        r#type: Some(attribute_proto::AttributeType::Tensor as i32),
        t: Some(TensorProto { name: None, ..tensor }),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node("Constant", "", output) }
}

pub fn graph(initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> GraphProto {
    GraphProto { name: Some("g".into()), initializer, node, ..GraphProto::default() }
}

pub fn model(graph: GraphProto) -> Bytes {
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let proto =
        ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    proto.encode_to_vec().into()
}

/// The f32 values of a tensor of a model, found by name among initialisers and constants.
pub fn values(model: &Bytes, name: &str) -> Vec<f32> {
    let model = Model::decode(model).unwrap();
    let graph = model.graph();
    let constant = graph.node.iter().find(|node| node.output[0] == name && node.op_type() == "Constant");
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name);
    let tensor = tensor.or_else(|| constant.and_then(|node| node.attribute[0].t.as_ref())).unwrap();
    match &tensor.raw_data {
        Some(raw) => raw.chunks(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect(),
        None => tensor.float_data.clone(),
    }
}
