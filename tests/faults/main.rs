//! Boards that die, freeze or are let go of in the middle of a run. A program of its own: cargo runs it after the tests that want their boards alive.

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
use espalier_tests::{Running, Shelf, boards_are_up, cache, on_board, wait_until};

/// Two variants, each scored, its memory measured, and timed twice.
const BENCH: [&str; 11] =
    ["bench", "--ratios", "0.9", "--runs", "2", "--warmup", "1", "--iterations", "3", "--min-time", "500"];
const JOBS: usize = 8;

/// Records after which the fault comes: there is something to keep and something left to do.
const KEPT: usize = 3;

/// One fault at a time on a board, whatever it did to the test before.
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
    let outcome = running.wait(Duration::from_secs(60));
    boards::up(&cache(), KIND, &Options::default(), &|_| (), &Cancel::default()).unwrap();
    let outcome = outcome.expect(5);
    outcome.says(&["was lost", "--resume"]);
    let kept = expect_cut_off(&shelf);
    // The board comes back empty: its files were in memory.
    expect_the_rest(&shelf, &kept);
}

#[test]
fn a_board_freezes() {
    let _alone = alone();
    let Some((shelf, _, running)) = begin("a_board_freezes", "[timeouts]\nidle = \"6s\"\nconnect = \"5s\"\n") else {
        return;
    };
    let frozen = Instant::now();
    boards::freeze(&cache(), KIND).unwrap();
    let thaw = OnDrop(|| boards::thaw(&cache(), KIND).unwrap());
    let outcome = running.wait(Duration::from_secs(60));
    println!("ended {:.1} s after the board froze", frozen.elapsed().as_secs_f64());
    drop(thaw);
    let outcome = outcome.expect(5);
    outcome.says(&["said nothing for 6 s", "--resume"]);
    let kept = expect_cut_off(&shelf);
    expect_the_rest(&shelf, &kept);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let _alone = alone();
    let Some((shelf, workdir, running)) = begin("ctrl_c_leaves_nothing_behind", "") else { return };
    let runners = format!("ps | grep -v grep | grep -c '{workdir}/blobs' || true");
    assert_ne!(on_board(KIND, &runners).trim(), "0", "a runner runs");
    let asked = Instant::now();
    running.interrupt();
    let outcome = running.wait(Duration::from_secs(15));
    println!("ended {:.1} s after Ctrl-C", asked.elapsed().as_secs_f64());
    assert!(asked.elapsed() < Duration::from_secs(10), "{}", outcome.all());
    let outcome = outcome.expect(1);
    outcome.says(&["stopping: ", "stopped; `cargo xtask bench --resume"]);
    outcome.prints(&[&format!("digits-cnn on {KIND}\n")]);
    assert_eq!(on_board(KIND, &runners).trim(), "0", "a runner runs on");
    assert_eq!(on_board(KIND, &format!("cd '{workdir}' && ls tmp && ls")), "blobs\ntmp\n", "not given back");
    let records = on_the_board(&shelf);
    assert!((KEPT..JOBS).contains(&records.len()) && records.iter().all(is_measured), "{records:?}");
    expect_the_rest(&shelf, &records);
}

/// A bench in the middle of it, with its folder on the board; `None` where there is no board.
fn begin(name: &str, more: &str) -> Option<(Shelf, String, Running)> {
    if !boards_are_up(name, &[KIND]) {
        return None;
    }
    let mut shelf = Shelf::new(name);
    let workdir = shelf.board(KIND, more);
    let mut running = shelf.start(&[&BENCH[..], &["--device", KIND.name()]].concat());
    wait_until("the first records", Duration::from_secs(120), || {
        if running.has_ended() {
            return true;
        }
        !shelf.run_files().is_empty() && on_the_board(&shelf).len() >= KEPT
    });
    if running.has_ended() {
        panic!("{}", running.wait(Duration::ZERO).all());
    }
    Some((shelf, workdir, running))
}

/// Records of the board, in order.
fn on_the_board(shelf: &Shelf) -> Vec<Record> {
    let run = shelf.newest_run();
    run.records.into_iter().filter(|record| record.case.device == KIND.name()).collect()
}

fn is_measured(record: &Record) -> bool {
    matches!(record.outcome, Outcome::Measured(_))
}

/// What was measured is there, and the job that met the fault as the last. Returns what was measured.
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

/// Also where the test fails in between.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
