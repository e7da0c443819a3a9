//! The importance by each method against the plainest way to compute it.

use espalier_engine::{Array, Keep, Network, Tensor};
use espalier_prune::{
    Bytes, Method, PruneError, Recipe, Samples, Scope, Scores, Unit, importance, onnx::*, prune, survey,
};
use proptest::prelude::*;

use crate::build::*;

/// Numbers in [-1, 1), the same every time.
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn constant_of(name: &str, dims: &[i64], seed: u32) -> TensorProto {
    raw(name, dims, &noise(dims.iter().product::<i64>() as usize, seed))
}

/// An input or output: element type, and axes, of which -1 is open.
fn port(name: &str, elem_type: i32, axes: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |axis: &i64| Dimension {
        value: Some(if *axis < 0 { Value::DimParam("N".into()) } else { Value::DimValue(*axis) }),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: axes.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(elem_type), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: values.to_vec(), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), ..AttributeProto::default() }
}

fn with(node: NodeProto, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { attribute, ..node }
}

fn net(input: &[i64], output: &[i64], tensors: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Bytes {
    let mut graph = graph(tensors, nodes);
    graph.input = vec![port("x", 1, input)];
    graph.output = vec![port("y", 1, output)];
    model(graph)
}

/// A convolution with groups and padding, a hidden layer, a transposed weight, and a softmax at the end.
fn small() -> Bytes {
    net(
        &[-1, 2, 5, 6],
        &[-1, 3],
        vec![
            constant_of("conv", &[4, 1, 3, 2], 1),
            constant_of("conv.b", &[4], 2),
            constant_of("hidden", &[7, 48], 3),
            constant_of("hidden.b", &[7], 4),
            constant_of("turned", &[3, 7], 5),
        ],
        vec![
            with(
                node("Conv", "x conv conv.b", "1"),
                vec![
                    int("group", 2),
                    ints("strides", &[2, 1]),
                    ints("pads", &[1, 0, 1, 0]),
                    ints("dilations", &[1, 2]),
                ],
            ),
            node("Relu", "1", "2"),
            node("Flatten", "2", "3"),
            with(node("Gemm", "3 hidden hidden.b", "4"), vec![int("transB", 1)]),
            node("Relu", "4", "5"),
            with(node("Transpose", "turned", "6"), vec![ints("perm", &[1, 0])]),
            node("MatMul", "5 6", "7"),
            node("Softmax", "7", "y"),
        ],
    )
}

fn samples(count: usize, labelled: bool) -> Samples {
    let inputs = vec![Tensor::F32(Array::new([count, 2, 5, 6], noise(count * 60, 9)))];
    Samples { inputs, labels: labelled.then(|| (0..count).map(|sample| sample % 3).collect()) }
}

#[track_caller]
fn scored(file: &Bytes, method: Method, samples: Option<&Samples>, batch: usize) -> Scores {
    let model = Model::decode(file).unwrap();
    importance::scores(&model, &survey(&model).unwrap(), method, samples, batch, 0).unwrap()
}

/// Mean cross-entropy of logits, in f64.
fn loss(network: &Network, samples: &Samples) -> f64 {
    let run = network.run(&samples.inputs, Keep::All).unwrap();
    let logits = run.value(network.find("7").unwrap()).unwrap().f32().unwrap().clone();
    let labels = samples.labels.as_ref().unwrap();
    let of = |(row, label): (&[f32], &usize)| {
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(row[*label])
    };
    logits.data().chunks(3).zip(labels).map(of).sum::<f64>() / labels.len() as f64
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (file, samples) = (small(), samples(7, true));
    let model = Model::decode(&file).unwrap();
    let scores = scored(&file, Method::Gradient, Some(&samples), 7);
    let mut network = Network::new(&model).unwrap();
    let mut checked = 0;
    for (weight, scores) in survey(&model).unwrap().weights.iter().zip(&scores.0) {
        let id = network.find(&weight.name).unwrap();
        for index in (0..scores.len()).step_by(5) {
            let mut at = |by: f32| {
                let Some(Tensor::F32(array)) = network.constant_mut(id) else { unreachable!() };
                let before = array.data()[index];
                array.data_mut()[index] = before + by;
                let loss = loss(&network, &samples);
                let Some(Tensor::F32(array)) = network.constant_mut(id) else { unreachable!() };
                array.data_mut()[index] = before;
                loss
            };
            let difference = (at(2e-3) - at(-2e-3)).abs() / 4e-3;
            let score = f64::from(scores[index]);
            assert!(
                (difference - score).abs() < 2e-3 + 0.02 * score,
                "{} [{index}]: {score}, {difference}",
                weight.name
            );
            checked += usize::from(score > 1e-2);
        }
    }
    assert!(checked > 20, "{checked} gradients are not about zero");
}

#[test]
fn taylor_is_weight_times_gradient_whatever_the_batches() {
    let (file, samples) = (small(), samples(7, true));
    let model = Model::decode(&file).unwrap();
    let (gradient, taylor) =
        (scored(&file, Method::Gradient, Some(&samples), 3), scored(&file, Method::Taylor, Some(&samples), 3));
    // By hand: the mean over batches of 3, 3 and 1, each weighted by its share.
    let parts: Vec<(Scores, f32)> = [(0..3), (3..6), (6..7)]
        .into_iter()
        .map(|part| {
            let part: Vec<usize> = part.collect();
            (scored(&file, Method::Gradient, Some(&samples.take(&part)), 8), part.len() as f32 / 7.0)
        })
        .collect();
    for (tensor, weight) in survey(&model).unwrap().weights.iter().enumerate() {
        for (index, w) in values(&file, &weight.name).iter().enumerate() {
            let mean: f32 = parts.iter().map(|(scores, share)| scores.0[tensor][index] * share).sum();
            let (gradient, taylor) = (gradient.0[tensor][index], taylor.0[tensor][index]);
            assert!((gradient - mean).abs() <= 1e-5 * (1.0 + mean), "{gradient}, {mean}");
            assert_eq!(taylor, w.abs() * gradient);
        }
    }
}

/// Without labels the model's own predictions are taken as true.
#[test]
fn predictions_serve_as_labels() {
    let file = small();
    let unlabelled = samples(6, false);
    let network = Network::new(&Model::decode(&file).unwrap()).unwrap();
    let run = network.run(&unlabelled.inputs, Keep::Outputs).unwrap();
    let probabilities = run.value(network.outputs[0]).unwrap().f32().unwrap();
    let largest = |row: &[f32]| (0..3).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let labels = Some(probabilities.data().chunks(3).map(largest).collect());
    let labelled = Samples { labels, ..unlabelled.clone() };
    assert_eq!(scored(&file, Method::Taylor, Some(&unlabelled), 4), scored(&file, Method::Taylor, Some(&labelled), 4));
}

#[test]
fn activation_is_weight_times_norm_of_what_it_multiplies() {
    let (file, samples) = (small(), samples(5, false));
    let network = Network::new(&Model::decode(&file).unwrap()).unwrap();
    let run = network.run(&samples.inputs, Keep::All).unwrap();
    let value = |name: &str| run.value(network.find(name).unwrap()).unwrap().f32().unwrap().clone();
    let found = scored(&file, Method::Activation, Some(&samples), 2);
    let close = |a: f32, b: f64, what: &str| assert!((f64::from(a) - b).abs() <= 1e-5 * (1.0 + b), "{what}: {a}, {b}");

    // Conv by its definition: strides 2 and 1, one row of padding, kernel columns two apart, two groups.
    let (x, w) = (value("x"), values(&file, "conv"));
    let (rows, columns) = (3, 4);
    for o in 0..4 {
        for ky in 0..3usize {
            for kx in 0..2usize {
                let channel = o / 2;
                let mut sum = 0.0;
                for sample in 0..5 {
                    for y in 0..rows {
                        for c in 0..columns {
                            let (row, column) = ((2 * y + ky) as i64 - 1, c + 2 * kx);
                            if (0..5).contains(&row) && column < 6 {
                                let at = ((sample * 2 + channel) * 5 + row as usize) * 6 + column;
                                sum += f64::from(x.data()[at]).powi(2);
                            }
                        }
                    }
                }
                let index = (o * 3 + ky) * 2 + kx;
                close(found.0[0][index], f64::from(w[index].abs()) * sum.sqrt(), "conv");
            }
        }
    }
    // Rows of inputs, for the plain layer and for the one whose weight is transposed first.
    for (tensor, name, input, width) in [(1, "hidden", "3", 48), (2, "turned", "5", 7)] {
        let (x, w) = (value(input), values(&file, name));
        for (index, w) in w.iter().enumerate() {
            let square = |row: &[f32]| f64::from(row[index % width]).powi(2);
            let norm = x.data().chunks(width).map(square).sum::<f64>().sqrt();
            close(found.0[tensor][index], f64::from(w.abs()) * norm, name);
        }
    }
}

/// In a chain of layers scores are those of the definition up to one factor, and each layer has the same total.
#[test]
fn synflow_is_the_share_of_what_flows() {
    let (a, b, c) = (noise(12, 1), noise(12, 2), noise(6, 3));
    let file = net(
        &[-1, 4],
        &[-1, 2],
        vec![
            raw("a", &[4, 3], &a),
            constant_of("a.b", &[3], 7),
            raw("b", &[3, 4], &b),
            raw("c", &[4, 2], &c[..6].iter().chain(&c[..2]).copied().collect::<Vec<_>>()),
        ],
        vec![
            node("MatMul", "x a", "1"),
            node("Add", "1 a.b", "2"),
            node("Relu", "2", "3"),
            node("MatMul", "3 b", "4"),
            node("Tanh", "4", "5"),
            node("MatMul", "5 c", "6"),
            node("Softmax", "6", "y"),
        ],
    );
    let found = scored(&file, Method::Synflow, None, 1);
    let abs = |name: &str| values(&file, name).iter().map(|w| f64::from(w.abs())).collect::<Vec<f64>>();
    let (a, b, c) = (abs("a"), abs("b"), abs("c"));
    // The sum that enters each value, and the part of it that leaves.
    let first: Vec<f64> = (0..3).map(|j| (0..4).map(|i| a[i * 3 + j]).sum()).collect();
    let second: Vec<f64> = (0..4).map(|j| (0..3).map(|i| first[i] * b[i * 4 + j]).sum()).collect();
    let out: Vec<f64> = (0..4).map(|i| c[i * 2] + c[i * 2 + 1]).collect();
    let middle: Vec<f64> = (0..3).map(|i| (0..4).map(|j| b[i * 4 + j] * out[j]).sum()).collect();
    let expected = [
        (0..12).map(|w| a[w] * middle[w % 3]).collect::<Vec<f64>>(),
        (0..12).map(|w| first[w / 4] * b[w] * out[w % 4]).collect(),
        (0..8).map(|w| second[w / 2] * c[w]).collect(),
    ];
    let factor = f64::from(found.0[0][0]) / expected[0][0];
    for (found, expected) in found.0.iter().zip(&expected) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) / (expected * factor) - 1.0).abs() < 1e-5, "{found}, {}", expected * factor);
        }
    }
    let flows: Vec<f32> = found.0.iter().map(|scores| scores.iter().sum()).collect();
    assert!(flows.iter().all(|flow| (flow / flows[0] - 1.0).abs() < 1e-5), "{flows:?}");
}

/// The reason for SynFlow's steps: no layer is cut through while there is another way to reach the ratio.
#[test]
fn synflow_leaves_a_way_through() {
    let wide = raw("wide", &[8, 64], &noise(512, 4));
    let narrow: Vec<f32> = noise(64, 5).iter().map(|w| w * 1e-3).collect();
    let file = net(
        &[-1, 8],
        &[-1, 1],
        vec![wide, raw("narrow", &[64, 1], &narrow)],
        vec![node("MatMul", "x wide", "1"), node("Relu", "1", "2"), node("MatMul", "2 narrow", "y")],
    );
    let left = |method| {
        let pruned = prune(&file, &Recipe::new(method, Scope::Global, Unit::Weight, 0.95), None).unwrap();
        assert_eq!(pruned.manifest.removed, 547);
        values(&pruned.bytes, "narrow").iter().filter(|w| **w != 0.0).count()
    };
    assert_eq!(left(Method::Magnitude), 0);
    assert!(left(Method::Synflow) > 0);
}

#[test]
fn random_depends_on_the_seed_alone() {
    let file = small();
    let removed = |seed| {
        let recipe = Recipe { seed, ..Recipe::new(Method::Random, Scope::Global, Unit::Weight, 0.5) };
        let pruned = prune(&file, &recipe, None).unwrap();
        assert_eq!((pruned.manifest.seed, pruned.manifest.removed), (seed, 191));
        pruned.bytes
    };
    assert_eq!(removed(1), removed(1));
    assert_ne!(removed(1), removed(2));
}

#[test]
fn samples_that_do_not_do_are_refused() {
    let file = small();
    let recipe = Recipe::new(Method::Taylor, Scope::Global, Unit::Weight, 0.5);
    let refused = |samples: Option<&Samples>| prune(&file, &recipe, samples).unwrap_err().to_string();
    let of = |shape: &[usize]| {
        let len = shape.iter().product();
        Samples { inputs: vec![Tensor::F32(Array::new(shape, noise(len, 1)))], labels: None }
    };
    assert_eq!(refused(None), "the samples do not do: there are none");
    assert_eq!(refused(Some(&of(&[0, 2, 5, 6]))), "the samples do not do: there are none");
    assert_eq!(
        refused(Some(&of(&[4, 2, 5]))),
        "the samples do not do: input `x` takes shape [N, 2, 5, 6], they are of shape [4, 2, 5]"
    );
    assert_eq!(
        refused(Some(&of(&[4, 2, 6, 5]))),
        "the samples do not do: input `x` takes shape [N, 2, 5, 6], they are of shape [4, 2, 6, 5]"
    );
    let ids = Samples { inputs: vec![Tensor::I64(Array::new([4, 2, 5, 6], vec![1; 240]))], labels: None };
    assert_eq!(refused(Some(&ids)), "the samples do not do: input `x` is of type float32, they are integer ones");
    let two = Samples { inputs: [samples(4, false).inputs, samples(4, false).inputs].concat(), labels: None };
    assert_eq!(refused(Some(&two)), "the samples do not do: the model has 1 inputs, the samples 2");
    let short = Samples { labels: Some(vec![0; 3]), ..samples(4, false) };
    assert_eq!(refused(Some(&short)), "the samples do not do: 4 samples have 3 labels");
    let beyond = Samples { labels: Some(vec![0, 1, 3, 0]), ..samples(4, false) };
    assert_eq!(
        refused(Some(&beyond)),
        "the samples do not do: one has class 3, the model tells 3 classes apart (from 0)"
    );
    let mut broken = samples(4, true);
    if let Tensor::F32(array) = &mut broken.inputs[0] {
        array.data_mut()[7] = f32::INFINITY;
    }
    let error = prune(&file, &recipe, Some(&broken)).unwrap_err();
    assert!(matches!(&error, PruneError::NotAScore { tensor, .. } if tensor == "conv"), "{error}");
}

#[test]
fn an_operator_without_a_gradient_is_named_and_magnitude_still_works() {
    let file = net(
        &[-1, 4],
        &[-1, 2],
        vec![constant_of("a", &[4, 4], 1)],
        vec![node("MatMul", "x a", "1"), node("com.example.Fold", "1", "y")],
    );
    let recipe = |method| Recipe::new(method, Scope::Global, Unit::Weight, 0.5);
    let samples = Samples { inputs: vec![Tensor::F32(Array::new([2, 4], noise(8, 1)))], labels: None };
    let error = prune(&file, &recipe(Method::Taylor), Some(&samples)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the engine does not know `com.example.Fold` (node `y`); weight magnitude and random importance work without it"
    );
    assert_eq!(prune(&file, &recipe(Method::Magnitude), None).unwrap().manifest.removed, 8);
    assert_eq!(prune(&file, &recipe(Method::Random), None).unwrap().manifest.removed, 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Every method, scope and unit: as many as requested, and as many zeros in the file.
    #[test]
    fn exactly_as_many_as_requested(
        method in 0..7usize, local: bool, unit in 0..4usize, ratio in 0.0..1.0f64, labelled: bool,
    ) {
        let (file, samples) = (small(), samples(5, labelled));
        let unit: Unit = ["weight", "block-4x1", "block-1x3", "1:2"][unit].parse().unwrap();
        let ratio = if let Unit::NOfM { .. } = unit { 0.5 } else { ratio };
        let scope = if local { Scope::Local } else { Scope::Global };
        let recipe = Recipe { batch: 2, ..Recipe::new(Method::ALL[method], scope, unit, ratio) };
        let pruned = prune(&file, &recipe, Some(&samples)).unwrap();
        let manifest = &pruned.manifest;
        let rounded = |units: u64| (ratio * units as f64).round() as u64;
        if local {
            for tensor in &manifest.tensors {
                prop_assert_eq!(tensor.removed_units, rounded(tensor.units), "{:?}", tensor);
            }
        } else {
            prop_assert_eq!(manifest.removed_units, rounded(manifest.units));
        }
        let weights = ["conv", "hidden", "turned"].iter().flat_map(|name| values(&pruned.bytes, name));
        prop_assert_eq!(weights.filter(|weight| *weight == 0.0).count() as u64, manifest.removed);
        prop_assert_eq!(manifest.calibration.is_some(), Method::ALL[method].needs_samples());
        prop_assert_eq!(prune(&file, &recipe, Some(&samples)).unwrap().bytes, pruned.bytes.clone());
    }
}
