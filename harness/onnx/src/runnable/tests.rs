//! What is refused is refused by name, what is rewritten is written in operators that no rule is about. That rewrites
//! mean the same is for `tests/e2e/single.rs`, which asks onnxruntime.

use super::{
    build::{float, int, ints, text},
    *,
};
use crate::{
    AttributeProto, ModelProto, OperatorSetIdProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use prost::Message;

fn model(opset: i64, op: &str, attributes: Vec<AttributeProto>, constants: &[&[i64]]) -> Bytes {
    let constant = |(index, values): (usize, &&[i64])| TensorProto {
        name: Some(format!("c{index}")),
        data_type: Some(DataType::Int64 as i32),
        dims: vec![values.len() as i64],
        int64_data: values.to_vec(),
        ..TensorProto::default()
    };
    let initializer: Vec<TensorProto> = constants.iter().enumerate().map(constant).collect();
    let value = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
    let node = NodeProto {
        op_type: Some(op.into()),
        name: Some("layer".into()),
        input: ["x"].into_iter().chain(initializer.iter().map(TensorProto::name)).map(str::to_owned).collect(),
        output: vec!["y".into()],
        attribute: attributes,
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        initializer,
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    proto.encode_to_vec().into()
}

fn strings(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Strings as i32),
        strings: values.iter().map(|value| value.as_bytes().to_vec().into()).collect(),
        ..AttributeProto::default()
    }
}

/// `expected`: the message, or the operators without constants, in order.
#[track_caller]
fn check(opset: i64, op: &str, attributes: Vec<AttributeProto>, constants: &[&[i64]], expected: &str) {
    let source = model(opset, op, attributes, constants);
    let got = match runnable(&source) {
        Err(refusal) => refusal.to_string(),
        Ok(made) if made == source => "the same".to_owned(),
        Ok(made) => {
            assert_eq!(runnable(&made).unwrap(), made, "no rule is left to apply");
            let model = Model::decode(&made).unwrap();
            assert_eq!(model.graph().node_order().map(|order| order.len()), Ok(model.graph().node.len()));
            let ops = model.graph().node.iter().map(NodeProto::op).filter(|op| *op != "Constant");
            ops.collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(got, expected);
}

#[test]
fn what_the_runner_computes_keeps_its_bytes() {
    check(17, "Relu", vec![], &[], "the same");
    check(7, "MaxPool", vec![ints("kernel_shape", &[2, 2])], &[], "the same");
    check(17, "LSTM", vec![int("hidden_size", 2), text("direction", "bidirectional")], &[&[1], &[1]], "the same");
    check(17, "LSTM", vec![strings("activations", &["Sigmoid", "tanh", "Tanh"])], &[&[1], &[1]], "the same");
    check(17, "ConvTranspose", vec![ints("pads", &[1, 1])], &[&[1]], "the same");
    check(17, "Mod", vec![], &[&[2]], "the same");
}

#[test]
fn a_refusal_names_node_operator_and_attribute() {
    let with = |what: &str, why: &str| format!("node `layer`: {what}: {why}");
    let clip = with("GRU with `clip`", "the runner does not clip; export the model without it");
    check(17, "GRU", vec![float("clip", 1.0)], &[&[1], &[1]], &clip);
    let anew = "the runner does not honour it; export the model without it";
    check(17, "Resize", vec![int("exclude_outside", 1)], &[], &with("Resize with `exclude_outside`", anew));
    check(19, "Pad", vec![text("mode", "wrap")], &[&[0, 0]], &with("Pad with `mode`", anew));
    let unknown = "the runner has no such operator; export the model up to it, or without it";
    check(17, "RoiAlign", vec![], &[], &with("RoiAlign", unknown));
    let far = "engines differ in these bounds of a negative step; let it end at -9223372036854775808";
    check(17, "Slice", vec![], &[&[-1], &[i64::MAX], &[0], &[-1]], &with("Slice with `steps`", far));
}

#[test]
fn rewrites_are_in_operators_that_the_runner_computes() {
    check(17, "GlobalLpPool", vec![], &[], "Mul GlobalAveragePool Shape Slice Cast ReduceProd Mul Sqrt");
    check(17, "LpPool", vec![int("p", 1), ints("kernel_shape", &[2])], &[], "Abs AveragePool Mul Identity");
    check(9, "Upsample", vec![], &[], "Resize");
    check(7, "TopK", vec![int("k", 2)], &[], "TopK");
    check(17, "Pad", vec![], &[&[0, -1, 0, 2]], "Slice Pad");
    check(17, "ConstantOfShape", vec![], &[], "ConstantOfShape");
    check(17, "Celu", vec![float("alpha", 2.0)], &[], "Mul Elu Mul");
    let layout = vec![int("layout", 1), int("hidden_size", 2)];
    check(17, "RNN", layout, &[&[1], &[1]], "Transpose RNN Transpose");
    check(
        17,
        "RNN",
        vec![text("direction", "reverse")],
        &[&[1], &[1]],
        "Shape Slice Squeeze Sub Range Sub Gather RNN Shape Slice Squeeze Sub Range Sub Gather Identity",
    );
}

/// Old models are upgraded as a whole where one of their nodes has to be.
#[test]
fn an_upgrade_says_so() {
    let made = runnable(&model(8, "Upsample", vec![text("mode", "nearest")], &[])).unwrap();
    assert_eq!(Model::decode(&made).unwrap().opset(), 11);
    let kept = model(8, "Clip", vec![float("min", 0.0)], &[]);
    assert_eq!(runnable(&kept).unwrap(), kept);
}
