//! Runs a [`CommandLine`] on this host: captures stdout, passes lines of stderr on as they come, ends it on request.
//!
//! The child leads a process group of its own. So stopping it also stops what it started (cargo's rustc, apt's
//! helpers), and the terminal's Ctrl-C reaches it through [`Cancel`] alone: in order, and once.

use std::{
    collections::VecDeque,
    env,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use espalier_bench::command::CommandLine;

use crate::cancel::Cancel;

/// The number of last lines of stderr in an error.
const TAIL_LINES: usize = 20;
/// How often a silent child is checked.
const TICK: Duration = Duration::from_millis(50);
/// How long a child may take to end after SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long to wait for output after the child has ended: a process it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

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

    pub fn say(&self, text: &str) {
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
    let (sender, events) = mpsc::channel();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let lines = sender.clone();
    thread::spawn(move || {
        for line in BufReader::new(stderr?).split(b'\n') {
            let line = String::from_utf8_lossy(&line.ok()?).trim_end().to_owned();
            lines.send(Event::ErrorLine(line)).ok()?;
        }
        Some(())
    });
    thread::spawn(move || {
        let mut stdout = stdout?;
        let mut piece = [0; 16 * 1024];
        loop {
            match stdout.read(&mut piece).ok()? {
                0 => return Some(()),
                length => sender.send(Event::Output(piece[..length].to_vec())).ok()?,
            }
        }
    });

    let mut output = Vec::new();
    let mut tail = VecDeque::new();
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let status = loop {
        match events.recv_timeout(TICK) {
            Ok(Event::Output(piece)) => output.extend(piece),
            Ok(Event::ErrorLine(line)) => {
                watch.say(&line);
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Both pipes are closed: usually the child has ended, too.
            Err(RecvTimeoutError::Disconnected) if ended.is_none() => match wait_briefly(&mut child) {
                Some(status) => break status,
                None => thread::sleep(TICK),
            },
            Err(RecvTimeoutError::Disconnected) => {}
        }
        if watch.cancel.is_requested() {
            stop(&mut child);
            return Err(ProcessError::Cancelled);
        }
        match ended {
            Some((status, since)) if since.elapsed() > DRAIN => break status,
            Some(_) => {}
            None => ended = child.try_wait().ok().flatten().map(|status| (status, Instant::now())),
        }
    };
    if status.success() {
        Ok(String::from_utf8_lossy(&output).into_owned())
    } else {
        let folder = folder.map(Path::to_owned);
        Err(ProcessError::Failed { command: command.to_string(), folder, status, tail: tail.into() })
    }
}

/// Stdout of a program that answers at once (`gcc --version`); `None` when it is not there or fails.
pub fn ask(command: &CommandLine) -> Option<String> {
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

enum Event {
    Output(Vec<u8>),
    ErrorLine(String),
}

fn start(command: &CommandLine, folder: Option<&Path>) -> Result<Child, ProcessError> {
    let program = command.argv.first().cloned().unwrap_or_default();
    let mut process = Command::new(&program);
    process.args(command.argv.iter().skip(1)).envs(command.env.iter().map(|(name, value)| (name, value)));
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(folder) = folder {
        process.current_dir(folder);
    }
    process.spawn().map_err(|error| {
        let command = command.to_string();
        // A missing working folder gives the same error kind as a missing program.
        if error.kind() == io::ErrorKind::NotFound && folder.is_none_or(Path::is_dir) {
            ProcessError::NotFound { command, program }
        } else {
            ProcessError::Start { command, error }
        }
    })
}

fn wait_briefly(child: &mut Child) -> Option<ExitStatus> {
    let since = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            _ if since.elapsed() > TICK => return None,
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Sends SIGTERM to the group, then SIGKILL.
fn stop(child: &mut Child) {
    signal_group(child, libc::SIGTERM);
    let since = Instant::now();
    // The group, not its leader alone: `cross` ends at once, while docker's client still has to stop the container.
    while since.elapsed() < GRACE {
        let leader_is_gone = matches!(child.try_wait(), Ok(Some(_)));
        if leader_is_gone && !signal_group(child, 0) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    signal_group(child, libc::SIGKILL);
    let _ = child.wait();
}

/// Whether the group has a process; signal 0 is not sent.
fn signal_group(child: &Child, signal: i32) -> bool {
    let Ok(group) = i32::try_from(child.id()) else { return false };
    // SAFETY: `kill` takes plain numbers; the group was made for this child alone.
    unsafe { libc::kill(-group, signal) == 0 }
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
    use std::cell::RefCell;

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
        assert!(since.elapsed() < GRACE, "{:?}", since.elapsed());
        let grandchild: i32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        // It may be a zombie for a moment, until init has taken note.
        let gone = || match std::fs::read_to_string(format!("/proc/{grandchild}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !gone() {
            assert!(since.elapsed() < Duration::from_secs(10), "{grandchild} still runs");
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
        assert_eq!(run(&shell("sleep 5 & echo done"), None, watch).unwrap(), "done\n");
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    }
}
