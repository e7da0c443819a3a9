//! What a running command sends, cut into lines and bounded, and how long to wait for more. Shared by the transports; no I/O here.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use espalier_bench::sanitise::sanitise;
use espalier_protocol::MAX_LINE;

use super::{Limits, error::TransportError};
use crate::cancel::Cancel;

/// How soon a request to stop is noticed, at the latest.
const GLANCE: Duration = Duration::from_millis(100);

/// How much of stderr is kept: its end says what went wrong.
const STDERR_KEPT: usize = 4096;

/// When to stop waiting for a command.
pub(super) struct Watch<'a> {
    /// For messages, e.g. "`runner time …`".
    pub what: String,
    pub limits: Limits,
    /// The key of the device file that sets `limits.command`.
    pub limit: &'static str,
    pub cancel: &'a Cancel,
    started: Instant,
    heard: Instant,
}

impl<'a> Watch<'a> {
    pub fn new(what: impl Into<String>, limits: Limits, cancel: &'a Cancel) -> Watch<'a> {
        let now = Instant::now();
        Watch { what: what.into(), limits, limit: "timeouts.command", cancel, started: now, heard: now }
    }

    /// Counts from now on.
    pub fn restart(&mut self) {
        self.started = Instant::now();
        self.heard = self.started;
    }

    /// Something came or went: the silence starts anew.
    pub fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// # Errors
    /// `Cancelled`, `TimedOut` or `Silent`: the command is to be ended.
    pub fn check(&self) -> Result<(), TransportError> {
        if self.cancel.is_requested() {
            return Err(TransportError::Cancelled);
        }
        if self.started.elapsed() >= self.limits.command {
            let (what, after) = (self.what.clone(), self.limits.command);
            return Err(TransportError::TimedOut { what, after, limit: self.limit });
        }
        if self.heard.elapsed() >= self.limits.idle {
            return Err(TransportError::Silent { what: self.what.clone(), after: self.limits.idle });
        }
        Ok(())
    }

    /// How long to sleep at most before [`Watch::check`] is due again.
    pub fn patience(&self) -> Duration {
        let command = self.limits.command.saturating_sub(self.started.elapsed());
        let idle = self.limits.idle.saturating_sub(self.heard.elapsed());
        GLANCE.min(command).min(idle).max(Duration::from_millis(1))
    }
}

/// Cuts a stream into lines of at most [`MAX_LINE`] bytes.
#[derive(Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Hands every complete line, without its end, to `on_line` until that breaks.
    ///
    /// # Errors
    /// What is wrong with the output, for `BadOutput`.
    pub fn push(
        &mut self,
        bytes: &[u8],
        on_line: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, String> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end])?;
            rest = &rest[end + 1..];
            if self.finish(on_line)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.extend(rest)?;
        Ok(ControlFlow::Continue(()))
    }

    /// At the end of the stream: a last line without a line feed.
    pub fn end(&mut self, on_line: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        if self.pending.is_empty() { Ok(ControlFlow::Continue(())) } else { self.finish(on_line) }
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.pending.len() + bytes.len() > MAX_LINE {
            return Err(format!("a line longer than {MAX_LINE} bytes"));
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, on_line: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        let line = std::mem::take(&mut self.pending);
        let line = std::str::from_utf8(&line).map_err(|_| "a line that is not UTF-8".to_owned())?;
        Ok(on_line(line))
    }
}

/// The end of what a command wrote to stderr.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Twice, so that not every small write moves the whole buffer.
        if self.0.len() > 2 * STDERR_KEPT {
            self.0.drain(..self.0.len() - STDERR_KEPT);
        }
    }

    pub fn text(&self) -> String {
        let kept = &self.0[self.0.len().saturating_sub(STDERR_KEPT)..];
        sanitise(String::from_utf8_lossy(kept).trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as they come out when `chunks` come in one by one.
    fn lines(chunks: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut seen = Vec::new();
        let mut on_line = |line: &str| {
            seen.push(line.to_owned());
            ControlFlow::Continue(())
        };
        let mut lines = Lines::default();
        for chunk in chunks {
            let _ = lines.push(chunk, &mut on_line)?;
        }
        let _ = lines.end(&mut on_line)?;
        Ok(seen)
    }

    #[test]
    fn lines_do_not_depend_on_how_they_arrive() {
        let text = "eins\n\nzwei drei ü\nvier".as_bytes();
        for cut in 0..=text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]).unwrap(), ["eins", "", "zwei drei ü", "vier"]);
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(lines(&[&longest, b"\n"]).unwrap()[0].len(), MAX_LINE);
        assert!(lines(&[&longest, b"x"]).unwrap_err().contains("longer than"));
        assert!(lines(&[b"\xff\n"]).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn a_tail_is_the_end() {
        let mut tail = Tail::default();
        for n in 0..5000 {
            tail.push(format!("{n}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= STDERR_KEPT && text.ends_with("\n4999"), "{text}");
    }
}
