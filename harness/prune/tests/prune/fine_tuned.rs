//! Which constants are fine-tuned; tensors that shrink step by step; statistics estimated again.

use espalier_engine::{Array, Keep, Network, Tensor};
use espalier_prune::{
    Bytes, Method, Recipe, Samples, Scope,
    onnx::{AttributeProto, GraphProto, Model, NodeProto, TensorProto, ValueInfoProto, tensor_shape_proto, type_proto},
    onnx::{TensorShapeProto, TypeProto, attribute_proto::AttributeType, tensor_proto::DataType},
    tune::{Distil, Iterated, Options, Plan, Schedule, TrainableModel, Watch, iterate, recalibrate},
};

use crate::build;

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The first axis is free.
fn port(name: &str, axes: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let open = Dimension { value: Some(Value::DimParam("N".into())), ..Dimension::default() };
    let fixed = axes.iter().map(|len| Dimension { value: Some(Value::DimValue(*len)), ..Dimension::default() });
    let shape = TensorShapeProto { dim: [open].into_iter().chain(fixed).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn model(input: &[i64], weights: Vec<TensorProto>, nodes: Vec<NodeProto>, output: &[i64]) -> Bytes {
    build::model(GraphProto {
        input: vec![port("x", input)],
        output: vec![port("y", output)],
        ..build::graph(weights, nodes)
    })
}

fn samples(shape: &[usize], seed: u32, classes: usize) -> Samples {
    let data = numbers(shape.iter().product(), seed);
    let width = data.len() / shape[0];
    // The class is the argmax of the first few numbers, so that there is something to learn.
    let class = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let labels = data.chunks(width).map(class).collect();
    Samples { inputs: vec![Tensor::F32(Array::new(shape, data))], labels: Some(labels) }
}

fn iterated(model: &Bytes, plan: &Plan, samples: &Samples) -> Iterated {
    let watch = &mut Watch { on_event: &mut |_| (), stop: &|| false };
    iterate(model, plan, samples, None, watch).unwrap()
}

/// Fine-tuned without removing anything.
fn fine_tuned(model: &Bytes, samples: &Samples, options: Options) -> Bytes {
    let plan = Plan { schedule: Schedule::OneShot, options, ..Plan::new(Recipe::magnitude(0.0)) };
    iterated(model, &plan, samples).bytes
}

/// By role: parameters of layers change, other constants of the same shape do not.
#[test]
fn which_constants_move() {
    let weights = vec![
        build::raw("one number", &[1], &[0.7]),
        build::raw("mask", &[1, 4], &[0.0, 0.0, 0.0, -1e9]),
        build::raw("weight", &[4, 6], &numbers(24, 1)),
        build::raw("bias", &[6], &[0.1; 6]),
        build::raw("scale", &[6], &[1.0; 6]),
        build::raw("shift", &[6], &[0.0; 6]),
        build::raw("gain", &[6], &[1.0; 6]),
        build::raw("lowest", &[], &[-3.0]),
        build::raw("turned", &[3, 6], &numbers(18, 2)),
        build::raw("mean", &[3], &[0.0; 3]),
        build::raw("variance", &[3], &[1.0; 3]),
        build::raw("norm scale", &[3], &[1.0; 3]),
        build::raw("norm shift", &[3], &[0.0; 3]),
        build::raw("tied", &[3], &[0.5; 3]),
    ];
    let named = |op: &str, inputs: &[&str], output: &str| NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        ..build::node(op, "", output)
    };
    let constant = build::constant("constant", build::floats("", &[3], &[0.2; 3]));
    let nodes = vec![
        constant,
        named("Mul", &["x", "one number"], "a"),
        named("Add", &["a", "mask"], "b"),
        named("Clip", &["b", "lowest"], "c"),
        named("MatMul", &["c", "weight"], "d"),
        named("Add", &["d", "bias"], "e"),
        named("LayerNormalization", &["e", "scale", "shift"], "f"),
        named("Mul", &["f", "gain"], "g"),
        named("Transpose", &["turned"], "unturned"),
        named("MatMul", &["g", "unturned"], "h"),
        named("BatchNormalization", &["h", "norm scale", "norm shift", "mean", "variance"], "i"),
        named("Add", &["i", "constant"], "j"),
        // A bias in one place, an operand of something else in another.
        named("Add", &["j", "tied"], "k"),
        named("Div", &["k", "tied"], "y"),
    ];
    let dense = model(&[4], weights.clone(), nodes, &[3]);
    // Without validation the last state is kept, better or not.
    let options = Options { epochs: 2, batch: 8, validation: 0.0, ..Options::default() };
    let tuned = fine_tuned(&dense, &samples(&[60, 4], 3, 3), options);
    let names = weights.iter().map(TensorProto::name).chain(["constant"]);
    let moved: Vec<&str> = names.filter(|name| build::values(&dense, name) != build::values(&tuned, name)).collect();
    let expected = ["weight", "bias", "scale", "shift", "gain", "turned", "norm scale", "norm shift", "constant"];
    assert_eq!(moved, expected);
}

const HIDDEN: usize = 16;

fn perceptron() -> Bytes {
    let weights = vec![
        build::raw("w1", &[6, HIDDEN as i64], &numbers(6 * HIDDEN, 1)),
        build::raw("b1", &[HIDDEN as i64], &[0.0; HIDDEN]),
        build::raw("w2", &[HIDDEN as i64, 3], &numbers(HIDDEN * 3, 2)),
        build::raw("b2", &[3], &[0.0; 3]),
    ];
    let nodes = vec![
        build::node("MatMul", "x w1", "a"),
        build::node("Add", "a b1", "b"),
        build::node("Relu", "b", "c"),
        build::node("MatMul", "c w2", "d"),
        build::node("Add", "d b2", "y"),
    ];
    let options = Options { epochs: 20, rate: 1e-2, ..Options::default() };
    let samples = samples(&[300, 6], 3, 3);
    let model = model(&[6], weights, nodes, &[3]);
    fine_tuned(&model, &samples, options)
}

#[test]
fn tensors_shrink_step_by_step() {
    let (dense, samples) = (perceptron(), samples(&[300, 6], 3, 3));
    let labels = samples.labels.clone().unwrap();
    for (soft, scope) in [(false, Scope::Global), (true, Scope::Global), (false, Scope::Local)] {
        let recipe = Recipe::new(Method::Taylor, scope, "neuron".parse().unwrap(), 0.5);
        let options = Options { epochs: 20, rate: 1e-2, ..Options::default() };
        let plan = Plan { soft, options, ..Plan::new(recipe) };
        let made = iterated(&dense, &plan, &samples);
        // 16 (1 - 0.5^(s/3)) = 3.3, 5.9, 8.
        let removed: Vec<u64> = made.stages.iter().map(|stage| stage.removed).collect();
        assert_eq!(removed, if soft { [0, 0, 8] } else { [3, 6, 8] });
        let manifest = made.manifest;
        assert_eq!((manifest.ratio, manifest.units, manifest.removed_units), (0.5, 16, 8));
        assert_eq!((manifest.prunable, manifest.removed), (16 * 9, 8 * 9));
        let macs = manifest.macs.unwrap();
        assert_eq!((macs.dense, macs.pruned, macs.pruned_nonzero), (16 * 9, 8 * 9, 8 * 9), "one sample, all steps");
        let report = manifest.structure.unwrap();
        assert_eq!((report.groups.len(), report.groups[0].units, report.groups[0].removed), (1, 16, 8));
        assert_eq!(report.parameters_left, 8 * 10 + 3);
        assert_eq!(build::values(&made.bytes, "w1").len(), 6 * 8);
        let classes = TrainableModel::new(&made.bytes).unwrap().predict(&samples).unwrap().classes();
        let right = classes.iter().zip(&labels).filter(|(class, label)| class == label).count();
        assert!(right > 255, "{right} of 300, soft {soft}");
    }
}

/// Soft pruning that is stopped between steps has removed its channels all the same.
#[test]
fn stopped_softly() {
    let (dense, samples) = (perceptron(), samples(&[300, 6], 3, 3));
    let recipe = Recipe::new(Method::Magnitude, Scope::Global, "neuron".parse().unwrap(), 0.5);
    let options = Options { epochs: 12, distil: Distil::Free { temperature: 2.0 }, ..Options::default() };
    let plan = Plan { soft: true, options, ..Plan::new(recipe) };
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let made = iterate(&dense, &plan, &samples, None, &mut Watch { on_event: &mut |_| (), stop: &stop }).unwrap();
    assert_eq!((made.stages.len(), made.stages[0].removed, made.manifest.removed_units), (1, 3, 3));
    assert_eq!(build::values(&made.bytes, "w1").len(), 6 * 13);
}

/// Two normalisations in a row: the second must see the outputs of the first with its new statistics.
#[test]
fn statistics_are_those_of_what_arrives() {
    let weights = vec![
        build::raw("s1", &[2], &[1.5, 0.5]),
        build::raw("b1", &[2], &[0.3, -0.2]),
        build::raw("m1", &[2], &[5.0, -5.0]),
        build::raw("v1", &[2], &[9.0, 0.1]),
        build::raw("s2", &[2], &[1.0, 2.0]),
        build::raw("b2", &[2], &[0.0, 0.0]),
        build::raw("m2", &[2], &[7.0, 7.0]),
        build::raw("v2", &[2], &[1.0, 1.0]),
    ];
    let flatten = NodeProto {
        attribute: vec![AttributeProto {
            name: Some("axis".into()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(1),
            ..AttributeProto::default()
        }],
        ..build::node("Flatten", "c", "y")
    };
    let nodes = vec![
        build::node("BatchNormalization", "x s1 b1 m1 v1", "a"),
        build::node("Relu", "a", "b"),
        build::node("BatchNormalization", "b s2 b2 m2 v2", "c"),
        flatten,
    ];
    let dense = model(&[2, 3], weights, nodes, &[6]);
    // More than one batch, the last one smaller.
    let samples = samples(&[75, 2, 3], 5, 2);
    let made = recalibrate(&dense, &samples).unwrap();
    assert_eq!((made.nodes, made.left), (2, vec![]));
    let network = Network::new(&Model::decode(&made.bytes).unwrap()).unwrap();
    let run = network.run(&samples.inputs, Keep::All).unwrap();
    for (value, mean, variance) in [("x", "m1", "v1"), ("b", "m2", "v2")] {
        let values = run.value(network.find(value).unwrap()).unwrap().f32().unwrap();
        for channel in 0..2 {
            let mine = values.data().chunks(3).enumerate().filter(|(row, _)| row % 2 == channel);
            let mine: Vec<f64> = mine.flat_map(|(_, row)| row).map(|value| f64::from(*value)).collect();
            let expected = mine.iter().sum::<f64>() / mine.len() as f64;
            let spread = mine.iter().map(|value| (value - expected).powi(2)).sum::<f64>() / mine.len() as f64;
            let found = (build::values(&made.bytes, mean)[channel], build::values(&made.bytes, variance)[channel]);
            assert!((f64::from(found.0) - expected).abs() < 1e-6, "{mean}: {found:?}, not {expected}");
            assert!((f64::from(found.1) - spread).abs() < 1e-6, "{variance}: {found:?}, not {spread}");
        }
    }
    // Nothing else changed, and a model without normalisations is the same to the byte.
    assert_eq!(build::values(&made.bytes, "s1"), [1.5, 0.5]);
    let other = perceptron();
    assert_eq!(recalibrate(&other, &self::samples(&[20, 6], 3, 3)).unwrap().bytes, other);
}
