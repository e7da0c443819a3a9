//! What every transport has to do, as checks, and this host against them.

use std::{
    fs,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use espalier_bench::plan::{MOST_PADDING, padded_argv};
use espalier_fleet::{
    cancel::Cancel,
    transport::{Exit, Limits, Transport, TransportError},
};

/// A busy host takes a minute for what [`carries_much`] has an emulated board send.
pub const LIMITS: Limits = Limits { command: Duration::from_secs(1800), idle: Duration::from_secs(120) };
/// Limits that are to be met, the next one where a busy host has not even started the command within the last.
pub const SOON: [Duration; 3] = [Duration::from_secs(3), Duration::from_secs(12), Duration::from_secs(48)];

#[test]
fn lines_codes_and_stderr_come_back() {
    passes_lines_codes_and_stderr(Transport::Local);
}

#[test]
fn much_output_on_both_streams_does_not_block() {
    carries_much(Transport::Local);
}

#[test]
fn lines_stream_as_they_are_written() {
    streams(Transport::Local);
}

#[test]
fn limits_end_the_command() {
    keeps_limits(Transport::Local);
}

#[test]
fn ctrl_c_ends_the_command_and_its_children() {
    cancelled(Transport::Local, "sleep 67.5; sleep 67.5", "sleep\x0067.5");
}

#[cfg(feature = "ssh")]
#[test]
fn a_host_that_is_not_there_is_unreachable() {
    use espalier_inventory::{Device, SshAddress};

    use crate::sshd::device;

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SshAddress {
        host: "127.0.0.1".into(),
        port: Some(free),
        config: Some("/dev/null".into()),
        ..SshAddress::default()
    };
    let open = |device: &Device| Transport::open(device, &Cancel::default()).err().unwrap();
    let error = open(&device(SshAddress { user: Some("u".into()), ..address.clone() }));
    assert!(matches!(&error, TransportError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    // One that accepts connections and sends nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device =
        device(SshAddress { port: Some(mute.local_addr().unwrap().port()), user: Some("u".into()), ..address });
    device.timeouts.connect = Duration::from_millis(500);
    let error = open(&device);
    assert!(matches!(&error, TransportError::TimedOut { limit: "timeouts.connect", .. }), "{error}");
}

pub fn argv(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|argument| (*argument).to_owned()).collect()
}

/// Runs a script and collects its lines.
pub fn lines(transport: &mut Transport, script: &str, limits: Limits) -> (Result<Exit, TransportError>, Vec<String>) {
    let mut seen = Vec::new();
    let result = transport.run(&argv(&["sh", "-c", script]), limits, &Cancel::default(), &mut |line| {
        seen.push(line.to_owned());
        ControlFlow::Continue(())
    });
    (result, seen)
}

/// Waits until no process on this host has `marker` on its command line. By itself it would run for a minute.
#[track_caller]
pub fn expect_gone(marker: &str) {
    wait_until("its end", || !runs(marker));
}

/// Far longer than it takes on a busy host.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(300), "not within 300 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn runs(marker: &str) -> bool {
    let own = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let pid = entry.file_name();
        let is_process = pid.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        is_process && pid != *own && line.windows(marker.len()).any(|part| part == marker.as_bytes())
    })
}

pub fn passes_lines_codes_and_stderr(mut board: Transport) {
    let (exit, seen) = lines(&mut board, "echo one; echo two; printf 'no end'; echo oops\x1b[2J >&2; exit 7", LIMITS);
    let exit = exit.unwrap();
    assert_eq!(seen, ["one", "two", "no end"]);
    assert_eq!((exit.code, &*exit.stderr), (Some(7), r"oops\u{1b}[2J"));

    let (exit, _) = lines(&mut board, "kill -9 $$", LIMITS);
    let exit = exit.unwrap();
    assert_eq!((exit.code, exit.signal.as_deref()), (None, Some("KILL")));

    let tricky = ["", "a b", "it's", "$HOME `id` \\ \"q\" *", "ü\n2"];
    let mut print = argv(&["printf", "<%s>"]);
    print.extend(argv(&tricky));
    let mut seen = Vec::new();
    let mut on_line = |line: &str| {
        seen.push(line.to_owned());
        ControlFlow::Continue(())
    };
    board.run(&print, LIMITS, &Cancel::default(), &mut on_line).unwrap();
    assert_eq!(seen.join("\n"), tricky.map(|text| format!("<{text}>")).concat());

    for bytes in [0, 1, MOST_PADDING] {
        let padded = padded_argv(argv(&["sh", "-c", "echo ${#ESPALIER_PAD}"]), bytes);
        let mut seen = Vec::new();
        let mut on_line = |line: &str| {
            seen.push(line.to_owned());
            ControlFlow::Continue(())
        };
        assert!(board.run(&padded, LIMITS, &Cancel::default(), &mut on_line).unwrap().success());
        assert_eq!(seen, [bytes.to_string()]);
    }

    let missing = lines(&mut board, "exec /no/such/program", LIMITS).0.unwrap();
    assert!(matches!(missing.code, Some(126 | 127)) && missing.stderr.contains("/no/such/program"), "{missing:?}");
}

pub fn carries_much(mut board: Transport) {
    // More on each than SSH's window (2 MiB) holds.
    let script = "yes 0123456789012345678901234567890123456789 | head -n 200000 >&2; \
                  yes 0123456789012345678901234567890123456789 | head -n 200000";
    let (exit, seen) = lines(&mut board, script, LIMITS);
    let exit = exit.unwrap();
    assert!(exit.success(), "{exit:?}");
    assert_eq!(seen.len(), 200_000);
    assert!(seen.iter().all(|line| line.len() == 40) && exit.stderr.len() <= 4096 && exit.stderr.len() > 4000);
}

/// The second line is only written after the first was passed on.
pub fn streams(mut board: Transport) {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let script = format!("echo now; until [ -e '{}' ]; do sleep 0.05; done; echo later", seen.display());
    let mut on_line = |line: &str| {
        if line == "now" {
            fs::write(&seen, "").unwrap();
        }
        ControlFlow::Continue(())
    };
    let exit = board.run(&argv(&["sh", "-c", &script]), LIMITS, &Cancel::default(), &mut on_line);
    assert!(exit.unwrap().success());
}

pub fn keeps_limits(mut board: Transport) {
    let seen = SOON.into_iter().find_map(|idle| {
        let (result, seen) = lines(&mut board, "echo up; exec sleep 62.5", Limits { idle, ..LIMITS });
        assert!(matches!(result, Err(TransportError::Silent { .. })), "{result:?}");
        (!seen.is_empty()).then_some(seen)
    });
    assert_eq!(seen.unwrap(), ["up"]);
    expect_gone("sleep\x0062.5");

    let script = "while echo tick; do sleep 0.2; done; : espalier-test-ticker";
    let is_ended = SOON.into_iter().any(|command| {
        let (result, seen) = lines(&mut board, script, Limits { command, ..LIMITS });
        assert!(matches!(result, Err(TransportError::TimedOut { .. })), "{result:?}");
        seen.len() >= 3
    });
    assert!(is_ended);
    expect_gone("espalier-test-ticker");
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

/// Starts a script, asks to stop and waits until `marker` is gone; returns the transport, still usable.
#[track_caller]
pub fn cancelled(mut board: Transport, script: &str, marker: &str) -> Transport {
    let cancel = Cancel::default();
    let (ours, script) = (cancel.clone(), argv(&["sh", "-c", script]));
    let running = thread::spawn(move || {
        let result = board.run(&script, LIMITS, &ours, &mut |_| ControlFlow::Continue(()));
        (result, board)
    });
    wait_until("its start", || runs(marker));
    cancel.request();
    expect_gone(marker);
    let (result, mut board) = running.join().unwrap();
    assert!(matches!(result, Err(TransportError::Cancelled)), "{result:?}");
    // What has to be put in order afterwards still can be.
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
    board
}
