//! Boards that die, freeze or are let go of in the middle of a run. A program of its own: cargo runs it after the tests
//! that want their boards alive.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use espalier_bench::record::{FailureStage, Outcome, Record};
use espalier_fleet::{
    boards::{self, BoardKind, Options},
    cancel::Cancel,
};
use espalier_gate::{Criterion, Verdict, file::GateRun};
use espalier_tests::{Running, Shelf, boards_are_up, cache, on_board, wait_until};

/// Two variants, each scored, its memory measured, and timed.
const BENCH: [&str; 11] =
    ["bench", "--ratios", "0.9", "--runs", "1", "--warmup", "1", "--iterations", "3", "--min-time", "500"];
const JOBS: usize = 6;

/// Records after which the fault comes: there is something to keep and something left to do.
const KEPT: usize = 2;

/// One fault at a time on a board, also after a test that failed.
fn alone() -> MutexGuard<'static, ()> {
    static BOARD: Mutex<()> = Mutex::new(());
    BOARD.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const KIND: BoardKind = BoardKind::Aarch64;

#[test]
fn a_board_loses_power() {
    let _alone = alone();
    let Some((shelf, _, running)) = begin("a_board_loses_power", "") else { return };
    assert!(boards::power_cut(&cache(), KIND).unwrap());
    let outcome = running.wait();
    boards::up(&cache(), KIND, &Options::default(), &|_| (), &Cancel::default()).unwrap();
    let outcome = outcome.expect(5);
    outcome.says(&["was lost", "--resume"]);
    let kept = expect_cut_off(&shelf);
    // The board comes back empty, because its files are in memory.
    expect_the_rest(&shelf, &kept);
}

#[test]
fn a_board_freezes() {
    let _alone = alone();
    let Some((shelf, workdir, running)) = begin("a_board_freezes", "[timeouts]\nidle = \"6s\"\nconnect = \"5s\"\n")
    else {
        return;
    };
    let frozen = Instant::now();
    boards::freeze(&cache(), KIND).unwrap();
    let thaw = OnDrop(|| boards::thaw(&cache(), KIND).unwrap());
    let outcome = running.wait();
    println!("ended {:.1} s after the board froze", frozen.elapsed().as_secs_f64());
    drop(thaw);
    let outcome = outcome.expect(5);
    outcome.says(&["said nothing for 6 s", "--resume"]);
    // It could not be ended on the frozen board; it ends when it notices that its connection is gone.
    wait_until("the end of the frozen runner", Duration::from_secs(300), || runners(&workdir) == 0);
    let kept = expect_cut_off(&shelf);
    expect_the_rest(&shelf, &kept);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let _alone = alone();
    let Some((shelf, workdir, running)) = begin("ctrl_c_leaves_nothing_behind", "") else { return };
    assert_ne!(runners(&workdir), 0);
    let interrupted = Instant::now();
    running.interrupt();
    let outcome = running.wait();
    println!("ended {:.1} s after Ctrl-C", interrupted.elapsed().as_secs_f64());
    let outcome = outcome.expect(1);
    outcome.says(&["stopping tidily", "stopped; `cargo xtask bench --resume"]);
    outcome.prints(&[&format!("digits-cnn on {KIND}\n")]);
    assert_eq!(runners(&workdir), 0, "a runner runs on");
    assert_eq!(on_board(KIND, &format!("cd '{workdir}' && ls tmp && ls")), "blobs\nkernels\ntmp\n", "not released");
    let records = on_the_board(&shelf);
    assert!((KEPT..JOBS).contains(&records.len()) && records.iter().all(is_measured), "{records:?}");
    expect_the_rest(&shelf, &records);
}

/// Four times as slow is detected on any board, by both sessions, and the verdict is in the file.
#[test]
fn a_slow_candidate_is_stopped() {
    let _alone = alone();
    let name = "a_slow_candidate_is_stopped";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let shelf = shelf_of_a_gate(name);
    let outcome = shelf.run(&[&GATE[..], &["--slow-down", "300"]].concat()).expect(3);
    outcome.says(&["a fresh session is to confirm it"]);
    outcome.prints(&["regressed", "confirmed", "(exit code 3)"]);
    let run = gate_file(&shelf);
    let slow = run.comparisons.iter().find(|made| made.criterion == Criterion::P50).unwrap();
    assert_eq!(slow.verdict, Verdict::Regressed);
    assert!(slow.confirmation.as_ref().is_some_and(|second| second.confirmed), "{slow:?}");
    assert!(run.judge_again().unwrap().contains(slow), "judged again it is another verdict");
    shelf.run(&["gate", "--from", &run.header.id]).expect(3);
}

/// The board is lost in the middle of a gate: exit code 5, and nothing passes that was not measured.
#[test]
fn a_gate_loses_its_board() {
    let _alone = alone();
    let name = "a_gate_loses_its_board";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let shelf = shelf_of_a_gate(name);
    let mut running = shelf.start(&GATE);
    // Both scores, and two invocations of memory.
    running.until("the first records", || shelf.path("reports/gates").exists() && gate_file(&shelf).records.len() >= 4);
    assert!(boards::power_cut(&cache(), KIND).unwrap());
    let outcome = running.wait();
    boards::up(&cache(), KIND, &Options::default(), &|_| (), &Cancel::default()).unwrap();
    outcome.expect(5).prints(&["lost", "(exit code 5)"]);
    let run = gate_file(&shelf);
    let open = |criterion: Criterion| {
        let made = run.comparisons.iter().find(|made| made.criterion == criterion).unwrap();
        assert_eq!(made.verdict, Verdict::Inconclusive, "{made:?}");
    };
    open(Criterion::P50);
    open(Criterion::PeakRss);
    assert!(run.records.len() >= 4, "what was measured is kept");
}

/// Ctrl-C in the middle of a gate: nothing runs on, the lease is released, and half a session gives no verdict.
#[test]
fn ctrl_c_ends_a_gate_without_a_verdict() {
    let _alone = alone();
    let name = "ctrl_c_ends_a_gate_without_a_verdict";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let mut shelf = shelf_of_a_gate(name);
    // The same folder: it is named by the test.
    let workdir = shelf.board(KIND, "");
    let mut running = shelf.start(&GATE);
    running.until("the first records", || shelf.path("reports/gates").exists() && gate_file(&shelf).records.len() >= 4);
    running.interrupt();
    running.wait().expect(1).says(&["stopping tidily"]);
    assert_eq!(runners(&workdir), 0, "a runner runs on");
    assert_eq!(on_board(KIND, &format!("cd '{workdir}' && ls tmp && ls")), "blobs\nkernels\ntmp\n", "not released");
    let run = gate_file(&shelf);
    let made = run.comparisons.iter().find(|made| made.criterion == Criterion::P50).unwrap();
    assert_eq!(made.verdict, Verdict::Inconclusive, "{made:?}");
}

const GATE: [&str; 10] =
    ["gate", "--device", "virt-aarch64", "--emulated", "--profile", "coarse", "--ratios", "0.5", "--criterion", "p50"];

/// With a baseline, and no more inferences an invocation than it takes to see four times as slow.
fn shelf_of_a_gate(name: &str) -> Shelf {
    let mut shelf = Shelf::new(name);
    shelf.board(KIND, "");
    let calibration = "format = 1\ndevice = \"virt-aarch64\"\nmeasured = \"2026-11-23T19:15:00Z\"\nrunner = \"any\"\n\
        [model.digits-cnn]\nwarmup = 2\niterations = 40\nmin-time-ms = 0\njudged = \"p50\"\nfit = \"nightly\"\n\
        [model.digits-cnn.pair-sd]\np50 = 0.02\n";
    shelf.write("devices/calibration/virt-aarch64.toml", calibration);
    shelf.run(&["accept", "--device", KIND.name()]).expect(0);
    shelf
}

fn gate_file(shelf: &Shelf) -> GateRun {
    let entries = std::fs::read_dir(shelf.path("reports/gates")).unwrap();
    let file = entries.map(|entry| entry.unwrap().path()).max().unwrap();
    GateRun::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A bench in the middle of it, with its folder on the board; `None` where there is no board.
fn begin(name: &str, more: &str) -> Option<(Shelf, String, Running)> {
    if !boards_are_up(name, &[KIND]) {
        return None;
    }
    let mut shelf = Shelf::new(name);
    let workdir = shelf.board(KIND, more);
    let mut running = shelf.start(&[&BENCH[..], &["--device", KIND.name()]].concat());
    running.until("the first records", || !shelf.run_files().is_empty() && on_the_board(&shelf).len() >= KEPT);
    if running.has_ended() {
        panic!("{}", running.wait().all());
    }
    Some((shelf, workdir, running))
}

/// How many runners run from this folder of the board.
fn runners(workdir: &str) -> usize {
    on_board(KIND, &format!("ps | grep -v grep | grep -c '{workdir}/blobs' || true")).trim().parse().unwrap()
}

/// Records of the board, in order.
fn on_the_board(shelf: &Shelf) -> Vec<Record> {
    let run = shelf.newest_run();
    run.records.into_iter().filter(|record| record.case.device == KIND.name()).collect()
}

fn is_measured(record: &Record) -> bool {
    matches!(record.outcome, Outcome::Measured(_))
}

/// The measured records are there, and the job that met the fault is the last. Returns the measured ones.
#[track_caller]
fn expect_cut_off(shelf: &Shelf) -> Vec<Record> {
    let mut records = on_the_board(shelf);
    let last = records.pop().unwrap();
    assert!((KEPT..JOBS).contains(&records.len()) && records.iter().all(is_measured), "{records:?}");
    assert!(matches!(&last.outcome, Outcome::Failed(failure) if failure.stage == FailureStage::Run), "{last:?}");
    records
}

/// `--resume` does what is missing and nothing else.
#[track_caller]
fn expect_the_rest(shelf: &Shelf, kept: &[Record]) {
    let file = shelf.run_files().remove(0);
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap().lines().count();
    let before = lines(&file);
    let id = shelf.newest_run().header.id;
    let start = Instant::now();
    shelf.run(&["bench", "--resume", &id]).expect(0).prints(&[&format!("digits-cnn on {KIND}\n")]);
    println!("the rest took {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(shelf.run_files().len(), 1, "the same run goes on");
    assert_eq!(lines(&file) - before, JOBS - kept.len(), "done again, or not done");
    let records = on_the_board(shelf);
    assert_eq!(records.len(), JOBS);
    assert!(records.iter().all(is_measured), "{records:?}");
    assert!(kept.iter().all(|record| records.contains(record)), "what was measured has changed");
}

/// Calls a function in the end, also where the test fails.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
