//! Test programs: built by cargo, run one after another, their results counted a line a test.
//!
//! The programs are started directly. Each `cargo test` of some packages would choose their features anew, and compile
//! crates again for them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use espalier_cli::terminal::say;

use super::report::Counts;

/// A test program as cargo built it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestProgram {
    /// Of the crate or of the file in `tests/`.
    pub name: String,
    path: PathBuf,
    /// Of its package: tests run there.
    folder: PathBuf,
}

/// What one call of cargo built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    pub tests: Vec<TestProgram>,
    /// `cargo xtask` itself, where it is among the packages.
    pub xtask: Option<PathBuf>,
}

/// Runs cargo with arguments that build test programs.
///
/// # Errors
/// Something does not compile.
pub fn build(mut cargo: Command, sources: &Path) -> Result<Programs> {
    cargo.args(["--no-run", "--quiet", "--message-format", "json-render-diagnostics"]);
    let output = cargo.current_dir(sources).stderr(Stdio::inherit()).output().context("cannot run `cargo`")?;
    if !output.status.success() {
        bail!("cargo ended with {}", output.status);
    }
    let programs = programs_in(&String::from_utf8_lossy(&output.stdout));
    if programs.tests.is_empty() {
        bail!("cargo built no test program");
    }
    Ok(programs)
}

/// Reads cargo's JSON messages.
fn programs_in(messages: &str) -> Programs {
    let mut programs = Programs::default();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let target = &message["target"];
        let (Some(path), Some(name)) = (text(&message["executable"]), text(&target["name"])) else { continue };
        if message["profile"]["test"] == true {
            let manifest = PathBuf::from(text(&message["manifest_path"]).unwrap_or_default());
            let folder = manifest.parent().unwrap_or(Path::new(".")).to_owned();
            programs.tests.push(TestProgram { name, path: path.into(), folder });
        } else if name == "xtask" && target["kind"][0] == "bin" {
            programs.xtask = Some(path.into());
        }
    }
    programs
}

/// How test programs are run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Only tests whose name contains this.
    pub filter: Option<&'a str>,
    /// Without tests whose name contains this.
    pub without: Option<&'a str>,
    pub environment: &'a [(&'a str, &'a str)],
    /// Where tests that skip write `NAME: reason`, a line each. Removed afterwards.
    pub skips: &'a Path,
}

impl Run<'_> {
    /// Runs every program, whatever the others did.
    ///
    /// # Errors
    /// A program cannot be started or its output not be read.
    pub fn all(self, programs: &[&TestProgram]) -> Result<Counts> {
        let mut counts = Counts::default();
        for program in programs {
            let mut of_one = self.one(program)?;
            let notes = fs::read_to_string(self.skips).unwrap_or_default();
            let _ = fs::remove_file(self.skips);
            for note in notes.lines() {
                // A test that skipped has passed as far as its program knows.
                of_one.passed = of_one.passed.saturating_sub(1);
                of_one.skipped.push(note.to_owned());
            }
            counts += of_one;
        }
        Ok(counts)
    }

    fn one(self, program: &TestProgram) -> Result<Counts> {
        let mut command = Command::new(&program.path);
        command
            .args(self.filter)
            // Ignored tests need what the suite has brought: an OpenSSH server, boards that are up.
            .args(["--format", "pretty", "--include-ignored"])
            .args(self.without.iter().flat_map(|without| ["--skip", without]))
            .current_dir(&program.folder)
            // As cargo sets it for tests.
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("ESPALIER_SKIPS", self.skips)
            .envs(self.environment.iter().copied());
        run(command, &program.name)
    }
}

/// Runs a program that prints a line a test, and counts them; shows the lines that say more.
///
/// # Errors
/// It cannot be started or its output not be read.
pub fn run(mut command: Command, name: &str) -> Result<Counts> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line?;
        if !count_line(&line, &mut counts) && !is_noise(&line) {
            say(format_args!("{line}"))?;
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed.is_empty() {
        counts.failed.push(format!("the tests of `{name}` ended with {status}"));
    }
    Ok(counts)
}

/// Counts the result of a single test; false where the line should be shown.
pub fn count_line(line: &str, counts: &mut Counts) -> bool {
    let Some((test, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
        return false;
    };
    match outcome {
        "ok" => counts.passed += 1,
        "FAILED" => {
            counts.failed.push(test.to_owned());
            return false;
        }
        _ => match outcome.strip_prefix("ignored") {
            Some(reason) => counts.skipped.push(format!("{test}: {}", reason.trim_start_matches(", "))),
            None => return false,
        },
    }
    true
}

/// Lines of a test program that say nothing about a single test.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_test_program() {
        let mut counts = Counts::default();
        let lines = ["test a ... ok", "test b ... FAILED", "test c ... ignored, no board", "thread 'b' panicked", ""];
        let counted: Vec<bool> = lines.iter().map(|line| count_line(line, &mut counts)).collect();
        assert_eq!(counted, [true, false, true, false, false]);
        let expected = Counts { passed: 1, failed: vec!["b".into()], skipped: vec!["c: no board".into()] };
        assert_eq!(counts, expected);
    }

    #[test]
    fn programs_out_of_cargos_messages() {
        let message = |name: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/r/{name}/Cargo.toml","target":{{"kind":["{kind}"],
                "name":"{name}"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
            .replace('\n', " ")
        };
        let messages = [
            message("bench", "lib", false, "null"),
            message("bench", "lib", true, "\"/t/bench-1\""),
            message("xtask", "bin", false, "\"/t/xtask\""),
            message("xtask", "bin", true, "\"/t/xtask-2\""),
        ];
        let programs = programs_in(&messages.join("\n"));
        let names: Vec<_> = programs.tests.iter().map(|program| (&*program.name, program.folder.to_str())).collect();
        assert_eq!(names, [("bench", Some("/r/bench")), ("xtask", Some("/r/xtask"))]);
        assert_eq!(programs.xtask.as_deref(), Some(Path::new("/t/xtask")));
    }
}
