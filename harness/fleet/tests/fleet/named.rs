//! The same on boards, busybox and dropbear included: `ESPALIER_TEST_BOARDS` names an ssh configuration and the hosts
//! in it, e.g. `~/.cache/espalier/boards/ssh_config:virt-aarch64,virt-riscv64`. Prints how long things take.

use std::{
    env,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use espalier_fleet::{
    cancel::Cancel,
    deploy::push,
    lease::{Lease, LeaseError},
    transport::{Limits, Transport, TransportError},
};
use espalier_inventory::SshAddress;

use crate::{
    deploy::{file, noise},
    sshd::device,
    transport::{argv, carries_much, passes_lines_codes_and_stderr},
};

const LIMITS: Limits = Limits { command: Duration::from_secs(1800), idle: Duration::from_secs(300) };

#[test]
#[ignore = "needs boards, named in `ESPALIER_TEST_BOARDS`"]
fn boards_pass_the_same_checks() {
    let named = env::var("ESPALIER_TEST_BOARDS").expect("`ESPALIER_TEST_BOARDS` names no boards");
    let (config, hosts) = named.rsplit_once(':').expect("ESPALIER_TEST_BOARDS is CONFIG:HOST,HOST…");
    for host in hosts.split(',') {
        let address = SshAddress { host: host.into(), config: Some(config.into()), ..SshAddress::default() };
        let open = || {
            let mut device = device(address.clone());
            device.timeouts.connect = Duration::from_secs(300);
            Transport::open(&device, &Cancel::default()).unwrap()
        };
        let timed = |what: &str, since: Instant| eprintln!("{host}: {what} in {:.2} s", since.elapsed().as_secs_f64());
        let now = Instant::now();
        let mut board = open();
        timed("logged in", now);
        let now = Instant::now();
        board.shell("true", LIMITS, &Cancel::default()).unwrap();
        timed("`true`", now);
        passes_lines_codes_and_stderr(open());
        carries_much(open());
        timed("checked", now);
        let board = stops(host, board);
        let board = pushes(host, board);
        leases(board, open(), open());
    }
}

fn runs(board: &mut Transport, marker: &str) -> bool {
    let script =
        format!("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | grep -c '^{marker}'");
    board.shell(&script, LIMITS, &Cancel::default()).unwrap().stdout.trim() != "0"
}

/// On request and after a silence, with nothing left running.
fn stops(host: &str, mut board: Transport) -> Transport {
    let cancel = Cancel::default();
    let mut requested = None;
    let script = argv(&["sh", "-c", "echo up; sleep 71; echo no"]);
    let result = board.run(&script, LIMITS, &cancel, &mut |_| {
        cancel.request();
        requested = Some(Instant::now());
        ControlFlow::Continue(())
    });
    assert!(matches!(result, Err(TransportError::Cancelled)), "{result:?}");
    eprintln!("{host}: cancelled in {:.2} s", requested.unwrap().elapsed().as_secs_f64());
    assert!(!runs(&mut board, "sleep 71"));

    let limits = Limits { idle: Duration::from_secs(2), ..LIMITS };
    let script = argv(&["sh", "-c", "echo up; exec sleep 72"]);
    let now = Instant::now();
    let result = board.run(&script, limits, &Cancel::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(TransportError::Silent { .. })), "{result:?}");
    eprintln!("{host}: silence of 2 s ended in {:.2} s", now.elapsed().as_secs_f64());
    assert!(!runs(&mut board, "sleep 72"));
    board
}

fn pushes(host: &str, mut board: Transport) -> Transport {
    let here = tempfile::tempdir().unwrap();
    let workdir = "/tmp/espalier-test it's";
    let mut zeros = noise(1_000_000);
    zeros.resize(8_000_000, 0);
    let files = [file(here.path(), "noise", &noise(4_000_000), false), file(here.path(), "zeros", &zeros, true)];
    for sent in [2, 0] {
        let now = Instant::now();
        let pushed = push(&mut board, workdir, &files, LIMITS, &Cancel::default(), &mut |_, _| {}).unwrap();
        let seconds = now.elapsed().as_secs_f64();
        eprintln!("{host}: 12 MB pushed as {} bytes in {seconds:.2} s", pushed.bytes_sent);
        assert_eq!((pushed.files_sent, pushed.bytes_sent == 0), (sent, sent == 0));
    }
    let script = format!("ls '{0}/tmp' && rm -r '{0}'", workdir.replace('\'', r"'\''"));
    let output = board.shell(&script, LIMITS, &Cancel::default()).unwrap();
    assert_eq!((output.exit.success(), &*output.stdout), (true, ""));
    board
}

fn leases(board: Transport, another: Transport, mut other: Transport) {
    let take = |board, owner| {
        Lease::take(board, "/tmp/espalier-test", owner, Duration::from_secs(60), LIMITS, &Cancel::default())
    };
    let mut lease = take(board, "anna").unwrap();
    lease.renew(&Cancel::default()).unwrap();
    assert!(matches!(take(another, "ben"), Err(LeaseError::Held { owner, .. }) if owner == "anna"));
    drop(lease);
    let output = other.shell("rmdir /tmp/espalier-test", LIMITS, &Cancel::default()).unwrap();
    assert!(output.exit.success(), "{output:?}");
}
