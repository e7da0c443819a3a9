//! The program under test as a process. Its output goes to files, so that a test can read it while it runs and no full
//! pipe stops it. A program that does not end is a failure with its output, not a suite that hangs.

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
    output: tempfile::TempDir,
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
        let output = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(output.path().join(name)).unwrap();
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Running { child, what, output, start: Instant::now() }
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// What it has printed there so far.
    pub fn stderr(&self) -> String {
        self.printed("stderr")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Outcome {
        let waiting = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.outcome(status);
            }
            if waiting.elapsed() > limit {
                panic!("{} did not end within {limit:?}; its stderr:\n{}", self.what, self.printed("stderr"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        Outcome {
            code: status.code(),
            stdout: self.printed("stdout"),
            stderr: self.printed("stderr"),
            took: self.start.elapsed(),
            what: self.what.clone(),
        }
    }

    fn printed(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(Path::new(self.output.path()).join(name)).unwrap()).into_owned()
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
