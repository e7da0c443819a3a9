//! One connection: TCP, SSH's handshake, the host key. Logging in is [`super::auth`]'s.
//!
//! libssh2 never blocks here. Each of its calls is repeated until it is done, with `poll` in between: its own waiting
//! would neither notice Ctrl-C nor read stdout and stderr at once. libssh2's rule for that: while a call says "would
//! block", no other call may send anything. A call reads on as long as there is anything to read, and a server may send
//! for ever (lines before its version, packets to be ignored); a [`Guard`] ends that by shutting the socket.
//!
//! A server that hangs up before it has said who it is has no room for another login just now (sshd's `MaxStartups`):
//! it is tried again within the limit.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{TcpStream, ToSocketAddrs},
    os::fd::AsRawFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use espalier_protocol::text::sanitise;
use ssh2::{BlockDirections, ErrorCode, MethodType, Session};

use super::{
    config::{Endpoint, Trust},
    host_key::{self, KINDS, KeyBlob},
};
use crate::{
    cancel::Cancel,
    child::poll,
    transport::{error::TransportError, limits::Deadlines},
};

/// libssh2's "would block".
const EAGAIN: i32 = -37;

/// libssh2: the server hung up, or does not take anything more.
pub(super) const HUNG_UP: [i32; 3] = [-13, -43, -7];

/// Pauses between attempts double from this on.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub(super) struct Link {
    pub session: Session,
    stream: TcpStream,
    address: String,
}

impl Link {
    /// Connects and checks the host key; `limit` for reaching the board and again for the handshake.
    pub fn open(endpoint: &Endpoint, limit: Duration, cancel: &Cancel) -> Result<Link, TransportError> {
        match &endpoint.trust {
            Trust::Pinned(pin) => open_pinned(endpoint, pin, limit, cancel),
            Trust::KnownHosts { files, name } => {
                let session = new_session(endpoint)?;
                let known = host_key::known(&session, files, name).map_err(|error| broken(endpoint, &error))?;
                let link = handshake(endpoint, &host_key::preference(&known.keys), limit, cancel)??;
                link.check_known(endpoint, &known)?;
                Ok(link)
            }
        }
    }

    /// Repeats a call of libssh2 until it has an answer.
    pub fn complete<T>(
        &self,
        deadlines: &Deadlines<'_>,
        mut call: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<Result<T, ssh2::Error>, TransportError> {
        loop {
            match call() {
                Err(error) if error.code() == ErrorCode::Session(EAGAIN) => {
                    deadlines.check()?;
                    self.wait(deadlines.patience());
                }
                answer => return Ok(answer),
            }
        }
    }

    /// The same where any error means that the connection is gone.
    pub fn must<T>(
        &self,
        deadlines: &Deadlines<'_>,
        call: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<T, TransportError> {
        self.complete(deadlines, call)?.map_err(|error| self.lost(&error))
    }

    /// The result of a call that is not repeated here; `None` where it would block.
    pub fn unless_blocked<T>(&self, result: io::Result<T>) -> Result<Option<T>, TransportError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Waits until the socket is ready for what libssh2 wants next, or `patience` is over.
    pub fn wait(&self, patience: Duration) {
        let events = match self.session.block_directions() {
            BlockDirections::None | BlockDirections::Inbound => libc::POLLIN,
            BlockDirections::Outbound => libc::POLLOUT,
            BlockDirections::Both => libc::POLLIN | libc::POLLOUT,
        };
        poll(&mut [libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 }], patience);
    }

    /// Shuts the socket so long after the end of `deadlines` or a request to stop, unless it is dropped before.
    pub fn guard(&self, deadlines: &Deadlines<'_>, grace: Duration) -> Option<Guard> {
        // Without a second handle there is no guard, and all else works as before.
        let stream = self.stream.try_clone().ok()?;
        Some(Guard::new(stream, deadlines.end() + grace, deadlines.cancel.clone(), grace))
    }

    pub fn lost(&self, error: &dyn std::fmt::Display) -> TransportError {
        TransportError::Lost { address: self.address.clone(), reason: sanitise(&error.to_string()) }
    }

    pub fn abandon(&self) {
        // Nothing to do about a socket that is closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn host_key(&self) -> KeyBlob {
        self.session.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default()
    }

    fn check_known(&self, endpoint: &Endpoint, known: &host_key::Known) -> Result<(), TransportError> {
        let key = self.host_key();
        let (address, fingerprint) = (endpoint.address(), host_key::fingerprint(&key));
        if let Some((_, file)) = known.revoked.iter().find(|(revoked, _)| *revoked == key) {
            let file = file.display().to_string();
            return Err(TransportError::HostKeyRevoked { address, fingerprint, file });
        }
        if known.keys.contains(&key) {
            return Ok(());
        }
        if known.keys.is_empty() {
            let device_file = endpoint.device_file.clone();
            return Err(TransportError::HostKeyUnknown { address, fingerprint, device_file });
        }
        let files: Vec<String> = known.files.iter().map(|file| format!("`{}`", file.display())).collect();
        Err(TransportError::HostKeyChanged {
            address,
            expected: known.keys.iter().map(|key| host_key::fingerprint(key)).collect(),
            got: vec![fingerprint],
            source_of_expected: format!("from {}", files.join(", ")),
        })
    }
}

/// A pin does not tell the key's algorithm, so all keys of the server are compared in turn.
fn open_pinned(endpoint: &Endpoint, pin: &str, limit: Duration, cancel: &Cancel) -> Result<Link, TransportError> {
    let mut left = KINDS.to_vec();
    let mut seen = Vec::new();
    let all = KINDS.join(",");
    let mut ask = all.as_str();
    loop {
        match handshake(endpoint, ask, limit, cancel)? {
            Ok(link) => {
                let key = link.host_key();
                let fingerprint = host_key::fingerprint(&key);
                if fingerprint == pin {
                    return Ok(link);
                }
                left.retain(|kind| Some(*kind) != host_key::kind_of(&key));
                seen.push(fingerprint);
            }
            // The server has no key of that kind.
            Err(_) if !seen.is_empty() => {}
            Err(error) => return Err(error),
        }
        left.retain(|kind| *kind != ask);
        let Some(next) = left.first() else {
            return Err(TransportError::HostKeyChanged {
                address: endpoint.address(),
                expected: vec![pin.to_owned()],
                got: seen,
                source_of_expected: format!("pinned in `{}`", endpoint.device_file),
            });
        };
        ask = next;
    }
}

fn new_session(endpoint: &Endpoint) -> Result<Session, TransportError> {
    Session::new().map_err(|error| broken(endpoint, &error))
}

fn broken(endpoint: &Endpoint, error: &dyn std::fmt::Display) -> TransportError {
    TransportError::Unreachable { address: endpoint.address(), reason: sanitise(&error.to_string()) }
}

/// Ends what libssh2 would not, once time is up: see the module.
pub(super) struct Guard {
    /// Dropped with it, which its thread notices.
    _until_dropped: mpsc::Sender<()>,
}

impl Guard {
    fn new(stream: TcpStream, end: Instant, cancel: Cancel, grace: Duration) -> Guard {
        let (_until_dropped, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            let mut end = end;
            while dropped.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
                if cancel.is_requested() {
                    end = end.min(Instant::now() + grace);
                }
                if Instant::now() >= end {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
        });
        Guard { _until_dropped }
    }
}

/// The inner error: the board was reached, but no session could be agreed on.
fn handshake(
    endpoint: &Endpoint,
    kinds: &str,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Result<Link, TransportError>, TransportError> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let error = match handshake_once(endpoint, kinds, left, cancel)? {
            Ok(link) => return Ok(Ok(link)),
            Err(error) => error,
        };
        let is_full = matches!(error.code(), ErrorCode::Session(code) if HUNG_UP.contains(&code));
        // Not all at once again, where several were sent away.
        let random = RandomState::new().build_hasher().finish() % 1000;
        let next = pause.mul_f64(0.5 + random as f64 / 1000.0);
        if !is_full || started.elapsed() + next >= limit {
            return Ok(Err(broken(endpoint, &error)));
        }
        let waiting = Instant::now();
        while waiting.elapsed() < next {
            if cancel.is_requested() {
                return Err(TransportError::Cancelled);
            }
            thread::sleep(Duration::from_millis(20));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn handshake_once(
    endpoint: &Endpoint,
    kinds: &str,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Result<Link, ssh2::Error>, TransportError> {
    let mut session = new_session(endpoint)?;
    let stream = reach(endpoint, limit, cancel)?;
    // Lines of a protocol are small: waiting to fill packets would only delay them. A refusal is harmless.
    let _ = stream.set_nodelay(true);
    let copy = stream.try_clone().map_err(|error| broken(endpoint, &error))?;
    session.method_pref(MethodType::HostKey, kinds).map_err(|error| broken(endpoint, &error))?;
    session.set_tcp_stream(copy);
    session.set_blocking(false);
    let address = endpoint.address();
    let deadlines = Deadlines::connecting(format!("the ssh handshake with `{address}`"), limit, cancel);
    let mut handshake = session.clone();
    let link = Link { session, stream, address };
    let _guard = link.guard(&deadlines, Duration::ZERO);
    let done = link.complete(&deadlines, || handshake.handshake())?;
    if done.is_err() {
        // Where the guard has shut the socket.
        deadlines.check()?;
    }
    Ok(done.map(|()| link))
}

/// A connection to the first of the host's addresses that answers.
fn reach(endpoint: &Endpoint, limit: Duration, cancel: &Cancel) -> Result<TcpStream, TransportError> {
    let (sender, receiver) = mpsc::channel();
    let (host, port) = (endpoint.host.clone(), endpoint.port);
    let started = Instant::now();
    // On a thread of its own, because a name lookup cannot be interrupted; when given up, the thread ends by itself.
    thread::spawn(move || {
        let _ = sender.send(connect(&host, port, started + limit));
    });
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(reason)) => return Err(TransportError::Unreachable { address: endpoint.address(), reason }),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(broken(endpoint, &"connecting failed")),
            Err(mpsc::RecvTimeoutError::Timeout) if cancel.is_requested() => return Err(TransportError::Cancelled),
            Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() > limit + Duration::from_secs(1) => {
                let reason = format!("no answer within {} s", limit.as_secs_f64());
                return Err(TransportError::Unreachable { address: endpoint.address(), reason });
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let mut addresses: Vec<_> = addresses.collect();
    addresses.dedup();
    let count = addresses.len();
    let mut reasons = Vec::new();
    for (index, address) in addresses.into_iter().enumerate() {
        // An equal share of what is left: a dead IPv6 route must not use up the time of the IPv4 address behind it.
        let share = deadline.saturating_duration_since(Instant::now()) / (count - index) as u32;
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                reasons.push(format!("{}: no answer within {:.1} s", address.ip(), share.as_secs_f64()));
            }
            Err(error) => reasons.push(format!("{}: {error}", address.ip())),
        }
    }
    Err(reasons.join("; "))
}
