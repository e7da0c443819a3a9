//! The SSH transport against a real server: what it carries, whom it trusts, and that nothing is left running.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use espalier_fleet::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};
use espalier_inventory::SshAddress;

use super::{HOST_KEYS, Sshd, device, fingerprint, key, user};
use crate::transport::{
    LIMITS, SOON, argv, cancelled, carries_much, expect_gone, keeps_limits, lines, passes_lines_codes_and_stderr,
    streams,
};

fn open(address: SshAddress) -> Result<Transport, TransportError> {
    Transport::open(&device(address), &Cancel::default())
}

#[track_caller]
fn rejected(address: SshAddress) -> TransportError {
    match open(address) {
        Ok(_) => panic!("it was let in"),
        Err(error) => error,
    }
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn it_does_what_every_transport_does() {
    let server = Sshd::start();
    for check in [passes_lines_codes_and_stderr, carries_much, streams, keeps_limits] {
        check(open(server.address()).unwrap());
    }
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn output_that_is_no_protocol_is_refused_and_ended() {
    let server = Sshd::start();
    let mut board = open(server.address()).unwrap();
    let (result, _) = lines(&mut board, "tr '\\0' x </dev/zero; : espalier-test-endless", LIMITS);
    let error = result.unwrap_err();
    assert!(matches!(&error, TransportError::BadOutput { .. }), "{error}");
    assert!(error.to_string().contains("a line longer than"), "{error}");
    expect_gone("espalier-test-endless");
    let (result, _) = lines(&mut board, r"printf '\377\n'", LIMITS);
    assert!(result.unwrap_err().to_string().contains("not UTF-8"));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn a_caller_that_breaks_off_ends_the_command() {
    let server = Sshd::start();
    let mut board = open(server.address()).unwrap();
    let script = argv(&["sh", "-c", "echo one; echo two; sleep 61.5"]);
    let exit = board.run(&script, LIMITS, &Cancel::default(), &mut |_| ControlFlow::Break(())).unwrap();
    assert!(exit.stopped && !exit.success());
    expect_gone("sleep\x0061.5");
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn every_kind_of_host_key_can_be_pinned() {
    let server = Sshd::start();
    for kind in HOST_KEYS {
        open(SshAddress { host_key: Some(fingerprint(kind)), ..server.address() }).unwrap();
    }
    let error = rejected(SshAddress { host_key: Some(fingerprint("other")), ..server.address() }).to_string();
    for name in ["other", "ed25519", "ecdsa", "rsa"] {
        assert!(error.contains(&fingerprint(name)), "{name} is not in: {error}");
    }
    assert!(error.contains("CHANGED") && error.contains("devices/board.toml"), "{error}");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn known_hosts_decide_without_a_pin() {
    let server = Sshd::start();
    let with =
        |text: &str| SshAddress { host_key: None, known_hosts: Some(server.file("known", text)), ..server.address() };
    for kind in HOST_KEYS {
        // A line that libssh2 does not understand must not hide those below it.
        let noise = "# a comment\n\nthis is no line\nelse.where sk-ssh-ed25519@openssh.com AAAA\n";
        open(with(&format!("{noise}{}", server.known_as(kind)))).unwrap();
    }

    let (port, public) = (server.port, fs::read_to_string(key("ecdsa").with_extension("pub")).unwrap());
    open(with(&format!("!elsewhere,[127.0.*]:{port} {public}"))).unwrap();
    let error = rejected(with(&format!("*,![127.0.0.1]:{port} {public}")));
    assert!(matches!(error, TransportError::HostKeyUnknown { .. }), "{error}");

    let hashed = with(&server.known_as("rsa"));
    let status = Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(hashed.known_hosts.as_ref().unwrap())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    assert!(fs::read_to_string(hashed.known_hosts.as_ref().unwrap()).unwrap().starts_with("|1|"));
    open(hashed).unwrap();

    let error = rejected(with("")).to_string();
    assert!(error.contains(&format!("host-key = \"{}\"", fingerprint("ed25519"))), "{error}");
    // The same host at the usual port is another server.
    let elsewhere = fs::read_to_string(key("other").with_extension("pub")).unwrap();
    let error = rejected(with(&format!("127.0.0.1 {elsewhere}")));
    assert!(matches!(error, TransportError::HostKeyUnknown { .. }), "{error}");

    let error = rejected(with(&server.known_as("other")));
    assert!(matches!(&error, TransportError::HostKeyChanged { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&fingerprint("other")) && error.contains(&fingerprint("ed25519")), "{error}");

    let known = server.known_as("ed25519");
    let error = rejected(with(&format!("{known}@revoked {known}")));
    assert!(matches!(error, TransportError::HostKeyRevoked { .. }), "{error}");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn a_refused_login_names_what_was_tried() {
    let server = Sshd::start();
    let error = rejected(SshAddress { identity: Some(key("unknown").display().to_string()), ..server.address() });
    assert!(matches!(&error, TransportError::Authentication { .. }), "{error}");
    let error = error.to_string();
    let expected = [
        format!("`{}` (refused)", key("unknown").display()),
        format!("127.0.0.1:{}", server.port),
        format!("`{}`", user()),
    ];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");

    let error =
        rejected(SshAddress { identity: Some(key("locked").display().to_string()), ..server.address() }).to_string();
    assert!(error.contains("has a passphrase") && error.contains("ssh-add"), "{error}");
    let error = rejected(SshAddress { identity: Some("/no/such/key".into()), ..server.address() }).to_string();
    assert!(error.contains("`/no/such/key` (cannot be read"), "{error}");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn an_alias_and_an_agent_are_used() {
    let server = Sshd::start();
    let socket = server.folder.path().join("agent");
    let mut agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let added = Command::new("ssh-add")
        .args(["-q"])
        .arg(key("unknown"))
        .arg(key("user"))
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    assert!(added.unwrap().success());
    let known = server.file("known", &server.known_as("ecdsa"));
    let config = server.file(
        "config",
        &format!(
            "Host shelf-*\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  UserKnownHostsFile {known}\n  \
             IdentityAgent {}\n",
            server.port,
            user(),
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
#[ignore = "needs an OpenSSH server"]
fn ctrl_c_ends_what_runs_on_the_board_and_its_children() {
    let server = Sshd::start();
    let board = open(server.address()).unwrap();
    let board = cancelled(board, "sleep 63.5; sleep 63.5", "sleep\x0063.5");
    // Deaf to the polite signal: half a second later there is another.
    cancelled(board, "trap '' TERM; sleep 66.5; sleep 66.5", "sleep\x0066.5");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn what_a_lost_connection_leaves_running_is_ended_by_the_next() {
    let server = Sshd::start();
    let mut board = open(server.address()).unwrap();
    // The parent is the server's process for this connection.
    let (result, seen) =
        lines(&mut board, "echo up; trap '' HUP PIPE; (sleep 0.3; kill -9 $PPID) & exec sleep 64.5", LIMITS);
    assert!(matches!(result, Err(TransportError::Lost { .. })), "{result:?}");
    assert_eq!(seen, ["up"]);
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
    expect_gone("sleep\x0064.5");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn a_frozen_server_is_given_up_in_time() {
    let server = Sshd::start();
    let mut board = open(server.address()).unwrap();
    let frozen = server.folder.path().join("frozen");
    let script = format!("echo $PPID $$ > {}; kill -STOP $PPID; exec sleep 65.5", frozen.display());
    let is_frozen = SOON.into_iter().any(|idle| {
        let (result, _) = lines(&mut board, &script, Limits { idle, ..LIMITS });
        assert!(matches!(result, Err(TransportError::Silent { .. })), "{result:?}");
        frozen.exists()
    });
    assert!(is_frozen);
    // Its process id may not have arrived before the connection froze: then only the test can end it.
    let pids = fs::read_to_string(frozen).unwrap();
    let _ = Command::new("kill").arg("-KILL").args(pids.split_whitespace()).stderr(Stdio::null()).status();
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn what_is_fed_arrives_whole() {
    let server = Sshd::start();
    let mut board = open(server.address()).unwrap();
    let data: Vec<u8> =
        (0..5_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(9_000_001).collect();
    let target = server.folder.path().join("fed");
    let script = argv(&["sh", "-c", "cat > \"$1\"", "sh", target.to_str().unwrap()]);
    let mut sent = 0;
    let output = board.feed(&script, &mut &data[..], &mut |bytes| sent += bytes, LIMITS, &Cancel::default()).unwrap();
    assert!(output.exit.success());
    assert_eq!((sent, fs::read(&target).unwrap() == data), (9_000_001, true));

    // A command that does not want it all is not an error of the connection.
    let output =
        board.feed(&argv(&["sh", "-c", "exit 3"]), &mut &data[..], &mut |_| {}, LIMITS, &Cancel::default()).unwrap();
    assert_eq!(output.exit.code, Some(3));
    assert!(lines(&mut board, "true", LIMITS).0.unwrap().success());
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn what_a_login_shell_prints_is_not_the_runners() {
    let wrapper = Path::new(env!("CARGO_TARGET_TMPDIR")).join("talkative-shell");
    fs::write(&wrapper, "#!/bin/sh\necho 'Welcome to the board!'\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n").unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Sshd::start_with(&["ed25519"], &format!("ForceCommand {}", wrapper.display()));
    let mut board = open(server.address()).unwrap();
    assert_eq!(lines(&mut board, "echo mine", LIMITS).1, ["mine"]);
}
