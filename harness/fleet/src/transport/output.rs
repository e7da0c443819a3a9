//! What a command prints, cut into lines and bounded, and how it ended. No I/O here.

use std::ops::ControlFlow;

use espalier_protocol::{MAX_LINE, Text};

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    /// Without `SIG`, e.g. `KILL`.
    pub signal: Option<Text>,
    /// The end of it (4 KiB).
    pub stderr: Text,
    /// `on_line` broke off, and the command was ended.
    pub stopped: bool,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// For messages: how it ended and the end of stderr, e.g. "exit status 1: no such file".
    pub fn describe(&self) -> String {
        let how = match (self.code, &self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => "ended without an exit status".to_owned(),
        };
        if self.stderr.is_empty() { how } else { format!("{how}: {}", self.stderr) }
    }
}

/// How a small script ended and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub exit: Exit,
    pub stdout: Text,
}

/// How much of stderr is kept: its end says what went wrong.
const STDERR_KEPT: usize = 4096;

/// Cuts a stream into lines of at most [`MAX_LINE`] bytes.
#[derive(Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Passes every complete line, without its line feed, to `on_line` until that breaks.
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

    pub fn text(&self) -> Text {
        let kept = &self.0[self.0.len().saturating_sub(STDERR_KEPT)..];
        String::from_utf8_lossy(kept).trim().into()
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
