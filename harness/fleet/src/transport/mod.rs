//! Reaching a board: commands in, lines and exit codes out. This host over pipes, a board over SSH, with one meaning for both.
//!
//! Only `exec` of SSH is used, never sftp: a busybox board with dropbear has no more than that, and mixing the two made dropbear die. Every
//! command can be stopped (Ctrl-C, a limit, the caller) within a moment, and what ran on the board is then ended there too.
//! All calls block: run them on a thread of their own, one for each device.

mod error;
mod local;
mod output;

#[cfg(feature = "ssh")]
mod auth;
#[cfg(feature = "ssh")]
mod hostkey;
#[cfg(feature = "ssh")]
mod link;
#[cfg(feature = "ssh")]
mod ssh;
#[cfg(feature = "ssh")]
mod ssh_config;

use std::{io::Read, ops::ControlFlow, time::Duration};

use espalier_bench::{command::shell_quote, sanitise::sanitise};
use espalier_inventory::{self as inventory, Device, Timeouts};

pub use error::TransportError;
use output::{Lines, Watch};

use crate::cancel::Cancel;

/// The way to one device.
pub enum Transport {
    Local(local::Local),
    #[cfg(feature = "ssh")]
    Ssh(Box<ssh::Ssh>),
}

/// How long a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its end.
    pub command: Duration,
    /// Without a byte from it (or, while it is fed, taken by it).
    pub idle: Duration,
}

impl From<&Timeouts> for Limits {
    fn from(timeouts: &Timeouts) -> Limits {
        Limits { command: timeouts.command, idle: timeouts.idle }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    /// Without `SIG`, e.g. `KILL`.
    pub signal: Option<String>,
    /// The end of it (4 KiB), made safe for a terminal.
    pub stderr: String,
    /// `on_line` had enough, and the command was ended.
    pub stopped: bool,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// For messages: how it ended and the last words of stderr, e.g. "exit status 1: no such file".
    pub fn describe(&self) -> String {
        let how = match (self.code, &self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => "ended without an exit status".to_owned(),
        };
        if self.stderr.is_empty() { how } else { format!("{how}: {}", self.stderr) }
    }
}

/// What a small script said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub exit: Exit,
    /// As the board sent it: make it safe ([`sanitise`]) before showing it.
    pub stdout: String,
}

/// What a script may print before it is ended.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

impl Transport {
    /// Connects, checks the host key and logs in. A connection lost later is made anew by the next command.
    pub fn open(device: &Device, cancel: &Cancel) -> Result<Transport, TransportError> {
        match &device.transport {
            inventory::Transport::Local => Ok(Transport::local()),
            #[cfg(feature = "ssh")]
            inventory::Transport::Ssh(address) => {
                let ssh = ssh::Ssh::open(&device.name, address, device.timeouts.connect, cancel)?;
                Ok(Transport::Ssh(Box::new(ssh)))
            }
            #[cfg(not(feature = "ssh"))]
            inventory::Transport::Ssh(_) => {
                let _ = cancel;
                Err(TransportError::NoSsh)
            }
        }
    }

    /// This host: nothing to connect to.
    pub fn local() -> Transport {
        Transport::Local(local::Local)
    }

    /// Whether commands run on this host, where its files need not be brought.
    pub fn is_local(&self) -> bool {
        matches!(self, Transport::Local(_))
    }

    /// Runs `words` with `env` on top of what is set there. Each line of stdout goes to `on_line` as it arrives, raw, without its end and of at
    /// most [`espalier_protocol::MAX_LINE`] bytes; when that breaks, the command is ended. A command that fails is an [`Exit`], not an error.
    pub fn run(
        &mut self,
        words: &[String],
        env: &[(String, String)],
        limits: Limits,
        cancel: &Cancel,
        on_line: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Exit, TransportError> {
        let mut all = Vec::new();
        if !env.is_empty() {
            all.push("env".to_owned());
            all.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        }
        all.extend_from_slice(words);
        let what = describe(&all);
        let bad = |problem: String| TransportError::BadOutput { what: what.clone(), problem };
        let mut lines = Lines::default();
        let exit = self.exec(Request {
            words: &all,
            watch: Watch::new(&what, limits, cancel),
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
        let words = ["sh", "-c", script].map(str::to_owned);
        self.capture(&words, None, limits, cancel)
    }

    /// Runs `words` with `input` as stdin and keeps what it prints; `on_bytes` gets the number of bytes sent, part by part.
    pub fn feed(
        &mut self,
        words: &[String],
        input: &mut dyn Read,
        on_bytes: &mut dyn FnMut(u64),
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Output, TransportError> {
        self.capture(words, Some(Input { source: input, on_bytes }), limits, cancel)
    }

    fn capture(
        &mut self,
        words: &[String],
        input: Option<Input<'_>>,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Output, TransportError> {
        let what = describe(words);
        let bad = |problem: String| TransportError::BadOutput { what: what.clone(), problem };
        let mut stdout = Vec::new();
        let exit = self.exec(Request {
            words,
            watch: Watch::new(&what, limits, cancel),
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
        Ok(Output { exit, stdout })
    }

    fn exec(&mut self, request: Request<'_, '_>) -> Result<Exit, TransportError> {
        match self {
            Transport::Local(local) => local.exec(request),
            #[cfg(feature = "ssh")]
            Transport::Ssh(ssh) => ssh.exec(request),
        }
    }
}

/// One command, as the transports carry it out.
struct Request<'a, 'i> {
    words: &'a [String],
    watch: Watch<'a>,
    /// Without it the command reads an empty stdin.
    input: Option<Input<'i>>,
    /// Gets stdout as it arrives. A break or an error ends the command.
    on_stdout: &'a mut OnStdout<'a>,
}

type OnStdout<'a> = dyn FnMut(&[u8]) -> Result<ControlFlow<()>, TransportError> + 'a;

struct Input<'a> {
    source: &'a mut dyn Read,
    on_bytes: &'a mut dyn FnMut(u64),
}

/// A part of the input that is on its way.
struct Feeding<'a> {
    input: Input<'a>,
    buffer: Vec<u8>,
    sent: usize,
}

/// What libssh2 puts into one packet.
const CHUNK: usize = 32 * 1024;

impl<'a> Feeding<'a> {
    fn new(input: Input<'a>) -> Feeding<'a> {
        Feeding { input, buffer: Vec::new(), sent: 0 }
    }

    /// What is to be sent next; empty at the end. The same until [`Feeding::advance`], as libssh2 wants it when a write would have blocked.
    fn part(&mut self) -> Result<&[u8], TransportError> {
        if self.sent == self.buffer.len() {
            self.sent = 0;
            self.buffer.resize(CHUNK, 0);
            let read = loop {
                match self.input.source.read(&mut self.buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            let read =
                read.map_err(|source| TransportError::Io { what: "cannot read what is to be sent".into(), source })?;
            self.buffer.truncate(read);
        }
        Ok(&self.buffer[self.sent..])
    }

    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        (self.input.on_bytes)(bytes as u64);
    }
}

/// A command for messages: quoted, safe and not too long.
fn describe(words: &[String]) -> String {
    let line = words.iter().map(|word| shell_quote(word)).collect::<Vec<_>>().join(" ");
    let line = sanitise(&line).replace('\n', " ");
    let mut short: String = line.chars().take(80).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(all(test, not(feature = "ssh")))]
mod tests {
    use espalier_inventory::{Conditions, SshAddress};

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
            conditions: Conditions::default(),
            timeouts: Timeouts::default(),
        };
        let error = Transport::open(&device, &Cancel::default()).err().unwrap().to_string();
        assert!(error.starts_with("this build has no ssh") && error.contains("`ssh-vendored`"), "{error}");
    }
}
