//! Programs of the host that emulated boards need: a missing one is an error that names its package; they run silently
//! to their end or until cancelled.

use std::path::Path;

use anyhow::{Result, bail};
use espalier_bench::command::CommandLine;

use crate::{
    cancel::Cancel,
    process::{self, Watch},
};

/// Runs in `folder` and returns stdout. An error has the end of stderr.
pub fn run(line: &CommandLine, folder: &Path, cancel: &Cancel) -> Result<String> {
    // Output is parsed, so it must not be translated.
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
