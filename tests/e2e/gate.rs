//! Baselines, verdicts and what becomes of them. What is judged here is what time does not decide (sizes, accuracy,
//! files that are not there); the tests in which a slow-down must be found want a board for themselves and stand with
//! the faults.

use std::{fs, io::Write, path::Path};

use espalier_fleet::boards::BoardKind;
use espalier_gate::{Comparison, Criterion, Verdict, file::GateRun};
use espalier_tests::{Outcome, Shelf, boards_are_up, shipped};

/// As little measuring as there can be: four blocks of thirty inferences, if nothing disturbs them.
const GATE: [&str; 5] = ["gate", "--profile", "coarse", "--criterion", "p50"];

const CALIBRATION: &str = r#"format = 1
device = "local"
measured = "2026-11-23T19:15:00Z"
runner = "any"

[model.digits-cnn]
warmup = 2
iterations = 30
min-time-ms = 0
judged = "p50"
fit = "nightly"

[model.digits-cnn.pair-sd]
p50 = 0.02
"#;

fn shelf(name: &str) -> Shelf {
    let shelf = Shelf::new(name);
    shelf.write("devices/calibration/local.toml", CALIBRATION);
    shelf
}

/// The newest gate's file.
fn newest(shelf: &Shelf) -> GateRun {
    let folder = shelf.path("reports/gates");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    GateRun::parse(&fs::read_to_string(files.last().unwrap()).unwrap()).unwrap()
}

fn verdict(run: &GateRun, criterion: Criterion, ratio: f64) -> &Comparison {
    let mut made = run.comparisons.iter();
    made.find(|made| made.criterion == criterion && made.case.ratio == ratio).unwrap_or_else(|| panic!("{run:?}"))
}

/// A busy host may leave latencies open, and must do nothing else to what is the same.
#[track_caller]
fn expect_no_regression(outcome: Outcome) -> Outcome {
    assert!(matches!(outcome.code, Some(0 | 4)), "{}", outcome.all());
    outcome
}

#[test]
fn what_is_the_same_is_not_worse() {
    let shelf = shelf("what_is_the_same_is_not_worse");
    let accepted = shelf.run(&["accept", "--name", "release-1"]).expect(0);
    accepted.prints(&["baseline `release-1`: 1 runners, 5 variants", "to be committed"]);
    shelf.run(&["accept", "--name", "release-1"]).expect(2).says(&["there is a baseline", "--replace"]);
    let files = [
        "--export-json",
        "g.json",
        "--export-markdown",
        "g.md",
        "--export-junit",
        "g.xml",
        "--export-replay",
        "g.jsonl",
    ];
    let all = [&GATE[..], &["--ratios", "0,0.5", "--baseline", "release-1", "--negative-control"], &files[..]].concat();
    let outcome = expect_no_regression(shelf.run(&all));
    outcome.prints(&["gate against release-1, profile coarse", "digits-cnn@0.5 on local", "GATE: "]);
    let run = newest(&shelf);
    for criterion in [Criterion::ModelSize, Criterion::PeakAllocated, Criterion::Accuracy] {
        for ratio in [0.0, 0.5] {
            assert_eq!(verdict(&run, criterion, ratio).verdict, Verdict::Pass, "{criterion:?}@{ratio}");
        }
    }
    // Judged again from what was stored, and from what was exported: the same.
    let again = shelf.run(&["gate", "--from", &run.header.id]);
    assert_eq!(again.code, outcome.code, "{}", again.all());
    let given: Vec<_> = run.comparisons.iter().map(|made| (made.criterion, made.role, made.verdict)).collect();
    let judged = run.judge_again().unwrap();
    assert!(!judged.is_empty());
    for made in judged {
        assert!(given.contains(&(made.criterion, made.role, made.verdict)), "{made:?}");
    }
    if fs::metadata(shelf.path("g.jsonl")).unwrap().len() > 0 {
        let replayed = shelf.run(&["gate", "--replay", "g.jsonl", "--profile", "coarse", "--cells", "4"]);
        assert!(matches!(replayed.code, Some(0 | 4)), "{}", replayed.all());
        replayed.prints(&["\"verdict\":"]);
    }
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(shelf.path("g.json")).unwrap()).unwrap();
    assert!(json.to_string().contains("release-1"));
    assert!(fs::read_to_string(shelf.path("g.md")).unwrap().contains("digits-cnn"));
    assert!(fs::read_to_string(shelf.path("g.xml")).unwrap().starts_with("<?xml"));
    let controls = fs::read_to_string(shelf.path("reports/controls.jsonl")).unwrap();
    assert_eq!(controls.lines().count(), 1, "{controls}");
}

/// A model that answers otherwise, and one that grew: both block, a waiver with a reason lets them through, and is
/// shown.
#[test]
fn a_worse_model_blocks_unless_it_is_waived() {
    let shelf = shelf("a_worse_model_blocks_unless_it_is_waived");
    shelf.run(&["accept"]).expect(0);
    let worse = shelf.path("worse.onnx");
    let broken = ["--ratio", "0.9", "--method", "magnitude", "--steps", "1", "--finetune", "0"];
    shelf.run(&[&["prune", "digits-cnn", "-o", worse.to_str().unwrap()], &broken[..]].concat()).expect(0);
    let link = shelf.path("models/digits-cnn");
    fs::remove_file(&link).unwrap();
    copy_folder(&shipped("models/digits-cnn"), &link);
    fs::copy(&worse, link.join("dense.onnx")).unwrap();
    let gate = [&GATE[..], &["--ratios", "0"]].concat();
    let outcome = shelf.run(&gate).expect(3);
    outcome.prints(&["regressed", "accuracy", "(exit code 3)"]);
    assert_eq!(verdict(&newest(&shelf), Criterion::Accuracy, 0.0).verdict, Verdict::Regressed);

    let waiver = |until: &str| {
        let text = format!(
            "[[waiver]]\ncase = \"digits-cnn@0 on local\"\nreason = \"the customer asked for it\"\nuntil = \
             \"{until}\"\n"
        );
        shelf.write("reports/waivers.toml", text);
    };
    waiver("2001-01-01");
    shelf.run(&gate).expect(3).prints(&["ended on 2001-01-01"]);
    let soon = shelf_day(&shelf);
    waiver(&soon);
    let outcome = expect_no_regression(shelf.run(&gate));
    outcome.prints(&["the customer asked for it", "waived"]);
    shelf.write("reports/waivers.toml", "[[waiver]]\ncase = \"digits-cnn\"\nuntil = 7\n");
    shelf.run(&gate).expect(2).says(&["reports/waivers.toml:2:8", "reports/waivers.toml:3:9", "`reason`"]);
}

#[test]
fn nothing_to_compare_with_is_not_a_pass() {
    let shelf = shelf("nothing_to_compare_with_is_not_a_pass");
    shelf.run(&["gate"]).expect(4).says(&["there is no baseline", "cargo xtask accept"]);
    shelf.run(&["accept", "--name", "main", "--model", "digits-cnn"]).expect(0);
    shelf.run(&["gate", "--baseline", "mian"]).expect(4).says(&["there is no baseline `mian` (there are: main)"]);

    // A ratio the baseline does not have.
    let outcome = shelf.run(&[&GATE[..], &["--ratios", "0.37"]].concat()).expect(4);
    outcome.prints(&["it is not in baseline `main`", "(exit code 4)"]);

    // A file of it is gone.
    let manifest = shelf.path("reports/baselines/main.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let runner = text.lines().find_map(|line| line.strip_prefix("sha256 = \"")).unwrap().trim_end_matches('"');
    let store = shelf.path("reports/store");
    let blob = files(&store).into_iter().find(|file| file.ends_with(runner)).unwrap();
    fs::rename(&blob, shelf.path("kept")).unwrap();
    shelf.run(&GATE).expect(4).says(&["the runner for host", runner, "accept"]);
    fs::write(&blob, "damaged").unwrap();
    shelf.run(&GATE).expect(4).says(&["the runner for host", runner]);
    fs::rename(shelf.path("kept"), &blob).unwrap();

    // A baseline of another kind of device, and one with mistakes.
    fs::write(
        &manifest,
        text.replace("x86_64-unknown", "sparc64-unknown").replace("aarch64-unknown", "sparc64-unknown"),
    )
    .unwrap();
    shelf.run(&GATE).expect(2).says(&["sparc64-unknown-linux-gnu", "baseline `main`"]);
    fs::write(&manifest, text.replace("format = 1", "format = 1\nfromat = 2")).unwrap();
    shelf.run(&GATE).expect(2).says(&["main.toml:3:1", "fromat"]);
    fs::write(&manifest, &text).unwrap();

    // A device that is not there.
    shelf.write(
        "devices/gone.toml",
        "target = \"host\"\ntransport = { ssh = { host = \"127.0.0.1\", port = 9, user = \
                                      \"root\", config = \"/dev/null\" } }\n[timeouts]\nconnect = \"2s\"\n",
    );
    let outcome = shelf.run(&[&GATE[..], &["--ratios", "0", "--device", "gone"]].concat()).expect(5);
    outcome.prints(&["gone", "(exit code 5)"]);
    assert!(newest(&shelf).comparisons.iter().all(|made| {
        made.verdict == Verdict::Inconclusive || matches!(made.criterion, Criterion::ModelSize | Criterion::RunnerSize)
    }));
}

#[test]
fn an_emulated_device_is_judged_only_on_request() {
    let shelf = shelf("an_emulated_device_is_judged_only_on_request");
    shelf.write(
        "devices/pretend.toml",
        "transport = \"local\"\nemulated = true\nworkdir = \"/var/tmp/espalier-pretend\"\n",
    );
    shelf.run(&["accept", "--device", "pretend"]).expect(0);
    let gate = [&GATE[..], &["--device", "pretend", "--ratios", "0"]].concat();
    shelf.run(&gate).expect(2).says(&["`pretend` is emulated", "`--emulated`"]);
    expect_no_regression(shelf.run(&[&gate[..], &["--emulated"]].concat()));
}

#[test]
fn recorded_comparisons_are_judged_a_line_each() {
    let shelf = shelf("recorded_comparisons_are_judged_a_line_each");
    let case = |id: &str, slower: u64| {
        let invocation = |arm: &str, step: u64| {
            let base = if arm == "A" { 1_000_000 } else { 1_000_000 + slower };
            let ns: Vec<String> =
                (0..5).map(|value| (base + (step * 7919 + value * 104_729) % 3000).to_string()).collect();
            format!("{{\"arm\":\"{arm}\",\"ns\":[{}]}}", ns.join(","))
        };
        let arms = ["A", "B", "B", "A"].iter().cycle().take(32);
        let invocations: Vec<String> = arms.enumerate().map(|(step, arm)| invocation(arm, step as u64)).collect();
        format!("{{\"id\":\"{id}\",\"warmup_iters\":1,\"block\":4,\"invocations\":[{}]}}\n", invocations.join(","))
    };
    let same = shelf.write("same.jsonl", case("same", 0));
    shelf.run(&["gate", "--replay", &same]).expect(0).prints(&[
        "\"id\":\"same\"",
        "\"verdict\":\"pass\"",
        "\"blocks_used\":8",
    ]);
    let slow = shelf.write("slow.jsonl", case("same", 0) + &case("slow", 50_000));
    shelf.run(&["gate", "--replay", &slow]).expect(3).prints(&["\"id\":\"slow\",\"verdict\":\"fail\""]);
    // Packed, and cut off: complete lines are judged, the cut-off one is reported by its number.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all((case("same", 0) + &case("slow", 50_000)).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let packed_file = shelf.write("whole.jsonl.gz", &packed);
    shelf.run(&["gate", "--replay", &packed_file]).expect(3).prints(&["\"id\":\"slow\""]);
    let text = case("same", 0) + &case("slow", 50_000)[..400];
    let cut = shelf.write("cut.jsonl", text);
    let outcome = shelf.run(&["gate", "--replay", &cut]).expect(2);
    outcome.prints(&["\"id\":\"same\""]);
    outcome.says(&["cut.jsonl`, line 2"]);
    for (bad, message) in [
        (case("x", 0).replace("\"arm\":\"B\"", "\"arm\":\"C\""), "C"),
        (case("x", 0).replacen("[1", "[0,1", 1), "case `x`"),
        (case("x", 0).replacen("[1", "[NaN,1", 1), "line 1"),
        (case("x", 0) + &case("x", 0), "line 2"),
    ] {
        let file = shelf.write("bad.jsonl", bad);
        shelf.run(&["gate", "--replay", &file]).expect(2).says(&["bad.jsonl`, line ", message]);
    }
    let empty = shelf.write("empty.jsonl", "");
    shelf.run(&["gate", "--replay", &empty]).expect(4).says(&["nothing was compared"]);
}

#[test]
fn nightly_is_one_summary_and_one_exit_code() {
    let shelf = shelf("nightly_is_one_summary_and_one_exit_code");
    let quick = |text: &str| text.replace("ratios = [0.0, 0.5, 0.8, 0.9, 0.95]", "ratios = [0.0]");
    shelf.write("models/digits-cnn.toml", quick(&fs::read_to_string(shipped("models/digits-cnn.toml")).unwrap()));
    shelf.run(&["history"]).expect(4).says(&["has no entry yet"]);
    // Without a baseline there are tables all the same, and the result is not green.
    let nightly = ["nightly", "--device", "local", "--runs", "1", "--profile", "coarse", "--export-summary", "s.md"];
    let outcome = shelf.run(&nightly).expect(4);
    outcome.prints(&[
        "- bench: ok (exit code 0)",
        "- gate: inconclusive (exit code 4)",
        "NIGHTLY: inconclusive (exit code 4)",
    ]);
    shelf.run(&["accept"]).expect(0);
    for _ in 0..2 {
        let outcome = shelf.run(&nightly);
        assert!(matches!(outcome.code, Some(0 | 4)), "{}", outcome.all());
        outcome.prints(&["- bench: ok (exit code 0)", "NIGHTLY: "]);
    }
    assert!(fs::read_to_string(shelf.path("s.md")).unwrap().contains("NIGHTLY: "));
    let history = fs::read_to_string(shelf.path("reports/history.jsonl")).unwrap_or_default();
    let controls = fs::read_to_string(shelf.path("reports/controls.jsonl")).unwrap();
    // The slow-down is for once a week, but for as long as it was not found.
    assert!(controls.matches("negative-control").count() == 2 && controls.contains("positive-control"), "{controls}");
    if !history.is_empty() {
        let shown = shelf.run(&["history", "--export-json", "h.json"]).expect(0);
        shown.prints(&["digits-cnn@0 on local"]);
        assert!(fs::read_to_string(shelf.path("h.json")).unwrap().contains("digits-cnn"));
        let refused = shelf.run(&[
            "accept-change",
            "digits-cnn@0 on local",
            "--criterion",
            "p50",
            "--commit",
            "abcdef1",
            "--reason",
            "known",
        ]);
        assert_eq!(refused.code, Some(2), "{}", refused.all());
    }
}

/// A board's own runner, pushed as a baseline and as a candidate; what is judged does not hang on its speed.
#[test]
fn a_board_compares_two_runners() {
    let name = "a_board_compares_two_runners";
    let kind = BoardKind::Riscv64;
    if !boards_are_up(name, &[kind]) {
        return;
    }
    let mut shelf = Shelf::new(name);
    shelf.board(kind, "");
    shelf.write(&format!("devices/calibration/{kind}.toml"), CALIBRATION.replace("local", kind.name()));
    shelf.run(&["accept", "--device", kind.name()]).expect(0);
    let gate = [&GATE[..], &["--device", kind.name(), "--ratios", "0.5", "--emulated"]].concat();
    let outcome = expect_no_regression(shelf.run(&gate));
    outcome.prints(&["in both arms", "digits-cnn@0.5 on virt-riscv64"]);
    assert_eq!(verdict(&newest(&shelf), Criterion::Accuracy, 0.5).verdict, Verdict::Pass);
    // The host's runner is no riscv64 board's.
    shelf.run(&["accept", "--name", "host"]).expect(0);
    let outcome = shelf.run(&[&gate[..], &["--baseline", "host"]].concat()).expect(2);
    outcome.says(&["baseline `host` is from another device type", "riscv64gc-unknown-linux-gnu"]);
}

/// A day of next month, as the gate that was just carried out knows the day.
fn shelf_day(shelf: &Shelf) -> String {
    let started = newest(shelf).header.started;
    let (year, month): (u32, u32) = (started[..4].parse().unwrap(), started[5..7].parse().unwrap());
    format!("{}-{:02}-01", year + month / 12, month % 12 + 1)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
