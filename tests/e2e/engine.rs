//! Our own engine against onnxruntime: the same outputs for every fixture.

use std::{fs, process::Command};

use espalier_engine::{Array, Keep, Network, Tensor};
use espalier_onnx::Model;
use espalier_samples::npz;
use espalier_tests::{python, shipped};

/// Relative to the largest output. Sums are added in another order; a wrong computation is off by far more.
const TOLERANCE: f32 = 1e-5;

#[test]
fn the_engine_computes_what_onnxruntime_does() {
    let Some(python) = python("the_engine_computes_what_onnxruntime_does") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for name in espalier_fixtures::names() {
        let model = Model::decode(&espalier_fixtures::fixture(&name)).unwrap();
        // The engine is given no weights beside the model here, and a value rounded to 8 bits may fall on either side
        // of a half.
        if espalier_fixtures::external_data(&name).is_some() || name.ends_with("-qdq") || name.ends_with("-int8") {
            continue;
        }
        let network = match Network::new(&model) {
            Ok(network) => network,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let (path, values) = (espalier_fixtures::write(&name, folder.path()), folder.path().join("values.npz"));
        let mut command = Command::new(&python);
        let output = command.arg(shipped("tests/oracle/values.py")).arg(path).arg(&values).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let arrays = npz::read(&fs::read(&values).unwrap()).unwrap();
        let named = |prefix: &str, index: usize| arrays.iter().find(|array| array.name == format!("{prefix}{index}"));
        let feeds: Vec<Tensor> = (0..network.inputs.len()).map(|index| tensor(named("in", index).unwrap())).collect();
        let run = match network.run(&feeds, Keep::Outputs) {
            Ok(run) => run,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (index, output) in network.outputs.iter().enumerate() {
            let expected = tensor(named("out", index).unwrap());
            let (found, expected) = (run.value(*output).unwrap().f32().unwrap(), expected.f32().unwrap());
            assert_eq!(found.shape(), expected.shape(), "{name}");
            let largest = expected.data().iter().fold(0f32, |most, value| most.max(value.abs()));
            let pairs = found.data().iter().zip(expected.data());
            // A NaN is not a small difference.
            let difference =
                pairs.map(|(a, b)| (a - b).abs()).fold(0f32, |most, d| if d <= most { most } else { d }) / largest;
            println!("{name}: {difference:e} off");
            if difference.is_nan() || difference > TOLERANCE {
                wrong.push(format!("{name}: {difference:e} off"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn tensor(array: &npz::Array) -> Tensor {
    let shape: Vec<usize> = array.shape.iter().map(|length| *length as usize).collect();
    match array.dtype.to_string().as_str() {
        "float32" => {
            Tensor::F32(Array::new(shape, array.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
        }
        "int64" => {
            Tensor::I64(Array::new(shape, array.bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()))
        }
        other => panic!("`{}` is of type {other}", array.name),
    }
}
