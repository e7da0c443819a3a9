//! One command while it runs: its input goes out and its output comes in, until it ends, has printed enough or is out
//! of time. The same for every transport.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    ops::ControlFlow,
};

use super::{
    connection::Channel,
    error::TransportError,
    limits::Deadlines,
    output::{Exit, Tail},
};
use crate::child::Stream;

/// One command for a transport to run.
pub(super) struct Request<'a, 'i> {
    pub argv: &'a [String],
    pub deadlines: Deadlines<'a>,
    /// Without it the command reads an empty stdin.
    pub input: Option<Input<'i>>,
    /// Gets stdout as it arrives. A break or an error ends the command.
    pub on_stdout: &'a mut OnStdout<'a>,
}

pub(super) type OnStdout<'a> = dyn FnMut(&[u8]) -> Result<ControlFlow<()>, TransportError> + 'a;

pub(super) struct Input<'a> {
    pub source: &'a mut dyn Read,
    /// Gets the number of bytes sent, chunk by chunk.
    pub on_bytes: &'a mut dyn FnMut(u64),
}

/// What libssh2 puts into one packet.
const CHUNK: usize = 32 * 1024;

/// Carries bytes both ways until the command ends; `None` where `on_stdout` broke off and the command still runs.
pub(super) fn attend(
    channel: &mut Channel,
    deadlines: &mut Deadlines<'_>,
    input: Option<Input<'_>>,
    on_stdout: &mut OnStdout<'_>,
    stderr: &mut Tail,
) -> Result<Option<Exit>, TransportError> {
    // Gives the same chunk until it is consumed: after a write that would have blocked libssh2 must get it again.
    let mut input = input.map(|Input { source, on_bytes }| (BufReader::with_capacity(CHUNK, source), on_bytes));
    let (mut is_fed, mut has_ended) = (false, false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut moved = false;
        if !is_fed {
            let chunk = match &mut input {
                Some((reader, _)) => chunk(reader)?,
                None => &[],
            };
            let sent = if chunk.is_empty() { Some(0) } else { channel.send(chunk)? };
            match (sent, &mut input) {
                (Some(bytes @ 1..), Some((reader, on_bytes))) => {
                    reader.consume(bytes);
                    on_bytes(bytes as u64);
                    moved = true;
                }
                (Some(_), _) => is_fed = channel.close_input()?,
                (None, _) => {}
            }
        }
        if let Some(bytes) = channel.read(Stream::Stdout, &mut buffer)? {
            moved = true;
            if on_stdout(&buffer[..bytes])?.is_break() {
                return Ok(None);
            }
        }
        if let Some(bytes) = channel.read(Stream::Stderr, &mut buffer)? {
            moved = true;
            stderr.push(&buffer[..bytes]);
        }
        if moved {
            deadlines.activity();
        } else if has_ended {
            return channel.finish(deadlines).map(Some);
        } else {
            // The last output may have come between the reads and the end: it is read once more.
            has_ended = channel.has_ended()?;
        }
        deadlines.check()?;
        if !moved && !has_ended {
            channel.wait(deadlines.patience())?;
        }
    }
}

/// What to send next; empty at the end.
fn chunk(reader: &mut impl BufRead) -> Result<&[u8], TransportError> {
    while let Err(source) = reader.fill_buf() {
        if source.kind() != ErrorKind::Interrupted {
            return Err(TransportError::Io { what: "cannot read what is to be sent".into(), source });
        }
    }
    Ok(reader.fill_buf().unwrap_or_default())
}
