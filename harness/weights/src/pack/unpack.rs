//! Reads packs, on a board as well: in Rust alone, and with no more memory than the file they hold and one tensor.

use ruzstd::decoding::FrameDecoder;

use super::header::{Header, PackedTensor, Part, Sha, sha256};
use crate::{Sparse, WeightsError};

/// zstd looks back no further than this at the levels in use, in whatever is larger than this.
const WINDOW: u64 = 8 << 20;

/// A pack whose header was read, and whose every part is whole.
#[derive(Clone, Debug)]
pub struct Pack<'a> {
    header: Header,
    rest: &'a [u8],
    /// The packed bytes of each tensor.
    parts: Vec<&'a [u8]>,
}

impl<'a> Pack<'a> {
    /// Reads the header and compares all checksums; decodes nothing yet.
    ///
    /// # Errors
    /// What is no pack, of another version, cut off, damaged, or claims to be larger than can be.
    pub fn open(bytes: &'a [u8]) -> Result<Pack<'a>, WeightsError> {
        let (header, mut left) = Header::read(bytes)?;
        let mut part = |part: &Part, name: &dyn Fn() -> String| {
            let taken = usize::try_from(part.packed_bytes).ok().and_then(|bytes| left.split_at_checked(bytes));
            let (taken, after) =
                taken.ok_or_else(|| WeightsError::Malformed { why: format!("it is cut off within {}", name()) })?;
            left = after;
            if sha256(taken) != part.sha256 {
                return Err(WeightsError::Checksum { part: name() });
            }
            Ok(taken)
        };
        let rest = part(&header.rest, &|| "the graph".into())?;
        let parts = header.tensors.iter().map(|tensor| part(&tensor.part, &|| format!("tensor `{}`", tensor.name)));
        let parts = parts.collect::<Result<Vec<&[u8]>, WeightsError>>()?;
        if !left.is_empty() {
            return Err(WeightsError::Malformed { why: format!("{} bytes follow its end", left.len()) });
        }
        Ok(Pack { header, rest, parts })
    }

    pub fn tensors(&self) -> &[PackedTensor] {
        &self.header.tensors
    }

    /// Size of the unpacked file.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// Of the unpacked file, for who wants to be sure of the decoder as well.
    pub fn file_sha256(&self) -> Sha {
        self.header.file_sha256
    }

    /// The `index`-th tensor as it is stored, for kernels that make use of zeros.
    ///
    /// # Errors
    /// What decompresses to something else than a tensor in its form.
    pub fn tensor(&self, index: usize) -> Result<Sparse, WeightsError> {
        let tensor = &self.header.tensors[index];
        let decode = || {
            let bytes = decompress(&tensor.part, self.parts[index])?;
            tensor.form.decode(tensor.rows as usize, tensor.columns() as usize, tensor.channels, &bytes)
        };
        decode().map_err(WeightsError::of_tensor(&tensor.name))
    }

    /// The file as ONNX knows it.
    ///
    /// # Errors
    /// Those of [`Pack::tensor`].
    pub fn unpack(&self) -> Result<Vec<u8>, WeightsError> {
        let mut file = Vec::with_capacity(self.header.file_bytes as usize);
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
        Ok(Pieces { pack: self, rest: decompress(&self.header.rest, self.rest)?, rest_at: 0, next: 0, position: 0 })
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

/// Exactly as many bytes as the header says, or an error; never more memory than that and a window.
fn decompress(part: &Part, packed: &[u8]) -> Result<Vec<u8>, WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { why };
    let mut bytes = vec![0; part.encoded_bytes as usize];
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW);
    let written = decoder.decode_all(packed, &mut bytes).map_err(|error| malformed(format!("zstd says: {error}")))?;
    if written != bytes.len() {
        return Err(malformed(format!("a part has {written} bytes where its header says {}", bytes.len())));
    }
    Ok(bytes)
}
