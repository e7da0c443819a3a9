//! Commands on this host. Each gets a process group of its own, so that ending it ends its children too, and Ctrl-C on
//! the terminal reaches this program alone.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use super::{connection::Stream, error::TransportError, limits::Deadlines, output::Exit};

/// A command that runs. Dropping it ends it, unless it has finished.
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    has_finished: bool,
}

/// Between the polite signal and the other one.
const GRACE: Duration = Duration::from_millis(500);

impl Process {
    pub fn start(argv: &[String], has_input: bool) -> Result<Process, TransportError> {
        let (program, args) = argv.split_first().expect("a command has a program");
        let mut child = Command::new(program)
            .args(args)
            .process_group(0)
            .stdin(if has_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| TransportError::Io { what: format!("cannot start `{program}`"), source })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Process { child, stdin, stdout, stderr, has_finished: false };
        for (fd, _) in process.pipes() {
            set_nonblocking(fd).map_err(broken)?;
        }
        Ok(process)
    }

    /// A child of the command may hold the pipes open long after it: the command's own end counts.
    pub fn has_ended(&mut self) -> Result<bool, TransportError> {
        Ok(has_ended(self.group()))
    }

    /// What the command no longer reads is no error: its exit status says why.
    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        match self.stdin.as_mut().map(|pipe| pipe.write(bytes)) {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) if is_blocked(&error) => Ok(None),
            Some(Err(_)) | None => Ok(Some(0)),
        }
    }

    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        self.stdin = None;
        Ok(true)
    }

    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        match stream {
            Stream::Stdout => read(&mut self.stdout, buffer),
            Stream::Stderr => read(&mut self.stderr, buffer),
        }
        .map_err(broken)
    }

    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        let pollfd = |(fd, events)| libc::pollfd { fd, events, revents: 0 };
        let mut fds: Vec<libc::pollfd> = self.pipes().map(pollfd).collect();
        // With all pipes closed only the end of the process is left, which no file descriptor announces.
        let patience = if fds.is_empty() { Duration::from_millis(5) } else { patience };
        poll(&mut fds, patience);
        Ok(())
    }

    pub fn finish(&mut self, _: &Deadlines<'_>) -> Result<Exit, TransportError> {
        let status = self.child.wait().map_err(broken)?;
        self.has_finished = true;
        Ok(Exit { code: status.code(), signal: status.signal().map(signal_name), ..Exit::default() })
    }

    /// The open pipes, each with what to wait for.
    fn pipes(&self) -> impl Iterator<Item = (RawFd, libc::c_short)> {
        let stdin = self.stdin.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLOUT));
        let stdout = self.stdout.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLIN));
        let stderr = self.stderr.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLIN));
        [stdin, stdout, stderr].into_iter().flatten()
    }

    fn group(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).expect("a process id fits")
    }
}

impl Drop for Process {
    /// Ends the command and its process group, politely first.
    fn drop(&mut self) {
        if self.has_finished {
            return;
        }
        let group = self.group();
        // SAFETY: `kill` touches no memory. The child is not reaped yet, so its id cannot belong to another group.
        let signal = |number| unsafe { libc::kill(-group, number) };
        signal(libc::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < GRACE && !has_ended(group) {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(libc::SIGKILL);
        // Its status is of no interest any more.
        let _ = self.child.wait();
    }
}

/// Whether a child has ended, without reaping it: its id stays its own.
fn has_ended(pid: libc::pid_t) -> bool {
    // SAFETY: an all-zero `siginfo_t` is valid, and `waitid` writes to nothing else.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 && info.si_pid() == pid
    }
}

fn broken(source: io::Error) -> TransportError {
    TransportError::Io { what: "cannot talk to the command".into(), source }
}

/// `None` where there is nothing now; a pipe whose other end is closed is closed here too.
fn read<P: Read>(pipe: &mut Option<P>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let Some(open) = pipe else { return Ok(None) };
    match open.read(buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(None)
        }
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_blocked(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_blocked(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until one of `fds` is ready or `patience` is over. An interruption may end it early: callers look again.
pub(super) fn poll(fds: &mut [libc::pollfd], patience: Duration) {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: `fds` is a valid slice of `pollfd` for the length given, for the time of the call.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: `fcntl` with these commands touches no memory of ours, and the pipe is open.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// As SSH names them; those that end programs.
fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGABRT => "ABRT",
        libc::SIGBUS => "BUS",
        libc::SIGFPE => "FPE",
        libc::SIGHUP => "HUP",
        libc::SIGILL => "ILL",
        libc::SIGINT => "INT",
        libc::SIGKILL => "KILL",
        libc::SIGPIPE => "PIPE",
        libc::SIGSEGV => "SEGV",
        libc::SIGTERM => "TERM",
        _ => return number.to_string(),
    };
    name.to_owned()
}
