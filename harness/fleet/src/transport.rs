//! Commands in, lines and exit codes out: on this host over pipes, on a board over SSH, with one meaning for both.
//!
//! Every command can be stopped (Ctrl-C, a limit, the caller) within a moment, and what ran on the board is then ended
//! there too. All calls block: run them on a thread of their own, one for each device.

mod connection;
mod error;
mod exchange;
mod limits;
mod local;
#[cfg(test)]
mod loopback;
mod output;
#[cfg(any(feature = "ssh", test))]
mod remote;
#[cfg(feature = "ssh")]
mod ssh;

use std::{io::Read, ops::ControlFlow};

use espalier_bench::command::shell_quote;
use espalier_inventory::{self as inventory, Device};
use espalier_protocol::text::sanitise;

use connection::Channel;
#[cfg(feature = "ssh")]
use connection::Connection;
pub use error::TransportError;
use exchange::{Input, Request, attend};
use limits::Deadlines;
pub use limits::Limits;
pub use output::{Exit, Output};
use output::{Lines, Tail};

use crate::cancel::Cancel;

/// The way to one device.
pub enum Transport {
    Local,
    #[cfg(any(feature = "ssh", test))]
    Remote(Box<remote::Remote>),
}

/// What a script may print before it is ended, in bytes.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

impl Transport {
    /// Connects, checks the host key and logs in. After a lost connection the next command makes a new one.
    pub fn open(device: &Device, cancel: &Cancel) -> Result<Transport, TransportError> {
        match &device.transport {
            inventory::Transport::Local => Ok(Transport::Local),
            #[cfg(feature = "ssh")]
            inventory::Transport::Ssh(address) => {
                let endpoint = ssh::resolve(&device.name, address)?;
                let connect =
                    move |limit, cancel: &Cancel| ssh::Connection::open(&endpoint, limit, cancel).map(Connection::Ssh);
                let remote = remote::Remote::open(Box::new(connect), device.timeouts.connect, cancel)?;
                Ok(Transport::Remote(Box::new(remote)))
            }
            #[cfg(not(feature = "ssh"))]
            inventory::Transport::Ssh(_) => {
                let _ = cancel;
                Err(TransportError::NoSsh)
            }
        }
    }

    /// Whether commands run on this host, where its files need not be brought.
    pub fn is_local(&self) -> bool {
        matches!(self, Transport::Local)
    }

    /// Runs a command. Each line of stdout goes to `on_line` as it arrives, raw, without its line feed and of at most
    /// [`espalier_protocol::MAX_LINE`] bytes; when that breaks off, the command is ended. A failed command is no error.
    pub fn run(
        &mut self,
        argv: &[String],
        limits: Limits,
        cancel: &Cancel,
        on_line: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Exit, TransportError> {
        let what = describe(argv);
        let bad = |problem: String| TransportError::BadOutput { what: what.clone(), problem };
        let mut lines = Lines::default();
        let exit = self.exec(Request {
            argv,
            deadlines: Deadlines::new(&what, limits, cancel),
            input: None,
            on_stdout: &mut |bytes| lines.push(bytes, on_line).map_err(bad),
        })?;
        if !exit.stopped {
            let _ = lines.end(on_line).map_err(bad)?;
        }
        Ok(exit)
    }

    /// Runs a small POSIX shell script and keeps what it prints.
    pub fn shell(&mut self, script: &str, limits: Limits, cancel: &Cancel) -> Result<Output, TransportError> {
        let argv = ["sh", "-c", script].map(str::to_owned);
        self.capture(&argv, None, limits, cancel)
    }

    /// Runs a command with `source` as stdin and keeps what it prints; `on_bytes` gets the size of each chunk sent.
    pub fn feed(
        &mut self,
        argv: &[String],
        source: &mut dyn Read,
        on_bytes: &mut dyn FnMut(u64),
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Output, TransportError> {
        self.capture(argv, Some(Input { source, on_bytes }), limits, cancel)
    }

    fn capture(
        &mut self,
        argv: &[String],
        input: Option<Input<'_>>,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Output, TransportError> {
        let what = describe(argv);
        let bad = |problem: String| TransportError::BadOutput { what: what.clone(), problem };
        let mut stdout = Vec::new();
        let exit = self.exec(Request {
            argv,
            deadlines: Deadlines::new(&what, limits, cancel),
            input,
            on_stdout: &mut |bytes| {
                stdout.extend_from_slice(bytes);
                if stdout.len() > OUTPUT_LIMIT {
                    return Err(bad(format!("more than {OUTPUT_LIMIT} bytes")));
                }
                Ok(ControlFlow::Continue(()))
            },
        })?;
        let stdout = String::from_utf8(stdout).map_err(|_| bad("text that is not UTF-8".to_owned()))?;
        Ok(Output { exit, stdout: stdout.into() })
    }

    fn exec(&mut self, request: Request<'_, '_>) -> Result<Exit, TransportError> {
        match self {
            Transport::Local => exec_here(request),
            #[cfg(any(feature = "ssh", test))]
            Transport::Remote(remote) => remote.exec(request),
        }
    }
}

/// Runs a command on this host; dropping its channel ends it.
fn exec_here(mut request: Request<'_, '_>) -> Result<Exit, TransportError> {
    let mut channel = Channel::Local(local::Process::start(request.argv, request.input.is_some())?);
    let mut stderr = Tail::default();
    let ended = attend(&mut channel, &mut request.deadlines, request.input, request.on_stdout, &mut stderr)?;
    let stopped = ended.is_none();
    Ok(Exit { stderr: stderr.text(), stopped, ..ended.unwrap_or_default() })
}

/// A command for messages: quoted, safe and not too long.
fn describe(argv: &[String]) -> String {
    let line = argv.iter().map(|argument| shell_quote(argument)).collect::<Vec<_>>().join(" ");
    let line = sanitise(&line).replace('\n', " ");
    let mut short: String = line.chars().take(80).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(all(test, not(feature = "ssh")))]
mod tests {
    use espalier_inventory::{Conditions, SshAddress, Timeouts};

    use super::*;

    #[test]
    fn a_build_without_ssh_says_how_to_get_it() {
        let device = Device {
            name: "pi4".into(),
            target: "aarch64".into(),
            description: None,
            transport: inventory::Transport::Ssh(SshAddress::default()),
            workdir: "/tmp".into(),
            runner: Vec::new(),
            emulated: false,
            in_all: true,
            threads: 1,
            kernels: None,
            conditions: Conditions::default(),
            timeouts: Timeouts::default(),
        };
        let error = Transport::open(&device, &Cancel::default()).err().unwrap().to_string();
        assert!(error.starts_with("this build has no ssh") && error.contains("`ssh-vendored`"), "{error}");
    }
}
