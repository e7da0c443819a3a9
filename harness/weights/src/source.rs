//! Bytes in memory or in a file. Of a file only what is being read is in memory.

use std::{
    io::{self, Read},
    ops::Range,
};

/// Bytes of a known length that can be read at any offset.
pub trait Source: Send + Sync {
    fn length(&self) -> u64;

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// Bytes beyond the end, or bytes that cannot be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Source for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(unix)]
impl Source for std::fs::File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, offset)
    }
}

/// Reads a range of a source from its beginning to its end, in buffered pieces.
pub struct RangeReader<'a, S: ?Sized> {
    source: &'a S,
    left: Range<u64>,
    /// Bytes that were read ahead; those before `at` are consumed.
    ahead: Vec<u8>,
    at: usize,
    most_ahead: usize,
}

impl<'a, S: Source + ?Sized> RangeReader<'a, S> {
    /// Reads at most `ahead` bytes ahead.
    pub fn new(source: &'a S, range: Range<u64>, ahead: usize) -> RangeReader<'a, S> {
        RangeReader { source, left: range, ahead: Vec::new(), at: 0, most_ahead: ahead.max(1) }
    }

    /// The next bytes; none at the end.
    pub fn next_piece(&mut self) -> io::Result<&[u8]> {
        if self.at == self.ahead.len() {
            let bytes = (self.left.end - self.left.start).min(self.most_ahead as u64);
            self.ahead.resize(bytes as usize, 0);
            self.at = 0;
            self.source.read_at(self.left.start, &mut self.ahead)?;
            self.left.start += bytes;
        }
        Ok(&self.ahead[self.at..])
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.ahead.len() && self.left.is_empty()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl<S: Source + ?Sized> Read for RangeReader<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.next_piece()?;
        let bytes = piece.len().min(into.len());
        into[..bytes].copy_from_slice(&piece[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}
