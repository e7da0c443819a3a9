//! Commands on a board, over whatever connection there is. A command must not outlive the interest in it, and no
//! transport has a way to end it that all servers agree on. So each command first prints its process id and the board's
//! boot id (after a reboot that number may be another process), and is ended by `kill` in a second channel, or over the
//! next connection that works where this one is stuck or lost.
//!
//! What a connection has to provide is in [`super::connection`]; nothing here knows SSH.

use std::{ops::ControlFlow, time::Duration};

use espalier_bench::command::shell_quote;

use super::{
    connection::{Channel, Connection},
    error::TransportError,
    exchange::{Request, attend},
    limits::{Deadlines, Limits},
    output::{Exit, Tail},
};
use crate::cancel::Cancel;

/// How to connect, within a limit and until cancelled.
pub(super) type Connect = Box<dyn Fn(Duration, &Cancel) -> Result<Connection, TransportError> + Send>;

/// A board and the way to it.
pub struct Remote {
    connect: Connect,
    /// For connecting.
    limit: Duration,
    /// `None` after it was lost: the next command makes a new one.
    connection: Option<Connection>,
    /// May still run on the board, although we gave up on it.
    orphan: Option<RemoteProcess>,
}

/// A process of a board, until that reboots.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RemoteProcess {
    pid: u32,
    boot: String,
}

/// Prints who it is, then becomes the command. OpenSSH makes it lead a process group, so that its children end with it;
/// dropbear does not. (`setsid` forks only where it is not needed.) It starts no further process on the board, and is a
/// single line for the sake of [`shell_line`].
const PREAMBLE: &str = concat!(
    r#"read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id; echo "espalier-process $$ $boot"; "#,
    r#"kill -0 -$$ 2>/dev/null || { command -v setsid >/dev/null && exec setsid "$@"; }; exec "$@""#
);

/// Ends a process and, where it leads one, its group: politely, and with SIGKILL after half a second.
const KILL: &str = r#"read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id
[ "$boot" = "$2" ] || exit 0
kill -0 -"$1" 2>/dev/null && set -- -"$1"
kill -TERM "$1" 2>/dev/null || exit 0
for i in 1 2 3 4 5; do
    kill -0 "$1" 2>/dev/null || exit 0
    sleep 0.1 2>/dev/null || sleep 1
done
kill -KILL "$1" 2>/dev/null
exit 0"#;

/// For ending a command: after that the board is left alone until the next connection.
const KILL_LIMIT: Duration = Duration::from_secs(4);

/// What a login shell may print before the command begins.
const NOISE_LIMIT: usize = 64 * 1024;

impl Remote {
    /// Connects. `limit` is for each connection, the later ones included.
    pub(super) fn open(connect: Connect, limit: Duration, cancel: &Cancel) -> Result<Remote, TransportError> {
        let connection = Some(connect(limit, cancel)?);
        Ok(Remote { connect, limit, connection, orphan: None })
    }

    pub(super) fn exec(&mut self, mut request: Request<'_, '_>) -> Result<Exit, TransportError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = (self.connect)(self.limit, request.deadlines.cancel)?;
                // The command's time begins here.
                request.deadlines.restart();
                connection
            }
        };
        if let Some(orphan) = self.orphan.take() {
            // Best effort: where the board is only slow, the next command tries again.
            if kill(&connection, &orphan).is_err() {
                self.orphan = Some(orphan);
            }
        }
        let mut channel = match connection.exec(&shell_line(PREAMBLE, request.argv), &request.deadlines) {
            Ok(channel) => channel,
            Err(error) => {
                // It may be about to start, and only hanging up can end that.
                connection.abandon();
                return Err(error);
            }
        };
        request.deadlines.activity();
        let mut login = Login::default();
        let mut stderr = Tail::default();
        let (what, input) = (request.deadlines.what.clone(), request.input.take());
        let mut on_stdout = |bytes: &[u8]| match login.skip(bytes) {
            Ok([]) => Ok(ControlFlow::Continue(())),
            Ok(output) => (request.on_stdout)(output),
            Err(problem) => Err(TransportError::BadOutput { what: what.clone(), problem }),
        };
        let ended = attend(&mut channel, &mut request.deadlines, input, &mut on_stdout, &mut stderr);
        let (process, stderr) = (login.process, stderr.text());
        match ended {
            Ok(Some(exit)) => {
                self.connection = Some(connection);
                Ok(Exit { stderr, ..exit })
            }
            Ok(None) => {
                self.end(connection, channel, process, true);
                Ok(Exit { stderr, stopped: true, ..Exit::default() })
            }
            Err(error) => {
                match error {
                    TransportError::Lost { .. } => {
                        self.orphan = process;
                        connection.abandon();
                    }
                    // The board would not answer in a second channel either.
                    TransportError::Silent { .. } => self.end(connection, channel, process, false),
                    _ => self.end(connection, channel, process, true),
                }
                Err(error)
            }
        }
    }

    /// Ends what runs: over this connection if the board `answers` there, else over a new one, else later.
    fn end(&mut self, connection: Connection, mut channel: Channel, process: Option<RemoteProcess>, answers: bool) {
        // Without a process id the command has not started, or its `exec` is on its way: only hanging up can end it.
        let Some(process) = process else { return connection.abandon() };
        // It is an error too where the connection is in the middle of sending input and refuses all else.
        if answers && kill(&connection, &process).is_ok() {
            // Clean only after the server has closed the channel, which it does behind the last output.
            if discard(&mut channel, Duration::from_secs(1)).is_ok() {
                self.connection = Some(connection);
            }
            return;
        }
        connection.abandon();
        match (self.connect)(self.limit.min(KILL_LIMIT), &Cancel::default()) {
            Ok(connection) if kill(&connection, &process).is_ok() => self.connection = Some(connection),
            _ => self.orphan = Some(process),
        }
    }
}

/// # Errors
/// The board could not be reached.
fn kill(connection: &Connection, process: &RemoteProcess) -> Result<(), TransportError> {
    let line = shell_line(KILL, &[process.pid.to_string(), process.boot.clone()]);
    let never = Cancel::default();
    let limits = Limits { command: KILL_LIMIT, idle: KILL_LIMIT };
    let mut channel = connection.exec(&line, &Deadlines::new("ending a command", limits, &never))?;
    discard(&mut channel, KILL_LIMIT)
}

/// Reads a channel to its end and closes it.
fn discard(channel: &mut Channel, limit: Duration) -> Result<(), TransportError> {
    let never = Cancel::default();
    let mut deadlines = Deadlines::new("ending a command", Limits { command: limit, idle: limit }, &never);
    let mut on_stdout = |_: &[u8]| Ok(ControlFlow::Continue(()));
    attend(channel, &mut deadlines, None, &mut on_stdout, &mut Tail::default()).map(drop)
}

/// Decodes its arguments ([`encode`]) and runs them with `sh -c`.
const DECODE: &str = r#"for a do shift; a=$(printf "%b." "$a"); set -- "$@" "${a%.}"; done; exec sh -c "$@""#;

/// The line that runs a script with arguments in whatever shell the board has. csh and tcsh end a quoted string at the
/// end of the line and replace `!` within it, fish knows a backslash there: a line with any of them is encoded.
fn shell_line(script: &str, args: &[String]) -> String {
    let is_plain = |text: &str| !text.contains(['\n', '!', '\\', '\'']);
    let words = [script, "sh"].into_iter().chain(args.iter().map(String::as_str));
    if words.clone().all(is_plain) {
        let words: Vec<String> = words.map(shell_quote).collect();
        return format!("exec sh -c {}", words.join(" "));
    }
    let words: Vec<String> = words.map(|word| shell_quote(&encode(word))).collect();
    format!("exec sh -c {} sh {}", shell_quote(DECODE), words.join(" "))
}

/// As `printf %b` takes it, without any character that a shell may treat specially within single quotes.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '!' | '\\' | '\'' => encoded += &format!("\\0{:03o}", u32::from(c)),
            c => encoded.push(c),
        }
    }
    encoded
}

/// The beginning of a command's output: what a login shell printed, and the line of [`PREAMBLE`].
#[derive(Default)]
struct Login {
    noise: Vec<u8>,
    process: Option<RemoteProcess>,
}

impl Login {
    /// The command's own output among the bytes that arrived.
    ///
    /// # Errors
    /// What is wrong, for `BadOutput`.
    fn skip<'a>(&'a mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        if self.process.is_some() {
            return Ok(bytes);
        }
        self.noise.extend_from_slice(bytes);
        let Some((process, used)) = find_process(&self.noise) else {
            if self.noise.len() > NOISE_LIMIT {
                return Err(format!("more than {NOISE_LIMIT} bytes before the command began"));
            }
            return Ok(&[]);
        };
        self.process = Some(process);
        Ok(&self.noise[used..])
    }
}

/// The process in what a command printed, and where its own output begins.
fn find_process(output: &[u8]) -> Option<(RemoteProcess, usize)> {
    let mut start = 0;
    while let Some(length) = output[start..].iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&output[start..start + length]);
        start += length + 1;
        let mut fields = line.split_whitespace().skip_while(|field| *field != "espalier-process").skip(1);
        if let Some(pid) = fields.next().and_then(|pid| pid.parse().ok()) {
            return Some((RemoteProcess { pid, boot: fields.next().unwrap_or_default().to_owned() }, start));
        }
    }
    None
}

#[cfg(test)]
mod tests;
