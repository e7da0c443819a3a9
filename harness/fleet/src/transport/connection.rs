//! What a transport to a board must be able to do, and which transports there are. All of them are variants of the
//! three enums here, so that the compiler names every place a new one has to be added to.
//!
//! A transport brings three types with these calls; nothing else in `fleet` knows it:
//!
//! 1. **connect** ([`Address::connect`]): reaches the board, makes sure that it is the right one and logs in, within a
//!    limit and until cancelled.
//! 2. **exec** ([`Connection::exec`]): starts a line in the board's POSIX shell. Several channels at once must be
//!    possible: a running command is ended by `kill` in a second one. [`Connection::abandon`] hangs up at once,
//!    whatever runs.
//! 3. **carry bytes** ([`Channel::send`], [`Channel::close_input`], [`Channel::read`], [`Channel::has_ended`]): stdin,
//!    stdout and stderr, apart and unchanged. None of these blocks; [`Channel::wait`] is the only place that sleeps.
//! 4. **finish** ([`Channel::finish`]): the exit code or signal, after the last byte.
//!
//! A connection that is gone is [`TransportError::Lost`], from whatever call notices it first. What a connection cannot
//! do (find a process, end it, reconnect) is done in [`super::remote`], in the same way for all.
//!
//! Files to change for a new transport:
//!
//! | file | what |
//! |---|---|
//! | `harness/inventory/src/device.rs` | a variant of `inventory::Transport` and its keys in a device file |
//! | `docs/devices.md` | these keys |
//! | `harness/fleet/src/transport.rs` | `Transport::open`: from the inventory's variant to an [`Address`] |
//! | this file | a variant in each of the three enums; the compiler names each `match` |
//! | a module beside `ssh.rs` | the transport itself; `loopback.rs`, for tests, is the smallest |
//! | `harness/fleet/tests/fleet/` | the tests that SSH passes (`sshd`), for a real board or a stand-in |

use std::time::Duration;

#[cfg(test)]
use super::loopback;
#[cfg(feature = "ssh")]
use super::ssh;
use super::{error::TransportError, limits::Deadlines, local, output::Exit};
#[cfg(any(feature = "ssh", test))]
use crate::cancel::Cancel;

/// Where a board is and how to log in there.
#[cfg(any(feature = "ssh", test))]
pub(super) enum Address {
    #[cfg(feature = "ssh")]
    Ssh(ssh::Endpoint),
    #[cfg(test)]
    Loopback(loopback::Address),
}

/// A connection to a board.
#[cfg(any(feature = "ssh", test))]
pub(super) enum Connection {
    #[cfg(feature = "ssh")]
    Ssh(ssh::Connection),
    #[cfg(test)]
    Loopback(loopback::Connection),
}

/// A command that runs. Dropping it hangs up on the command; only on this host does that end it.
pub(super) enum Channel {
    Local(local::Process),
    #[cfg(feature = "ssh")]
    Ssh(ssh::Channel),
    #[cfg(test)]
    Loopback(loopback::Channel),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

#[cfg(any(feature = "ssh", test))]
impl Address {
    pub fn connect(&self, limit: Duration, cancel: &Cancel) -> Result<Connection, TransportError> {
        match self {
            #[cfg(feature = "ssh")]
            Address::Ssh(endpoint) => ssh::Connection::open(endpoint, limit, cancel).map(Connection::Ssh),
            #[cfg(test)]
            Address::Loopback(address) => address.connect(limit, cancel).map(Connection::Loopback),
        }
    }
}

#[cfg(any(feature = "ssh", test))]
impl Connection {
    /// Starts a line in the board's shell.
    ///
    /// # Errors
    /// It may have started or not: abandon the connection.
    pub fn exec(&self, line: &str, deadlines: &Deadlines<'_>) -> Result<Channel, TransportError> {
        match self {
            #[cfg(feature = "ssh")]
            Connection::Ssh(connection) => connection.exec(line, deadlines).map(Channel::Ssh),
            #[cfg(test)]
            Connection::Loopback(connection) => connection.exec(line, deadlines).map(Channel::Loopback),
        }
    }

    /// Hangs up without a farewell, which a frozen board would not answer.
    pub fn abandon(self) {
        match self {
            #[cfg(feature = "ssh")]
            Connection::Ssh(connection) => connection.abandon(),
            #[cfg(test)]
            Connection::Loopback(connection) => drop(connection),
        }
    }
}

impl Channel {
    /// Whether the command's output is complete: nothing more arrives once everything up to now is read.
    pub fn has_ended(&mut self) -> Result<bool, TransportError> {
        match self {
            Channel::Local(process) => process.has_ended(),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => Ok(channel.has_ended()),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.has_ended(),
        }
    }

    /// Sends bytes to stdin and returns how many were taken: `None` where none can be sent now, 0 where the command has
    /// stopped reading. After `None` the next call has to bring the same bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        match self {
            Channel::Local(process) => process.send(bytes),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.send(bytes),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.send(bytes),
        }
    }

    /// Ends stdin; false where that cannot be sent now. Calling it again does nothing.
    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        match self {
            Channel::Local(process) => Ok(process.close_input()),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.close_input(),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.close_input(),
        }
    }

    /// Reads what has arrived; `None` where that is nothing.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        match self {
            Channel::Local(process) => process.read(stream, buffer),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.read(stream, buffer),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.read(stream, buffer),
        }
    }

    /// Sleeps until something may have happened, for `patience` at most.
    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        match self {
            Channel::Local(process) => process.wait(patience),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.wait(patience)?,
            #[cfg(test)]
            Channel::Loopback(channel) => channel.wait(patience),
        }
        Ok(())
    }

    /// Waits for the exit status; the channel is closed then. `stderr` of the result is left empty.
    pub fn finish(&mut self, deadlines: &Deadlines<'_>) -> Result<Exit, TransportError> {
        #[cfg(not(feature = "ssh"))]
        let _ = deadlines;
        match self {
            Channel::Local(process) => process.finish(),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.finish(deadlines),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.finish(),
        }
    }

    /// Whether the connection is in the middle of sending for this channel, and so would take nothing else.
    #[cfg(any(feature = "ssh", test))]
    pub fn is_sending(&self) -> bool {
        match self {
            Channel::Local(_) => false,
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.is_sending(),
            #[cfg(test)]
            Channel::Loopback(_) => false,
        }
    }
}
