//! Every operator of the engine against onnxruntime, over random shapes and attributes. The engine's own tests compare
//! gradients with differences of its forward pass; they do not notice a forward pass that departs from ONNX. This test
//! does.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use espalier_engine::{Keep, Network, Tensor};
use espalier_fixtures::cases::{self, Case};
use espalier_onnx::{Bytes, Model, TensorProto};
use espalier_tests::{python, shipped};
use prost::Message;

/// Relative to the largest value of a tensor.
const TOLERANCE: f32 = 1e-5;

#[test]
fn operators_mean_what_they_mean_in_onnxruntime() {
    let name = "operators_mean_what_they_mean_in_onnxruntime";
    let Some(python) = python(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = cases::all();
    for (index, case) in cases.iter().enumerate() {
        let stem = folder.path().join(format!("{index:05}"));
        fs::write(stem.with_extension("onnx"), case.model().encode_to_vec()).unwrap();
        fs::write(stem.with_extension("in.0"), case.fed().encode_to_vec()).unwrap();
    }
    let output = Command::new(python).arg(shipped("tests/oracle/ops.py")).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut tally: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let stem = folder.path().join(format!("{index:05}"));
        let [compared, refused] = tally.entry(&case.op).or_default();
        if let Ok(why) = fs::read_to_string(stem.with_extension("refused")) {
            *refused += 1;
            if std::env::var_os("ESPALIER_SHOW_REFUSED").is_some() {
                println!("{case}: onnxruntime refuses: {}", why.lines().next().unwrap_or(""));
            }
            continue;
        }
        *compared += 1;
        if let Err(why) = compare(case, &stem) {
            wrong.push(format!("{case}: {why}"));
        }
    }
    println!("{} cases", cases.len());
    for (op, [compared, refused]) in &tally {
        println!("{op}: {compared} compared, {refused} refused by onnxruntime");
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let never: Vec<_> = tally.iter().filter(|(_, [compared, _])| *compared == 0).map(|(op, _)| *op).collect();
    assert!(never.is_empty(), "onnxruntime refused every case of {never:?}: the cases are wrong");
}

fn compare(case: &Case, stem: &Path) -> Result<(), String> {
    let bytes = Bytes::from(case.model().encode_to_vec());
    let model = Model::decode(&bytes).map_err(|error| error.to_string())?;
    let network = Network::new(&model).map_err(|error| error.to_string())?;
    let fed = Tensor::of("fed", case.fed()).unwrap();
    let run = network.run(&[fed], Keep::Outputs).map_err(|error| error.to_string())?;
    for (index, output) in network.outputs.iter().enumerate() {
        let bytes = fs::read(stem.with_extension(format!("out.{index}"))).map_err(|error| error.to_string())?;
        let expected = TensorProto::decode(&*bytes).map_err(|error| error.to_string())?;
        let expected = Tensor::of("expected", &expected).map_err(|error| error.to_string())?;
        let value = run.value(*output).ok_or("there is no output")?;
        alike(value, &expected).map_err(|why| format!("output {index}: {why}"))?;
    }
    Ok(())
}

fn alike(value: &Tensor, expected: &Tensor) -> Result<(), String> {
    if value.shape() != expected.shape() {
        return Err(format!("shape {:?}, {:?} is expected", value.shape(), expected.shape()));
    }
    match (value, expected) {
        (Tensor::F32(value), Tensor::F32(expected)) => {
            let finite = expected.data().iter().filter(|value| value.is_finite());
            let scale = finite.fold(1e-3f32, |most, value| most.max(value.abs()));
            let close = |value: f32, expected: f32| {
                value == expected
                    || value.is_nan() && expected.is_nan()
                    || (value - expected).abs() <= TOLERANCE * scale
            };
            let mut pairs = value.data().iter().zip(expected.data());
            match pairs.position(|(value, expected)| !close(*value, *expected)) {
                None => Ok(()),
                Some(at) => Err(format!("element {at} is {}, {} is expected", value.data()[at], expected.data()[at])),
            }
        }
        (value, expected) if value == expected => Ok(()),
        (value, expected) => Err(format!("{value:?}, {expected:?} is expected")),
    }
}
