//! Pruning through the installed program: methods, units, fine-tuning, searches, runs that are stopped and requests
//! that are refused.

use std::{fs, path::Path, time::Duration};

use espalier_prune::{Inspection, Manifest, file};
use espalier_tests::{Shelf, wait_until};

const UNTAUGHT: &[&str] = &["--finetune", "0", "--steps", "1"];

#[track_caller]
fn prune(shelf: &Shelf, args: &[&str]) -> (Inspection, Manifest, String) {
    let outcome = shelf.run(&[&["prune", "digits-cnn"], args, &["-o", "out.onnx", "--manifest", "out.json"]].concat());
    let outcome = outcome.expect(0);
    let manifest = serde_json::from_str(&fs::read_to_string(shelf.path("out.json")).unwrap()).unwrap();
    (inspected(&shelf.path("out.onnx")), manifest, outcome.stdout)
}

#[track_caller]
fn inspected(path: &Path) -> Inspection {
    espalier_prune::inspect(&file::read(path).unwrap()).unwrap()
}

fn zeros(inspection: &Inspection) -> u64 {
    inspection.tensors.iter().map(|tensor| tensor.zeros).sum()
}

/// Sparsity of the dense and the pruned model, in percent.
#[track_caller]
fn held_out(printed: &str) -> (f64, f64) {
    let line = printed.lines().find(|line| line.starts_with("held-out accuracy: ")).expect(printed);
    let number = |after: &str| line.split(after).nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    (number("dense "), number("pruned "))
}

/// 52768 prunable weights: the count is exact with every method.
#[test]
fn every_method_removes_exactly_what_was_requested() {
    let shelf = Shelf::new("every_method_removes_exactly_what_was_requested");
    for method in ["magnitude", "magnitude-l2", "gradient", "taylor", "activation", "synflow", "random"] {
        for scope in ["global", "local"] {
            let args = [&["--ratio", "0.7", "--method", method, "--scope", scope], UNTAUGHT].concat();
            let (file, manifest, _) = prune(&shelf, &args);
            let n = manifest.units;
            assert_eq!((n, manifest.unit.to_string().as_str()), (52_768, "weight"));
            if scope == "global" {
                assert_eq!(manifest.removed, (0.7 * n as f64).round() as u64, "{method}, {scope}");
            }
            for tensor in manifest.tensors.iter().filter(|_| scope == "local") {
                let expected = (0.7 * tensor.weights as f64).round() as u64;
                assert_eq!(tensor.removed, expected, "{method}, {scope}, {}", tensor.name);
            }
            assert_eq!(zeros(&file), manifest.zeros, "{method}, {scope}");
            assert!(manifest.zeros >= manifest.removed, "{method}, {scope}");
            assert_eq!(
                manifest.calibration.is_some(),
                ["gradient", "taylor", "activation"].contains(&method),
                "{method}"
            );
        }
    }
}

#[test]
fn fine_tuning_brings_back_what_was_lost_and_keeps_the_zeros() {
    let shelf = Shelf::new("fine_tuning_brings_back_what_was_lost_and_keeps_the_zeros");
    let once = [&["--ratio", "0.9", "--method", "taylor"], UNTAUGHT].concat();
    let (_, _, printed) = prune(&shelf, &once);
    let (dense, at_once) = held_out(&printed);
    let steps = ["--ratio", "0.9", "--method", "taylor", "--steps", "3", "--finetune", "6", "--distil", "free"];
    let (file, manifest, printed) = prune(&shelf, &steps);
    let (_, tuned) = held_out(&printed);
    assert!(dense > 98.0 && at_once < 90.0 && tuned > 95.0, "dense {dense}, at once {at_once}, tuned {tuned}");
    assert_eq!(manifest.removed, 47_491);
    assert!(zeros(&file) >= 47_491, "{}", zeros(&file));
    assert!(printed.contains("  step 3: ratio 0.9000, 47491 removed: "), "{printed}");
    // The same seed gives the same bytes.
    let first = fs::read(shelf.path("out.onnx")).unwrap();
    prune(&shelf, &steps);
    assert!(fs::read(shelf.path("out.onnx")).unwrap() == first);
}

#[test]
fn structured_units_make_the_file_smaller() {
    let shelf = Shelf::new("structured_units_make_the_file_smaller");
    let dense = fs::metadata(shelf.path("models/digits-cnn/dense.onnx")).unwrap().len();
    let args = ["--ratio", "0.5", "--unit", "structure", "--scope", "local", "--round-to", "4"];
    let (file, manifest, printed) = prune(&shelf, &[&args[..], UNTAUGHT].concat());
    let half = fs::metadata(shelf.path("out.onnx")).unwrap().len();
    assert!(half * 3 < dense, "{half} of {dense} bytes");
    // 32 and 64 channels, 128 neurons: half of each is a multiple of four.
    assert_eq!((manifest.units, manifest.removed_units), (224, 112));
    let report = manifest.structure.unwrap();
    assert_eq!(report.parameters_left, file.parameters);
    assert_eq!(file.parameters, 16 * 9 + 16 + 32 * 16 * 9 + 32 + 64 * 128 + 64 + 10 * 64 + 10);
    let macs = manifest.macs.unwrap();
    assert!(macs.pruned * 3 < macs.dense, "{macs:?}");
    assert!(printed.contains("112 of 224 units (structure) removed"), "{printed}");
    let (_, manifest, _) = prune(&shelf, &[&["--unit", "2:4"], UNTAUGHT].concat());
    assert_eq!((manifest.units, manifest.removed_units), (52_736, 26_368));
    let (_, manifest, _) = prune(&shelf, &[&["--ratio", "0.25", "--unit", "block-4x1"], UNTAUGHT].concat());
    assert_eq!(manifest.removed_units, (0.25 * manifest.units as f64).round() as u64);
}

#[test]
fn a_search_finds_a_ratio_that_holds() {
    let shelf = Shelf::new("a_search_finds_a_ratio_that_holds");
    let args = ["--until", "max-accuracy-drop=0.02", "--method", "magnitude", "--finetune", "1", "--steps", "1"];
    let (_, manifest, printed) = prune(&shelf, &args);
    assert!(manifest.ratio >= 0.5 && manifest.ratio < 1.0, "{printed}");
    assert_eq!(manifest.removed, (manifest.ratio * 52_768.0).round() as u64);
    assert!(printed.contains(": holds\n"), "{printed}");
}

#[test]
fn ctrl_c_keeps_the_best_until_then() {
    let shelf = Shelf::new("ctrl_c_keeps_the_best_until_then");
    let args = ["prune", "digits-cnn", "--ratio", "0.9", "--finetune", "5000", "--steps", "1", "-o", "out.onnx"];
    let running = shelf.start(&args);
    // The first line is the ratio that was reached: from then on there is a result to keep.
    wait_until("the first epoch", Duration::from_secs(600), || running.stderr().contains("epoch 1 of"));
    running.interrupt();
    let outcome = running.wait().expect(1);
    outcome.says(&["stopping tidily", "error: stopped; `out.onnx` is the best result so far"]);
    assert!(zeros(&inspected(&shelf.path("out.onnx"))) >= 47_491, "{}", outcome.all());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let shelf = Shelf::new("what_cannot_be_is_refused_before_anything_is_written");
    let dense = shelf.path("models/digits-cnn/dense.onnx").to_str().unwrap().to_owned();
    #[track_caller]
    fn check(shelf: &Shelf, args: &[&str], expected: &[&str]) {
        let outcome = shelf.run(&[&["prune"], args, &["-o", "never.onnx"]].concat()).expect(2);
        outcome.says(expected);
        assert!(!shelf.path("never.onnx").exists());
    }
    check(&shelf, &["digits-cnn", "--ratio", "1"], &["ratio 1 is not in [0, 1)"]);
    check(&shelf, &["digits-cnn", "--ratio", "-0.1"], &["ratio -0.1 is not in [0, 1)"]);
    check(&shelf, &[&dense], &["how much is to be removed?"]);
    check(&shelf, &[&dense, "--ratio", "0.5", "--method", "tailor"], &["tailor", "taylor"]);
    check(&shelf, &[&dense, "--ratio", "0.5", "--unit", "channels"], &["did you mean `channel`?"]);
    check(
        &shelf,
        &[&dense, "--ratio", "0.5", "--method", "taylor", "--finetune", "3", "--round-to", "8"],
        &[
            "--method: the method `taylor` looks at samples, and there are none",
            "--finetune: fine-tuning needs samples",
            "--round-to: with the unit `weight` no tensor shrinks",
        ],
    );
    check(&shelf, &[&dense, "--ratio", "0.7", "--unit", "2:4"], &["the ratio is 0.5 or 0"]);
    check(&shelf, &["digits-cnn", "--ratio", "0.5", "--unit", "head"], &["nothing in the model can be pruned"]);
    let strange = shelf.path("models/digits-cnn/../../strange.npz");
    fs::copy(espalier_tests::shipped("models/spoken-digits/calibration.npz"), &strange).unwrap();
    let strange = strange.to_str().unwrap();
    check(
        &shelf,
        &[&dense, "--ratio", "0.5", "--method", "taylor", "--calibration", strange],
        &["the calibration set `", "cannot be used", "the model's input `"],
    );
}

#[test]
fn sensitivity_and_inspection() {
    let shelf = Shelf::new("sensitivity_and_inspection");
    let files = ["--export-csv", "s.csv", "--export-json", "s.json"];
    let outcome = shelf.run(&[&["sensitivity", "digits-cnn", "--ratios", "0.5,0.9"], &files[..]].concat()).expect(0);
    outcome.prints(&["conv1.weight", "fc2.weight", "320 samples"]);
    let csv = fs::read_to_string(shelf.path("s.csv")).unwrap();
    // Four tensors at two ratios.
    assert_eq!(csv.lines().count(), 1 + 4 * 2, "{csv}");
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(shelf.path("s.json")).unwrap()).unwrap();
    assert_eq!((json["rows"].as_array().unwrap().len(), &json["complete"]), (8, &true.into()));

    let outcome = shelf.run(&["inspect", "digits-cnn"]).expect(0);
    outcome.prints(&["float32 [N, 1, 8, 8]", "53002 parameters, 52768 of them prunable weights", "not pruned: bias"]);
    let fixture = espalier_fixtures::write("bert-script", &shelf.path("nets"));
    let outcome = shelf.run(&["inspect", fixture.to_str().unwrap(), "--json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let families = json["structure"]["families"].as_array().unwrap();
    let kinds: Vec<&str> = families.iter().map(|family| family["kind"].as_str().unwrap()).collect();
    assert!(kinds.iter().any(|kind| kind.eq_ignore_ascii_case("head")), "{kinds:?}");
}

#[test]
fn a_dry_run_knows_the_recipe() {
    let shelf = Shelf::new("a_dry_run_knows_the_recipe");
    let toml = "source = \"digits-cnn/dense.onnx\"\neval = \"digits-cnn/eval.npz\"\n\
                calibration = \"digits-cnn/calibration.npz\"\n\
                [prune]\nmethod = \"taylor\"\nunit = \"channel\"\nfinetune = 1\n\
                distil = \"free\"\nratios = [0.0, 0.5]\n";
    shelf.write("models/digits-cnn.toml", toml);
    shelf.run(&["check"]).expect(0);
    let outcome = shelf.bench(&["--model", "digits-cnn", "--dry-run"]).expect(0);
    outcome.prints(&["# device `local`: "]);
    shelf.write("models/digits-cnn.toml", toml.replace("channel", "chanel"));
    shelf
        .bench(&["--model", "digits-cnn", "--dry-run"])
        .expect(2)
        .says(&["6:8: unknown unit `chanel`; did you mean `channel`?"]);
}
