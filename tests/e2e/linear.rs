//! Transformers by the runner's own kernels and by plain tract: from both exporters, pruned in blocks, and with zero
//! activations skipped.

use std::{fs, path::Path, process::Command};

use espalier_bench::summary::summarise;
use espalier_fixtures::{Values, inputs};
use espalier_onnx::Model;
use espalier_protocol::{
    Engine, Job, Line, Mode,
    tensor::{self, DType, Tensor, TensorHeader},
};
use espalier_tests::{Shelf, cache};

/// Outputs of all samples, and `op: kernel` of each layer with a kernel of the runner's.
pub struct Scores {
    pub values: Vec<f32>,
    pub kernels: Vec<String>,
}

#[track_caller]
pub fn score(runner: &str, job: Job) -> Scores {
    let output = Command::new(runner).args(job.to_args()).output().unwrap();
    let mut scores = Scores { values: Vec::new(), kernels: Vec::new() };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match serde_json::from_str(line).unwrap() {
            Line::Predictions(line) => scores.values.extend(line.values.into_iter().flatten()),
            Line::Kernels { layers } => {
                scores.kernels.extend(layers.into_iter().map(|layer| format!("{}: {}", layer.op, layer.kernel)));
            }
            Line::Failed { message, .. } => panic!("{}: {message}", job.model),
            _ => {}
        }
    }
    assert!(!scores.values.is_empty(), "{} gave no values", job.model);
    scores
}

#[track_caller]
pub fn check_close(what: &str, ours: &[f32], tracts: &[f32]) {
    assert_eq!(ours.len(), tracts.len(), "{what}");
    let largest = tracts.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let away = ours.iter().zip(tracts).fold(0.0f32, |away, (a, b)| away.max((a - b).abs()));
    println!("{what}: {away:e} away, of {largest}");
    assert!(away <= 1e-4 * largest && largest > 0.0, "{what}: {away} away, of {largest}");
}

pub fn runner(shelf: &Shelf) -> String {
    let built = shelf.run(&["build"]).expect(0);
    built.stdout.trim().strip_prefix("host: ").and_then(|rest| rest.split(" (").next()).unwrap().to_owned()
}

pub fn job(shelf: &Shelf, model: &str, inputs: &str) -> Job {
    let cache = shelf.path("choices").to_str().unwrap().to_owned();
    Job { inputs: Some(inputs.to_owned()), cache: Some(cache), ..Job::new(Mode::Score, model) }
}

/// Writes a file of so many synthetic samples for a model; returns its path.
pub fn synthetic_inputs(shelf: &Shelf, name: &str, model: &Path, samples: usize) -> String {
    let bytes = fs::read(model).unwrap();
    let model = Model::decode(&bytes.into()).unwrap();
    let tensors: Vec<Tensor> = inputs(&model, samples)
        .into_iter()
        .map(|input| {
            let shape = input.shape.iter().map(|axis| *axis as u64).collect();
            let (dtype, bytes): (DType, Vec<u8>) = match input.values {
                Values::Floats(values) => (DType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
                Values::Ints(values) => (DType::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            };
            Tensor { header: TensorHeader { name: input.name, dtype, shape }, bytes }
        })
        .collect();
    let inputs = shelf.write(&format!("{name}.tensors"), tensor::encode(&tensors));
    shelf.path(&inputs).to_str().unwrap().to_owned()
}

#[test]
fn transformers_of_every_exporter_agree_with_plain_tract() {
    let shelf = Shelf::new("transformers_of_every_exporter_agree_with_plain_tract");
    let runner = runner(&shelf);
    for name in [
        "bert-dynamo",
        "bert-script",
        "bert-classifier-dynamo",
        "bert-classifier-script",
        "transformer-dynamo",
        "transformer-script",
    ] {
        let path = espalier_fixtures::write(name, &shelf.path("fixtures"));
        let inputs = synthetic_inputs(&shelf, name, &path, 3);
        let job = job(&shelf, path.to_str().unwrap(), &inputs);
        let tracts = score(&runner, Job { engine: Engine::Tract, ..job.clone() });
        let ours = score(&runner, job.clone());
        check_close(name, &ours.values, &tracts.values);
        assert!(ours.kernels.iter().any(|kernel| kernel.starts_with("linear ")), "{name}: {:?}", ours.kernels);
        check_close(&format!("{name}, two threads"), &score(&runner, Job { threads: 2, ..job }).values, &tracts.values);
    }
}

#[test]
fn a_transformer_pruned_in_blocks_agrees_with_plain_tract() {
    let shelf = Shelf::new("a_transformer_pruned_in_blocks_agrees_with_plain_tract");
    shelf.model("word-language");
    let runner = runner(&shelf);
    let skipping = ["--engine", "espalier,skipping", "--skip-below", "0"];
    let outcome = shelf.bench(&[&["--model", "word-language", "--ratios", "0"], &skipping[..]].concat()).expect(0);
    outcome.prints(&["skipping leaves out activations up to 0", "vs espalier dense", "same as espalier"]);
    let run = shelf.newest_run();
    let summaries = summarise(&run);
    let [espalier, skipping] = &summaries[..] else { panic!("{summaries:?}") };
    assert!(skipping.p50.is_some() && skipping.accuracy == espalier.accuracy, "{summaries:?}");
    assert!(skipping.same_as_espalier.unwrap().is_same(), "{summaries:?}");
    let inputs = run.header.models[0].inputs.clone().expect("word-language has an eval set");
    let inputs = cache().root.join("blobs").join(inputs).to_str().unwrap().to_owned();
    for unit in ["weight", "block-4x1", "block-8x1", "block-16x1"] {
        let file = format!("{unit}.onnx");
        shelf.run(&["prune", "word-language", "--ratio", "0.9", "--unit", unit, "-o", &file]).expect(0);
        let job = job(&shelf, shelf.path(&file).to_str().unwrap(), &inputs);
        let tracts = score(&runner, Job { engine: Engine::Tract, ..job.clone() });
        let ours = score(&runner, job.clone());
        check_close(unit, &ours.values, &tracts.values);
        // Leaving out activations that a ReLU set to zero changes nothing.
        let skipping = score(&runner, Job { skip_below: Some(0.0), ..job });
        check_close(&format!("{unit}, skipping"), &skipping.values, &tracts.values);
    }
}
