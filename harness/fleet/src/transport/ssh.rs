//! SSH by libssh2, as [`super::connection`] wants it. Only `exec` is used, never sftp: a busybox board with dropbear
//! has no more than that, and mixing the two made dropbear die.

mod auth;
mod config;
mod host_key;
mod link;

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use espalier_protocol::Text;

pub(super) use config::{Endpoint, resolve};
use link::{Guard, Link};

use super::{error::TransportError, limits::Deadlines, output::Exit};
use crate::{cancel::Cancel, child::Stream};

/// How often something is sent while a board is quiet, so that no router in between forgets the connection.
const KEEPALIVE_SECONDS: u32 = 5;

/// How long a command that is out of time may take to be ended politely, before the connection is shut.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Connection(Arc<Link>);

pub(super) struct Channel {
    link: Arc<Link>,
    channel: ssh2::Channel,
    /// libssh2 is in the middle of sending a packet, and refuses all others.
    is_sending: bool,
    is_input_closed: bool,
    /// As long as the command runs.
    _guard: Option<Guard>,
}

impl Connection {
    /// Connects, checks the host key and logs in; `limit` for reaching the board and again for the rest.
    pub fn open(endpoint: &Endpoint, limit: Duration, cancel: &Cancel) -> Result<Connection, TransportError> {
        let link = Link::open(endpoint, limit, cancel)?;
        let deadlines = Deadlines::connecting(format!("logging in at `{}`", endpoint.address()), limit, cancel);
        let guard = link.guard(&deadlines, Duration::ZERO);
        if let Err(error) = auth::log_in(&link, endpoint, &deadlines) {
            // Where the guard has shut the socket.
            deadlines.check()?;
            return Err(error);
        }
        drop(guard);
        link.session.set_keepalive(false, KEEPALIVE_SECONDS);
        Ok(Connection(Arc::new(link)))
    }

    pub fn exec(&self, line: &str, deadlines: &Deadlines<'_>) -> Result<Channel, TransportError> {
        let link = &self.0;
        let guard = link.guard(deadlines, GRACE);
        let mut channel = link.must(deadlines, || link.session.channel_session())?;
        link.must(deadlines, || channel.exec(line))?;
        Ok(Channel { link: Arc::clone(link), channel, is_sending: false, is_input_closed: false, _guard: guard })
    }

    pub fn abandon(self) {
        self.0.abandon();
    }
}

impl Channel {
    pub fn has_ended(&self) -> Result<bool, TransportError> {
        Ok(self.channel.eof())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        // libssh2 writes 0 bytes, too, while the board has no room.
        let sent = self.channel.write(bytes);
        Ok(self.sent(sent)?.filter(|bytes| *bytes > 0))
    }

    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        if !self.is_input_closed {
            let sent = self.channel.send_eof().map_err(io::Error::from);
            self.is_input_closed = self.sent(sent)?.is_some();
        }
        Ok(self.is_input_closed)
    }

    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        let number = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => ssh2::EXTENDED_DATA_STDERR,
        };
        let read = self.channel.stream(number).read(buffer);
        Ok(self.link.unless_blocked(read)?.filter(|bytes| *bytes > 0))
    }

    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        if !self.is_sending {
            self.link.session.keepalive_send().map_err(|error| self.link.lost(&error))?;
        }
        self.link.wait(patience);
        Ok(())
    }

    /// The server closes first: a client that does so may miss the exit status.
    pub fn finish(&mut self, deadlines: &Deadlines<'_>) -> Result<Exit, TransportError> {
        let Channel { link, channel, .. } = self;
        link.must(deadlines, || channel.wait_close())?;
        let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal).map(Text::from);
        let code = channel.exit_status().ok().filter(|_| signal.is_none());
        link.must(deadlines, || channel.close())?;
        Ok(Exit { code, signal, ..Exit::default() })
    }

    fn sent<T>(&mut self, sent: io::Result<T>) -> Result<Option<T>, TransportError> {
        let sent = self.link.unless_blocked(sent)?;
        self.is_sending = sent.is_none();
        Ok(sent)
    }
}
