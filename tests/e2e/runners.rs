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
    assert_eq!(shelf.newest_run().records.len(), 1);
    // Its child went with it.
    let sleeping = std::process::Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&sleeping.stdout), "");
}

/// The least that is an answer, for 497 samples; `odd` are lines in place of those of the mode.
fn answers(odd: &str) -> String {
    let state = r#"echo '{"line":"state"}'"#;
    let loaded = r#"echo '{"line":"loaded","parse_ns":1,"optimise_ns":1,"inputs":[],"outputs":[],"macs":null}'"#;
    let predictions = r#"awk 'BEGIN { printf "{\"line\":\"predictions\",\"start\":0,\"classes\":[0"
            for (i = 1; i < 497; i++) printf ",0"
            printf "],\"values\":[[1,\"NaN\"],[1e39,1],[1,null]"
            for (i = 3; i < 497; i++) printf ",[1,\"-inf\"]"
            print "]}" }'"#;
    format!(
        r#"{HELLO}; {state}; {loaded}
case "$1" in
{odd}
time) echo '{{"line":"first","ns":5000}}'; echo '{{"line":"timed","ns":[5000,5000,5000]}}' ;;
memory) echo '{{"line":"memory","phases":[],"peak_rss":4096,"peak_allocated":0}}' ;;
score) {predictions} ;;
esac
{state}; echo '{{"line":"finished"}}'"#
    )
}

/// Masked logits, NaN and what is too large for a float are answers, not a broken protocol; the run's file is read
/// back.
#[test]
fn values_that_are_not_finite_are_counted() {
    let shelf = Shelf::new("values_that_are_not_finite_are_counted");
    let runner = script(&shelf, &answers(""));
    let outcome = shelf.bench(&["--runner", &runner, "--ratios", "0"]).expect(0);
    let note = "answers NaN for 2 of 497 samples and an infinite value for 495 of 497 samples";
    outcome.prints(&[note]);
    let run = shelf.newest_run();
    assert!(run.records.iter().all(|record| matches!(record.outcome, Outcome::Measured(_))), "{:?}", run.records);
    shelf.run(&["report", &run.header.id]).expect(0).prints(&[note]);
}

#[test]
fn impossible_numbers_are_no_measurement() {
    let shelf = Shelf::new("impossible_numbers_are_no_measurement");
    for (odd, expected) in [
        (
            r#"time) echo '{"line":"first","ns":5000}'; echo '{"line":"timed","ns":[5000]}' ;;"#,
            "1 times, where at least 3",
        ),
        (
            r#"time) echo '{"line":"first","ns":5000}'; echo '{"line":"timed","ns":[1,5000,5000]}' ;;"#,
            "an inference of 1 ns",
        ),
        (
            r#"time) echo '{"line":"first","ns":18446744073709551615}'; echo '{"line":"timed","ns":[500,500,500]}' ;;"#,
            "and the whole invocation took",
        ),
        (r#"memory) echo '{"line":"memory","phases":[],"peak_rss":0,"peak_allocated":0}' ;;"#, "a peak RSS of 0 bytes"),
        (
            r#"memory) echo '{"line":"memory","phases":[],"peak_rss":18691697672192,"peak_allocated":0}' ;;"#,
            "a peak RSS of 18691697672192 bytes",
        ),
        (
            r#"score) echo '{"line":"predictions","start":0,"classes":[0],"values":[[1]]}' ;;"#,
            "1 predictions for 497 samples",
        ),
    ] {
        let runner = script(&shelf, &answers(odd));
        let outcome = shelf.bench(&["--runner", &runner, "--ratios", "0"]).expect(5);
        outcome.says(&["implausible: the runner reported ", expected]);
        let failed =
            shelf.newest_run().records.into_iter().filter(|record| matches!(record.outcome, Outcome::Failed(_)));
        assert_eq!(failed.count(), 1, "{expected}");
    }
}

/// Each went on until `timeouts.command`, half an hour, or until memory was used up.
#[test]
fn endless_lines_are_ended() {
    let shelf = Shelf::new("endless_lines_are_ended");
    for (line, expected) in [
        (r#"{"line":"state"}"#, "`state` a third time"),
        (r#"{"line":"timed","ns":[500,500,500,500,500,500,500,500,500,500]}"#, "more than 1000000 times"),
        (r#"{"line":"switched","after":1,"ratio":0.5,"ns":9}"#, "bytes about layers and ratios"),
        (r#"{"line":"predictions","start":0,"classes":[],"values":[[0.5]],"more":true}"#, "bytes of predictions"),
    ] {
        let endless = format!("{HELLO}; exec yes '{line}'");
        let failures = check(&shelf, "local", &endless, 5, expected);
        expect(&failures, 3, FailureStage::Run);
    }
}

/// The terminal was closed: governor, runner and lease stayed.
#[test]
fn hanging_up_stops_tidily() {
    let shelf = Shelf::new("hanging_up_stops_tidily");
    let marker = format!("87{:06}", std::process::id());
    let runner = script(&shelf, &format!("{HELLO}\nsleep {marker}"));
    shelf.write("devices/patient.toml", "transport = \"local\"\n[timeouts]\nidle = \"2h\"\n");
    let args = ["bench", "--runner", &runner, "--ratios", "0", "--device", "patient"];
    let mut running = shelf.start(&args);
    let sleeps = || {
        let found = std::process::Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().unwrap();
        !found.stdout.is_empty()
    };
    running.until("the runner's start", sleeps);
    running.signal("HUP");
    running.wait().expect(1).says(&["stopping tidily"]);
    assert!(!sleeps(), "its child runs on");
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
