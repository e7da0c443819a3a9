//! Packed models: they unpack to their file, and the runner predicts the same from both.

use std::{collections::BTreeMap, fs, process::Command};

use espalier_bench::summary::summarise;
use espalier_protocol::{Engine, Job, LayerKernel, LayerTime, Line, Mode};
use espalier_tests::{Shelf, cache, python, shipped};

/// A runner's predictions by the index of their first sample, and its failures.
#[derive(Debug, PartialEq)]
struct Scores {
    predictions: BTreeMap<u64, (Vec<u32>, Vec<Vec<f32>>)>,
    failures: Vec<String>,
}

fn score(runner: &str, model: &str, inputs: &str) -> Scores {
    let job = Job { inputs: Some(inputs.to_owned()), ..Job::new(Mode::Score, model) };
    let output = Command::new(runner).args(job.to_args()).output().unwrap();
    let mut scores = Scores { predictions: BTreeMap::new(), failures: Vec::new() };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match serde_json::from_str(line).unwrap() {
            Line::Predictions(line) => {
                scores.predictions.insert(line.start, (line.classes, line.values));
            }
            Line::Failed { message, .. } => scores.failures.push(message.into()),
            _ => {}
        }
    }
    scores
}

#[test]
fn a_packed_model_predicts_what_its_file_does() {
    let shelf = Shelf::new("a_packed_model_predicts_what_its_file_does");
    let (runner, inputs) = runner_and_inputs(&shelf);
    shelf.run(&["prune", "digits-cnn", "--ratio", "0.9", "-o", "pruned.onnx"]).expect(0);
    let pruned = fs::read(shelf.path("pruned.onnx")).unwrap();
    let file = |name: &str| shelf.path(name).to_str().unwrap().to_owned();
    let of_pruned = score(&runner, &file("pruned.onnx"), &inputs);
    assert_eq!(of_pruned.predictions.values().map(|(classes, _)| classes.len()).sum::<usize>(), 497);
    for (format, values) in [
        ("auto", "f32"),
        ("csr", "f32"),
        ("block-csr", "f32"),
        ("dense", "f32"),
        ("bitmap", "f16"),
        ("csr", "int8"),
        ("auto", "codebook"),
    ] {
        let packed = format!("{format}-{values}.pack");
        shelf.run(&["pack", "pruned.onnx", "--format", format, "--values", values, "-q", "-o", &packed]).expect(0);
        shelf.run(&["unpack", &packed, "-o", "back.onnx"]).expect(0);
        let back = fs::read(shelf.path("back.onnx")).unwrap();
        assert_eq!(back == pruned, values == "f32", "{packed}");
        let (of_packed, of_back) =
            (score(&runner, &file(&packed), &inputs), score(&runner, &file("back.onnx"), &inputs));
        assert_eq!(of_packed, of_back, "{packed}");
        assert_eq!(of_packed == of_pruned, values == "f32", "{packed}");
        let (small, large) = (fs::metadata(shelf.path(&packed)).unwrap().len(), pruned.len() as u64);
        assert!(small * 4 < large, "{packed}: {small} of {large} bytes");
        println!("{packed}: {small} of {large} bytes");
    }

    let mut damaged = fs::read(shelf.path("auto-f32.pack")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = shelf.write("damaged.pack", damaged);
    let failures = score(&runner, &damaged, &inputs).failures;
    assert!(failures.len() == 1 && failures[0].contains("the checksum of tensor `"), "{failures:?}");
    shelf.run(&["unpack", &damaged, "-o", "none.onnx"]).expect(2).says(&["the checksum of tensor `"]);
    assert!(!shelf.path("none.onnx").exists());
}

/// The lines of a job, which has to finish.
fn lines(runner: &str, job: &Job) -> Vec<Line> {
    // As in a session that compares two arms: choices of kernels that are stored are used.
    lines_of(Command::new(runner).args(job.to_args()).env("ESPALIER_CHOICES", "keep"))
}

fn lines_of(command: &mut Command) -> Vec<Line> {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last(), Some(&Line::Finished), "{lines:?}");
    lines
}

/// The ratios chosen, and after how many timed inferences.
fn switched(lines: &[Line]) -> Vec<(u64, f64)> {
    let all = lines.iter().filter_map(|line| match line {
        Line::Switched(switched) => Some(switched),
        _ => None,
    });
    // Only a pointer changes: far below the promised millisecond.
    all.inspect(|switched| assert!(switched.ns < 1_000_000, "{switched:?}"))
        .map(|switched| (switched.after, switched.ratio))
        .collect()
}

#[test]
fn one_pack_runs_at_every_ratio_it_holds() {
    let shelf = Shelf::new("one_pack_runs_at_every_ratio_it_holds");
    let (runner, inputs) = runner_and_inputs(&shelf);
    let file = |name: &str| shelf.path(name).to_str().unwrap().to_owned();
    let ratios = ["0.5", "0.9"];
    for ratio in ratios {
        let output = format!("{ratio}.onnx");
        shelf
            .run(&["prune", "digits-cnn", "--ratio", ratio, "--steps", "1", "--finetune", "0", "-o", &output])
            .expect(0);
    }
    let dense = shipped("models/digits-cnn/dense.onnx").to_str().unwrap().to_owned();
    shelf
        .run(&["pack", &dense, "--with", "0.9=0.9.onnx", "--with", "0.5=0.5.onnx", "-o", "all.pack"])
        .expect(0)
        .prints(&["4 with fewer of the first ratio's values, 0 with values of their own"]);
    let (all, one) = (fs::metadata(shelf.path("all.pack")).unwrap().len(), fs::metadata(&dense).unwrap().len());
    assert!(all < one, "three ratios take {all} bytes, one file {one}");
    for ratio in ratios {
        let pruned = format!("{ratio}.onnx");
        shelf.run(&["unpack", "all.pack", "--ratio", ratio, "-o", "back.onnx"]).expect(0);
        assert!(fs::read(shelf.path("back.onnx")).unwrap() == fs::read(shelf.path(&pruned)).unwrap(), "{ratio}");
        for engine in Engine::ALL {
            let job = |model: &str, ratios: &[f64]| Job {
                inputs: Some(inputs.clone()),
                engine,
                ratios: ratios.to_vec(),
                ..Job::new(Mode::Score, file(model))
            };
            let predictions = |job: &Job| -> Vec<Line> {
                lines(&runner, job).into_iter().filter(|line| matches!(line, Line::Predictions(_))).collect()
            };
            let of_pack = predictions(&job("all.pack", &[ratio.parse().unwrap()]));
            assert!(!of_pack.is_empty());
            assert_eq!(of_pack, predictions(&job(&pruned, &[])), "{ratio}, {}", engine.name());
        }
    }

    let time = |job: Job| lines(&runner, &Job { warmup: 2, iterations: 6, ..job });
    let pack = || Job::new(Mode::Time, file("all.pack"));
    let turns = switched(&time(Job { ratios: vec![0.0, 0.9], ..pack() }));
    assert_eq!(turns, [(0, 0.0), (1, 0.9), (2, 0.0), (3, 0.9), (4, 0.0), (5, 0.9), (6, 0.0)]);
    assert_eq!(switched(&time(Job { budget_ms: Some(1e6), ..pack() })), [(0, 0.0)]);
    assert_eq!(switched(&time(Job { budget_ms: Some(0.001), ..pack() })), [(0, 0.9)]);
    let failed = time(Job { ratios: vec![0.7], ..pack() });
    let refused = |line: &Line| matches!(line, Line::Failed { message, .. } if message.contains("not 0.7"));
    assert!(failed.iter().any(refused), "{failed:?}");
}

#[test]
fn a_nested_pack_has_a_row_for_every_ratio() {
    let shelf = Shelf::new("a_nested_pack_has_a_row_for_every_ratio");
    let bench = |args: &[&str]| {
        let outcome = shelf.bench(&[&["--ratios", "0.5,0.9"], args].concat()).expect(0);
        (outcome, summarise(&shelf.newest_run()))
    };
    let ((_, separate), (outcome, nested)) = (bench(&[]), bench(&["--nested"]));
    outcome.prints(&["one pack of all ratios"]);
    assert_eq!((separate.len(), nested.len()), (3, 3));
    for (separate, nested) in separate.iter().zip(&nested) {
        assert_eq!((separate.case.ratio, separate.accuracy), (nested.case.ratio, nested.accuracy));
        assert!(nested.p50.is_some() && nested.peak_rss.is_some(), "{nested:?}");
    }
    assert!(nested.iter().all(|case| case.file == nested[0].file && case.variant.sha256 == nested[0].variant.sha256));
    shelf.run(&["bench", "--resume"]).expect(0);
}

/// Kernels are chosen by time, so boards differ; but the next process makes the same choice and computes the same bits.
#[test]
fn kernels_are_chosen_once_and_reported() {
    let shelf = Shelf::new("kernels_are_chosen_once_and_reported");
    let (runner, inputs) = runner_and_inputs(&shelf);
    let cache = shelf.path("kernels");
    let model = shipped("models/digits-cnn/dense.onnx").to_str().unwrap().to_owned();
    let job = |mode, engine| Job {
        inputs: Some(inputs.clone()),
        cache: Some(cache.to_str().unwrap().to_owned()),
        iterations: 3,
        engine,
        ..Job::new(mode, &model)
    };
    let kernels = |lines: &[Line]| -> Vec<LayerKernel> {
        let of_line = |line: &Line| if let Line::Kernels { layers } = line { layers.clone() } else { Vec::new() };
        lines.iter().flat_map(of_line).collect()
    };
    let digest = |lines: &[Line]| {
        lines.iter().find_map(|line| if let Line::First { digest, .. } = line { digest.clone() } else { None }).unwrap()
    };
    let first = lines(&runner, &job(Mode::Time, Engine::Espalier));
    let chosen = kernels(&first);
    assert!(!chosen.is_empty());
    for layer in &chosen {
        // The first of those that are equal to the fastest.
        let fastest = layer.candidates.iter().map(|candidate| candidate.ns).min().unwrap() as f64;
        let first = layer.candidates.iter().find(|candidate| candidate.ns as f64 <= fastest * 1.02).unwrap();
        assert_eq!(layer.kernel, first.kernel, "{layer:?}");
        assert!(layer.candidates.iter().any(|candidate| candidate.kernel == "tract"), "{layer:?}");
    }
    let kept = |lines: &[Line]| kernels(lines).into_iter().map(|layer| (layer.name, layer.kernel)).collect::<Vec<_>>();
    let second = lines(&runner, &job(Mode::Time, Engine::Espalier));
    assert!(kernels(&second).iter().all(|layer| layer.cached), "{second:?}");
    assert_eq!((kept(&second), digest(&second)), (kept(&first), digest(&first)));
    // Otherwise what is in doubt is measured again, and nothing else.
    let third = lines_of(Command::new(&runner).args(job(Mode::Time, Engine::Espalier).to_args()));
    for (before, now) in kernels(&second).iter().zip(kernels(&third)) {
        assert_eq!(now.cached, !before.unsure, "{before:?}, then {now:?}");
    }

    // A damaged file costs a measurement.
    for entry in fs::read_dir(&cache).unwrap() {
        fs::write(entry.unwrap().path(), b"\xff not what it was").unwrap();
    }
    assert!(kernels(&lines(&runner, &job(Mode::Time, Engine::Espalier))).iter().any(|layer| !layer.cached));

    let profile = lines(&runner, &job(Mode::Profile, Engine::Espalier));
    let layers: Vec<LayerTime> = profile
        .iter()
        .flat_map(|line| if let Line::Profile { layers } = line { layers.clone() } else { Vec::new() })
        .collect();
    let ours = kernels(&profile).into_iter().filter(|layer| layer.kernel != "tract").count();
    assert!(layers.iter().filter(|layer| layer.kernel != "tract").count() >= ours, "{layers:?}");
    assert!(layers.iter().map(|layer| layer.median_ns).sum::<u64>() > 0);

    let plain = lines(&runner, &job(Mode::Time, Engine::Tract));
    let Some(Line::Hello(hello)) = plain.first() else { panic!("{plain:?}") };
    assert!(hello.engine.starts_with("tract ") && kernels(&plain).is_empty(), "{hello:?}");
}

/// The file is for other engines: onnxruntime has to predict what the runner predicts.
#[test]
fn int8_weights_in_plain_onnx_are_read_by_others() {
    let name = "int8_weights_in_plain_onnx_are_read_by_others";
    let Some(python) = python(name) else { return };
    let shelf = Shelf::new(name);
    let dense = fs::metadata(shipped("models/digits-cnn/dense.onnx")).unwrap().len();
    shelf.run(&["pack", "digits-cnn", "--as-onnx", "-o", "int8.onnx"]).expect(0).prints(&["4 weights as int8"]);
    assert!(fs::metadata(shelf.path("int8.onnx")).unwrap().len() * 3 < dense);
    let (runner, inputs) = runner_and_inputs(&shelf);
    let scores = score(&runner, shelf.path("int8.onnx").to_str().unwrap(), &inputs);
    let ours: Vec<u32> = scores.predictions.into_values().flat_map(|(classes, _)| classes).collect();
    let oracle = Command::new(python)
        .arg(shipped("tests/oracle/accuracy.py"))
        .arg(shelf.path("int8.onnx"))
        .arg(shipped("models/digits-cnn/eval.npz"))
        .output()
        .unwrap();
    assert!(oracle.status.success(), "{}", String::from_utf8_lossy(&oracle.stderr));
    let oracle: serde_json::Value = serde_json::from_slice(&oracle.stdout).unwrap();
    assert_eq!(serde_json::from_value::<Vec<u32>>(oracle["predicted"].clone()).unwrap(), ours);
    // The dense model has 488 of 497.
    assert!(oracle["correct"].as_u64().unwrap() >= 485, "{oracle}");
}

/// The runner for this host, and the prepared eval set, which a run leaves in the cache.
fn runner_and_inputs(shelf: &Shelf) -> (String, String) {
    let built = shelf.run(&["build"]).expect(0);
    let runner = built.stdout.trim().strip_prefix("host: ").and_then(|rest| rest.split(" (").next()).unwrap();
    shelf.bench(&["--ratios", "0"]).expect(0);
    let inputs = shelf.newest_run().header.models[0].inputs.clone().expect("digits-cnn has an eval set");
    (runner.to_owned(), cache().root.join("blobs").join(inputs).to_str().unwrap().to_owned())
}

#[test]
fn the_table_shows_every_form() {
    let shelf = Shelf::new("the_table_shows_every_form");
    shelf.run(&["prune", "digits-cnn", "--ratio", "0.9", "-o", "pruned.onnx"]).expect(0);
    let packed =
        shelf.run(&["pack", "pruned.onnx", "--block", "8x1", "--values", "codebook-16", "-o", "out.pack"]).expect(0);
    packed.prints(&[
        "dense-f32",
        "csr-int8",
        "block-csr-8x1-f16",
        "bitmap-codebook",
        " as bitmap-codebook-16",
        "out.pack: ",
    ]);
    shelf.run(&["unpack", "pruned.onnx", "-o", "out.onnx"]).expect(2).says(&["it is not a packed model"]);
    shelf
        .run(&["pack", "pruned.onnx", "--block", "0x1", "-o", "out.pack"])
        .expect(2)
        .says(&["a block is outputs x inputs"]);
}
