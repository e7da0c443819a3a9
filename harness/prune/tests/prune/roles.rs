//! Which constants count as weights, and why others are left alone.

use espalier_prune::{Axis, Bytes, Recipe, inspect, onnx::*, prune};

use crate::build::*;

/// The prunable tensors, and each untouched one with its reason, one a line.
#[track_caller]
fn check(file: &Bytes, expected: &str) {
    let inspection = inspect(file).unwrap();
    let weights = inspection.tensors.iter().map(|tensor| format!("{} {:?} pruned", tensor.name, tensor.shape));
    let others =
        inspection.untouched.iter().map(|tensor| format!("{} {:?} {}", tensor.name, tensor.shape, tensor.reason));
    let got: Vec<String> = weights.chain(others).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(got, expected);
}

fn ones(name: &str, dims: &[i64]) -> TensorProto {
    raw(name, dims, &vec![1.0; dims.iter().product::<i64>() as usize])
}

#[test]
fn weights_are_known_by_their_role() {
    let initializers = [
        ("conv.w", &[2, 1, 3, 3][..]),
        ("conv.b", &[2]),
        ("up.w", &[2, 2, 2, 2]),
        ("bn.scale", &[2]),
        ("lstm.w", &[1, 8, 2]),
        ("lstm.r", &[1, 8, 2]),
        ("lstm.b", &[1, 16]),
        ("gemm.a", &[2, 2]),
        ("gemm.b", &[2, 2]),
        ("gemm.c", &[2]),
        ("table", &[5, 2]),
        ("scale", &[]),
        ("slope", &[2]),
        ("forgotten", &[3]),
    ];
    let file = model(graph(
        initializers.iter().map(|(name, dims)| ones(name, dims)).collect(),
        vec![
            constant("matmul.w", ones("", &[2, 2])),
            node("Conv", "x conv.w conv.b", "1"),
            node("ConvTranspose", "1 up.w", "2"),
            node("BatchNormalization", "2 bn.scale - - -", "3"),
            node("LSTM", "3 lstm.w lstm.r lstm.b", "4"),
            node("Gemm", "gemm.a gemm.b gemm.c", "5"),
            node("Gather", "table ids", "6"),
            node("Mul", "6 scale", "7"),
            node("PRelu", "7 slope", "8"),
            node("MatMul", "8 matmul.w", "9"),
        ],
    ));
    check(
        &file,
        "conv.w [2, 1, 3, 3] pruned
         up.w [2, 2, 2, 2] pruned
         lstm.w [1, 8, 2] pruned
         lstm.r [1, 8, 2] pruned
         gemm.a [2, 2] pruned
         gemm.b [2, 2] pruned
         matmul.w [2, 2] pruned
         conv.b [2] bias
         bn.scale [2] parameter of a normalisation
         lstm.b [1, 16] bias
         gemm.c [2] bias
         table [5, 2] embedding table
         scale [] scalar
         slope [2] input 1 of `PRelu`, not known to be a weight
         forgotten [3] used by no node",
    );
}

#[test]
fn what_is_no_plain_weight_is_left_with_a_reason() {
    let body = graph(vec![ones("inner", &[2, 2])], vec![node("MatMul", "captured inner", "z")]);
    let branch = AttributeProto { name: Some("then_branch".into()), g: Some(body), ..AttributeProto::default() };
    let sparse =
        SparseTensorProto { values: Some(ones("thin", &[3])), dims: vec![8, 8], ..SparseTensorProto::default() };
    let mut graph = graph(
        vec![
            ones("tied", &[4, 2]),
            ones("turned", &[2, 2]),
            ones("captured", &[2, 2]),
            ones("given", &[2, 2]),
            ones("custom", &[2, 2]),
            typed("half", &[2, 2], tensor_proto::DataType::Float16, vec![0; 8]),
            typed("bytes", &[2, 2], tensor_proto::DataType::Int8, vec![0; 4]),
            typed("shape", &[1], tensor_proto::DataType::Int64, vec![0; 8]),
        ],
        vec![
            node("Gather", "tied ids", "1"),
            node("MatMul", "1 tied", "2"),
            node("Cast", "turned", "3"),
            node("MatMul", "2 captured", "4"),
            NodeProto { attribute: vec![branch], name: Some("choice".into()), ..node("If", "cond", "5") },
            node("MatMul", "5 given", "6"),
            node("com.example.Dense", "6 custom", "7"),
            node("MatMul", "7 half", "8"),
            node("MatMulInteger", "8 bytes", "9"),
            node("Reshape", "9 shape", "10"),
        ],
    );
    graph.output = vec![ValueInfoProto { name: Some("given".into()), ..ValueInfoProto::default() }];
    graph.sparse_initializer = vec![sparse];
    check(
        &model(graph),
        "tied [4, 2] a weight, but also used by `Gather`
         turned [2, 2] a weight that reaches its use through `Cast`
         captured [2, 2] a weight, but also used by `If`
         given [2, 2] is itself an output of the model
         custom [2, 2] input 1 of `com.example.Dense`, not known to be a weight
         half [2, 2] a weight of type float16, only float32 is pruned
         bytes [2, 2] a weight of type int8, only float32 is pruned
         thin [8, 8] kept as a sparse tensor
         inner [2, 2] used in a subgraph of `choice`",
    );
}

#[test]
fn a_shared_tensor_counts_once() {
    let file = model(graph(
        vec![raw("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])],
        vec![node("MatMul", "x w", "1"), node("MatMul", "1 w", "2")],
    ));
    let pruned = prune(&file, &Recipe::magnitude(0.5), None).unwrap();
    assert_eq!((pruned.manifest.prunable, pruned.manifest.removed), (4, 2));
    assert_eq!(values(&pruned.bytes, "w"), [0.0, 0.0, 3.0, 4.0]);
}

/// Up to IR 3 every initialiser was listed among the inputs.
#[test]
fn inputs_are_what_has_to_be_fed() {
    let dim = |value| tensor_shape_proto::Dimension { value, ..Default::default() };
    let axis = tensor_shape_proto::dimension::Value::DimValue;
    let free = tensor_shape_proto::dimension::Value::DimParam("N".into());
    let shape = TensorShapeProto { dim: vec![dim(Some(free)), dim(Some(axis(3))), dim(None), dim(Some(axis(-1)))] };
    let tensor = type_proto::Tensor { elem_type: Some(7), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    let info = |name: &str, kind| ValueInfoProto { name: Some(name.into()), r#type: kind, ..ValueInfoProto::default() };
    let mut graph = graph(vec![ones("w", &[2, 2])], vec![node("MatMul", "x w", "y")]);
    graph.input = vec![info("w", None), info("x", Some(kind)), info("z", None)];
    let inspection = inspect(&model(graph)).unwrap();
    let names: Vec<&str> = inspection.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["x", "z"]);
    let unnamed = || Axis::Free(String::new());
    assert_eq!(inspection.inputs[0].dtype, "int64");
    assert_eq!(inspection.inputs[0].axes, Some(vec![Axis::Free("N".into()), Axis::Fixed(3), unnamed(), unnamed()]));
    assert_eq!((inspection.inputs[1].dtype, &inspection.inputs[1].axes), ("unknown", &None));
}
