//! Servers that never come to the point. Connecting ends at its limit and on Ctrl-C, whatever they send; a server that
//! has no room just now is tried again.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use espalier_fleet::{
    cancel::Cancel,
    transport::{Transport, TransportError},
};
use espalier_inventory::{Device, SshAddress};

use crate::sshd::{Sshd, device};

const VERSION: &[u8] = b"SSH-2.0-hostile\r\n";
/// `SSH_MSG_IGNORE` with an empty string, unencrypted: the length, that of the padding, the message, the padding.
const IGNORE: &[u8] = &[0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sends `first`, then `again` for as long as anybody reads. Returns the port.
fn endless(first: &'static [u8], again: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let many = again.repeat(1000);
                let _ = stream.write_all(first);
                while stream.write_all(&many).is_ok() {}
            });
        }
    });
    port
}

fn at(port: u16, connect: Duration) -> Device {
    let address = SshAddress {
        host: "127.0.0.1".into(),
        port: Some(port),
        user: Some("u".into()),
        config: Some("/dev/null".into()),
        ..SshAddress::default()
    };
    let mut device = device(address);
    device.timeouts.connect = connect;
    device
}

/// Each was read for ever: neither the limit nor Ctrl-C was looked at.
#[test]
fn what_never_ends_is_ended() {
    for (first, again) in [
        (&b""[..], &b"have a look at our offers\r\n"[..]),
        (b"", b"x"),
        (b"", b"SSH-"),
        (b"SSH-2.0-", b"x"),
        (VERSION, IGNORE),
        (VERSION, b"\0"),
        (VERSION, b"xyz"),
    ] {
        let port = endless(first, again);
        let name = format!("{} {}", first.escape_ascii(), again.escape_ascii());
        let error = Transport::open(&at(port, Duration::from_millis(700)), &Cancel::default()).err().unwrap();
        let is_ended = matches!(
            &error,
            TransportError::TimedOut { limit: "timeouts.connect", .. } | TransportError::Unreachable { .. }
        );
        assert!(is_ended, "{name}: {error}");

        let cancel = Cancel::default();
        let cancelling = cancel.clone();
        let stop = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            cancelling.request();
        });
        // Without Ctrl-C it would take an hour.
        let error = Transport::open(&at(port, Duration::from_secs(3600)), &cancel).err().unwrap();
        let is_ended = matches!(&error, TransportError::Cancelled | TransportError::Unreachable { .. });
        assert!(is_ended, "{name}: {error}");
        stop.join().unwrap();
    }
}

/// The text of a server before its version is shown to nobody, and its version in no message unescaped.
#[test]
fn a_server_that_hangs_up_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"\x1b[2JExceeded MaxStartups\r\n");
        }
    });
    let error = Transport::open(&at(port, Duration::from_millis(900)), &Cancel::default()).err().unwrap();
    assert!(matches!(&error, TransportError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

/// Of 64 connections at once sshd sent 22 away, and these boards were lost to the run.
#[test]
#[ignore = "needs an OpenSSH server"]
fn a_server_without_room_is_tried_again() {
    let server = Sshd::start_with(&["ed25519"], "MaxStartups 1:100:1\nLoginGraceTime 600");
    let mut busy = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut version = [0; 4];
    busy.read_exact(&mut version).unwrap();
    // There is no room now.
    let mut second = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut text = String::new();
    match second.read_to_string(&mut text) {
        Ok(_) => assert!(!text.starts_with("SSH-"), "{text}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let leaving = thread::spawn(move || {
        thread::sleep(Duration::from_millis(600));
        drop(busy);
    });
    let mut device = device(server.address());
    device.timeouts.connect = Duration::from_secs(60);
    Transport::open(&device, &Cancel::default()).map(drop).unwrap();
    leaving.join().unwrap();
}
