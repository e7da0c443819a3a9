//! The one place that writes to stdout and stderr: results to stdout, remarks to stderr.
//!
//! Stdout may be a pipe whose reader has gone, or a file on a full disk. Rust's `println!` panics then. Here the first
//! ends the command quietly, as SIGPIPE ends others, and the second is an error. The signal itself stays ignored: it
//! would also end a run when a board's connection breaks, and leave the board's settings changed.
//!
//! Whatever is in the text, characters that act on a terminal are written out ([`clean`]): names come from models,
//! files and boards, and no caller has to remember that.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use anyhow::Result;
use espalier_bench::exit::ExitStatus;
use espalier_protocol::text::{escape_json, sanitise};

use crate::{exit::Exit, program::Program};

/// A line, or several, of results, with commands named as this program's user types them.
///
/// # Errors
/// As [`print()`].
pub fn say(line: impl Display) -> Result<()> {
    print(format_args!("{line}\n"))
}

/// Text of results without a line feed of its own.
///
/// # Errors
/// Stdout is closed ([`ExitStatus::ClosedPipe`]), or cannot be written to.
pub fn print(text: impl Display) -> Result<()> {
    write(&clean(&Program::current().text(&text.to_string())))
}

/// JSON, in which those characters are escaped as JSON has it: programs read what was meant.
///
/// # Errors
/// As [`print()`].
pub fn print_json(json: &str) -> Result<()> {
    write(&escape_json(json))
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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

/// `1 mistake`, `2 mistakes`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// An error with its causes. A library's error that tells its cause in its own text does not tell it twice.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A remark on stderr. Whether anybody reads it changes nothing about the work.
pub fn note(text: impl Display) {
    let text = text.to_string();
    let _ = io::stderr().lock().write_all(format!("{}\n", clean(&Program::current().text(&text))).as_bytes());
}

/// The text without characters that act on a terminal, but for the colours of our own tables.
pub fn clean(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let mut safe = sanitise(pieces.next().unwrap_or_default());
    for piece in pieces {
        match piece.split_once('m').filter(|(style, _)| is_colour(style)) {
            Some((style, rest)) => safe += &format!("\u{1b}[{style}m{}", sanitise(rest)),
            None => safe += &sanitise(&format!("\u{1b}[{piece}")),
        }
    }
    safe
}

/// Colours and bold, one after the other; neither hidden nor blinking text.
fn is_colour(style: &str) -> bool {
    let known = |code: &str| code.parse().is_ok_and(|code: u8| matches!(code, 0..=2 | 22 | 30..=39 | 90..=97));
    match style.strip_prefix("38;5;") {
        // One of 256.
        Some(number) => number.parse::<u8>().is_ok(),
        None => style.is_empty() || style.split(';').all(known),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_colours_reach_the_terminal() {
        for own in ["plain\n", "\u{1b}[1m\u{1b}[32mgood\u{1b}[0m", "\u{1b}[38;5;9mbad\u{1b}[39m"] {
            assert_eq!(clean(own), own);
        }
        for (hostile, expected) in [
            ("a\u{1b}[2Jb", r"a\u{1b}[2Jb"),
            ("a\u{1b}[8mhidden", r"a\u{1b}[8mhidden"),
            ("a\u{1b}]0;title\u{7}", r"a\u{1b}]0;title\u{7}"),
            ("\u{9b}31m\u{202e}", r"\u{9b}31m\u{202e}"),
            ("\u{1b}[3\u{1b}[2Jm", r"\u{1b}[3\u{1b}[2Jm"),
            ("50 %\rfake", r"50 %\u{d}fake"),
        ] {
            assert_eq!(clean(hostile), expected);
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let absent = || io::Error::from_raw_os_error(2);
        assert_eq!(causes(&anyhow::Error::new(absent())), "No such file or directory (os error 2)");
        let told = espalier_prune::file::read("/absent.onnx".as_ref()).unwrap_err();
        let told = causes(&anyhow::Error::new(told).context("failed to prune"));
        assert_eq!(told, "failed to prune: cannot read `/absent.onnx`: No such file or directory (os error 2)");
        let nested = Err::<(), _>(absent()).context("b").context("a").unwrap_err();
        assert_eq!(causes(&nested), "a: b: No such file or directory (os error 2)");
    }
}
