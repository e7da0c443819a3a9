//! Networks here are those that PyTorch exports, their bytes never change, and their predictions are worth comparing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use espalier_engine::{Array, Keep, Network, Tensor as EngineTensor};
use espalier_fixtures::{fixture, inputs};
use espalier_onnx::{Bytes, GraphProto, Model, TensorProto};
use espalier_prune::{Recipe, Samples};
use sha2::{Digest, Sha256};

use crate::{Blueprint, Net, Values, bert, keywords, lstm};

fn file(blueprint: &Blueprint) -> Bytes {
    let mut bytes = Vec::new();
    blueprint.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, blueprint.bytes());
    bytes.into()
}

/// What two files of one network have in common, whatever its names.
#[derive(Debug, PartialEq)]
struct Kinship {
    /// Of all float tensors but scalars: how many there are of each shape.
    shapes: BTreeMap<Vec<i64>, usize>,
    nodes: BTreeMap<String, usize>,
    macs: u64,
    prunable: u64,
    inputs: String,
}

/// Nodes that compute. Shapes, masks and scales are computed differently by each version of the exporter.
const WORK: [&str; 12] = [
    "Clip",
    "Conv",
    "Erf",
    "Gemm",
    "GlobalAveragePool",
    "LSTM",
    "LayerNormalization",
    "MatMul",
    "MaxPool",
    "Relu",
    "Softmax",
    "Tanh",
];

fn kinship(bytes: &Bytes) -> Kinship {
    let model = Model::decode(bytes).unwrap();
    let inspection = espalier_prune::inspect(bytes).unwrap();
    let mut shapes = BTreeMap::new();
    let is_float = |tensor: &&TensorProto| tensor.data_type() == 1 && !tensor.dims.is_empty();
    for tensor in constants(model.graph()).filter(is_float) {
        *shapes.entry(tensor.dims.clone()).or_default() += 1;
    }
    let mut nodes = BTreeMap::new();
    for node in model.graph().node.iter().filter(|node| WORK.contains(&node.op_type())) {
        *nodes.entry(node.op_type().to_owned()).or_default() += 1;
    }
    // With a sample, because not every file gives its shapes without a run.
    let inputs = inputs(&model, 1).into_iter().map(|input| match input.values {
        espalier_fixtures::Values::Floats(values) => EngineTensor::F32(Array::new(input.shape, values)),
        espalier_fixtures::Values::Ints(values) => EngineTensor::I64(Array::new(input.shape, values)),
    });
    let samples = Samples { inputs: inputs.collect(), labels: None };
    let unchanged = espalier_prune::prune(bytes, &Recipe::magnitude(0.0), Some(&samples)).unwrap();
    let macs = unchanged.manifest.macs.expect("a run tells shapes").dense;
    let axes =
        inspection.inputs.iter().map(|port| format!("{} {:?}", port.dtype, port.axes.as_ref().map(|axes| &axes[1..])));
    Kinship { shapes, nodes, macs, prunable: inspection.prunable, inputs: axes.collect::<Vec<_>>().join("; ") }
}

fn constants(graph: &GraphProto) -> impl Iterator<Item = &TensorProto> {
    let of_nodes =
        graph.node.iter().flat_map(|node| node.attribute.iter().filter_map(|attribute| attribute.t.as_ref()));
    graph.initializer.iter().chain(of_nodes)
}

/// The nets as PyTorch's exporter writes them; BERT as the transformers package has it.
#[test]
fn they_are_what_pytorch_exports() {
    let about = || "test".to_owned();
    let tiny = bert::Size {
        vocabulary: 120,
        longest: 32,
        tokens: 16,
        layers: 2,
        width: 64,
        heads: 4,
        inner: 128,
        classes: 20,
    };
    let small = lstm::Size { steps: 9, inputs: 24, hidden: 32, layers: 2, classes: 35 };
    for (name, blueprint) in [
        ("resnet50-script", Net::Resnet50.blueprint()),
        ("mobilenetv2-script", Net::Mobilenetv2.blueprint()),
        ("bert-classifier-script", bert::bert("tiny", tiny, about())),
        ("lstm-script", lstm::lstm("small", small, about())),
        ("ds-cnn-script", keywords::ds_cnn(about())),
    ] {
        assert_eq!(kinship(&file(&blueprint)), kinship(&fixture(name)), "{name}");
    }
}

/// The published counts, less what folding removes: a normalisation's two numbers a channel become one.
#[test]
fn parameters_and_multiplications() {
    for (net, parameters, macs) in [
        (Net::Resnet50, 25_557_032 - 26_560, 4_089_184_256u64),
        (Net::Mobilenetv2, 3_504_872 - 17_056, 300_774_272),
        (
            Net::BertBase,
            109_482_240 + 768 * 20 + 20,
            12 * 128 * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 768 + 768 * 20,
        ),
        (Net::Lstm, 2 * (2048 * 1024 + 4096) + 512 * 35 + 35, 100 * 2 * 2048 * 1024 + 512 * 35),
        (Net::DsCnn, 22_604, 2_656_768),
    ] {
        let blueprint = net.blueprint();
        assert_eq!(blueprint.parameters(), parameters, "{}", net.name());
        let inspection = espalier_prune::inspect(&file(&blueprint)).unwrap();
        let counted: u64 = inspection.macs.expect("the file tells shapes").iter().map(|(all, _)| all).sum();
        assert_eq!(counted, macs, "{}", net.name());
    }
    assert_eq!(Net::BertLarge.blueprint().parameters(), 335_141_888 + 1024 * 20 + 20);
}

#[test]
fn files_are_as_googles_encoder_writes_them() {
    for net in [Net::Mobilenetv2, Net::Lstm, Net::DsCnn] {
        let bytes = file(&net.blueprint());
        assert!(Model::decode(&bytes).unwrap().encode() == bytes, "{}", net.name());
    }
}

/// Hashes what is written, and keeps nothing.
struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// If a network was changed on purpose, its new SHA-256 goes to [`Net::sha256`].
#[test]
fn bytes_are_the_same_on_every_machine() {
    let mut other = Vec::new();
    for net in Net::ALL {
        let mut hashed = Hashed(Sha256::new());
        net.blueprint().write(&mut hashed).unwrap();
        let sha256: String = hashed.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if sha256 != net.sha256() {
            other.push(format!("Net::{net:?} => \"{sha256}\","));
        }
    }
    assert!(other.is_empty(), "{other:#?}");
}

/// Different classes for different inputs, nothing infinite, and no value beyond what f32 computes exactly enough.
#[test]
fn answers_differ_and_stay_sane() {
    for (net, samples, classes) in
        [(Net::Resnet50, 4, 3), (Net::Mobilenetv2, 8, 5), (Net::BertBase, 2, 2), (Net::Lstm, 8, 5), (Net::DsCnn, 16, 4)]
    {
        let network = Network::new(&Model::decode(&file(&net.blueprint())).unwrap()).unwrap();
        let sampled = net.samples(samples);
        let mut answers = BTreeSet::new();
        for sample in 0..samples {
            let feeds: Vec<EngineTensor> = sampled.iter().map(|input| one(input, sample)).collect();
            let mut largest = 0f32;
            let run = network
                .run_observed(&feeds, Keep::Outputs, &mut |_, _, outputs| {
                    for tensor in outputs.iter().filter_map(|tensor| tensor.f32().ok()) {
                        let most = tensor.data().iter().fold(0f32, |most, value| most.max(value.abs()));
                        // The mask is the lowest of all floats.
                        largest = if most < 1e30 { largest.max(most) } else { largest };
                        assert!(tensor.data().iter().all(|value| value.is_finite()), "{}", net.name());
                    }
                })
                .unwrap();
            assert!(largest < 1000.0, "{}: a value of {largest}", net.name());
            let logits = run.value(network.outputs[0]).unwrap().f32().unwrap();
            let best = logits.data().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            println!(
                "{} {sample}: class {best}, logits up to {:.2}, values up to {largest:.1}",
                net.name(),
                logits.data()[best]
            );
            answers.insert(best);
        }
        assert!(answers.len() >= classes, "{}: only {answers:?}", net.name());
    }
}

fn one(sampled: &crate::Sampled, sample: usize) -> EngineTensor {
    let dims = [&[1], &sampled.dims[1..]].concat();
    let count: usize = dims.iter().product();
    let span = sample * count..(sample + 1) * count;
    match &sampled.values {
        Values::Floats(values) => EngineTensor::F32(Array::new(dims, values[span].to_vec())),
        Values::Ints(values) => EngineTensor::I64(Array::new(dims, values[span].to_vec())),
    }
}

#[test]
fn sequences_are_ones_a_tokeniser_could_have_made() {
    let samples = Net::BertBase.samples(16);
    let [ids, mask, kinds] = samples.as_slice() else { panic!("{samples:?}") };
    let rows = |sampled: &crate::Sampled| match &sampled.values {
        Values::Ints(values) => values.chunks(128).map(<[i64]>::to_vec).collect::<Vec<_>>(),
        Values::Floats(_) => panic!("tokens are whole numbers"),
    };
    let mut lengths = BTreeSet::new();
    for ((ids, mask), kinds) in rows(ids).iter().zip(rows(mask)).zip(rows(kinds)) {
        let length = mask.iter().sum::<i64>() as usize;
        assert!((96..=128).contains(&length) && mask[..length].iter().all(|value| *value == 1));
        assert_eq!(
            (ids[0], ids[length - 1], ids[1..length - 1].iter().filter(|id| **id == 102).count()),
            (101, 102, 1)
        );
        assert!(ids[length..].iter().all(|id| *id == 0) && ids.iter().all(|id| (0..30_522).contains(id)));
        assert!(kinds.is_sorted() || length < 128 && kinds[length..].iter().all(|kind| *kind == 0));
        assert!(kinds.contains(&1) && kinds.contains(&0));
        lengths.insert(length);
    }
    assert!(lengths.len() > 8, "{lengths:?}");
}
