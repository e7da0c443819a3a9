//! Engines compared: the runner, plain tract and onnxruntime on the same files and inputs, by the same protocol.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use espalier_bench::{
    engine::Engine,
    record::{Case, Run},
    summary::{CaseSummary, summarise},
};
use espalier_protocol::{
    Job, Line, Mode, Predictions,
    tensor::{self, DType, Tensor, TensorHeader},
};
use espalier_tests::{Shelf, python, shipped};

const SAMPLES: u64 = 497;

const PROGRAM: &str = "harness/peers/onnxruntime_peer.py";

#[test]
fn three_engines_agree_in_one_table() {
    let name = "three_engines_agree_in_one_table";
    if python(name).is_none() {
        return;
    }
    let shelf = Shelf::new(name);
    let args = ["--model", "digits-cnn", "--ratios", "0,0.9", "--engine", "tract,espalier,onnxruntime"];
    let outcome = shelf.bench(&[&args[..], &["--export-json", "out.json", "--profile"]].concat()).expect(0);
    outcome.prints(&["vs onnxruntime dense", "Layers of digits-cnn@0.9 on local by espalier"]);
    let run = shelf.newest_run();
    assert_eq!(run.header.engines, [Engine::Tract, Engine::Espalier, Engine::Onnxruntime]);
    assert_eq!(run.tally().missing, 0);
    assert!(run.header.peers[0].versions.starts_with("onnxruntime 1."), "{:?}", run.header.peers);

    let summaries = summarise(&run);
    assert_eq!(summaries.len(), 6);
    for case in &summaries {
        assert_eq!(case.failures, [], "{:?}", case.case);
        assert!(case.p50.is_some() && case.peak_rss.is_some(), "{:?}", case.case);
        assert_eq!(case.accuracy.map(|accuracy| accuracy.total), Some(SAMPLES));
        let begins = if case.case.engine == Engine::Tract { "tract 0." } else { case.case.engine.name() };
        assert!(case.engine_version.as_deref().unwrap().starts_with(begins), "{:?}", case.engine_version);
        let Some(same) = case.same_as_espalier else { continue };
        assert_eq!((same.equal, same.total), (SAMPLES, SAMPLES), "{:?}", case.case);
        let difference = same.largest_difference.expect("logits were sent");
        println!("{}: largest difference of a logit {difference:e}", case.case);
        assert!(difference < 1e-3 && same.is_same(), "{:?}: {same:?}", case.case);
    }
    // Each engine ran the same file on the same inputs, so they predict the same classes.
    for ratio in [0.0, 0.9] {
        let classes = |engine| predictions(&run, engine, ratio).classes;
        assert_eq!(classes(Engine::Onnxruntime), classes(Engine::Espalier), "at {ratio}");
        assert_eq!(classes(Engine::Tract), classes(Engine::Espalier), "at {ratio}");
    }
    let of = |engine, ratio| -> &CaseSummary {
        summaries.iter().find(|case| case.case.engine == engine && case.case.ratio == ratio).unwrap()
    };
    let pruned = of(Engine::Espalier, 0.9);
    assert!(pruned.against(Engine::Onnxruntime).unwrap().dense.unwrap().value > 0.0);
    assert!(!pruned.profile.is_empty() && !of(Engine::Onnxruntime, 0.0).profile.is_empty());

    // A run with peers is shown and exported again from its records alone.
    let report = shelf.run(&["report", "--export-csv", "out.csv"]).expect(0);
    report.prints(&["onnxruntime", "same as espalier"]);
    assert_eq!(fs::read_to_string(shelf.path("out.csv")).unwrap().lines().count(), 7);
}

fn predictions(run: &Run, engine: Engine, ratio: f64) -> Predictions {
    let case = Case { engine, ..Case::new("digits-cnn", ratio, "local") };
    let (_, measurement) = run.measured(&case, Mode::Score).next().expect("measured");
    measurement.predictions.clone().expect("a score has predictions")
}

/// Only the missing job of one engine is measured again. Both engines use the device's threads.
#[test]
fn a_run_with_peers_is_finished() {
    let name = "a_run_with_peers_is_finished";
    if python(name).is_none() {
        return;
    }
    let shelf = Shelf::new(name);
    shelf.write("devices/local.toml", "transport = \"local\"\nthreads = 2\n");
    shelf.bench(&["--ratios", "0", "--engine", "onnxruntime,espalier"]).expect(0);
    let path = shelf.run_files().pop().unwrap();
    let complete = shelf.newest_run();
    assert_eq!((complete.header.devices[0].threads, complete.tally().measured), (2, 6));
    let text = fs::read_to_string(&path).unwrap();
    let (lost, kept): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.contains("\"engine\":\"onnxruntime\"},\"mode\":\"time\""));
    assert_eq!(lost.len(), 1);
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    assert_eq!(shelf.newest_run().tally().missing, 1);
    shelf.run(&["bench", "--resume"]).expect(0);
    let finished = shelf.newest_run();
    assert_eq!((finished.tally().missing, finished.records.len()), (0, complete.records.len()));
    let last = finished.records.last().unwrap();
    assert_eq!((last.case.engine, last.mode), (Engine::Onnxruntime, Mode::Time));
}

/// The smallest of the built networks, pruned in another unit than its file says, from measuring to the page.
#[test]
fn the_results_page_is_made_of_stored_runs() {
    let name = "the_results_page_is_made_of_stored_runs";
    if python(name).is_none() {
        return;
    }
    let shelf = Shelf::new(name);
    shelf.run(&["results", "-o", "-"]).expect(2).says(&["there is no earlier run"]);
    shelf.model("ds-cnn");
    let args = [
        "--model",
        "ds-cnn",
        "--ratios",
        "0.9",
        "--unit",
        "weight",
        "--engine",
        "tract,espalier,onnxruntime",
        "--profile",
    ];
    shelf.bench(&args).expect(0);
    let page = shelf.run(&["results", "-o", "page.md"]).expect(0);
    page.says(&["written: page.md"]);
    let text = fs::read_to_string(shelf.path("page.md")).unwrap();
    for expected in [
        "| DS-CNN |",
        "90 % by magnitude, local, weight",
        "## Where the time goes",
        "onnxruntime 1.",
        "Not measured: ResNet50",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing:\n{text}");
    }
    // The same run gives the same page, wherever its records come from.
    let run = shelf.run_files().pop().unwrap();
    let again = shelf.run(&["results", run.to_str().unwrap(), "-o", "-"]).expect(0);
    assert_eq!(again.stdout, text);
}

/// A pack is unpacked for an engine that reads none; integers and recurrent layers go the same way as pictures.
#[test]
fn packed_and_integer_models_agree_too() {
    let name = "packed_and_integer_models_agree_too";
    if python(name).is_none() {
        return;
    }
    let shelf = Shelf::new(name);
    shelf.model("word-language");
    shelf.model("spoken-digits");
    let toml = fs::read_to_string(shelf.path("models/digits-cnn.toml")).unwrap();
    shelf.write("models/digits-cnn.toml", toml.replace("[prune]", "[prune]\npack = \"bitmap-codebook\""));
    for (model, ratio) in [("digits-cnn", "0.9"), ("word-language", "0"), ("spoken-digits", "0")] {
        shelf.bench(&["--model", model, "--ratios", ratio, "--engine", "espalier,onnxruntime"]).expect(0);
        for case in summarise(&shelf.newest_run()) {
            if let Some(same) = case.same_as_espalier {
                assert!(same.is_same() && same.equal == same.total, "{}: {same:?}", case.case);
            }
        }
        let packed = shelf.newest_run().header.models[0].variants.iter().any(|variant| variant.unpacked.is_some());
        assert_eq!(packed, model == "digits-cnn");
    }
}

/// Made-up inputs are the same to the bit, or outputs would differ by more than rounding.
#[test]
fn without_samples_both_make_up_the_same() {
    let name = "without_samples_both_make_up_the_same";
    if python(name).is_none() {
        return;
    }
    let shelf = Shelf::new(name);
    let model = shipped("models/digits-cnn/dense.onnx");
    let args = ["--model", model.to_str().unwrap(), "--ratios", "0", "--engine", "espalier,onnxruntime"];
    shelf.bench(&args).expect(0);
    let same = summarise(&shelf.newest_run())[1].same_as_espalier.unwrap();
    assert!(same.is_same() && same.total == 1 && same.largest_value.unwrap() > 0.0, "{same:?}");
}

#[test]
fn a_board_that_is_not_this_host_is_refused() {
    let shelf = Shelf::new("a_board_that_is_not_this_host_is_refused");
    let device = fs::read_to_string(shipped("devices/pi4.toml")).unwrap();
    shelf.write("devices/pi4.toml", device);
    let outcome = shelf.bench(&["--device", "pi4", "--engine", "espalier,onnxruntime"]).expect(2);
    outcome.says(&["`--engine onnxruntime` runs on this host only, and `pi4` is not this host"]);
    shelf
        .bench(&["--engine", "onnx"])
        .expect(2)
        .says(&["unknown engine `onnx` (known: espalier, tract, onnxruntime, skipping)"]);
}

#[test]
fn a_python_without_onnxruntime_is_refused_before_anything_is_measured() {
    let shelf = Shelf::new("a_python_without_onnxruntime_is_refused");
    let python = shelf.write("no-python", "#!/bin/sh\nexit 1\n");
    let args = ["bench", "--engine", "onnxruntime", "--ratios", "0"];
    let outcome = shelf.start_with(&args, &[("ESPALIER_PYTHON", &python)]).wait();
    outcome.expect(2).says(&["`ESPALIER_PYTHON` names", "cannot import numpy, onnxruntime"]);
    assert!(shelf.run_files().is_empty());
}

/// Whatever input the peer gets, it reports a failure by the protocol and finishes.
#[test]
fn bad_input_to_the_peer_is_reported() {
    let name = "bad_input_to_the_peer_is_reported";
    let Some(python) = python(name) else { return };
    let shelf = Shelf::new(name);
    let model = shipped("models/digits-cnn/dense.onnx").to_str().unwrap().to_owned();
    let job = |inputs: Option<String>| Job { inputs, ..Job::new(Mode::Score, &model) };
    let pixels = |name: &str, shape: Vec<u64>| {
        let count: u64 = shape.iter().product();
        let header = TensorHeader { name: name.into(), dtype: DType::F32, shape };
        Tensor { header, bytes: vec![0; count as usize * 4] }
    };
    let file = |name: &str, content: &[u8]| Some(shelf.write(name, content));
    let check = |args: &[String], expected: &str| {
        let (message, finished) = failure(&call(&python, args));
        assert!(message.contains(expected), "`{expected}` is not in `{message}`");
        assert!(finished, "no `finished` after `{message}`");
    };
    let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    check(&[], "no mode given");
    check(&argv("tune"), "unknown mode `tune`");
    check(&argv("time --model"), "`--model` has no value");
    check(&argv("time --warmup 3"), "`--model` is missing");
    check(&argv("time --model m --warmup -3"), "`--warmup` wants a whole number, not `-3`");
    check(&argv("time --model m --speed 9"), "unknown flag `--speed`");
    check(&argv("time --model /nonexistent/m.onnx"), "is not a model onnxruntime can read");
    check(&argv("time --model m --cpus 4095"), "cannot stay on CPUs");
    let broken = shelf.write("broken.onnx", b"not a model");
    check(&Job::new(Mode::Time, broken).to_args(), "is not a model onnxruntime can read");
    check(&job(Some("/nonexistent".into())).to_args(), "cannot read the inputs");
    check(&job(file("empty", b"")).to_args(), "are damaged: no header line");
    check(&job(file("text", b"hello\n")).to_args(), "are damaged");
    let mut cut = tensor::encode(&[pixels("x", vec![2, 1, 8, 8])]);
    cut.pop();
    check(&job(file("cut", &cut)).to_args(), "are damaged: `x` needs 512 bytes, 511 are left");
    let absurd = b"[{\"name\":\"x\",\"dtype\":\"f32\",\"shape\":[18446744073709551615,2]}]\n";
    check(&job(file("absurd", absurd)).to_args(), "are damaged: `x` needs");
    check(&job(file("other", &tensor::encode(&[pixels("y", vec![2, 1, 8, 8])]))).to_args(), "the inputs have no `");
    check(
        &job(file("shape", &tensor::encode(&[pixels("x", vec![2, 3, 8, 9])]))).to_args(),
        "the samples have the shape [2, 3, 8, 9]",
    );
    check(
        &job(file("none", &tensor::encode(&[pixels("x", vec![0, 1, 8, 8])]))).to_args(),
        "the inputs hold no samples",
    );
    let shapes = |shape: &str| Job { shapes: vec![shape.to_owned()], ..job(None) }.to_args();
    check(&shapes("nothing=1x2"), "there is no input `nothing` to give a shape");
    check(&shapes("input=0x2"), "is not a shape");
}

/// The peer sends the runner's lines in the runner's order.
#[test]
fn the_peer_speaks_the_runners_protocol() {
    let name = "the_peer_speaks_the_runners_protocol";
    let Some(python) = python(name) else { return };
    let model = shipped("models/digits-cnn/dense.onnx").to_str().unwrap().to_owned();
    for mode in Mode::ALL {
        let job = Job { warmup: 2, iterations: 600, threads: 2, ..Job::new(mode, &model) };
        let output = call(&python, &job.to_args());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = lines(&output);
        assert!(matches!(lines.first(), Some(Line::Hello(hello)) if hello.engine.starts_with("onnxruntime 1.")));
        assert_eq!(lines.last(), Some(&Line::Finished));
        let count = |is: fn(&Line) -> bool| lines.iter().filter(|line| is(line)).count();
        assert_eq!(count(|line| matches!(line, Line::State(_))), 2, "{mode:?}");
        assert_eq!(count(|line| matches!(line, Line::Loaded(_))), 1, "{mode:?}");
        let timed: usize = lines.iter().map(|line| if let Line::Timed { ns } = line { ns.len() } else { 0 }).sum();
        assert_eq!(timed, if mode == Mode::Time { 600 } else { 0 });
    }
}

fn call(python: &Path, args: &[String]) -> Output {
    Command::new(python).arg(shipped(PROGRAM)).args(args).output().unwrap()
}

fn lines(output: &Output) -> Vec<Line> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// What failed, and whether `finished` follows.
fn failure(output: &Output) -> (String, bool) {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(output);
    let message = lines.iter().find_map(|line| match line {
        Line::Failed { message, .. } => Some(message.clone()),
        _ => None,
    });
    (message.unwrap_or_else(|| panic!("nothing failed: {lines:?}")).into(), lines.last() == Some(&Line::Finished))
}
