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
        self.signal("INT");
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// What it has printed there so far.
    pub fn stderr(&self) -> String {
        self.printed("stderr")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end. However long that takes on a busy host: only a program that has come to a stop, without
    /// output and without using the processor, fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let mut silence = Silence::new(&self.what);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.outcome(status);
            }
            silence.check(&self);
        }
    }

    /// The same until something is so, or it has ended.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut silence = Silence::new(what);
        while !self.has_ended() && !is_so() {
            silence.check(self);
        }
    }

    /// Bytes of output.
    fn output_bytes(&self) -> u64 {
        let size = |name: &str| fs::metadata(self.output.path().join(name)).map_or(0, |facts| facts.len());
        size("stdout") + size("stderr")
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

/// How long a program may make no progress. An emulated board on a busy host hashes a runner for minutes.
const LIMIT: Duration = Duration::from_secs(600);
/// Less CPU time than this is waiting: programs look around while they wait.
const PROGRESS: Duration = Duration::from_secs(2);

/// Watches a program make progress.
struct Silence<'a> {
    what: &'a str,
    since: Instant,
    looked: Instant,
    output: u64,
    cpu: Duration,
}

impl Silence<'_> {
    fn new(what: &str) -> Silence<'_> {
        Silence { what, since: Instant::now(), looked: Instant::now(), output: 0, cpu: Duration::ZERO }
    }

    /// Sleeps a moment.
    #[track_caller]
    fn check(&mut self, running: &Running) {
        thread::sleep(Duration::from_millis(10));
        if self.looked.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.looked = Instant::now();
        let (output, cpu) = (running.output_bytes(), cpu_time(running.child.id()));
        if output != self.output || cpu.abs_diff(self.cpu) >= PROGRESS {
            (self.output, self.cpu, self.since) = (output, cpu, Instant::now());
        }
        if self.since.elapsed() > LIMIT {
            let (what, stderr) = (self.what, running.printed("stderr"));
            panic!("{what}: {} made no progress for {LIMIT:?}; its stderr:\n{stderr}", running.what);
        }
    }
}

/// Of a process and those it has started, as far as they still run or were waited for.
fn cpu_time(root: u32) -> Duration {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name may have spaces; it ends with the last bracket. Then state, parent, and from the 12th on the ticks.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        processes.push((pid, number(1) as u32, (11..15).map(number).sum::<u64>()));
    }
    let mut ticks = 0;
    let mut tree = vec![root];
    while let Some(parent) = tree.pop() {
        ticks += processes.iter().filter(|(pid, ..)| *pid == parent).map(|(_, _, ticks)| ticks).sum::<u64>();
        tree.extend(processes.iter().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| *pid));
    }
    // Linux has a hundred a second, for programs on all architectures we test on.
    Duration::from_millis(10 * ticks)
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
