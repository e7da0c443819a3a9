//! The one place that writes to stdout and stderr: results to stdout, remarks to stderr.
//!
//! Stdout may be a pipe whose reader has gone, or a file on a full disk. Rust's `println!` panics then. Here the first
//! ends the command quietly, as SIGPIPE ends others, and the second is an error. The signal itself stays ignored: it
//! would also end a run when a board's connection breaks, and leave the board's settings changed.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use anyhow::Result;
use espalier_bench::exit::ExitStatus;

use crate::{exit::Exit, program::Program};

/// A line, or several, of results, with commands named as this program's user types them.
///
/// # Errors
/// As [`print`].
pub fn say(line: impl Display) -> Result<()> {
    print(format_args!("{line}\n"))
}

/// Text of results without a line feed of its own.
///
/// # Errors
/// Stdout is closed ([`ExitStatus::ClosedPipe`]), or cannot be written to.
pub fn print(text: impl Display) -> Result<()> {
    let text = text.to_string();
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(Program::current().text(&text).as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| failed(&error))
}

/// What stdout's error means to a command.
pub fn failed(error: &io::Error) -> anyhow::Error {
    let status = match error.kind() {
        ErrorKind::BrokenPipe => ExitStatus::ClosedPipe,
        _ => ExitStatus::Failed,
    };
    anyhow::Error::new(Exit { status, message: format!("cannot write to stdout: {error}") })
}

/// A remark on stderr. Whether anybody reads it changes nothing about the work.
pub fn note(text: impl Display) {
    let text = text.to_string();
    let _ = io::stderr().lock().write_all(format!("{}\n", Program::current().text(&text)).as_bytes());
}
