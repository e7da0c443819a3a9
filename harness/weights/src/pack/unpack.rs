//! Reads packs, on a board as well: in Rust alone, and with no more memory than what is asked for takes. A pack may stay in its file, and is read there.

use std::{io::Read, ops::Range, sync::Arc};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use sha2::{Digest, Sha256};

use super::{
    header::{self, Header, PackedTensor, Part, Sha},
    spliced::Spliced,
};
use crate::{
    Form, Index, Sparse, WeightsError, protobuf,
    source::{self, Source},
};

/// zstd looks back no further than this at the levels in use, in whatever is larger than this.
const WINDOW: u64 = 8 << 20;
/// Read at a time.
const PIECE: usize = 64 << 10;

/// A pack whose header was read, and whose every part is whole. Of one that holds several files this is one of them, at first the first.
#[derive(Clone)]
pub struct Pack<'a> {
    source: Arc<dyn Source + 'a>,
    files: Arc<[File]>,
    which: usize,
}

struct File {
    ratio: Option<f64>,
    header: Header,
    /// Where the packed bytes are: of the rest, and of each tensor.
    rest: Range<u64>,
    parts: Vec<Range<u64>>,
}

impl<'a> Pack<'a> {
    /// Reads the header and compares all checksums; decodes nothing yet.
    ///
    /// # Errors
    /// What is no pack, of another version, cut off, damaged, or claims to be larger than can be.
    pub fn open(bytes: &'a [u8]) -> Result<Pack<'a>, WeightsError> {
        Pack::read(Arc::new(bytes))
    }

    /// The same of a pack that stays where it is. What it holds must not change meanwhile: sums are compared here and not again.
    ///
    /// # Errors
    /// Those of [`Pack::open`], and what cannot be read.
    pub fn read(source: Arc<dyn Source + 'a>) -> Result<Pack<'a>, WeightsError> {
        let (variants, parts, mut at) = header::read(&*source)?;
        let length = source.length();
        let name = |place: usize| {
            let named = variants.iter().find_map(|variant| {
                let index = variant.places.iter().position(|known| *known as usize == place)?;
                let tensor = index.checked_sub(1).map(|index| &variant.header.tensors[index].name);
                Some(tensor.map_or_else(|| "the graph".to_owned(), |name| format!("tensor `{name}`")))
            });
            named.unwrap_or_else(|| "a part that nothing refers to".to_owned())
        };
        let mut ranges = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let end = at.checked_add(part.packed_bytes).filter(|end| *end <= length);
            let end =
                end.ok_or_else(|| WeightsError::Malformed { why: format!("it is cut off within {}", name(place)) })?;
            if sha256(&*source, at..end)? != part.sha256 {
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
            File { ratio: variant.ratio, header: variant.header, rest, parts: places.collect() }
        });
        Ok(Pack { source, files: files.collect(), which: 0 })
    }

    /// Those of the files it holds, ascending; none where it holds one and does not say.
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

    /// Of the unpacked file, for who wants to be sure of the decoder as well.
    pub fn file_sha256(&self) -> Sha {
        self.file().header.file_sha256
    }

    /// What is the same for tensors, of whatever ratio of this pack, that are stored once; nothing for one whose values are elsewhere.
    pub fn identity(&self, index: usize) -> Option<u64> {
        self.tensors()[index].base.is_none().then(|| self.file().parts[index].start)
    }

    /// The `index`-th tensor as it is stored, for kernels that make use of zeros.
    ///
    /// # Errors
    /// What decompresses to something else than a tensor in its form.
    pub fn tensor(&self, index: usize) -> Result<Sparse, WeightsError> {
        let tensor = &self.tensors()[index];
        let range = self.file().parts[index].clone();
        let decode = || {
            let (rows, columns) = (tensor.rows as usize, tensor.columns() as usize);
            if let Some(base) = tensor.base {
                let dense = self.at_ratio(0).tensor(base as usize)?;
                let dense = if dense.index == Index::Dense { dense.values } else { dense.to_dense() };
                let index = tensor.form.decode_index(rows, columns, &self.decompressed(&tensor.part, range)?)?;
                return Ok(Sparse::gathered(index, rows, columns, tensor.channels, &dense));
            }
            if tensor.form == Form::DENSE {
                let mut values = vec![[0; 4]; tensor.count() as usize];
                self.dense(tensor, range, values.as_flattened_mut())?;
                let values = values.into_iter().map(f32::from_le_bytes).collect();
                return Ok(Sparse { rows, columns, channels: tensor.channels, index: Index::Dense, values });
            }
            tensor.form.decode(rows, columns, tensor.channels, &self.decompressed(&tensor.part, range)?)
        };
        decode().map_err(WeightsError::of_tensor(&tensor.name))
    }

    /// The file as ONNX knows it.
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

    /// The same piece by piece, for who has no room for it twice.
    ///
    /// # Errors
    /// A graph that does not decompress.
    pub fn pieces(&self) -> Result<Pieces<'_>, WeightsError> {
        Ok(Pieces { pack: self, rest: self.graph_bytes()?, rest_at: 0, next: 0, position: 0 })
    }

    /// The file with its packed tensors left empty: a message like it in all else, for who takes the tensors one by one.
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

    fn decompressed(&self, part: &Part, range: Range<u64>) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = vec![0; part.encoded_bytes as usize];
        decompress(part, &*self.source, range, |at, piece| {
            bytes[at..at + piece.len()].copy_from_slice(piece);
        })?;
        Ok(bytes)
    }

    /// The `index`-th tensor as little-endian f32, into a place of its size, if it is stored so: then it is in memory once.
    ///
    /// # Errors
    /// Those of [`Pack::tensor`].
    pub fn dense_tensor(&self, index: usize, into: &mut [u8]) -> Result<bool, WeightsError> {
        let tensor = &self.tensors()[index];
        let is_dense = tensor.form == Form::DENSE && tensor.base.is_none();
        if !is_dense || into.len() as u64 != tensor.dense_bytes() {
            return Ok(false);
        }
        let range = self.file().parts[index].clone();
        self.dense(tensor, range, into).map_err(WeightsError::of_tensor(&tensor.name))?;
        Ok(true)
    }

    /// Bytes go to their places as they come, all first bytes first.
    fn dense(&self, tensor: &PackedTensor, range: Range<u64>, into: &mut [u8]) -> Result<(), WeightsError> {
        let count = tensor.count() as usize;
        if tensor.part.encoded_bytes != tensor.dense_bytes() {
            let why = "its size is not that of its values".to_owned();
            return Err(WeightsError::Damaged { form: tensor.form, why });
        }
        decompress(&tensor.part, &*self.source, range, |mut at, mut piece| {
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

/// The file from its beginning to its end, in turns what was not cut out and a tensor.
pub struct Pieces<'a> {
    pack: &'a Pack<'a>,
    rest: Vec<u8>,
    rest_at: usize,
    /// The next tensor.
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

/// Hands on, with their places, exactly as many bytes as the header says, or gives an error; never more memory than a window and two pieces.
fn decompress(
    part: &Part,
    source: &dyn Source,
    range: Range<u64>,
    mut take: impl FnMut(usize, &[u8]),
) -> Result<(), WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { why };
    let zstd = |error: &dyn std::fmt::Display| malformed(format!("zstd says: {error}"));
    let expected = part.encoded_bytes as usize;
    let mut packed = source::Part::new(source, range, PIECE);
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
                return Err(malformed(format!("a part has more than the {expected} bytes its header says")));
            }
            take(written, &buffer[..count]);
            written += count;
        }
    }
    if written != expected {
        return Err(malformed(format!("a part has {written} bytes where its header says {expected}")));
    }
    Ok(())
}

fn sha256(source: &dyn Source, range: Range<u64>) -> Result<Sha, WeightsError> {
    let mut part = source::Part::new(source, range, PIECE);
    let mut hash = Sha256::new();
    while !part.is_at_end() {
        let piece = part.next_piece().map_err(header::unreadable)?;
        let bytes = piece.len();
        hash.update(piece);
        part.consume(bytes);
    }
    Ok(hash.finalize().into())
}
