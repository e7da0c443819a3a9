//! What a transport to a board must be able to do, and which transports there are. They are variants of the two enums
//! here, whose calls go to all of them in the same way.
//!
//! A transport brings two types with these calls; nothing else in `fleet` knows it:
//!
//! 1. **connect**, a function: reaches the board, makes sure that it is the right one and logs in, within a limit and
//!    until cancelled.
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
//! A new transport is a module beside `ssh.rs` (`loopback.rs`, for tests, is the smallest); a variant in both enums, in
//! each `match` of this file and in `Transport::open`; and a variant of `inventory::Transport` with its keys
//! (`harness/inventory/src/{types,device}.rs`, `docs/devices.md`). It has to pass
//! `harness/fleet/tests/fleet/transport.rs`. One that needs no SSH library also takes `cfg(any(feature = "ssh", test))`
//! off. CONTRIBUTING.md has the steps.

use std::time::Duration;

#[cfg(test)]
use super::loopback;
#[cfg(feature = "ssh")]
use super::ssh;
use super::{error::TransportError, limits::Deadlines, local, output::Exit};
use crate::child::Stream;

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
            Connection::Loopback(connection) => connection.abandon(),
        }
    }
}

/// The same call for each kind of channel.
macro_rules! each {
    ($channel:ident.$call:ident($($argument:ident),*)) => {
        match $channel {
            Channel::Local(process) => process.$call($($argument),*),
            #[cfg(feature = "ssh")]
            Channel::Ssh(channel) => channel.$call($($argument),*),
            #[cfg(test)]
            Channel::Loopback(channel) => channel.$call($($argument),*),
        }
    };
}

impl Channel {
    /// Sends bytes to stdin and returns how many were taken: `None` where none can be sent now, 0 where the command has
    /// stopped reading. After `None` the next call has to bring the same bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        each!(self.send(bytes))
    }

    /// Ends stdin; false where that cannot be sent now. Calling it again does nothing.
    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        each!(self.close_input())
    }

    /// Reads what has arrived; `None` where that is nothing.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        each!(self.read(stream, buffer))
    }

    /// Whether the command's output is complete: nothing more arrives once everything up to now is read.
    pub fn has_ended(&mut self) -> Result<bool, TransportError> {
        each!(self.has_ended())
    }

    /// Sleeps until something may have happened, for `patience` at most.
    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        each!(self.wait(patience))
    }

    /// Waits for the exit status and closes the channel. `stderr` of the result is left empty.
    pub fn finish(&mut self, deadlines: &Deadlines<'_>) -> Result<Exit, TransportError> {
        each!(self.finish(deadlines))
    }
}
