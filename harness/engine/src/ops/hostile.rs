//! Every operator on nodes and tensors that make no sense: an error or some output, never a panic, and no memory
//! without bounds.

use proptest::{prelude::*, sample::select};

use super::{Backward, check};
use crate::{Array, Tensor};

/// Small numbers most often: inputs that are almost right get furthest.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![10 => 0..4i64, 1 => select(vec![-1, 7, 1 << 31, 1 << 40, i64::MIN, i64::MAX])]
}

/// One of some names.
fn name(names: &'static str) -> impl Strategy<Value = &'static str> {
    select(names.split_whitespace().collect::<Vec<_>>())
}

fn attribute() -> impl Strategy<Value = espalier_onnx::AttributeProto> {
    const WHOLE: &str = "group axis ceil_mode count_include_pad num_groups transA transB keepdims to hidden_size upper \
                         k p start end blocksize batch_dims noop_with_empty_axes num_outputs exclusive reverse \
                         allowzero fmod linear_before_reset block_size";
    const LISTS: &str = "strides pads dilations kernel_shape axes perm shape split starts ends repeats output_padding \
                         output_shape";
    const WORDS: [(&str, &str); 10] = [
        ("auto_pad", "SAME_UPPER"),
        ("auto_pad", "SAME_LOWER"),
        ("auto_pad", "VALID"),
        ("auto_pad", "no"),
        ("mode", "reflect"),
        ("mode", "edge"),
        ("mode", "CRD"),
        ("direction", "bidirectional"),
        ("direction", "reverse"),
        ("reduction", "add"),
    ];
    let whole = (name(WHOLE), number()).prop_map(|(name, value)| check::int(name, value));
    let lists = (name(LISTS), prop::collection::vec(number(), 0..5));
    let lists = lists.prop_map(|(name, values)| check::int_list(name, &values));
    prop_oneof![4 => whole, 5 => lists, 1 => select(&WORDS[..]).prop_map(|(name, value)| check::string(name, value))]
}

fn tensor() -> impl Strategy<Value = Option<Tensor>> {
    let shape = || {
        prop_oneof![
            1 => prop::collection::vec(0..4usize, 0..6),
            3 => prop::collection::vec(1..4usize, 1..5),
            2 => prop::collection::vec(2..3usize, 1..5),
        ]
    };
    let value = |shape: Vec<usize>| check::random(1, &shape);
    let list = prop::collection::vec(number(), 0..5).prop_map(|values| Tensor::I64(Array::new([values.len()], values)));
    let indices = (shape(), number()).prop_map(|(shape, value)| Tensor::I64(Array::filled(shape, value)));
    let flags = shape().prop_map(|shape| Tensor::Bool(Array::filled(shape, true)));
    prop_oneof![
        8 => shape().prop_map(value).prop_map(Some),
        3 => list.prop_map(Some),
        2 => indices.prop_map(Some),
        1 => number().prop_map(|value| Some(Tensor::I64(Array::scalar(value)))),
        1 => flags.prop_map(Some),
        1 => Just(None)
    ]
}

/// A length, seldom a wrong one.
fn about(right: usize) -> impl Strategy<Value = usize> {
    prop_oneof![12 => Just(right), 1 => 0..5usize]
}

/// Inputs of a recurrent layer, with a mistake here and there: hardly any freely drawn shapes would pass the first
/// check.
fn recurrent() -> impl Strategy<Value = (&'static str, i64, Vec<Option<Tensor>>)> {
    let sizes = (select(&[("LSTM", 4usize), ("GRU", 3), ("RNN", 1)][..]), 1..3usize, 1..3usize, 1..3usize, 1..4usize);
    sizes.prop_flat_map(|((op, gates), directions, batch, hidden, steps)| {
        let axes = |axes: &[usize]| axes.iter().map(|axis| about(*axis)).collect::<Vec<_>>();
        let shapes = [
            axes(&[steps, batch, 2]),
            axes(&[directions, gates * hidden, 2]),
            axes(&[directions, gates * hidden, hidden]),
            axes(&[directions, 2 * gates * hidden]),
        ];
        let states = [axes(&[directions, batch, hidden]), axes(&[directions, batch, hidden])];
        let floats = |shape: Vec<usize>| check::random(1, &shape);
        let lengths = prop_oneof![2 => Just(None), 1 => prop::collection::vec(number(), batch).prop_map(|lengths| {
            Some(Tensor::I64(Array::new([lengths.len()], lengths)))
        })];
        let hidden = prop_oneof![9 => Just(hidden as i64), 1 => number()];
        (shapes, lengths, states, hidden).prop_map(move |(shapes, lengths, states, hidden)| {
            let mut inputs: Vec<Option<Tensor>> = shapes.into_iter().map(|shape| Some(floats(shape))).collect();
            inputs.push(lengths);
            inputs.extend(states.into_iter().map(|shape| Some(floats(shape))));
            (op, hidden, inputs)
        })
    })
}

/// Runs the forward pass and, where that succeeds, the backward pass.
fn survives(
    op: &str,
    opset: i64,
    attributes: Vec<espalier_onnx::AttributeProto>,
    inputs: &[Option<Tensor>],
    outputs: usize,
) -> Result<bool, TestCaseError> {
    let Ok(operator) = check::try_operator(op, opset, attributes) else { return Ok(false) };
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let Ok(forward) = operator.forward(&inputs, outputs) else { return Ok(false) };
    let seeds = |output: &Tensor| output.f32().ok().map(|output| Array::filled(output.shape(), 1.0f32));
    let pass = Backward {
        wants: inputs.iter().map(|input| input.is_some_and(|input| input.f32().is_ok())).collect(),
        inputs,
        outputs: forward.outputs.iter().map(Some).collect(),
        saved: forward.saved.as_deref(),
        gradients: forward.outputs.iter().map(seeds).collect(),
    };
    // A network only asks for gradients where one arrives.
    if pass.gradients.iter().all(Option::is_none) {
        return Ok(true);
    }
    if let Ok(gradients) = operator.backward(&pass) {
        for (input, gradient) in pass.inputs.iter().zip(gradients) {
            if let (Some(input), Some(gradient)) = (input, gradient) {
                prop_assert_eq!(input.shape(), gradient.shape());
            }
        }
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn no_node_is_a_panic(
        op in select(super::names().collect::<Vec<_>>()),
        opset in 6..22i64,
        attributes in prop::collection::vec(attribute(), 0..5),
        inputs in prop::collection::vec(tensor(), 0..6),
        outputs in 1..4usize,
    ) {
        survives(op, opset, attributes, &inputs, outputs)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_recurrent_layer_is_a_panic(
        (op, hidden, inputs) in recurrent(), direction in select(&["forward", "reverse", "bidirectional"][..]),
    ) {
        let attributes = vec![check::int("hidden_size", hidden), check::string("direction", direction)];
        let inputs = if op == "LSTM" { &inputs[..] } else { &inputs[..6] };
        survives(op, 14, attributes, inputs, 3)?;
    }
}
