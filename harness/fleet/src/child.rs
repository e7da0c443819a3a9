//! A child process on this host, with pipes that never block. It leads a process group of its own: ending it ends what
//! it started (cargo's rustc, apt's helpers), and Ctrl-C on the terminal reaches this program alone.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::{self, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Dropping it ends it, unless it has finished.
pub struct Child {
    process: process::Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// How long it may take to end after SIGTERM, before it is killed.
    grace: Duration,
    has_finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Child {
    /// Without `has_input` stdin is empty.
    pub fn start(command: &mut Command, has_input: bool, grace: Duration) -> io::Result<Child> {
        let stdin = if has_input { Stdio::piped() } else { Stdio::null() };
        let mut process =
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let child = Child { process, stdin, stdout, stderr, grace, has_finished: false };
        for (fd, _) in child.pipes() {
            set_nonblocking(fd)?;
        }
        Ok(child)
    }

    /// Writes to stdin: `None` where the pipe is full, 0 where the child reads no more; its exit status has the reason.
    pub fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.stdin.as_mut().map(|pipe| pipe.write(bytes)) {
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(error)) if is_blocked(&error) => None,
            Some(Err(_)) | None => Some(0),
        }
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Reads what there is; `None` where that is nothing.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match stream {
            Stream::Stdout => read(&mut self.stdout, buffer),
            Stream::Stderr => read(&mut self.stderr, buffer),
        }
    }

    /// Whether the child itself has ended. A process that it left behind may hold its pipes open long after that.
    ///
    /// Does not reap it, so that its id stays its own.
    pub fn has_ended(&self) -> bool {
        // SAFETY: an all-zero `siginfo_t` is valid, and `waitid` writes to nothing else.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.process.id(), &mut info, flags) == 0 && info.si_pid() != 0
        }
    }

    /// Sleeps until a pipe is ready or `patience` is over.
    pub fn wait(&self, patience: Duration) {
        let mut fds: Vec<_> = self.pipes().map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
        // With all pipes closed only the end of the process is left, which no file descriptor announces.
        let patience = if fds.is_empty() { Duration::from_millis(5) } else { patience };
        poll(&mut fds, patience);
    }

    /// Waits for its end.
    pub fn finish(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait()?;
        self.has_finished = true;
        Ok(status)
    }

    /// The open pipes, each with what to wait for.
    fn pipes(&self) -> impl Iterator<Item = (RawFd, libc::c_short)> {
        let stdin = self.stdin.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLOUT));
        let stdout = self.stdout.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLIN));
        let stderr = self.stderr.as_ref().map(|pipe| (pipe.as_raw_fd(), libc::POLLIN));
        [stdin, stdout, stderr].into_iter().flatten()
    }

    /// Whether the group has a process; signal 0 is not sent.
    fn signal_group(&self, signal: libc::c_int) -> bool {
        // SAFETY: `kill` takes plain numbers, and the group was made for this child alone.
        unsafe { libc::kill(-(self.process.id() as libc::pid_t), signal) == 0 }
    }
}

impl Drop for Child {
    /// Ends the child and its process group, politely first.
    fn drop(&mut self) {
        if self.has_finished {
            return;
        }
        self.signal_group(libc::SIGTERM);
        let start = Instant::now();
        // The group, not its leader alone: `cross` ends at once, while docker's client still has to stop the container.
        while start.elapsed() < self.grace {
            let leader_is_gone = matches!(self.process.try_wait(), Ok(Some(_)));
            if leader_is_gone && !self.signal_group(0) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.signal_group(libc::SIGKILL);
        // Its status is of no interest any more.
        let _ = self.process.wait();
    }
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
pub fn poll(fds: &mut [libc::pollfd], patience: Duration) {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: `fds` is a valid slice of `pollfd` for the length given, for the time of the call.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: `fcntl` with these commands touches no memory of ours, and the pipe is open.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
