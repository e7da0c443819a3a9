//! The SSH transport against a real server: what it carries, whom it trusts, and that nothing is left running.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::server::{self, Sshd, device, fingerprint, key};
use espalier_bench::plan::{MOST_PADDING, padded_argv};
use espalier_fleet::{
    cancel::Cancel,
    transport::{Exit, Limits, Transport, TransportError},
};
use espalier_inventory::SshAddress;

const LIMITS: Limits = Limits { command: Duration::from_secs(30), idle: Duration::from_secs(10) };

fn open(address: SshAddress) -> Result<Transport, TransportError> {
    Transport::open(&device(address), &Cancel::default())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Runs a script and collects its lines.
fn lines(transport: &mut Transport, script: &str, limits: Limits) -> (Result<Exit, TransportError>, Vec<String>) {
    let mut seen = Vec::new();
    let result = transport.run(&words(&["sh", "-c", script]), &[], limits, &Cancel::default(), &mut |line| {
        seen.push(line.to_owned());
        ControlFlow::Continue(())
    });
    (result, seen)
}

#[track_caller]
fn refused(address: SshAddress) -> TransportError {
    match open(address) {
        Ok(_) => panic!("it was let in"),
        Err(error) => error,
    }
}

/// Waits until no process on this host has `marker` on its command line.
#[track_caller]
fn expect_gone(marker: &str, within: Duration) {
    let started = Instant::now();
    while runs(marker) {
        assert!(started.elapsed() < within, "`{marker}` still runs after {within:?}");
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

#[test]
fn lines_codes_and_stderr_come_back() {
    says_what_it_should(Transport::Local);
    let Some(server) = Sshd::start() else { return };
    says_what_it_should(open(server.address()).unwrap());
}

pub fn says_what_it_should(mut board: Transport) {
    let (exit, seen) = lines(&mut board, "echo one; echo two; printf 'no end'; echo oops\x1b[2J >&2; exit 7", LIMITS);
    let exit = exit.unwrap();
    assert_eq!(seen, ["one", "two", "no end"]);
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(7), r"oops\u{1b}[2J"));

    let (exit, _) = lines(&mut board, "kill -9 $$", LIMITS);
    let exit = exit.unwrap();
    assert_eq!((exit.code, exit.signal.as_deref()), (None, Some("KILL")));

    let tricky = ["", "a b", "it's", "$HOME `id` \\ \"q\" *", "ü\n2"];
    let mut all = words(&["printf", "<%s>"]);
    all.extend(words(&tricky));
    let mut said = Vec::new();
    let env = [("ESPALIER_X".to_owned(), "y z".to_owned())];
    board
        .run(&all, &env, LIMITS, &Cancel::default(), &mut |line| {
            said.push(line.to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(said.join("\n"), tricky.map(|word| format!("<{word}>")).concat());
    let output = board
        .run(&words(&["sh", "-c", "[ \"$ESPALIER_X\" = 'y z' ]"]), &env, LIMITS, &Cancel::default(), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(output.success());

    for bytes in [0, 1, MOST_PADDING] {
        let padded = padded_argv(words(&["sh", "-c", "echo ${#ESPALIER_PAD}"]), bytes);
        let mut said = Vec::new();
        let mut hear = |line: &str| {
            said.push(line.to_owned());
            ControlFlow::Continue(())
        };
        assert!(board.run(&padded, &[], LIMITS, &Cancel::default(), &mut hear).unwrap().success());
        assert_eq!(said, [bytes.to_string()]);
    }

    let missing = lines(&mut board, "exec /no/such/program", LIMITS).0.unwrap();
    assert!(matches!(missing.code, Some(126 | 127)) && missing.stderr.contains("/no/such/program"), "{missing:?}");
}

#[test]
fn lines_stream_as_they_are_written() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let started = Instant::now();
    let mut first = None;
    let script = words(&["sh", "-c", "echo now; sleep 1; echo later"]);
    board
        .run(&script, &[], LIMITS, &Cancel::default(), &mut |_| {
            first.get_or_insert(started.elapsed());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(first.unwrap() < Duration::from_millis(900), "{first:?}");
}

#[test]
fn much_output_on_both_streams_does_not_block() {
    carries_much(Transport::Local);
    let Some(server) = Sshd::start() else { return };
    carries_much(open(server.address()).unwrap());
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

#[test]
fn output_that_is_no_protocol_is_refused_and_ended() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let (result, _) = lines(&mut board, "tr '\\0' x </dev/zero; : espalier-test-endless", LIMITS);
    let error = result.unwrap_err();
    assert!(matches!(&error, TransportError::BadOutput { .. }), "{error}");
    assert!(error.to_string().contains("a line longer than"), "{error}");
    expect_gone("espalier-test-endless", Duration::from_secs(3));
    let (result, _) = lines(&mut board, r"printf '\377\n'", LIMITS);
    assert!(result.unwrap_err().to_string().contains("not UTF-8"));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
fn a_listener_that_has_enough_ends_the_command() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let script = words(&["sh", "-c", "echo one; echo two; sleep 61.5"]);
    let exit = board.run(&script, &[], LIMITS, &Cancel::default(), &mut |_| ControlFlow::Break(())).unwrap();
    assert!(exit.stopped && !exit.success());
    expect_gone("sleep\x0061.5", Duration::from_secs(1));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
fn every_kind_of_host_key_can_be_pinned() {
    let Some(server) = Sshd::start() else { return };
    for kind in server::HOST_KEYS {
        open(SshAddress { host_key: Some(fingerprint(kind)), ..server.address() }).unwrap();
    }
    let error = refused(SshAddress { host_key: Some(fingerprint("other")), ..server.address() }).to_string();
    for name in ["other", "ed25519", "ecdsa", "rsa"] {
        assert!(error.contains(&fingerprint(name)), "{name} is not in: {error}");
    }
    assert!(error.contains("CHANGED") && error.contains("devices/board.toml"), "{error}");
}

#[test]
fn known_hosts_decide_without_a_pin() {
    let Some(server) = Sshd::start() else { return };
    let with =
        |text: &str| SshAddress { host_key: None, known_hosts: Some(server.file("known", text)), ..server.address() };
    for kind in server::HOST_KEYS {
        // A line that libssh2 does not understand must not hide those below it.
        let noise = "# a comment\n\nthis is no line\nelse.where sk-ssh-ed25519@openssh.com AAAA\n";
        open(with(&format!("{noise}{}", server.known_as(kind)))).unwrap();
    }

    let hashed = with(&server.known_as("rsa"));
    let status = Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(hashed.known_hosts.as_ref().unwrap())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    assert!(fs::read_to_string(hashed.known_hosts.as_ref().unwrap()).unwrap().starts_with("|1|"));
    open(hashed).unwrap();

    let error = refused(with("")).to_string();
    assert!(error.contains(&format!("host-key = \"{}\"", fingerprint("ed25519"))), "{error}");
    // The same host at the usual port is another server.
    let elsewhere = fs::read_to_string(key("other").with_extension("pub")).unwrap();
    let error = refused(with(&format!("127.0.0.1 {elsewhere}")));
    assert!(matches!(error, TransportError::HostKeyUnknown { .. }), "{error}");

    let error = refused(with(&server.known_as("other")));
    assert!(matches!(&error, TransportError::HostKeyChanged { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&fingerprint("other")) && error.contains(&fingerprint("ed25519")), "{error}");

    let known = server.known_as("ed25519");
    let error = refused(with(&format!("{known}@revoked {known}")));
    assert!(matches!(error, TransportError::HostKeyRevoked { .. }), "{error}");
}

#[test]
fn a_refused_login_names_what_was_tried() {
    let Some(server) = Sshd::start() else { return };
    let error = refused(SshAddress { identity: Some(key("stranger").display().to_string()), ..server.address() });
    assert!(matches!(&error, TransportError::Authentication { .. }), "{error}");
    let error = error.to_string();
    let expected = [
        format!("`{}` (refused)", key("stranger").display()),
        format!("127.0.0.1:{}", server.port),
        format!("`{}`", server::user()),
    ];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");

    let error =
        refused(SshAddress { identity: Some(key("locked").display().to_string()), ..server.address() }).to_string();
    assert!(error.contains("has a passphrase") && error.contains("ssh-add"), "{error}");
    let error = refused(SshAddress { identity: Some("/no/such/key".into()), ..server.address() }).to_string();
    assert!(error.contains("`/no/such/key` (cannot be read"), "{error}");
}

#[test]
fn an_alias_and_an_agent_are_used() {
    let Some(server) = Sshd::start() else { return };
    let socket = server.folder.path().join("agent");
    let mut agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let added = Command::new("ssh-add")
        .args(["-q"])
        .arg(key("stranger"))
        .arg(key("user"))
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    assert!(added.unwrap().success());
    let known = server.file("known", &server.known_as("ecdsa"));
    let config = server.file(
        "config",
        &format!(
            "Host shelf-*\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  UserKnownHostsFile {known}\n  IdentityAgent {}\n",
            server.port,
            server::user(),
            socket.display()
        ),
    );
    let address = SshAddress { host: "shelf-3".into(), config: Some(config), ..SshAddress::default() };
    let opened = open(address);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(lines(&mut opened.unwrap(), "true", LIMITS).0.unwrap().success());
}

#[test]
fn a_host_that_is_not_there_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SshAddress {
        host: "127.0.0.1".into(),
        port: Some(free),
        config: Some("/dev/null".into()),
        ..SshAddress::default()
    };
    let error = refused(SshAddress { user: Some("u".into()), ..address.clone() });
    assert!(matches!(&error, TransportError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    // One that takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device =
        device(SshAddress { port: Some(mute.local_addr().unwrap().port()), user: Some("u".into()), ..address });
    device.timeouts.connect = Duration::from_millis(500);
    let started = Instant::now();
    let error = Transport::open(&device, &Cancel::default()).err().unwrap();
    assert!(matches!(&error, TransportError::TimedOut { limit: "timeouts.connect", .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn limits_end_the_command_and_the_board_stays_usable() {
    keeps_limits(Transport::Local);
    let Some(server) = Sshd::start() else { return };
    keeps_limits(open(server.address()).unwrap());
}

fn keeps_limits(mut board: Transport) {
    let brief = |command, idle| Limits { command: Duration::from_millis(command), idle: Duration::from_millis(idle) };

    let started = Instant::now();
    let (result, seen) = lines(&mut board, "echo up; exec sleep 62.5", brief(30_000, 700));
    assert!(matches!(result, Err(TransportError::Silent { .. })), "{result:?}");
    assert_eq!(seen, ["up"]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    expect_gone("sleep\x0062.5", Duration::from_secs(1));

    let (result, seen) =
        lines(&mut board, "while echo tick; do sleep 0.2; done; : espalier-test-ticker", brief(1_200, 1_000));
    assert!(matches!(result, Err(TransportError::TimedOut { .. })), "{result:?}");
    assert!(seen.len() >= 3, "{seen:?}");
    expect_gone("espalier-test-ticker", Duration::from_secs(1));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

/// Starts a script, asks to stop and waits until `marker` is gone; returns the transport, still usable.
#[track_caller]
fn cancelled(mut board: Transport, script: &str, marker: &str, within: Duration) -> Transport {
    let cancel = Cancel::default();
    let (ours, script) = (cancel.clone(), words(&["sh", "-c", script]));
    let running = thread::spawn(move || {
        let result = board.run(&script, &[], LIMITS, &ours, &mut |_| ControlFlow::Continue(()));
        (result, board)
    });
    let started = Instant::now();
    while !runs(marker) {
        assert!(started.elapsed() < Duration::from_secs(10), "`{marker}` did not start");
        thread::sleep(Duration::from_millis(10));
    }
    cancel.request();
    expect_gone(marker, within);
    let (result, mut board) = running.join().unwrap();
    assert!(matches!(result, Err(TransportError::Cancelled)), "{result:?}");
    // What has to be put in order afterwards still can be.
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
    board
}

#[test]
fn ctrl_c_ends_what_runs_on_the_board_and_its_children() {
    let Some(server) = Sshd::start() else { return };
    let board = open(server.address()).unwrap();
    let board = cancelled(board, "sleep 63.5; sleep 63.5", "sleep\x0063.5", Duration::from_secs(1));
    // Deaf to the polite signal: half a second later there is another.
    cancelled(board, "trap '' TERM; sleep 66.5; sleep 66.5", "sleep\x0066.5", Duration::from_secs(3));
}

#[test]
fn ctrl_c_works_on_this_host_too() {
    cancelled(Transport::Local, "sleep 67.5; sleep 67.5", "sleep\x0067.5", Duration::from_secs(1));
}

#[test]
fn a_lost_connection_is_said_and_what_ran_is_ended_by_the_next_one() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let started = Instant::now();
    // The parent is the server's process for this connection.
    let (result, seen) =
        lines(&mut board, "echo up; trap '' HUP PIPE; (sleep 0.3; kill -9 $PPID) & exec sleep 64.5", LIMITS);
    assert!(matches!(result, Err(TransportError::Lost { .. })), "{result:?}");
    assert_eq!(seen, ["up"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
    expect_gone("sleep\x0064.5", Duration::from_secs(1));
}

#[test]
fn a_frozen_server_is_given_up_in_time() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let limits = Limits { idle: Duration::from_secs(1), ..LIMITS };
    let frozen = server.folder.path().join("frozen");
    let script = format!("echo $PPID $$ > {}; kill -STOP $PPID; exec sleep 65.5", frozen.display());
    let started = Instant::now();
    let (result, _) = lines(&mut board, &script, limits);
    assert!(matches!(result, Err(TransportError::Silent { .. })), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    // It may not have said yet who it is when the connection froze: then nobody but the test can end it.
    let pids = fs::read_to_string(frozen).unwrap();
    let _ = Command::new("kill").arg("-KILL").args(pids.split_whitespace()).stderr(Stdio::null()).status();
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
fn what_is_fed_arrives_whole() {
    let Some(server) = Sshd::start() else { return };
    let mut board = open(server.address()).unwrap();
    let data: Vec<u8> =
        (0..5_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(9_000_001).collect();
    let target = server.folder.path().join("fed");
    let script = words(&["sh", "-c", "cat > \"$1\"", "sh", target.to_str().unwrap()]);
    let mut sent = 0;
    let output = board.feed(&script, &mut &data[..], &mut |bytes| sent += bytes, LIMITS, &Cancel::default()).unwrap();
    assert!(output.exit.success());
    assert_eq!((sent, fs::read(&target).unwrap() == data), (9_000_001, true));

    // A command that does not want it all is not an error of the connection.
    let output =
        board.feed(&words(&["sh", "-c", "exit 3"]), &mut &data[..], &mut |_| {}, LIMITS, &Cancel::default()).unwrap();
    assert_eq!(output.exit.code, Some(3));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
fn a_login_shell_that_talks_is_not_mistaken_for_the_runner() {
    let wrapper = Path::new(env!("CARGO_TARGET_TMPDIR")).join("talkative-shell");
    fs::write(&wrapper, "#!/bin/sh\necho 'Welcome to the board!'\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n").unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let Some(server) = Sshd::start_with(&["ed25519"], &format!("ForceCommand {}", wrapper.display())) else { return };
    let mut board = open(server.address()).unwrap();
    assert_eq!(lines(&mut board, "echo mine", LIMITS).1, ["mine"]);
}
