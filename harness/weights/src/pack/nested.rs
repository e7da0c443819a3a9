//! Makes packs of one model at several ratios, in which what they have in common is there once.
//!
//! Pruned in one step from the same weights, a sparser file is the denser one with fewer of its values: of such a tensor only the places are stored. Where
//! values differ (fine-tuning moves what is kept) a tensor is stored with values of its own, and told so.

use std::collections::HashMap;

use super::{
    Choice, Pack, PackedTensor, Part, Span,
    encode::{compress_streams, cut, layouts, values},
    header::{Header, Variant, sha256, write_several},
    most_file_bytes,
};
use crate::{Form, Layout, Matrix, Sparse, Values, WeightsError, bytes::Streams};

/// A file of [`pack_ratios`].
pub struct AtRatio<'a> {
    pub ratio: f64,
    pub file: &'a [u8],
    pub tensors: &'a [(Span, Choice)],
}

#[derive(Clone, Debug, PartialEq)]
pub struct PackedRatios {
    pub bytes: Vec<u8>,
    /// In the order of the ratios.
    pub ratios: Vec<PackedRatio>,
}

/// What a ratio adds to those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRatio {
    pub ratio: f64,
    pub bytes: u64,
    /// Tensors that are the same as at a denser ratio, bit for bit.
    pub same: usize,
    /// Tensors of which only the places are stored.
    pub nested: usize,
    /// Tensors with values of their own.
    pub own: usize,
}

/// Packs files that are the same model at ascending ratios. Each is read back with the decoder the boards have, and compared, before they are handed out.
///
/// # Errors
/// Those of [`super::pack`], ratios that do not ascend, and none or too many of them.
pub fn pack_ratios(files: &[AtRatio]) -> Result<PackedRatios, WeightsError> {
    let malformed = |why: &str| WeightsError::Malformed { why: why.to_owned() };
    let ascend = files.windows(2).all(|pair| pair[0].ratio < pair[1].ratio);
    if files.is_empty() || files.len() > super::MOST_RATIOS as usize || !ascend {
        return Err(malformed("a pack of several ratios wants 1 to 64 of them, each once and ascending"));
    }
    let mut pool = Pool::default();
    let (mut variants, mut told): (Vec<Variant>, Vec<PackedRatio>) = (Vec::new(), Vec::new());
    // The first file as it comes back, and its tensors by their names.
    let mut first = Vec::new();
    let mut bases: HashMap<String, (u32, PackedTensor)> = HashMap::new();
    for file in files {
        let before = pool.bytes.len();
        let mut counts = PackedRatio { ratio: file.ratio, bytes: 0, same: 0, nested: 0, own: 0 };
        let cut = cut(file.file, file.tensors)?;
        let (rest, rest_place, _) = pool.put(cut.rest_bytes as usize, cut.rest_frame);
        let (mut places, mut tensors) = (vec![rest_place], Vec::new());
        for (mut tensor, frame) in cut.tensors {
            let nested = match bases.get(&tensor.name) {
                Some((index, base)) if alike(base, &tensor) && pool.is_new(&frame) => {
                    let index_only = index_only(&tensor, &values(&cut.unpacked, &tensor), &values(&first, base))?;
                    index_only.map(|(form, streams)| (*index, form, streams))
                }
                _ => None,
            };
            let (encoded, frame) = match nested {
                Some((base, form, streams)) => {
                    (tensor.form, tensor.base) = (form, Some(base));
                    (streams.bytes.len(), compress_streams(&streams))
                }
                None => (tensor.part.encoded_bytes as usize, frame),
            };
            let (part, place, is_new) = pool.put(encoded, frame);
            match (is_new, tensor.base) {
                (false, _) => counts.same += 1,
                (true, Some(_)) => counts.nested += 1,
                (true, None) => counts.own += 1,
            }
            tensor.part = part;
            places.push(place);
            if variants.is_empty() {
                bases.insert(tensor.name.clone(), (tensors.len() as u32, tensor.clone()));
            }
            tensors.push(tensor);
        }
        counts.bytes = (pool.bytes.len() - before) as u64;
        told.push(counts);
        if variants.is_empty() {
            first = cut.unpacked;
        }
        let header = Header { file_bytes: file.file.len() as u64, file_sha256: cut.unpacked_sha256, rest, tensors };
        variants.push(Variant { ratio: Some(file.ratio), header, places });
    }
    let mut bytes = write_several(&variants, &pool.parts);
    bytes.append(&mut pool.bytes);
    drop(first);
    for (index, variant) in variants.iter().enumerate() {
        let (pack, file) = (bytes.len() as u64, variant.header.file_bytes);
        if file > most_file_bytes(pack) {
            return Err(WeightsError::Bomb { pack, file, limit: most_file_bytes(pack) });
        }
        if sha256(&Pack::open(&bytes)?.at_ratio(index).unpack()?) != variant.header.file_sha256 {
            return Err(malformed("it does not unpack to what was packed; this is a bug"));
        }
    }
    Ok(PackedRatios { bytes, ratios: told })
}

fn alike(base: &PackedTensor, tensor: &PackedTensor) -> bool {
    base.shape == tensor.shape && base.rows == tensor.rows
}

/// The smallest index with which the base's values are `values`; nothing where they are not.
fn index_only(tensor: &PackedTensor, values: &[f32], base: &[f32]) -> Result<Option<(Form, Streams)>, WeightsError> {
    let (rows, columns) = (tensor.rows as usize, tensor.columns() as usize);
    let matrix = Matrix::new(rows, columns, tensor.channels, values)?;
    let mut best: Option<(usize, Form, Streams)> = None;
    for layout in layouts(&matrix).into_iter().filter(|layout| *layout != Layout::Dense) {
        let sparse = Sparse::new(layout, &matrix)?;
        let mut streams = Streams::default();
        sparse.index.write(&mut streams);
        let gathered = Sparse::gathered(sparse.index, rows, columns, tensor.channels, base);
        // To the bit: zeros have signs.
        let same = gathered.values.iter().zip(&sparse.values).all(|(ours, theirs)| ours.to_bits() == theirs.to_bits());
        if !same {
            continue;
        }
        let size = compress_streams(&streams).len();
        if best.as_ref().is_none_or(|(best, ..)| size < *best) {
            best = Some((size, Form { layout, values: Values::F32 }, streams));
        }
    }
    Ok(best.map(|(_, form, streams)| (form, streams)))
}

/// Parts one behind another, each once.
#[derive(Default)]
struct Pool {
    parts: Vec<Part>,
    bytes: Vec<u8>,
    by_sum: HashMap<([u8; 32], u64), u32>,
}

impl Pool {
    fn is_new(&self, frame: &[u8]) -> bool {
        let sum = sha256(frame);
        !self.by_sum.keys().any(|(known, _)| *known == sum)
    }

    /// The part, its place, and whether it was not there yet.
    fn put(&mut self, encoded: usize, frame: Vec<u8>) -> (Part, u32, bool) {
        let part = super::encode::part(encoded, &frame);
        let key = (part.sha256, part.encoded_bytes);
        if let Some(place) = self.by_sum.get(&key) {
            return (part, *place, false);
        }
        let place = self.parts.len() as u32;
        self.by_sum.insert(key, place);
        self.parts.push(part);
        self.bytes.extend(frame);
        (part, place, true)
    }
}
