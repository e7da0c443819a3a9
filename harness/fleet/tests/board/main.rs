//! Reaching a board, against a real OpenSSH server on loopback. Where none is installed, each test that needs it says so and does nothing.
#![cfg(feature = "ssh")]

use std::{env, fs::OpenOptions, io::Write, thread};

mod named;
mod push;
mod server;
mod transport;

/// This test cannot run here, and why. `ESPALIER_SKIPS` names the file where the suite looks for it.
fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", thread::current().name().unwrap_or("a test"));
    eprint!("skipped: {line}");
    if let Some(path) = env::var_os("ESPALIER_SKIPS") {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
