//! Programs of the host that emulated boards need: looked for with an error that names the package, run silently to their end or until cancelled.

use std::path::Path;

use anyhow::{Result, bail};
use espalier_bench::command::CommandLine;

use crate::{
    cancel::Cancel,
    process::{self, Watch},
};

/// Runs in `folder`; gives what came on stdout. The end of what it said on stderr goes into the error.
pub fn run(line: &CommandLine, folder: &Path, cancel: &Cancel) -> Result<String> {
    // Its words are read: they must be the untranslated ones.
    let line = line.clone().env("LC_ALL", "C");
    Ok(process::run(&line, Some(folder), Watch { cancel, progress: &|_| () })?)
}

/// An error that names the Debian package when a program is missing.
pub fn require_program(name: &str, package: &str) -> Result<()> {
    match process::which(name) {
        Some(_) => Ok(()),
        None => bail!("`{name}` is not on PATH, and emulated boards need it: install the package `{package}`"),
    }
}

pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
