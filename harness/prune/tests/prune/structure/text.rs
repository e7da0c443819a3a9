//! Networks written as lines of text.

use espalier_prune::{
    Bytes,
    onnx::{attribute_proto::AttributeType, tensor_shape_proto::Dimension, *},
};
use prost::Message;

const OPSET: i64 = 17;

pub fn tensor(name: &str, dims: &[i64]) -> TensorProto {
    let len: i64 = dims.iter().product();
    let seed = name.bytes().map(u64::from).sum::<u64>();
    let values = (0..len as u64).map(|index| ((index * 7 + seed) as f32 * 1.3).sin() * 0.5);
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: values.collect(),
        ..TensorProto::default()
    }
}

pub fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// `Conv x,w,b -> y pads=1,1,1,1 group=2`; an empty name is `-`.
fn node(text: &str) -> NodeProto {
    let (call, rest) = text.split_once(" -> ").unwrap();
    let (op, inputs) = call.split_once(' ').unwrap();
    let mut words = rest.split(' ');
    let names =
        |text: &str| text.split(',').map(|name| if name == "-" { String::new() } else { name.into() }).collect();
    let output = names(words.next().unwrap());
    let attribute = words.map(|word| {
        let (name, value) = word.split_once('=').unwrap();
        let base = AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
        let numbers: Result<Vec<i64>, _> = value.trim_end_matches(',').split(',').map(str::parse).collect();
        match numbers {
            Ok(numbers) if value.contains(',') => {
                AttributeProto { r#type: Some(AttributeType::Ints as i32), ints: numbers, ..base }
            }
            Ok(numbers) => AttributeProto { r#type: Some(AttributeType::Int as i32), i: Some(numbers[0]), ..base },
            Err(_) => AttributeProto {
                r#type: Some(AttributeType::String as i32),
                s: Some(value.to_owned().into_bytes().into()),
                ..base
            },
        }
    });
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("n_{}", words_first(rest))),
        input: names(inputs),
        output,
        attribute: attribute.collect(),
        ..NodeProto::default()
    }
}

fn words_first(rest: &str) -> &str {
    rest.split([' ', ',']).next().unwrap()
}

fn port(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |len: &i64| Dimension {
        value: Some(match len {
            0 => tensor_shape_proto::dimension::Value::DimParam("N".into()),
            open if *open < 0 => tensor_shape_proto::dimension::Value::DimParam(format!("D{open}")),
            len => tensor_shape_proto::dimension::Value::DimValue(*len),
        }),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape: Some(shape) });
    let r#type = Some(TypeProto { value: Some(value), ..TypeProto::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..ValueInfoProto::default() }
}

/// From `x` to `y`; a 0 in the shape of `x` is an open axis, as are -1 and -2, each another one.
pub fn model(x: &[i64], constants: Vec<TensorProto>, nodes: &[&str]) -> Bytes {
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes.iter().map(|text| node(text)).collect(),
        initializer: constants,
        input: vec![port("x", x)],
        output: vec![ValueInfoProto { name: Some("y".into()), ..port("y", &[]) }],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: None, version: Some(OPSET) };
    let proto =
        ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    proto.encode_to_vec().into()
}
