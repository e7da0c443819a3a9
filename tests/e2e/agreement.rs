//! Boards against this host: the same predictions, sample by sample, and nothing sent twice.

use std::{fs, path::Path};

use espalier_bench::summary::{CaseSummary, Trust};
use espalier_fleet::boards::BoardKind;
use espalier_tests::{Outcome, Shelf, boards_are_up, on_board, shipped, skip};

/// Samples in the eval set of digits-cnn, and its variants.
const SAMPLES: u64 = 497;
const VARIANTS: usize = 5;

#[test]
fn boards_agree_with_the_host() {
    let name = "boards_agree_with_the_host";
    if !boards_are_up(name, &BoardKind::ALL) {
        return;
    }
    let mut shelf = Shelf::new(name);
    let mut args = vec!["--export-json", "out.json"];
    for kind in BoardKind::ALL {
        shelf.board(kind, "");
        args.extend(["--device", kind.name()]);
    }
    let outcome = shelf.bench(&args).expect(0);
    for line in outcome.stderr.lines().filter(|line| line.contains("in invocations")) {
        println!("{line}");
    }
    let cases = cases(&shelf, "out.json");
    assert_eq!(cases.len(), VARIANTS * BoardKind::ALL.len());
    expect_agreement(&cases);
}

#[test]
fn an_emulated_user_agrees_with_the_host() {
    let name = "an_emulated_user_agrees_with_the_host";
    let file = "devices/qemu-user-aarch64.toml";
    let device = fs::read_to_string(shipped(file)).unwrap();
    let folders = std::env::var("PATH").unwrap_or_default();
    if !folders.split(':').any(|folder| Path::new(folder).join("qemu-aarch64-static").exists()) {
        return skip(name, "no `qemu-aarch64-static` (`apt install qemu-user-static`)");
    }
    if !Path::new("/usr/aarch64-linux-gnu/lib").exists() {
        return skip(name, "no `/usr/aarch64-linux-gnu` (`apt install libc6-arm64-cross`)");
    }
    let shelf = Shelf::new(name);
    shelf.write(file, device);
    shelf.bench(&["--device", "qemu-user-aarch64", "--export-json", "out.json"]).expect(0);
    let cases = cases(&shelf, "out.json");
    assert_eq!(cases.len(), VARIANTS);
    expect_agreement(&cases);
}

#[test]
fn a_second_bench_pushes_nothing() {
    let name = "a_second_bench_pushes_nothing";
    let kind = BoardKind::Aarch64;
    if !boards_are_up(name, &[kind]) {
        return;
    }
    let mut shelf = Shelf::new(name);
    let workdir = shelf.board(kind, "");
    let bench = || shelf.bench(&["--device", kind.name(), "--ratios", "0"]).expect(0);
    // The runner, the dense variant, the inputs.
    let (files, bytes, present) = pushed(&bench(), kind);
    assert_eq!((files, present), (3, 0));
    assert!(bytes > 1_000_000, "{bytes}");
    assert_eq!(pushed(&bench(), kind), (0, 0, 3));
    // Nothing is left behind, and the board is free.
    assert_eq!(on_board(kind, &format!("cd '{workdir}' && ls tmp && ls")), "blobs\nkernels\ntmp\n");

    // A blob that was damaged on the board is not measured: it is sent again, alone.
    let model = shelf.newest_run().header.models[0].variants[0].sha256.clone();
    on_board(kind, &format!("echo x >> '{workdir}/blobs/{model}'"));
    let (files, _, present) = pushed(&bench(), kind);
    assert_eq!((files, present), (1, 2));
}

/// Of `virt-aarch64: 3 files pushed (4592925 bytes sent), 0 already there`: files, bytes, files that were there.
#[track_caller]
fn pushed(outcome: &Outcome, kind: BoardKind) -> (u64, u64, u64) {
    let start = format!("{kind}: ");
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix(&start).filter(|line| line.contains("pushed")));
    let line = line.unwrap_or_else(|| panic!("no line about a push\n{}", outcome.all()));
    let numbers: Vec<u64> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    (numbers[0], numbers[1], numbers[2])
}

#[track_caller]
fn expect_agreement(cases: &[CaseSummary]) {
    for case in cases {
        let agreement = case.same_as_reference.unwrap_or_else(|| panic!("not compared: {case:?}"));
        let difference = agreement.largest_difference.expect("logits travelled");
        println!("{} at {}: largest difference of a logit {difference:e}", case.case.device, case.case.ratio);
        assert_eq!((agreement.equal, agreement.total), (SAMPLES, SAMPLES), "{:?}", case.case);
        // Another order of additions, not another result; logits are of the order of 10.
        assert!(difference < 1e-3, "{:?}: {difference}", case.case);
        assert_eq!(case.trust, Some(Trust::Emulated));
        assert!(case.p50.is_some() && case.peak_rss.is_some() && case.failures.is_empty(), "{case:?}");
        assert_eq!(case.accuracy.map(|accuracy| accuracy.total), Some(SAMPLES));
    }
}

fn cases(shelf: &Shelf, file: &str) -> Vec<CaseSummary> {
    let text = fs::read_to_string(shelf.path(file)).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(document["cases"].clone()).unwrap()
}
