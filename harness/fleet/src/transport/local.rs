//! Commands on this host. Each gets a process group of its own, so that ending it ends its children too, and Ctrl-C on the terminal reaches us alone.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{
    Exit, Feeding, Request,
    error::TransportError,
    output::{Tail, Watch},
};

pub struct Local;

/// Between the polite signal and the other one.
const GRACE: Duration = Duration::from_millis(500);

impl Local {
    pub(super) fn exec(&mut self, mut request: Request<'_, '_>) -> Result<Exit, TransportError> {
        let (program, args) = request.words.split_first().expect("a command has a program");
        let mut child = Command::new(program)
            .args(args)
            .process_group(0)
            .stdin(if request.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| TransportError::Io { what: format!("cannot start `{program}`"), source })?;
        let mut stderr = Tail::default();
        match attend(&mut child, &mut request, &mut stderr) {
            Ok(Some(status)) => Ok(exit(status, stderr.text(), false)),
            Ok(None) => Ok(exit(end(&mut child), stderr.text(), true)),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

/// Carries bytes until the command ends; `None` when `on_stdout` had enough.
fn attend(
    child: &mut Child,
    request: &mut Request<'_, '_>,
    stderr: &mut Tail,
) -> Result<Option<ExitStatus>, TransportError> {
    let io_error = |source| TransportError::Io { what: "cannot talk to the command".into(), source };
    let mut stdin = child.stdin.take();
    let mut stdout = child.stdout.take();
    let mut errors = child.stderr.take();
    for fd in [
        stdin.as_ref().map(|p| p.as_raw_fd()),
        stdout.as_ref().map(|p| p.as_raw_fd()),
        errors.as_ref().map(|p| p.as_raw_fd()),
    ] {
        set_nonblocking(fd).map_err(io_error)?;
    }
    let mut feeding = request.input.take().map(Feeding::new);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut idle = true;
        if let (Some(pipe), Some(feed)) = (&mut stdin, &mut feeding) {
            let part = feed.part()?;
            let written = if part.is_empty() { Ok(0) } else { pipe.write(part) };
            match written {
                Ok(0) => stdin = None,
                Ok(bytes) => {
                    feed.advance(bytes);
                    request.watch.heard();
                    idle = false;
                }
                Err(error) if is_blocked(&error) => {}
                // It has stopped reading: its exit status says why.
                Err(_) => stdin = None,
            }
        }
        if let Some(bytes) = read(&mut stdout, &mut buffer).map_err(io_error)? {
            request.watch.heard();
            idle = false;
            if let ControlFlow::Break(()) = (request.on_stdout)(&buffer[..bytes])? {
                return Ok(None);
            }
        }
        if let Some(bytes) = read(&mut errors, &mut buffer).map_err(io_error)? {
            request.watch.heard();
            idle = false;
            stderr.push(&buffer[..bytes]);
        }
        request.watch.check()?;
        if !idle {
            continue;
        }
        // A child of the command may hold the pipes open long after it: the command's own end counts, once the pipes are empty.
        if let Some(status) = child.try_wait().map_err(io_error)? {
            let (mut out_left, mut err_left) = (true, true);
            while out_left || err_left {
                out_left = match read(&mut stdout, &mut buffer).map_err(io_error)? {
                    Some(bytes) => {
                        let _ = (request.on_stdout)(&buffer[..bytes])?;
                        true
                    }
                    None => false,
                };
                err_left = match read(&mut errors, &mut buffer).map_err(io_error)? {
                    Some(bytes) => {
                        stderr.push(&buffer[..bytes]);
                        true
                    }
                    None => false,
                };
                request.watch.check()?;
            }
            return Ok(Some(status));
        }
        wait(&stdin, &stdout, &errors, &request.watch);
    }
}

/// `None` where there is nothing now; the pipe goes when its other end is closed.
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

fn wait(stdin: &Option<impl AsRawFd>, stdout: &Option<impl AsRawFd>, stderr: &Option<impl AsRawFd>, watch: &Watch<'_>) {
    let mut fds = Vec::new();
    let mut add = |fd: Option<RawFd>, events| {
        fds.extend(fd.map(|fd| libc::pollfd { fd, events, revents: 0 }));
    };
    add(stdin.as_ref().map(AsRawFd::as_raw_fd), libc::POLLOUT);
    add(stdout.as_ref().map(AsRawFd::as_raw_fd), libc::POLLIN);
    add(stderr.as_ref().map(AsRawFd::as_raw_fd), libc::POLLIN);
    // With both pipes closed only the end of the process is left, and nothing to poll announces it.
    let patience = if fds.is_empty() { Duration::from_millis(5) } else { watch.patience() };
    poll(&mut fds, patience);
}

/// Waits until one of `fds` is ready or `patience` is over. Being interrupted is as good: callers look again.
pub(super) fn poll(fds: &mut [libc::pollfd], patience: Duration) {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: `fds` is a valid slice of `pollfd` for the length given, for the time of the call.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
}

fn set_nonblocking(fd: Option<RawFd>) -> io::Result<()> {
    let Some(fd) = fd else { return Ok(()) };
    // SAFETY: `fcntl` with these commands touches no memory of ours, and the pipe is open.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends the command and its process group, politely first.
fn end(child: &mut Child) -> ExitStatus {
    let group = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: `kill` touches no memory. The child is not waited for yet, so that its id cannot belong to another group.
    let signal = |number| unsafe { libc::kill(-group, number) };
    signal(libc::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE {
        // Looked at without reaping, for the group's sake: see above.
        if has_ended(group) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(libc::SIGKILL);
    child.wait().unwrap_or_default()
}

fn has_ended(pid: libc::pid_t) -> bool {
    // SAFETY: an all-zero `siginfo_t` is valid, and `waitid` writes to nothing else.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 && info.si_pid() == pid
    }
}

fn exit(status: ExitStatus, stderr: String, stopped: bool) -> Exit {
    Exit { code: status.code(), signal: status.signal().map(signal_name), stderr, stopped }
}

/// As SSH names them; the few that end programs.
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
