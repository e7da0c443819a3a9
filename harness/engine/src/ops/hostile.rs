//! Operators on nodes and tensors that make no sense: an error or some output, never a panic, and no memory without bounds.

use proptest::{prelude::*, sample::select};

use super::{Backward, check};
use crate::{Array, Tensor};

const OPS: [&str; 14] = [
    "MatMul",
    "Gemm",
    "Conv",
    "MaxPool",
    "AveragePool",
    "GlobalMaxPool",
    "GlobalAveragePool",
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Softmax",
    "LogSoftmax",
    "Relu",
];

/// Small numbers most often: what is almost right goes furthest.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![10 => 0..4i64, 1 => select(vec![-1, 7, 1 << 31, 1 << 40, i64::MIN, i64::MAX])]
}

fn attribute() -> impl Strategy<Value = espalier_onnx::AttributeProto> {
    const WHOLE: [&str; 7] = ["group", "axis", "ceil_mode", "count_include_pad", "num_groups", "transA", "transB"];
    let whole = (select(&WHOLE[..]), number()).prop_map(|(name, value)| check::int(name, value));
    let lists = (select(&["strides", "pads", "dilations", "kernel_shape"][..]), prop::collection::vec(number(), 0..5));
    let lists = lists.prop_map(|(name, values)| check::int_list(name, &values));
    let padding = select(&["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "no"][..]);
    prop_oneof![3 => whole, 5 => lists, 1 => padding.prop_map(|value| check::string("auto_pad", value))]
}

fn tensor() -> impl Strategy<Value = Option<Tensor>> {
    let shape = prop_oneof![
        1 => prop::collection::vec(0..4usize, 0..6),
        3 => prop::collection::vec(1..4usize, 1..5),
        2 => prop::collection::vec(2..3usize, 1..5),
    ];
    let value = |shape: Vec<usize>| check::random(1, &shape);
    prop_oneof![
        8 => shape.prop_map(value).prop_map(Some),
        1 => Just(Some(Tensor::I64(Array::scalar(1)))),
        1 => Just(None)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_node_is_a_panic(
        op in select(&OPS[..]),
        opset in 6..22i64,
        attributes in prop::collection::vec(attribute(), 0..5),
        inputs in prop::collection::vec(tensor(), 0..6),
        outputs in 1..4usize,
    ) {
        let Ok(operator) = check::try_operator(op, opset, attributes) else { return Ok(()) };
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let Ok(forward) = operator.forward(&inputs, outputs) else { return Ok(()) };
        let seeds = |output: &Tensor| output.f32().ok().map(|output| Array::filled(output.shape(), 1.0f32));
        let pass = Backward {
            wants: inputs.iter().map(|input| input.is_some_and(|input| input.f32().is_ok())).collect(),
            inputs,
            outputs: forward.outputs.iter().map(Some).collect(),
            saved: forward.saved.as_deref(),
            gradients: forward.outputs.iter().map(seeds).collect(),
        };
        if let Some(Ok(gradients)) = operator.backward(&pass) {
            for (input, gradient) in pass.inputs.iter().zip(gradients) {
                if let (Some(input), Some(gradient)) = (input, gradient) {
                    prop_assert_eq!(input.shape(), gradient.shape());
                }
            }
        }
    }
}
