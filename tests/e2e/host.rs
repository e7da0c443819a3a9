//! The runner on this host against independent sources: onnxruntime for predictions, the kernel for memory.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use espalier_bench::{record::Run, summary::summarise};
use espalier_protocol::{Job, Line, Memory, Mode};
use espalier_tests::{Shelf, python, shipped};

/// Guards the runner, the pruner and the scoring at once: an engine that shares nothing with ours reads the pruned
/// files.
#[test]
fn predictions_equal_onnxruntimes() {
    let name = "predictions_equal_onnxruntimes";
    let Some(python) = python(name) else { return };
    let shelf = Shelf::new(name);
    expect_equal(&shelf, &python, "digits-cnn", &["0", "0.5", "0.8", "0.9", "0.95"], 497);
}

/// A recurrent network shows whether the runner starts every sample afresh: tract by itself goes on from the state the
/// sample before left.
#[test]
fn predictions_of_recurrent_and_attention_models_equal_onnxruntimes() {
    let name = "predictions_of_recurrent_and_attention_models_equal_onnxruntimes";
    let Some(python) = python(name) else { return };
    let shelf = Shelf::new(name);
    for model in ["spoken-digits", "word-language"] {
        shelf.model(model);
        expect_equal(&shelf, &python, model, &["0", "0.5"], 600);
    }
}

#[track_caller]
fn expect_equal(shelf: &Shelf, python: &Path, model: &str, ratios: &[&str], samples: usize) {
    shelf.bench(&["--model", model, "--ratios", &ratios.join(",")]).expect(0);
    let run = shelf.newest_run();
    let summaries = summarise(&run);
    let eval = shipped(&format!("models/{model}/eval.npz"));
    for (index, ratio) in ratios.iter().enumerate() {
        let file = format!("{model}-{ratio}.onnx");
        shelf.run(&["prune", model, "--ratio", ratio, "-o", &file]).expect(0);
        let output = Command::new(python)
            .arg(shipped("tests/oracle/accuracy.py"))
            .arg(shelf.path(&file))
            .arg(&eval)
            .output()
            .unwrap();
        assert!(output.status.success(), "{model} at {ratio}: {}", String::from_utf8_lossy(&output.stderr));
        let oracle: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected: Vec<u32> = serde_json::from_value(oracle["predicted"].clone()).unwrap();
        assert_eq!(expected.len(), samples);
        assert_eq!(predictions(&run, ratio.parse().unwrap()), expected, "{model} at {ratio}");
        let accuracy = summaries[index].accuracy.expect("the eval set has labels");
        assert_eq!(Some(accuracy.correct), oracle["correct"].as_u64(), "{model} at {ratio}");
        println!("{model} at {ratio}: {} of {} right, as by onnxruntime", accuracy.correct, accuracy.total);
    }
}

fn predictions(run: &Run, ratio: f64) -> Vec<u32> {
    let record = run.records.iter().find(|record| record.case.ratio == ratio && record.mode == Mode::Score).unwrap();
    let (_, measurement) = run.measured(&record.case, Mode::Score).next().expect("measured");
    measurement.predictions.clone().expect("a score has predictions").classes
}

#[test]
fn peak_memory_is_the_kernels() {
    let shelf = Shelf::new("peak_memory_is_the_kernels");
    let built = shelf.run(&["build"]).expect(0);
    let runner = built.stdout.trim().strip_prefix("host: ").and_then(|rest| rest.split(" (").next()).unwrap();
    let job = Job::new(Mode::Memory, shipped("models/digits-cnn/dense.onnx").to_str().unwrap());
    let mut runner = Command::new(runner)
        .args(job.to_args())
        .env("ESPALIER_HOLD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, received) = mpsc::channel();
    let stdout = BufReader::new(runner.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        for line in stdout.lines() {
            lines.send(serde_json::from_str::<Line>(&line.unwrap()).unwrap()).unwrap();
        }
    });
    let mut memory: Option<Memory> = None;
    // It may send another one; then it waits for stdin to close.
    let mut patience = Duration::from_secs(600);
    while let Ok(line) = received.recv_timeout(patience) {
        match line {
            Line::Memory(measured) => {
                memory = Some(measured);
                patience = Duration::from_secs(1);
            }
            Line::Failed { .. } | Line::Finished => panic!("{line:?}"),
            _ => {}
        }
    }
    let memory = memory.expect("a memory job has a memory line");
    let status = fs::read_to_string(format!("/proc/{}/status", runner.id())).unwrap();
    let kernel = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kernel: u64 = kernel.trim().trim_end_matches(" kB").parse().unwrap();
    let last = memory.phases.last().unwrap();
    println!("peak RSS of `{}`: {} B from the runner, {} B from the kernel", last.name, last.peak_rss, kernel * 1024);
    assert_eq!(last.peak_rss, kernel * 1024, "{memory:?}");
    // The mark was reset between phases, so the highest is the process's.
    assert_eq!(memory.peak_rss, memory.phases.iter().map(|phase| phase.peak_rss).max().unwrap());
    assert!(memory.phases.iter().skip(1).all(|phase| phase.reset), "this kernel cannot reset the mark: {memory:?}");

    drop(runner.stdin.take());
    assert!(runner.wait().unwrap().success());
    reader.join().unwrap();
    assert_eq!(received.try_iter().last(), Some(Line::Finished));
}
