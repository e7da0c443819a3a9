//! Programs that are no runners: whatever a board sends, the run ends with a message and keeps its records.

use std::os::unix::fs::PermissionsExt;

use espalier_bench::record::{Failure, FailureStage, Outcome};
use espalier_fleet::boards::BoardKind;
use espalier_tests::{Shelf, boards_are_up, on_board};

/// The first line of a current runner.
const HELLO: &str =
    r#"echo '{"line":"hello","protocol":1,"runner":"0","arch":"x","pid":1,"engine":"none","cpu_features":[]}'"#;

fn script(shelf: &Shelf, body: &str) -> String {
    let path = shelf.write("runner.sh", format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs `body` as the runner of `device` at ratio 0 and returns the failures recorded, of three jobs.
#[track_caller]
fn check(shelf: &Shelf, device: &str, body: &str, code: i32, expected: &str) -> Vec<Failure> {
    let runner = script(shelf, body);
    let outcome = shelf.bench(&["--runner", &runner, "--ratios", "0", "--device", device]).expect(code);
    outcome.says(&[expected]);
    // It came to the terminal without its escape sequences.
    assert!(!outcome.stderr.contains('\x1b') && !outcome.stdout.contains('\x1b'), "{}", outcome.all());
    outcome.prints(&[&format!("digits-cnn on {device}\n")]);
    let failures = shelf.newest_run().records.into_iter().map(|record| match record.outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Measured(_) => panic!("measured by a program that is no runner: {record:?}"),
    });
    failures.collect()
}

#[track_caller]
fn expect(failures: &[Failure], count: usize, stage: FailureStage) {
    assert_eq!(failures.len(), count, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.stage == stage), "{failures:?}");
}

#[test]
fn garbage_is_refused() {
    let shelf = Shelf::new("garbage_is_refused");
    let check = |body: &str, expected: &str| check(&shelf, "local", body, 5, expected);
    let run = FailureStage::Run;
    // Each job is tried: the next may go better.
    expect(&check("echo hello world", "not a line of the runner's protocol: `hello world`"), 3, run);
    expect(&check("printf '\\033[2Jboo\\n'", "not a line of the runner's protocol: `"), 3, run);
    expect(&check("exit 0", "the runner did not start: exit status 0"), 3, run);
    expect(&check("echo oh >&2; exit 7", "the runner did not start: exit status 7: oh"), 3, run);
    expect(&check(&format!("{HELLO}; exit 3"), "was cut off before `finished`: exit status 3"), 3, run);
    expect(&check(&format!("{HELLO}; kill -9 $$"), "was cut off before `finished`: ended by signal KILL"), 3, run);
    let finished = format!("{HELLO}; echo '{{\"line\":\"finished\"}}'");
    expect(&check(&finished, "the runner finished without saying its state"), 3, run);
    expect(&check(&format!("{finished}; echo '{{\"line\":\"finished\"}}'"), "went on after `finished`"), 3, run);
    let newer = HELLO.replace("\"protocol\":1", "\"protocol\":99");
    expect(&check(&newer, "the runner speaks protocol 99, this host 1"), 3, run);
    // No protocol at all: not tried again.
    let long = "head -c 1000000 /dev/zero | tr '\\0' x; echo";
    expect(&check(long, "sent a line longer than 262144 bytes"), 1, run);
}

/// A failure that the runner reports is the job's, not the device's, and that variant is not tried again.
#[test]
fn a_failure_the_runner_reports_is_the_jobs() {
    let shelf = Shelf::new("a_failure_the_runner_reports_is_the_jobs");
    let body = format!(
        "{HELLO}; echo '{{\"line\":\"failed\",\"stage\":\"load\",\"message\":\"no such \\u001b[31moperator\"}}'; \
         echo '{{\"line\":\"finished\"}}'; exit 1"
    );
    let failures = check(&shelf, "local", &body, 1, "operator (while at load)");
    expect(&failures, 1, FailureStage::Runner);
}

#[test]
fn a_silent_runner_is_ended() {
    let shelf = Shelf::new("a_silent_runner_is_ended");
    shelf.write("devices/mute.toml", "transport = \"local\"\n[timeouts]\nidle = \"6s\"\n");
    let marker = format!("86{:06}", std::process::id());
    let runner = script(&shelf, &format!("{HELLO}\nsleep {marker}"));
    let outcome = shelf.bench(&["--runner", &runner, "--ratios", "0", "--device", "mute"]).expect(5);
    outcome.says(&["said nothing for 6 s", "`timeouts.idle`"]);
    assert!((6..15).contains(&outcome.took.as_secs()), "{:?}", outcome.took);
    assert_eq!(shelf.newest_run().records.len(), 1);
    // Its child went with it.
    let sleeping = std::process::Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&sleeping.stdout), "");
}

#[test]
fn garbage_from_a_board() {
    let name = "garbage_from_a_board";
    let kind = BoardKind::Aarch64;
    if !boards_are_up(name, &[kind]) {
        return;
    }
    let mut shelf = Shelf::new(name);
    let workdir = shelf.board(kind, "[timeouts]\nidle = \"6s\"\n");
    let run = FailureStage::Run;
    let garbage =
        check(&shelf, kind.name(), "printf '\\033]0;owned\\007\\n'", 5, "not a line of the runner's protocol");
    expect(&garbage, 3, run);
    let dies = check(&shelf, kind.name(), &format!("{HELLO}; kill -9 $$"), 5, "was cut off before `finished`");
    expect(&dies, 3, run);
    let long = "head -c 1000000 /dev/zero | tr '\\0' x; echo; exec sleep 871";
    expect(&check(&shelf, kind.name(), long, 5, "sent a line longer than 262144 bytes"), 1, run);
    expect(&check(&shelf, kind.name(), &format!("{HELLO}; exec sleep 872"), 5, "said nothing for 6 s"), 1, run);
    // Nothing runs on, nothing is left behind, and the lease is released.
    assert_eq!(on_board(kind, "ps | grep -c '[s]leep 87[12]' || true").trim(), "0");
    assert_eq!(on_board(kind, &format!("cd '{workdir}' && ls tmp && ls")), "blobs\ntmp\n");
}
