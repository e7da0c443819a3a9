//! Models and eval sets from users: damaged, random, of another shape, or without samples.

use std::fs;

use espalier_bench::summary::summarise;
use espalier_protocol::Mode;
use espalier_tests::{Shelf, shipped};

fn dense() -> Vec<u8> {
    fs::read(shipped("models/digits-cnn/dense.onnx")).unwrap()
}

#[test]
fn a_damaged_model_is_refused_before_anything_runs() {
    let shelf = Shelf::new("a_damaged_model_is_refused_before_anything_runs");
    let dense = dense();
    let check = |name: &str, content: &[u8]| {
        let file = shelf.write(name, content);
        for command in [&["bench", "--model", &file][..], &["prune", &file, "--ratio", "0.5", "-o", "out.onnx"]] {
            let outcome = shelf.run(command).expect(2);
            outcome.says(&["error: ", &format!("`{file}`: it is not an ONNX file")]);
            assert_eq!(outcome.stdout, "");
        }
    };
    for part in [1, 2, 3] {
        check(&format!("cut-{part}.onnx"), &dense[..dense.len() * part / 4]);
    }
    let mut state = 1_u64;
    let random: Vec<u8> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    check("random.onnx", &random);
    check("text.onnx", b"<!DOCTYPE html><title>404</title>");
    assert!(shelf.run_files().is_empty() && !shelf.path("out.onnx").exists());
}

#[test]
fn an_eval_set_that_does_not_fit_is_refused() {
    let shelf = Shelf::new("an_eval_set_that_does_not_fit_is_refused");
    let model = shelf.write("mine.onnx", dense());
    let check = |name: &str, arrays: &[(&str, &[usize])], expected: &[&str]| {
        let eval = shelf.write(name, npz(arrays));
        let outcome = shelf.bench(&["--model", &model, "--eval", &eval]).expect(2);
        outcome.says(&[&format!("the eval set `{eval}` cannot be used")]);
        outcome.says(expected);
    };
    check("shape.npz", &[("x", &[3, 5]), ("y", &[3])], &["`x` has shape [3, 5], the model's input `"]);
    check("image.npz", &[("x", &[3, 1, 9, 9]), ("y", &[3])], &["`x` has shape [3, 1, 9, 9], the model's input `"]);
    check("labels.npz", &[("x", &[3, 1, 8, 8]), ("y", &[4])], &["the labels `y` have shape [4], expected [3"]);
    check("unknown.npz", &[("z", &[3, 1, 8, 8])], &["the model has no input for the array `z`"]);
    check("empty.npz", &[("x", &[0, 1, 8, 8])], &["no samples"]);
    let eval = shelf.write("cut.npz", &npz(&[("x", &[3, 1, 8, 8])])[..100]);
    shelf.bench(&["--model", &model, "--eval", &eval]).expect(2).says(&["cannot be used"]);
    assert!(shelf.run_files().is_empty());
}

#[test]
fn a_model_without_an_eval_set_gives_latency_and_memory() {
    let shelf = Shelf::new("a_model_without_an_eval_set_gives_latency_and_memory");
    let model = shelf.write("mine.onnx", dense());
    let outcome = shelf.bench(&["--model", &model, "--ratios", "0.5"]).expect(0);
    outcome.prints(&["mine on local\n"]);
    let summaries = summarise(&shelf.newest_run());
    assert_eq!(summaries.len(), 2);
    for summary in &summaries {
        assert!(summary.p50.is_some() && summary.first.is_some() && summary.load.is_some(), "{summary:?}");
        assert!(summary.peak_rss.is_some() && summary.macs.is_some() && summary.accuracy.is_none(), "{summary:?}");
    }
}

/// tract keeps the state of a recurrent layer for the next run, so that equal samples would give different values. With
/// files of both exporters, because the newer one also writes shapes with open dimensions into the file.
#[test]
fn a_recurrent_model_starts_every_sample_afresh() {
    let shelf = Shelf::new("a_recurrent_model_starts_every_sample_afresh");
    for (fixture, inputs) in [("gru-script", 20), ("gru-dynamo", 20), ("bilstm-script", 40), ("bilstm-dynamo", 40)] {
        let model = espalier_fixtures::write(fixture, &shelf.path("fixtures"));
        let eval = shelf.write(&format!("{fixture}.npz"), npz(&[("x", &[3, 9, inputs])]));
        shelf.bench(&["--model", model.to_str().unwrap(), "--eval", &eval, "--ratios", "0"]).expect(0);
        let run = shelf.newest_run();
        let scored = run.records.iter().find(|record| record.mode == Mode::Score).unwrap();
        let (_, measurement) = run.measured(&scored.case, Mode::Score).next().expect("measured");
        let values = &measurement.predictions.as_ref().expect("a score has predictions").values;
        assert_eq!(values.len(), 3);
        assert!(values[0].iter().any(|value| *value != 0.0), "{fixture}: {values:?}");
        assert!(values.iter().all(|sample| *sample == values[0]), "{fixture}: {values:?}");
    }
}

/// A zip of stored arrays of zeros: of `<i8` where the name is `y`, else of `<f4`.
fn npz(arrays: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, shape) in arrays {
        let (dtype, size) = if *name == "y" { ("<i8", 8) } else { ("<f4", 4) };
        let shape_text = shape.iter().map(|length| format!("{length},")).collect::<String>();
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape_text}), }}");
        header += &" ".repeat((64 - (10 + header.len() + 1) % 64) % 64);
        header += "\n";
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((header.len() as u16).to_le_bytes());
        array.extend(header.as_bytes());
        array.resize(array.len() + size * shape.iter().product::<usize>(), 0);

        let name = format!("{name}.npy");
        let length = (array.len() as u32).to_le_bytes();
        // From the version needed to the length of the extra field, the same in both places.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc32(&array).to_le_bytes());
        common.extend([length, length].concat());
        common.extend([name.len() as u8, 0, 0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(&array);
    }
    let (start, count) = (file.len() as u32, arrays.len() as u8);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend([count, 0, count, 0]);
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}
