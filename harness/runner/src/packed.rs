//! Packed models for plain tract. They are unpacked while tract reads, so that the file is in memory only once.

use std::io::{self, Read};

use anyhow::Result;
use espalier_weights::pack::{Pack, Pieces};

/// A reader of the ONNX file in a pack.
pub struct Unpacking<'a> {
    pieces: Pieces<'a>,
    piece: Vec<u8>,
    /// Bytes of the piece that were read.
    at: usize,
}

impl Unpacking<'_> {
    pub fn of<'a>(pack: &'a Pack<'a>) -> Result<Unpacking<'a>> {
        Ok(Unpacking { pieces: pack.pieces()?, piece: Vec::new(), at: 0 })
    }
}

impl Read for Unpacking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Some(piece) = self.pieces.next() else { return Ok(0) };
            (self.piece, self.at) = (piece.map_err(io::Error::other)?, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..][..count]);
        self.at += count;
        Ok(count)
    }
}
