//! Runs a [`CommandLine`] on this host: captures stdout, passes lines of stderr on as they come, ends it on request.

use std::{
    collections::VecDeque,
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use espalier_bench::command::CommandLine;

use crate::{
    cancel::Cancel,
    child::{Child, Stream},
};

/// The number of last lines of stderr in an error.
const TAIL_LINES: usize = 20;
/// How soon a request to stop is noticed, at the latest.
const TICK: Duration = Duration::from_millis(50);
/// How long a child may take to end after SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// How a long-running function is stopped and followed. `progress` is called on the calling thread.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    pub cancel: &'a Cancel,
    pub progress: &'a dyn Fn(&str),
}

impl Watch<'_> {
    /// # Errors
    /// [`ProcessError::Cancelled`] when that was requested.
    pub fn go_on(&self) -> Result<(), ProcessError> {
        if self.cancel.is_requested() { Err(ProcessError::Cancelled) } else { Ok(()) }
    }

    pub fn emit(&self, text: &str) {
        (self.progress)(text);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("stopped on request")]
    Cancelled,
    #[error("cannot run `{command}`: `{program}` is not installed or not on `PATH`")]
    NotFound { command: String, program: String },
    #[error("cannot run `{command}`")]
    Start {
        command: String,
        #[source]
        error: io::Error,
    },
    #[error("`{command}`{} ended with {status}{}", in_folder(folder), shown(tail))]
    Failed { command: String, folder: Option<PathBuf>, status: ExitStatus, tail: Vec<String> },
}

/// Runs a command to its end and returns its stdout; each line of stderr goes to `watch.progress`.
///
/// # Errors
/// It cannot be started, ends with another status than 0, or is stopped on request.
pub fn run(command: &CommandLine, folder: Option<&Path>, watch: Watch) -> Result<String, ProcessError> {
    watch.go_on()?;
    let mut child = start(command, folder)?;
    let unreadable = |error| ProcessError::Start { command: command.to_string(), error };
    let (mut output, mut line, mut tail) = (Vec::new(), Vec::new(), VecDeque::new());
    let mut report = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        watch.emit(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut has_ended = false;
    loop {
        let mut is_idle = true;
        if let Some(length) = child.read(Stream::Stdout, &mut buffer).map_err(unreadable)? {
            output.extend_from_slice(&buffer[..length]);
            is_idle = false;
        }
        if let Some(length) = child.read(Stream::Stderr, &mut buffer).map_err(unreadable)? {
            for part in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    report(&std::mem::take(&mut line));
                }
            }
            is_idle = false;
        }
        watch.go_on()?;
        if is_idle && has_ended {
            break;
        }
        if is_idle {
            // The last output may have come between the reads and the end: it is read once more.
            has_ended = child.has_ended();
            if !has_ended {
                child.wait(TICK);
            }
        }
    }
    if !line.is_empty() {
        report(&line);
    }
    let status = child.finish().map_err(unreadable)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let folder = folder.map(Path::to_owned);
    Err(ProcessError::Failed { command: command.to_string(), folder, status, tail: tail.into() })
}

/// Stdout of a program that answers at once (`gcc --version`); `None` when it is not there or fails.
pub fn output_of(command: &CommandLine) -> Option<String> {
    let (cancel, silent) = (Cancel::default(), |_: &str| {});
    run(command, None, Watch { cancel: &cancel, progress: &silent }).ok()
}

/// Where `program` is found in `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn start(command: &CommandLine, folder: Option<&Path>) -> Result<Child, ProcessError> {
    let program = command.argv.first().cloned().unwrap_or_default();
    let mut process = Command::new(&program);
    process.args(command.argv.iter().skip(1)).envs(command.env.iter().map(|(name, value)| (name, value)));
    if let Some(folder) = folder {
        process.current_dir(folder);
    }
    Child::start(&mut process, false, GRACE).map_err(|error| {
        let command = command.to_string();
        // A missing working folder gives the same error kind as a missing program.
        if error.kind() == io::ErrorKind::NotFound && folder.is_none_or(Path::is_dir) {
            ProcessError::NotFound { command, program }
        } else {
            ProcessError::Start { command, error }
        }
    })
}

fn in_folder(folder: &Option<PathBuf>) -> String {
    folder.as_ref().map(|folder| format!(" in `{}`", folder.display())).unwrap_or_default()
}

fn shown(tail: &[String]) -> String {
    if tail.is_empty() {
        return ", without output on stderr".to_owned();
    }
    tail.iter().fold(", the end of its stderr:".to_owned(), |text, line| text + "\n    " + line)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, thread, time::Instant};

    use super::*;

    fn shell(script: &str) -> CommandLine {
        CommandLine::new("sh").args(["-c", script])
    }

    #[test]
    fn output_and_error_lines_are_apart() {
        let lines = RefCell::new(Vec::new());
        let progress = |line: &str| lines.borrow_mut().push(line.to_owned());
        let watch = Watch { cancel: &Cancel::default(), progress: &progress };
        let output = run(&shell("echo out; echo one >&2; echo two >&2; echo \"$X\"").env("X", "set"), None, watch);
        assert_eq!(output.unwrap(), "out\nset\n");
        assert_eq!(*lines.borrow(), ["one", "two"]);
    }

    #[test]
    fn an_error_shows_command_status_and_the_last_lines() {
        let watch = Watch { cancel: &Cancel::default(), progress: &|_| {} };
        let folder = env::temp_dir();
        let error = run(&shell("seq 1 30 >&2; exit 7"), Some(&folder), watch).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c 'seq 1 30 >&2; exit 7'` in `"), "{error}");
        assert!(error.contains("exit status: 7"), "{error}");
        assert!(
            error.ends_with("\n    30") && error.contains("\n    11\n") && !error.contains("\n    10\n"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let watch = Watch { cancel: &Cancel::default(), progress: &|_| {} };
        let error = run(&CommandLine::new("espalier-no-such-program").arg("-x"), None, watch).unwrap_err();
        assert!(matches!(error, ProcessError::NotFound { .. }), "{error}");
    }

    #[test]
    fn stopping_reaches_the_childs_children() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::default();
        let progress = |_: &str| cancel.request();
        let since = Instant::now();
        let script = "sleep 60 & echo $! > pid; echo started >&2; wait";
        let error = run(&shell(script), Some(folder.path()), Watch { cancel: &cancel, progress: &progress });
        assert!(matches!(error, Err(ProcessError::Cancelled)));
        let grandchild: i32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        // It may be a zombie for a moment, until init has taken note.
        let gone = || match std::fs::read_to_string(format!("/proc/{grandchild}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !gone() {
            assert!(since.elapsed() < Duration::from_secs(300), "{grandchild} still runs");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn a_child_of_a_stopped_leader_has_time_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::default();
        let progress = |_: &str| cancel.request();
        let child = "trap \"sleep 0.3; echo > ended; exit\" TERM; echo ready >&2; while :; do sleep 0.05; done";
        let script = format!("sh -c '{child}' & exec sleep 60");
        let error = run(&shell(&script), Some(folder.path()), Watch { cancel: &cancel, progress: &progress });
        assert!(matches!(error, Err(ProcessError::Cancelled)));
        assert!(folder.path().join("ended").exists());
    }

    #[test]
    fn a_process_that_a_child_leaves_behind_is_not_waited_for() {
        let watch = Watch { cancel: &Cancel::default(), progress: &|_| {} };
        let since = Instant::now();
        assert_eq!(run(&shell("sleep 120 & echo done"), None, watch).unwrap(), "done\n");
        assert!(since.elapsed() < Duration::from_secs(100), "{:?}", since.elapsed());
    }
}
