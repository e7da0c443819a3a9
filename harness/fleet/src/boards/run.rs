//! Programs of the host: looked for with a clear error, run to their end or until cancelled.

use std::{
    env,
    io::{Read, Seek},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use crate::cancel::Cancel;

/// Runs in `folder`; gives what came on stdout. The end of what it said on stderr goes into the error.
pub fn run(line: &CommandLine, folder: &Path, cancel: &Cancel) -> Result<String> {
    // Files, not pipes: a program that leaves a daemon behind (qemu) would hold a pipe open for as long as that lives.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new(&line.words[0])
        .args(&line.words[1..])
        .envs(line.env.iter().cloned())
        .env("LC_ALL", "C")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if cancel.is_requested() {
            // Best effort: it may have ended by itself in this moment.
            let _ = child.kill();
            child.wait()?;
            bail!("cancelled while running `{line}`");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let text = |file: &mut std::fs::File| -> Result<String> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if !status.success() {
        bail!("`{line}` failed ({status}): {}", last_lines(&text(&mut err)?, 6));
    }
    text(&mut out)
}

/// Where a program is on `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// An error that names the Debian package when a program is missing.
pub fn require_program(name: &str, package: &str) -> Result<()> {
    match find_program(name) {
        Some(_) => Ok(()),
        None => bail!("`{name}` is not on PATH, and emulated boards need it: install the package `{package}`"),
    }
}

pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_ran_and_what_it_said() {
        let line = CommandLine::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]);
        let message = run(&line, Path::new("/"), &Cancel::default()).unwrap_err().to_string();
        assert!(message.contains("echo two") && message.contains("exit status: 3"), "{message}");
        assert!(message.ends_with("one\ntwo"), "{message}");
        let line = CommandLine::new("sh").args(["-c", "echo fine; echo noise >&2"]);
        assert_eq!(run(&line, Path::new("/"), &Cancel::default()).unwrap(), "fine\n");
    }

    #[test]
    fn a_cancelled_program_is_ended() {
        let cancel = Cancel::default();
        cancel.request();
        let began = std::time::Instant::now();
        let error = run(&CommandLine::new("sleep").arg("60"), Path::new("/"), &cancel).unwrap_err();
        assert!(error.to_string().starts_with("cancelled"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
