//! Structured pruning against onnxruntime: the pruned model computes what the dense model computes with all removed
//! units set to zero.

use std::{fs, path::Path, process::Command};

use espalier_prune::{
    Bytes, Method, Recipe, Scope, Structure, Unit,
    onnx::Model,
    structure::{self, Options},
};
use espalier_tests::{python, shipped};

const FIXTURES: [&str; 14] = [
    "resnet50",
    "mobilenetv2",
    "bert",
    "bilstm",
    "bilstm-static",
    "gru",
    "residual",
    "residual-bn",
    "mobile",
    "mobile-bn",
    "se",
    "densenet",
    "shufflenet",
    "transformer",
];

/// Sums of other lengths are rounded differently; a wrong computation is off by hundreds of times as much.
const TOLERANCE: f64 = 1e-5;

#[test]
fn pruned_models_compute_what_masked_ones_do() {
    let Some(python) = python("pruned_models_compute_what_masked_ones_do") else { return };
    for name in FIXTURES.iter().flat_map(|net| [format!("{net}-script"), format!("{net}-dynamo")]) {
        let half = Recipe::new(Method::Magnitude, Scope::Local, Unit::Structure(Structure::Any), 0.5);
        compare(&python, &name, &half, &Options::default());
    }
}

#[test]
fn whole_branches_can_be_left_out() {
    let Some(python) = python("whole_branches_can_be_left_out") else { return };
    for name in ["residual-script", "se-dynamo", "mobile-bn-script", "transformer-dynamo", "bert-script"] {
        let half = Recipe::new(Method::Magnitude, Scope::Global, Unit::Structure(Structure::Layer), 0.5);
        compare(&python, name, &half, &Options::default());
    }
}

#[test]
fn counts_can_be_rounded_and_scope_can_be_global() {
    let Some(python) = python("counts_can_be_rounded_and_scope_can_be_global") else { return };
    for name in ["residual-bn-dynamo", "densenet-script", "shufflenet-dynamo", "mobile-script", "bilstm-dynamo"] {
        let most = Recipe::new(Method::Random, Scope::Global, Unit::Structure(Structure::Any), 0.7);
        compare(&python, name, &most, &Options { round_to: 4, keep_at_least: 0.1, ..Options::default() });
    }
}

#[track_caller]
fn compare(python: &Path, name: &str, recipe: &Recipe, options: &Options) {
    let dense = espalier_fixtures::fixture(name);
    let pruned = structure::prune(&dense, recipe, None, options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut plan = structure::plan(Model::decode(&dense).unwrap(), recipe, None, options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, bytes: &Bytes| {
        let path = folder.path().join(file);
        fs::write(&path, bytes).unwrap();
        path
    };
    let masked = write("masked.onnx", &plan.masked().unwrap());
    let small = write("pruned.onnx", &pruned.bytes);
    let whole = write("dense.onnx", &dense);
    let mut command = Command::new(python);
    let output = command.arg(shipped("tests/oracle/same.py")).args([&masked, &small, &whole]).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let difference = |path: &Path| report[path.to_str().unwrap()]["difference"].as_f64().unwrap();
    let structure = pruned.manifest.structure.as_ref().unwrap();
    println!(
        "{name}: {} of {} units, {} -> {} parameters, {:e} off",
        pruned.manifest.removed_units,
        pruned.manifest.units,
        structure.parameters,
        structure.parameters_left,
        difference(&small)
    );
    assert!(difference(&small) <= TOLERANCE, "{name}: {report}");
    // The test can fail: the dense model computes something else, and is larger.
    assert!(difference(&whole) > 1e-3, "{name}: {report}");
    assert!(pruned.bytes.len() < dense.len() && structure.parameters_left < structure.parameters, "{name}");
}
