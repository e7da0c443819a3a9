//! Packed models: told from ONNX files by their first bytes, and unpacked while the engine reads, so that the whole file is in memory once.

use std::{
    fs::{self, File},
    io::{self, Read},
};

use anyhow::Result;
use espalier_weights::pack::{MAGIC, Pack, Pieces, is_pack};

/// The bytes of a pack; nothing for any other file.
pub fn read(path: &str) -> Result<Option<Vec<u8>>> {
    let mut start = Vec::new();
    // A folder, or no file at all, is for the engine to report.
    let opened = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    Ok(if opened.is_ok() && is_pack(&start) { Some(fs::read(path)?) } else { None })
}

/// The ONNX file in a pack, as something to read from.
pub struct Unpacking<'a> {
    pieces: Pieces<'a>,
    piece: Vec<u8>,
    /// How much of it was read.
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
