//! How long a command may take, and when to give up on it.

use std::time::{Duration, Instant};

use espalier_inventory::Timeouts;

use super::error::TransportError;
use crate::cancel::Cancel;

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

/// How soon a request to stop is noticed, at the latest.
const GLANCE: Duration = Duration::from_millis(100);

/// The limits of one command that runs.
pub(super) struct Deadlines<'a> {
    /// For messages, e.g. "`runner time …`".
    pub what: String,
    limits: Limits,
    /// The key of the device file that sets `limits.command`.
    key: &'static str,
    pub cancel: &'a Cancel,
    started: Instant,
    last_activity: Instant,
}

impl<'a> Deadlines<'a> {
    pub fn new(what: impl Into<String>, limits: Limits, cancel: &'a Cancel) -> Deadlines<'a> {
        let now = Instant::now();
        Deadlines { what: what.into(), limits, key: "timeouts.command", cancel, started: now, last_activity: now }
    }

    /// For the steps of connecting, all of which may take `limit`.
    #[cfg(feature = "ssh")]
    pub fn connecting(what: String, limit: Duration, cancel: &'a Cancel) -> Deadlines<'a> {
        let limits = Limits { command: limit, idle: limit };
        Deadlines { key: "timeouts.connect", ..Deadlines::new(what, limits, cancel) }
    }

    /// Counts from now on.
    #[cfg(any(feature = "ssh", test))]
    pub fn restart(&mut self) {
        self.started = Instant::now();
        self.last_activity = self.started;
    }

    /// Something came or went: the idle limit starts anew.
    pub fn activity(&mut self) {
        self.last_activity = Instant::now();
    }

    /// # Errors
    /// `Cancelled`, `TimedOut` or `Silent`: the command is to be ended.
    pub fn check(&self) -> Result<(), TransportError> {
        if self.cancel.is_requested() {
            return Err(TransportError::Cancelled);
        }
        if self.started.elapsed() >= self.limits.command {
            let (what, after) = (self.what.clone(), self.limits.command);
            return Err(TransportError::TimedOut { what, after, limit: self.key });
        }
        if self.last_activity.elapsed() >= self.limits.idle {
            return Err(TransportError::Silent { what: self.what.clone(), after: self.limits.idle });
        }
        Ok(())
    }

    /// When the command is out of time.
    #[cfg(feature = "ssh")]
    pub fn end(&self) -> Instant {
        self.started + self.limits.command
    }

    /// How long to sleep at most before [`Deadlines::check`] is due again.
    pub fn patience(&self) -> Duration {
        let command = self.limits.command.saturating_sub(self.started.elapsed());
        let idle = self.limits.idle.saturating_sub(self.last_activity.elapsed());
        GLANCE.min(command).min(idle).max(Duration::from_millis(1))
    }
}
