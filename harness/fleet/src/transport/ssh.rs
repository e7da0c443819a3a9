//! Commands on a board. What runs there must not outlive our interest in it, and SSH has no way to end it that servers agree on: so each command
//! first says its process id (and the board's boot id, lest after a reboot another process be hit), and is ended by `kill` in a second channel, or,
//! where the connection is stuck or lost, over the next connection that works.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    time::Duration,
};

use espalier_bench::{command::shell_quote, sanitise::sanitise};
use espalier_inventory::SshAddress;
use ssh2::Channel;

use super::{
    Exit, Feeding, Limits, Request,
    error::TransportError,
    link::Link,
    output::{Tail, Watch},
    ssh_config::{self, Endpoint},
};
use crate::cancel::Cancel;

pub struct Ssh {
    endpoint: Endpoint,
    connect: Duration,
    link: Option<Link>,
    /// What may still run on the board although we gave up on it.
    orphan: Option<Process>,
}

/// A process of a board, for as long as that stays up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    boot: String,
}

/// How a command that was attended to came to rest.
enum Rest {
    Ended(Exit),
    /// `on_stdout` had enough.
    Enough,
}

/// Says who it is, then becomes the command. OpenSSH has made it lead a process group, so that its children can be ended with it; dropbear has not.
/// (`setsid` forks only where it is not needed.) But for that all is the shell's own: nothing is started on the board that need not be.
const PREAMBLE: &str = r#"read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id
echo "espalier-process $$ $boot"
kill -0 -$$ 2>/dev/null || { command -v setsid >/dev/null && exec setsid "$@"; }
exec "$@""#;

/// Ends a process and, where it leads one, its group: politely, and after half a second for good.
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

/// For ending what runs: the board is given that long, and then it is left alone until the next connection.
const KILL_LIMIT: Duration = Duration::from_secs(4);

/// What a login shell may say before our first line.
const NOISE_LIMIT: usize = 64 * 1024;

impl Ssh {
    pub(super) fn open(
        device: &str,
        address: &SshAddress,
        connect: Duration,
        cancel: &Cancel,
    ) -> Result<Ssh, TransportError> {
        let endpoint = ssh_config::resolve(device, address)?;
        let link = Link::open(&endpoint, connect, cancel)?;
        Ok(Ssh { endpoint, connect, link: Some(link), orphan: None })
    }

    pub(super) fn exec(&mut self, mut request: Request<'_, '_>) -> Result<Exit, TransportError> {
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let link = Link::open(&self.endpoint, self.connect, request.watch.cancel)?;
                // The time it took to get here is not the command's.
                request.watch.restart();
                link
            }
        };
        if let Some(orphan) = self.orphan.take() {
            // As well as it goes: if it does not, what follows says so by itself.
            let _ = kill(&link, &orphan);
        }
        let mut running = Running::default();
        let rest = running.attend(&link, &mut request);
        let stderr = running.stderr.text();
        match rest {
            Ok(Rest::Ended(exit)) => {
                self.link = Some(link);
                Ok(Exit { stderr, ..exit })
            }
            Ok(Rest::Enough) => {
                self.end(link, running, true);
                Ok(Exit { stderr, stopped: true, ..Exit::default() })
            }
            Err(error) => {
                // After a silence the board would not hear a second channel either; a lost connection has none.
                let answers = !matches!(error, TransportError::Silent { .. } | TransportError::Lost { .. });
                let is_lost = matches!(error, TransportError::Lost { .. });
                if is_lost {
                    self.orphan = running.process.take();
                    link.abandon();
                } else {
                    self.end(link, running, answers);
                }
                Err(error)
            }
        }
    }

    /// Ends what runs over this connection if it `answers`, else over a new one, else later.
    fn end(&mut self, link: Link, running: Running, answers: bool) {
        let Running { process, channel, is_sending, .. } = running;
        // Without a process id the command has not started, or its `exec` is on its way: hanging up is all that can be done.
        let Some(process) = process else { return link.abandon() };
        if answers && !is_sending && kill(&link, &process).is_ok() {
            // Its last words are read until the server has closed the channel; only then is the connection clean.
            if channel.is_some_and(|channel| drain(&link, channel).is_ok()) {
                self.link = Some(link);
            }
            return;
        }
        link.abandon();
        let fresh = Link::open(&self.endpoint, self.connect.min(KILL_LIMIT), &Cancel::default());
        match fresh {
            Ok(link) if kill(&link, &process).is_ok() => self.link = Some(link),
            _ => self.orphan = Some(process),
        }
    }
}

/// # Errors
/// The board could not be told.
fn kill(link: &Link, process: &Process) -> Result<(), TransportError> {
    let never = Cancel::default();
    let words = ["sh", "-c", KILL, "sh", &process.pid.to_string(), &process.boot].map(str::to_owned);
    let limits = Limits { command: KILL_LIMIT, idle: KILL_LIMIT };
    let mut request = Request {
        words: &words,
        watch: Watch::new("ending what ran", limits, &never),
        input: None,
        on_stdout: &mut |_| Ok(ControlFlow::Continue(())),
    };
    Running::default().attend(link, &mut request).map(drop)
}

fn drain(link: &Link, mut channel: Channel) -> Result<(), TransportError> {
    let never = Cancel::default();
    let second = Duration::from_secs(1);
    let mut watch = Watch::new("the last words", Limits { command: second, idle: second }, &never);
    let mut buffer = vec![0; 32 * 1024];
    while !channel.eof() {
        let mut moved = false;
        for stream in [0, ssh2::EXTENDED_DATA_STDERR] {
            moved |= read(link, &mut channel, stream, &mut buffer)?.is_some();
        }
        watch.check()?;
        if moved {
            watch.heard();
        } else {
            link.wait(watch.patience());
        }
    }
    finish(link, &mut channel, &watch).map(drop)
}

/// A command while it runs.
#[derive(Default)]
struct Running {
    channel: Option<Channel>,
    process: Option<Process>,
    stderr: Tail,
    /// libssh2 is in the middle of sending a packet of ours, and would take no other.
    is_sending: bool,
}

impl Running {
    fn attend(&mut self, link: &Link, request: &mut Request<'_, '_>) -> Result<Rest, TransportError> {
        let words: Vec<String> = request.words.iter().map(|word| shell_quote(word)).collect();
        let line = format!("exec sh -c {} sh {}", shell_quote(PREAMBLE), words.join(" "));
        // Until the command is on its way nothing but hanging up would end it.
        self.is_sending = true;
        let opened = link.must(&request.watch, || link.session.channel_session())?;
        let channel = self.channel.insert(opened);
        link.must(&request.watch, || channel.exec(&line))?;
        self.is_sending = false;
        request.watch.heard();

        let mut feeding = request.input.take().map(Feeding::new);
        let mut is_fed = false;
        let mut buffer = vec![0; 64 * 1024];
        let mut noise = Vec::new();
        loop {
            let mut moved = false;
            if !is_fed {
                let part = match &mut feeding {
                    Some(feeding) => feeding.part()?,
                    None => &[],
                };
                self.is_sending = true;
                // `Ok(0)` is "not now" as well: libssh2 says so while the board has no room.
                let sent = if part.is_empty() {
                    channel.send_eof().map(|()| is_fed = true).map_err(io::Error::from)
                } else {
                    channel.write(part).map(|bytes| {
                        moved = bytes > 0;
                        if let Some(feeding) = &mut feeding {
                            feeding.advance(bytes);
                        }
                    })
                };
                match sent {
                    Ok(()) => self.is_sending = false,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(link.lost(&error)),
                }
            }
            if let Some(bytes) = read(link, channel, 0, &mut buffer)? {
                moved = true;
                let stdout = match &self.process {
                    Some(_) => &buffer[..bytes],
                    None => {
                        noise.extend_from_slice(&buffer[..bytes]);
                        let Some((process, used)) = find_process(&noise) else {
                            if noise.len() > NOISE_LIMIT {
                                let problem = format!("more than {NOISE_LIMIT} bytes before the command began");
                                return Err(TransportError::BadOutput { what: request.watch.what.clone(), problem });
                            }
                            request.watch.heard();
                            continue;
                        };
                        self.process = Some(process);
                        &noise[used..]
                    }
                };
                if !stdout.is_empty() && (request.on_stdout)(stdout)?.is_break() {
                    return Ok(Rest::Enough);
                }
            }
            if let Some(bytes) = read(link, channel, ssh2::EXTENDED_DATA_STDERR, &mut buffer)? {
                moved = true;
                self.stderr.push(&buffer[..bytes]);
            }
            if channel.eof() {
                break;
            }
            if moved {
                request.watch.heard();
            }
            request.watch.check()?;
            if !moved {
                if !self.is_sending {
                    link.session.keepalive_send().map_err(|error| link.lost(&error))?;
                }
                link.wait(request.watch.patience());
            }
        }
        // Nothing but the end is to come, and a command may have closed its output long before that.
        finish(link, channel, &request.watch).map(Rest::Ended)
    }
}

/// `None` where there is nothing now.
fn read(link: &Link, channel: &mut Channel, stream: i32, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
    match channel.stream(stream).read(buffer) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(link.lost(&error)),
    }
}

/// Waits for the exit status. The server closes first: a client that does so may miss it.
fn finish(link: &Link, channel: &mut Channel, watch: &Watch<'_>) -> Result<Exit, TransportError> {
    link.must(watch, || channel.wait_close())?;
    let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal).map(|name| sanitise(&name));
    let code = channel.exit_status().ok().filter(|_| signal.is_none());
    link.must(watch, || channel.close())?;
    Ok(Exit { code, signal, ..Exit::default() })
}

/// The process in what a command printed, and where its own output begins.
fn find_process(output: &[u8]) -> Option<(Process, usize)> {
    let mut start = 0;
    while let Some(length) = output[start..].iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&output[start..start + length]);
        start += length + 1;
        let mut words = line.split_whitespace().skip_while(|word| *word != "espalier-process").skip(1);
        if let Some(pid) = words.next().and_then(|pid| pid.parse().ok()) {
            return Some((Process { pid, boot: words.next().unwrap_or_default().to_owned() }, start));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_found_behind_the_noise_of_a_login_shell() {
        let check = |output: &str, expected: Option<(u32, &str, &str)>| {
            let found = find_process(output.as_bytes());
            let found = found.as_ref().map(|(process, used)| (process.pid, process.boot.as_str(), &output[*used..]));
            assert_eq!(found, expected);
        };
        check("espalier-process 12 ab-c\n{}\n", Some((12, "ab-c", "{}\n")));
        check("Welcome!\n\x1b[0mespalier-process no\nespalier-process 7 \n", Some((7, "", "")));
        check("espalier-process 12 ab", None);
    }
}
