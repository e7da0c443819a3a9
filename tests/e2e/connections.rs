//! Boards that cannot be reached, do not let us in, are not who they should be, are full, or are of another kind.
//! Others' results are kept throughout.

use std::{net::TcpListener, process::Command};

use espalier_bench::record::{FailureStage, Outcome, Run};
use espalier_fleet::boards::BoardKind;
use espalier_tests::{Shelf, boards_are_up, cache, on_board, port};

const KIND: BoardKind = BoardKind::Aarch64;

#[test]
fn an_unreachable_board_costs_the_others_nothing() {
    let shelf = Shelf::new("an_unreachable_board_costs_the_others_nothing");
    // A port that was just free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let transport = format!("{{ host = \"127.0.0.1\", port = {port}, user = \"root\", config = \"/dev/null\" }}");
    shelf.write("devices/gone.toml", device(&transport, "/root/espalier"));
    let outcome = shelf.bench(&["--device", "gone", "--device", "local", "--ratios", "0.5"]).expect(5);
    let message = format!("no connection to `127.0.0.1:{port}`");
    outcome.says(&[&message, "is the board on", "--resume"]);
    outcome.prints(&["digits-cnn on gone\n", "digits-cnn on local\n"]);
    let run = shelf.newest_run();
    assert_eq!(failures(&run, "gone"), [(FailureStage::Connect, true)], "{:?}", run.records);
    expect_measured(&run, "local", 6);
    // The table has the reason too.
    outcome.prints(&[&message]);
}

#[test]
fn a_board_that_lets_nobody_in() {
    let name = "a_board_that_lets_nobody_in";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let shelf = Shelf::new(name);
    let key = shelf.path("unknown");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let known_hosts = cache().root.join(format!("boards/{KIND}/known_hosts"));
    // Not the keys of whoever runs the tests.
    let config = format!(
        "Host board\n  HostName 127.0.0.1\n  Port {}\n  User root\n  IdentitiesOnly yes\n  IdentityFile {}\n  \
         UserKnownHostsFile {}\n",
        port(KIND),
        key.display(),
        known_hosts.display()
    );
    let config = shelf.write("ssh_config", config);
    let transport = format!("{{ host = \"board\", config = \"{config}\" }}");
    shelf.write("devices/shut.toml", device(&transport, "/root/espalier"));
    let outcome = shelf.bench(&["--device", "shut", "--device", "local", "--ratios", "0"]).expect(5);
    let key = format!("`{}` (refused)", key.display());
    outcome.says(&["let nobody in as `root`", &key, "authorized_keys"]);
    let run = shelf.newest_run();
    assert_eq!(failures(&run, "shut"), [(FailureStage::Connect, true)]);
    expect_measured(&run, "local", 3);
}

#[test]
fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let name = "a_changed_host_key_is_refused_with_both_fingerprints";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let shelf = Shelf::new(name);
    let boards = cache().root.join("boards");
    let known_hosts = boards.join(format!("{KIND}/known_hosts"));
    let output = Command::new("ssh-keygen").arg("-lf").arg(&known_hosts).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let real = output.split_whitespace().find(|field| field.starts_with("SHA256:")).unwrap();
    let pinned = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let transport = |pin: &str| {
        format!("{{ host = \"{KIND}\", config = \"${{ESPALIER_CACHE}}/boards/ssh_config\", host-key = \"{pin}\" }}")
    };
    shelf.write("devices/changed.toml", device(&transport(pinned), "/root/espalier"));
    let outcome = shelf.bench(&["--device", "changed", "--device", "local", "--ratios", "0"]).expect(5);
    outcome.says(&["has CHANGED", pinned, real]);
    let run = shelf.newest_run();
    assert_eq!(failures(&run, "changed"), [(FailureStage::Connect, true)]);
    expect_measured(&run, "local", 3);
}

#[test]
fn a_board_without_space() {
    let name = "a_board_without_space";
    if !boards_are_up(name, &[KIND]) {
        return;
    }
    let shelf = Shelf::new(name);
    let workdir = format!("/mnt/tiny/espalier-{}", std::process::id());
    shelf.write("devices/full.toml", device(&usual(KIND), &workdir));
    let outcome = shelf.bench(&["--device", "full", "--device", "local", "--ratios", "0"]).expect(5);
    outcome.says(&[&format!("no space in `{workdir}` on the board"), "MiB are needed", "MiB are free"]);
    assert_eq!(on_board(KIND, &format!("find '{workdir}' -type f; rm -r '{workdir}'")), "", "left behind");
    let run = shelf.newest_run();
    assert_eq!(failures(&run, "full"), [(FailureStage::Push, true)]);
    expect_measured(&run, "local", 3);
}

#[test]
fn a_runner_for_another_architecture_is_not_even_pushed() {
    let name = "a_runner_for_another_architecture_is_not_even_pushed";
    if !boards_are_up(name, &[BoardKind::Armv7]) {
        return;
    }
    let shelf = Shelf::new(name);
    let workdir = format!("/root/espalier-wrong-{}", std::process::id());
    shelf.write("devices/wrong.toml", device(&usual(BoardKind::Armv7), &workdir));
    let outcome = shelf.bench(&["--device", "wrong", "--device", "local", "--ratios", "0"]).expect(1);
    outcome.says(&["the runner does not fit the board", "aarch64", "armv7l"]);
    assert_eq!(on_board(BoardKind::Armv7, &format!("ls -d '{workdir}' 2>/dev/null || echo none")), "none\n");
    let run = shelf.newest_run();
    assert_eq!(failures(&run, "wrong"), [(FailureStage::Build, false)]);
    expect_measured(&run, "local", 3);
}

fn device(ssh: &str, workdir: &str) -> String {
    format!("target = \"aarch64-gnu\"\ntransport = {{ ssh = {ssh} }}\nworkdir = \"{workdir}\"\nemulated = true\n")
}

fn usual(kind: BoardKind) -> String {
    format!("{{ host = \"{kind}\", config = \"${{ESPALIER_CACHE}}/boards/ssh_config\" }}")
}

/// The stages of what failed on a device, and whether that is the device's fault.
fn failures(run: &Run, device: &str) -> Vec<(FailureStage, bool)> {
    let records = run.records.iter().filter(|record| record.case.device == device);
    let failures = records.filter_map(|record| match &record.outcome {
        Outcome::Failed(failure) => Some((failure.stage, failure.stage.is_device())),
        Outcome::Measured(_) => None,
    });
    failures.collect()
}

#[track_caller]
fn expect_measured(run: &Run, device: &str, expected: usize) {
    let records = run.records.iter().filter(|record| record.case.device == device);
    let measured = records.filter(|record| matches!(record.outcome, Outcome::Measured(_))).count();
    assert_eq!(measured, expected, "measurements of `{device}`");
    assert!(failures(run, device).is_empty());
}
