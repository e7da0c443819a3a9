//! Models of one operator each, over all attributes, operator sets 7 to 22, types and shapes: the runner gives
//! onnxruntime's answer, or the model is refused by name. `cargo xtask test --single-operators 10000 single` runs many.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use espalier_onnx::{Bytes, TensorProto, runnable::runnable};
use espalier_protocol::Line;
use espalier_tests::{Shelf, python, shipped};
use prost::Message;

/// Relative to the largest value of the answer: sums in another order, in f32.
const TOLERANCE: f64 = 1e-4;

/// Models where nothing else is said: some of each operator.
const USUAL: usize = 440;

enum Verdict {
    Equal,
    /// Before anything is measured.
    Refused,
    /// By the runner, at load or at the first inference.
    RunnerRefuses,
    Differs(String),
}

#[test]
fn single_operators_are_equal_or_refused() {
    let name = "single_operators_are_equal_or_refused";
    let Some(python) = python(name) else { return };
    let count = env::var("ESPALIER_SINGLE_OPERATORS").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let shelf = Shelf::new(name);
    let built = shelf.run(&["build"]).expect(0);
    let runner = built.stdout.trim().strip_prefix("host: ").and_then(|rest| rest.split(" (").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(python)
        .arg(shipped("tests/oracle/single.py"))
        .arg(folder.path())
        .args([&*count.to_string(), if count == USUAL { "1" } else { "2" }])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut models: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    models.sort();
    assert!(models.len() * 10 > count * 9, "only {} of {count} models were made", models.len());
    let halves = models.chunks(models.len().div_ceil(2));
    let verdicts: Vec<(&PathBuf, String, Verdict)> = thread::scope(|scope| {
        let judge = |half| scope.spawn(move || judged(half, runner));
        let threads: Vec<_> = halves.map(judge).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });

    let mut tally: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, what, verdict) in &verdicts {
        let column = match verdict {
            Verdict::Equal => 0,
            Verdict::Refused => 1,
            Verdict::RunnerRefuses => 2,
            Verdict::Differs(why) => {
                wrong.push(format!("{}: {what}: {why}", path.file_stem().unwrap().display()));
                3
            }
        };
        tally.entry(what.split(' ').next().unwrap()).or_default()[column] += 1;
    }
    for (operator, [equal, refused, by_the_runner, differ]) in &tally {
        println!("{operator}: {equal} equal, {refused} refused, {by_the_runner} by the runner, {differ} differ");
    }
    let sum = |column: usize| tally.values().map(|row| row[column]).sum::<usize>();
    println!("{} models: {} equal, {} refused, {} by the runner", verdicts.len(), sum(0), sum(1), sum(2));
    assert!(wrong.is_empty(), "{} differ in silence:\n{}", wrong.len(), wrong.join("\n"));
    assert!(sum(0) * 4 > verdicts.len() * 3, "too much is refused to say anything");
}

fn judged<'a>(models: &'a [PathBuf], runner: &str) -> Vec<(&'a PathBuf, String, Verdict)> {
    models.iter().map(|path| (path, describe(path), judge(path, runner))).collect()
}

fn judge(path: &Path, runner: &str) -> Verdict {
    let source = Bytes::from(fs::read(path).unwrap());
    let model = path.with_extension("run");
    match runnable(&source) {
        Ok(bytes) => fs::write(&model, bytes).unwrap(),
        Err(refusal) if refusal.to_string().contains("the_node") => return Verdict::Refused,
        Err(refusal) => return Verdict::Differs(format!("refused without the node's name: {refusal}")),
    }
    let output = Command::new(runner)
        .args(["score", "--model", model.to_str().unwrap(), "--inputs", path.with_extension("in").to_str().unwrap()])
        .args(["--warmup", "0", "--iterations", "1", "--min-time-ms", "0"])
        .output()
        .unwrap();
    let (mut shape, mut values) = (None, None);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Ok(line) = serde_json::from_str(line) else { return Verdict::Differs(format!("it says `{line}`")) };
        match line {
            Line::Loaded(loaded) => shape = Some(loaded.outputs[0].shape.clone()),
            Line::Predictions(mut predictions) => values = Some(predictions.values.swap_remove(0)),
            Line::Failed { .. } => return Verdict::RunnerRefuses,
            _ => {}
        }
    }
    let (Some(shape), Some(values)) = (shape, values) else {
        return Verdict::Differs(format!("no answer: {}", String::from_utf8_lossy(&output.stderr)));
    };
    let expected = TensorProto::decode(&*fs::read(path.with_extension("out")).unwrap()).unwrap();
    let dims: Vec<u64> = expected.dims.iter().map(|axis| *axis as u64).collect();
    if shape != dims {
        return Verdict::Differs(format!("the shape is {shape:?}, {dims:?} is expected"));
    }
    match difference(&values, &numbers(&expected)) {
        Some(why) => Verdict::Differs(why),
        None => Verdict::Equal,
    }
}

fn difference(values: &[f32], expected: &[f64]) -> Option<String> {
    let finite = expected.iter().filter(|value| value.is_finite());
    let scale = finite.fold(1e-3f64, |most, value| most.max(value.abs()));
    let close = |value: f64, expected: f64| {
        value == expected
            || value.is_nan() && expected.is_nan()
            // The runner's answers travel as f32.
            || value == f64::from(expected as f32)
            || (value - expected).abs() <= TOLERANCE * scale
    };
    let mut pairs = values.iter().map(|value| f64::from(*value)).zip(expected);
    let at = pairs.position(|(value, expected)| !close(value, *expected))?;
    Some(format!("element {at} is {}, {} is expected", values[at], expected[at]))
}

/// As Python writes them: raw.
fn numbers(tensor: &TensorProto) -> Vec<f64> {
    let raw = tensor.raw_data();
    fn each<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        raw.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
    }
    match tensor.data_type() {
        1 => each(raw, |bytes| f32::from_le_bytes(bytes).into()),
        11 => each(raw, f64::from_le_bytes),
        2 | 9 => each(raw, |[byte]| byte.into()),
        3 => each(raw, |bytes| i8::from_le_bytes(bytes).into()),
        4 => each(raw, |bytes| u16::from_le_bytes(bytes).into()),
        5 => each(raw, |bytes| i16::from_le_bytes(bytes).into()),
        6 => each(raw, |bytes| i32::from_le_bytes(bytes).into()),
        7 => each(raw, |bytes| i64::from_le_bytes(bytes) as f64),
        12 => each(raw, |bytes| u32::from_le_bytes(bytes).into()),
        13 => each(raw, |bytes| u64::from_le_bytes(bytes) as f64),
        other => panic!("an answer of type {other}"),
    }
}

/// The operator, its version and its attributes.
fn describe(path: &Path) -> String {
    let model = espalier_onnx::Model::decode(&Bytes::from(fs::read(path).unwrap())).unwrap();
    let node = model.graph().node.iter().find(|node| node.name() == "the_node").unwrap();
    let attributes = node.attribute.iter().map(|attribute| {
        let espalier_onnx::AttributeProto { i, f, s, ints, floats, strings, .. } = attribute;
        let texts: Vec<_> = s.iter().chain(strings).map(|text| String::from_utf8_lossy(text)).collect();
        format!("{}={i:?}{f:?}{texts:?}{ints:?}{floats:?}", attribute.name())
    });
    format!("{} (opset {}) {}", node.op_type(), model.opset(), attributes.collect::<Vec<_>>().join(" "))
}
