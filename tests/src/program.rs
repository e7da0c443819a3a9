//! The program under test as a process. What it prints goes to files, so that a test can look at it while it runs and
//! no full pipe stops it; a program that does not end is a failure with all it had said, not a suite that hangs.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Ended when dropped.
pub struct Running {
    child: Child,
    what: String,
    printed: tempfile::TempDir,
    start: Instant,
}

pub struct Outcome {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    what: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let printed = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(printed.path().join(name)).unwrap();
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Running { child, what, printed, start: Instant::now() }
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.said("stderr")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Outcome {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.outcome(status);
            }
            if asked.elapsed() > limit {
                panic!("{} did not end within {limit:?}; it said:\n{}", self.what, self.said("stderr"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        Outcome {
            code: status.code(),
            stdout: self.said("stdout"),
            stderr: self.said("stderr"),
            took: self.start.elapsed(),
            what: self.what.clone(),
        }
    }

    fn said(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(Path::new(self.printed.path()).join(name)).unwrap()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// It ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert!(self.code == Some(code), "expected exit code {code}\n{}", self.all());
        self
    }

    /// Each of these is on stderr.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is missing on stderr\n{}", self.all());
        }
    }

    /// Each of these is on stdout.
    #[track_caller]
    pub fn prints(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stdout.contains(text), "`{text}` is missing on stdout\n{}", self.all());
        }
    }

    /// Everything, for messages.
    pub fn all(&self) -> String {
        let Outcome { code, stdout, stderr, took, what } = self;
        format!("{what}\nexit code {code:?} after {took:.1?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
