//! Generated networks: the outputs of onnxruntime and of the runner, and the commands that take them by name.

use std::{fs, process::Command};

use espalier_bench::summary::summarise;
use espalier_engine::{Array, Keep, Network, Tensor};
use espalier_onnx::Model;
use espalier_protocol::Mode;
use espalier_samples::npz;
use espalier_tests::{Shelf, python, shipped};
use espalier_zoo::{Net, Values};

/// Relative to the largest output: fifty layers of sums that are added in another order.
const TOLERANCE: f32 = 1e-4;

/// The large networks and BERT take gigabytes and minutes; they are built from the same parts.
const TRIED: [Net; 4] = [Net::Resnet50, Net::Mobilenetv2, Net::Lstm, Net::DsCnn];

#[track_caller]
fn built(shelf: &Shelf, net: Net) -> Network {
    let file = format!("{}.onnx", net.name());
    shelf.run(&["model", "build", net.name(), "--quiet"]).expect(0).prints(&["its weights are random", net.sha256()]);
    let bytes = fs::read(shelf.path(&file)).unwrap();
    assert_eq!(espalier_fleet::blob::sha256_hex(&bytes), net.sha256(), "{file}");
    Network::new(&Model::decode(&bytes.into()).unwrap()).unwrap()
}

#[track_caller]
fn check_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    // A NaN is not a small difference.
    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, |most, off| if off <= most { most } else { off }) / largest;
    println!("{what}: {off:e} off");
    assert!(off < TOLERANCE, "{what}: {off:e} off");
}

#[test]
fn onnxruntime_computes_what_the_engine_does() {
    let name = "onnxruntime_computes_what_the_engine_does";
    let Some(python) = python(name) else { return };
    let shelf = Shelf::new(name);
    for net in TRIED {
        let network = built(&shelf, net);
        let (model, values) = (shelf.path(&format!("{}.onnx", net.name())), shelf.path("values.npz"));
        let oracle = shipped("tests/oracle/values.py");
        let output = Command::new(&python).arg(oracle).arg(model).arg(&values).output().unwrap();
        assert!(output.status.success(), "{}: {}", net.name(), String::from_utf8_lossy(&output.stderr));
        let arrays = npz::read(&fs::read(&values).unwrap()).unwrap();
        let floats = |name: &str| {
            let array = arrays.iter().find(|array| array.name == name).unwrap();
            let values = array.bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            Array::<f32>::new(array.shape.iter().map(|axis| *axis as usize).collect::<Vec<_>>(), values)
        };
        let run = network.run(&[Tensor::F32(floats("in0"))], Keep::Outputs).unwrap();
        let found = run.value(network.outputs[0]).unwrap().f32().unwrap();
        check_close(net.name(), found.data(), floats("out0").data());
    }
}

/// By the names in `models/`, on synthetic samples; no accuracy is claimed.
#[test]
fn they_are_measured_by_name_and_only_then() {
    let name = "they_are_measured_by_name_and_only_then";
    let shelf = Shelf::new(name);
    let nets = [Net::DsCnn, Net::Mobilenetv2];
    for net in nets {
        let file = format!("models/{}.toml", net.name());
        shelf.write(&file, fs::read_to_string(shipped(&file)).unwrap());
    }
    shelf.run(&["check"]).expect(0).prints(&["only when they are named (`in-all = false`): ds-cnn, mobilenetv2"]);
    shelf.bench(&["--ratios", "0"]).expect(0);
    let asked: Vec<String> = shelf.newest_run().header.models.iter().map(|model| model.name.clone()).collect();
    assert_eq!(asked, ["digits-cnn"]);

    for net in nets {
        let outcome = shelf.bench(&["--model", net.name(), "--ratios", "0.5"]).expect(0);
        outcome.prints(&["random weights, synthetic samples", "same class"]);
        assert!(!outcome.stdout.contains("accuracy"), "{}", outcome.all());
        let run = shelf.newest_run();
        for summary in &summarise(&run) {
            assert!(summary.accuracy.is_none() && summary.p50.is_some() && summary.failures.is_empty(), "{summary:?}");
            assert_eq!(
                summary.same_as_dense.map(|same| same.total),
                (!summary.is_dense()).then_some(16),
                "{summary:?}"
            );
        }
        // The runner's answers are the engine's, sample by sample.
        let network = built(&shelf, net);
        let scored = run.records.iter().find(|record| record.mode == Mode::Score && record.case.ratio == 0.0).unwrap();
        let (_, said) = run.measured(&scored.case, Mode::Score).next().expect("it was measured");
        let values = &said.predictions.as_ref().expect("a score has predictions").values;
        let sampled = net.samples(16).remove(0);
        let Values::Floats(samples) = &sampled.values else { panic!("{sampled:?}") };
        let dims = [&[1], &sampled.dims[1..]].concat();
        for (sample, values) in samples.chunks(dims.iter().product()).zip(values).take(3) {
            let feed = Tensor::F32(Array::new(dims.clone(), sample.to_vec()));
            let run = network.run(&[feed], Keep::Outputs).unwrap();
            check_close(net.name(), values, run.value(network.outputs[0]).unwrap().f32().unwrap().data());
        }
    }
    let resumed = shelf.run(&["bench", "--resume"]).expect(0);
    assert!(!resumed.stderr.contains("cannot be resumed"), "{}", resumed.all());
}

#[test]
fn commands_take_them_by_name() {
    let shelf = Shelf::new("commands_take_them_by_name");
    shelf.write("models/ds-cnn.toml", fs::read_to_string(shipped("models/ds-cnn.toml")).unwrap());
    shelf.run(&["inspect", "ds-cnn"]).expect(0).prints(&["2656768 multiply-accumulates a sample"]);
    let pruned = shelf.run(&["prune", "ds-cnn", "--ratio", "0.9", "-o", "pruned.onnx"]).expect(0);
    pruned.prints(&["pruned by magnitude, local, block-4x1"]);
    shelf.run(&["pack", "ds-cnn", "-o", "dense.pack", "--quiet"]).expect(0);
    shelf.run(&["unpack", "dense.pack", "-o", "unpacked.onnx"]).expect(0);
    shelf.run(&["model", "build", "ds-cnn"]).expect(0);
    assert!(fs::read(shelf.path("ds-cnn.onnx")).unwrap() == fs::read(shelf.path("unpacked.onnx")).unwrap());

    let refused = |args: &[&str], expected: &str| shelf.run(args).expect(2).says(&[expected]);
    refused(&["model", "build", "ds-cnn"], "error: `ds-cnn.onnx` exists; `--force` overwrites it");
    refused(&["model", "build", "resnet5"], "a similar value exists: 'resnet50'");
    refused(&["model", "build", "ds-cnn", "-o", "models"], "error: `models` is a folder");
    refused(&["inspect", "ds-cnm"], "did you mean `ds-cnn`?");
    shelf.run(&["model", "build", "ds-cnn", "--force"]).expect(0);
    shelf.run(&["model", "build", "ds-cnn", "-o", "absent/x.onnx"]).expect(1).says(&["cannot write `absent/x.onnx`"]);
    assert!(!shelf.path("ds-cnn.onnx.part").exists());
}
