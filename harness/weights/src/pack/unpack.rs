//! Reads packs, also on boards: pure Rust, with no more memory than the result takes. A pack may stay in its file.

use std::{io::Read, ops::Range, sync::Arc};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use sha2::{Digest, Sha256};

use super::{
    header::{self, Header, PackedTensor, Section, Sha},
    spliced::Spliced,
};
use crate::{
    Form, Index, Sparse, WeightsError, protobuf,
    source::{self, Source},
};

/// The largest window of zstd at the levels in use.
const WINDOW: u64 = 8 << 20;
/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// A pack whose header was read and whose checksums were compared. Of a pack of several files this is one file, at
/// first the first one.
#[derive(Clone)]
pub struct Pack<'a> {
    source: Arc<dyn Source + 'a>,
    files: Arc<[File]>,
    which: usize,
}

struct File {
    ratio: Option<f64>,
    header: Header,
    /// The ranges of packed bytes of the rest and of each tensor.
    rest: Range<u64>,
    tensors: Vec<Range<u64>>,
}

impl<'a> Pack<'a> {
    /// Reads the header and compares all checksums. Nothing is decoded yet.
    ///
    /// # Errors
    /// Bytes that are no pack, or a pack of another version, cut off, damaged, or with impossible sizes.
    pub fn open(bytes: &'a [u8]) -> Result<Pack<'a>, WeightsError> {
        Pack::read(Arc::new(bytes))
    }

    /// As [`Pack::open`], for a pack that stays in its source. The source must not change, because checksums are only
    /// compared here.
    ///
    /// # Errors
    /// Those of [`Pack::open`], and a source that cannot be read.
    pub fn read(source: Arc<dyn Source + 'a>) -> Result<Pack<'a>, WeightsError> {
        let (variants, sections, mut at) = header::read(&*source)?;
        let length = source.length();
        let name = |place: usize| {
            let named = variants.iter().find_map(|variant| {
                let index = variant.places.iter().position(|known| *known as usize == place)?;
                let tensor = index.checked_sub(1).map(|index| &variant.header.tensors[index].name);
                Some(tensor.map_or_else(|| "the graph".to_owned(), |name| format!("tensor `{name}`")))
            });
            named.unwrap_or_else(|| "a section that is not used".to_owned())
        };
        let mut ranges = Vec::new();
        for (place, section) in sections.iter().enumerate() {
            let end = at.checked_add(section.packed_bytes).filter(|end| *end <= length);
            let end =
                end.ok_or_else(|| WeightsError::Malformed { why: format!("it is cut off within {}", name(place)) })?;
            if sha256(&*source, at..end)? != section.sha256 {
                return Err(WeightsError::Checksum { part: name(place) });
            }
            ranges.push(at..end);
            at = end;
        }
        if at != length {
            return Err(WeightsError::Malformed { why: format!("{} bytes follow its end", length - at) });
        }
        let files = variants.into_iter().map(|variant| {
            let mut places = variant.places.iter().map(|place| ranges[*place as usize].clone());
            let rest = places.next().expect("the rest has a place");
            File { ratio: variant.ratio, header: variant.header, rest, tensors: places.collect() }
        });
        Ok(Pack { source, files: files.collect(), which: 0 })
    }

    /// The ratios of its files, ascending. Empty for a pack of one file.
    pub fn ratios(&self) -> Vec<f64> {
        self.files.iter().filter_map(|file| file.ratio).collect()
    }

    /// The file of one of [`Pack::ratios`].
    pub fn at_ratio(&self, index: usize) -> Pack<'a> {
        assert!(index < self.files.len(), "there is no ratio {index}");
        Pack { source: Arc::clone(&self.source), files: Arc::clone(&self.files), which: index }
    }

    fn file(&self) -> &File {
        &self.files[self.which]
    }

    pub fn tensors(&self) -> &[PackedTensor] {
        &self.file().header.tensors
    }

    /// Size of the unpacked file.
    pub fn file_bytes(&self) -> u64 {
        self.file().header.file_bytes
    }

    /// Of the unpacked file, to check the decoder as well.
    pub fn file_sha256(&self) -> Sha {
        self.file().header.file_sha256
    }

    /// A number that equal tensors of all ratios of this pack share. `None` for a tensor with the values of another.
    pub fn identity(&self, index: usize) -> Option<u64> {
        self.tensors()[index].base.is_none().then(|| self.file().tensors[index].start)
    }

    /// The `index`-th tensor as it is stored, for kernels that skip zeros.
    ///
    /// # Errors
    /// A section that does not decompress to a tensor in its form.
    pub fn tensor(&self, index: usize) -> Result<Sparse, WeightsError> {
        let tensor = &self.tensors()[index];
        let range = self.file().tensors[index].clone();
        let decode = || {
            let (rows, columns) = (tensor.rows as usize, tensor.columns() as usize);
            if let Some(base) = tensor.base {
                let dense = self.at_ratio(0).tensor(base as usize)?;
                let dense = if dense.index == Index::Dense { dense.values } else { dense.to_dense() };
                let index = tensor.form.decode_index(rows, columns, &self.decompressed(&tensor.section, range)?)?;
                return Ok(Sparse::gathered(index, rows, columns, tensor.channels, &dense));
            }
            if tensor.form == Form::DENSE {
                let mut values = vec![[0; 4]; tensor.count() as usize];
                self.dense(tensor, range, values.as_flattened_mut())?;
                let values = values.into_iter().map(f32::from_le_bytes).collect();
                return Ok(Sparse { rows, columns, channels: tensor.channels, index: Index::Dense, values });
            }
            tensor.form.decode(rows, columns, tensor.channels, &self.decompressed(&tensor.section, range)?)
        };
        decode().map_err(WeightsError::of_tensor(&tensor.name))
    }

    /// The ONNX file.
    ///
    /// # Errors
    /// Those of [`Pack::tensor`].
    pub fn unpack(&self) -> Result<Vec<u8>, WeightsError> {
        let mut file = Vec::with_capacity(self.file_bytes() as usize);
        for piece in self.pieces()? {
            file.extend_from_slice(&piece?);
        }
        Ok(file)
    }

    /// The ONNX file piece by piece, to save memory.
    ///
    /// # Errors
    /// A graph that does not decompress.
    pub fn pieces(&self) -> Result<Pieces<'_>, WeightsError> {
        Ok(Pieces { pack: self, rest: self.graph_bytes()?, rest_at: 0, next: 0, position: 0 })
    }

    /// The ONNX file with empty packed tensors, for callers that read the tensors one by one.
    ///
    /// # Errors
    /// A graph that does not decompress, or a file that is no protocol buffer.
    pub fn without_tensors(&self) -> Result<Vec<u8>, WeightsError> {
        let cuts: Vec<Range<u64>> =
            self.tensors().iter().map(|tensor| tensor.offset..tensor.offset + tensor.dense_bytes()).collect();
        let spliced = Spliced { rest: &self.graph_bytes()?, cuts: &cuts, length: self.file_bytes() };
        protobuf::without(&spliced, &cuts).map_err(|why| WeightsError::Malformed { why })
    }

    fn graph_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        self.decompressed(&self.file().header.rest, self.file().rest.clone())
    }

    fn decompressed(&self, section: &Section, range: Range<u64>) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = vec![0; section.encoded_bytes as usize];
        decompress(section, &*self.source, range, |at, piece| {
            bytes[at..at + piece.len()].copy_from_slice(piece);
        })?;
        Ok(bytes)
    }

    /// Writes the `index`-th tensor to `into` as little-endian f32, if it is stored dense and `into` has its size.
    /// Returns whether it did. The tensor is in memory once.
    ///
    /// # Errors
    /// Those of [`Pack::tensor`].
    pub fn dense_tensor(&self, index: usize, into: &mut [u8]) -> Result<bool, WeightsError> {
        let tensor = &self.tensors()[index];
        let is_dense = tensor.form == Form::DENSE && tensor.base.is_none();
        if !is_dense || into.len() as u64 != tensor.dense_bytes() {
            return Ok(false);
        }
        let range = self.file().tensors[index].clone();
        self.dense(tensor, range, into).map_err(WeightsError::of_tensor(&tensor.name))?;
        Ok(true)
    }

    /// Writes the bytes, which are stored in planes, to their places as they are decompressed.
    fn dense(&self, tensor: &PackedTensor, range: Range<u64>, into: &mut [u8]) -> Result<(), WeightsError> {
        let count = tensor.count() as usize;
        if tensor.section.encoded_bytes != tensor.dense_bytes() {
            let why = "its size is not that of its values".to_owned();
            return Err(WeightsError::Damaged { form: tensor.form, why });
        }
        decompress(&tensor.section, &*self.source, range, |mut at, mut piece| {
            while !piece.is_empty() {
                let (plane, first) = (at / count, at % count);
                let (here, rest) = piece.split_at(piece.len().min(count - first));
                for (value, byte) in into[4 * first..].as_chunks_mut::<4>().0.iter_mut().zip(here) {
                    value[plane] = *byte;
                }
                at += here.len();
                piece = rest;
            }
        })
    }
}

impl std::fmt::Debug for Pack<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pack").field("header", &self.file().header).finish_non_exhaustive()
    }
}

/// The file from its beginning to its end: in turn a piece of the rest and a tensor.
pub struct Pieces<'a> {
    pack: &'a Pack<'a>,
    rest: Vec<u8>,
    rest_at: usize,
    /// The index of the next tensor.
    next: usize,
    /// In the file.
    position: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Vec<u8>, WeightsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let tensor = self.pack.tensors().get(self.next);
        let until = tensor.map_or(self.pack.file_bytes(), |tensor| tensor.offset);
        if self.position < until {
            let taken = &self.rest[self.rest_at..][..(until - self.position) as usize];
            self.rest_at += taken.len();
            self.position = until;
            return Some(Ok(taken.to_vec()));
        }
        let tensor = tensor?;
        let values = self.pack.tensor(self.next).map(|tensor| tensor.to_dense());
        self.next += 1;
        self.position += tensor.dense_bytes();
        Some(values.map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect()))
    }
}

/// Calls `take` with decompressed pieces and their places: exactly as many bytes as the header says, or an error. Needs
/// the memory of a window and two pieces.
fn decompress(
    section: &Section,
    source: &dyn Source,
    range: Range<u64>,
    mut take: impl FnMut(usize, &[u8]),
) -> Result<(), WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { why };
    let zstd = |error: &dyn std::fmt::Display| malformed(format!("zstd says: {error}"));
    let expected = section.encoded_bytes as usize;
    let mut packed = source::RangeReader::new(source, range, PIECE);
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW);
    let mut buffer = vec![0; PIECE];
    let mut written = 0;
    while !packed.is_at_end() {
        let frame = StreamingDecoder::new_with_decoder(&mut packed, &mut decoder);
        let mut frame = frame.map_err(|error| zstd(&error))?;
        loop {
            let count = frame.read(&mut buffer).map_err(|error| zstd(&error))?;
            if count == 0 {
                break;
            }
            if count > expected - written {
                return Err(malformed(format!("a section has more than the {expected} bytes its header says")));
            }
            take(written, &buffer[..count]);
            written += count;
        }
    }
    if written != expected {
        return Err(malformed(format!("a section has {written} bytes where its header says {expected}")));
    }
    Ok(())
}

fn sha256(source: &dyn Source, range: Range<u64>) -> Result<Sha, WeightsError> {
    let mut reader = source::RangeReader::new(source, range, PIECE);
    let mut hash = Sha256::new();
    while !reader.is_at_end() {
        let piece = reader.next_piece().map_err(header::unreadable)?;
        let bytes = piece.len();
        hash.update(piece);
        reader.consume(bytes);
    }
    Ok(hash.finalize().into())
}
