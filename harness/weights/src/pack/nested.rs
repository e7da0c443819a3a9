//! Makes packs of one model at several ratios, which store common data once.
//!
//! After pruning in one step from the same weights, a sparser file has a subset of the values of the densest one: of
//! such a tensor only the places of the values are stored. Where values differ, e.g. after fine-tuning, a tensor is
//! stored with its own values, and counted as such.

use std::collections::HashMap;

use super::{
    Choice, Pack, PackedTensor, Section, Span, check_size,
    encode::{compress_streams, cut, layouts, section, values},
    header::{Header, Variant, sha256, write_several},
};
use crate::{Form, Layout, Matrix, Sparse, Values, WeightsError, bytes::Streams};

/// An input of [`pack_ratios`].
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

/// What a ratio adds to the ratios before it.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRatio {
    pub ratio: f64,
    pub bytes: u64,
    /// Tensors that are equal to those of a denser ratio, bit for bit.
    pub same: usize,
    /// Tensors of which only the places of values are stored.
    pub nested: usize,
    /// Tensors with values of their own.
    pub own: usize,
}

/// Packs files of one model at ascending ratios. Each is read back with the decoder of the boards and compared before
/// the pack is returned.
///
/// # Errors
/// Those of [`super::pack`], ratios that do not ascend, and none or too many of them.
pub fn pack_ratios(files: &[AtRatio]) -> Result<PackedRatios, WeightsError> {
    let malformed = |why: &str| WeightsError::Malformed { why: why.to_owned() };
    let ascend = files.windows(2).all(|pair| pair[0].ratio < pair[1].ratio);
    if files.is_empty() || files.len() > super::MOST_RATIOS as usize || !ascend {
        return Err(malformed("a pack of several ratios needs 1 to 64 of them, each once and ascending"));
    }
    let mut pool = Pool::default();
    let (mut variants, mut ratios): (Vec<Variant>, Vec<PackedRatio>) = (Vec::new(), Vec::new());
    // The first file after unpacking, and its tensors by name.
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
                None => (tensor.section.encoded_bytes as usize, frame),
            };
            let (section, place, is_new) = pool.put(encoded, frame);
            match (is_new, tensor.base) {
                (false, _) => counts.same += 1,
                (true, Some(_)) => counts.nested += 1,
                (true, None) => counts.own += 1,
            }
            tensor.section = section;
            places.push(place);
            if variants.is_empty() {
                bases.insert(tensor.name.clone(), (tensors.len() as u32, tensor.clone()));
            }
            tensors.push(tensor);
        }
        counts.bytes = (pool.bytes.len() - before) as u64;
        ratios.push(counts);
        if variants.is_empty() {
            first = cut.unpacked;
        }
        let header = Header { file_bytes: file.file.len() as u64, file_sha256: cut.unpacked_sha256, rest, tensors };
        variants.push(Variant { ratio: Some(file.ratio), header, places });
    }
    let mut bytes = write_several(&variants, &pool.sections);
    bytes.append(&mut pool.bytes);
    drop(first);
    for (index, variant) in variants.iter().enumerate() {
        check_size(bytes.len() as u64, variant.header.file_bytes)?;
        if sha256(&Pack::open(&bytes)?.at_ratio(index).unpack()?) != variant.header.file_sha256 {
            return Err(malformed("it does not unpack to what was packed; this is a bug"));
        }
    }
    Ok(PackedRatios { bytes, ratios })
}

fn alike(base: &PackedTensor, tensor: &PackedTensor) -> bool {
    base.shape == tensor.shape && base.rows == tensor.rows
}

/// The smallest index that selects `values` from the base's values; `None` if they are no subset.
fn index_only(tensor: &PackedTensor, values: &[f32], base: &[f32]) -> Result<Option<(Form, Streams)>, WeightsError> {
    let (rows, columns) = (tensor.rows as usize, tensor.columns() as usize);
    let matrix = Matrix::new(rows, columns, tensor.channels, values)?;
    let mut best: Option<(usize, Form, Streams)> = None;
    for layout in layouts(&matrix).into_iter().filter(|layout| *layout != Layout::Dense) {
        let sparse = Sparse::new(layout, &matrix)?;
        let mut streams = Streams::default();
        sparse.index.write(&mut streams);
        let gathered = Sparse::gathered(sparse.index, rows, columns, tensor.channels, base);
        // By bits, because zeros have signs.
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

/// Sections one after another, each once.
#[derive(Default)]
struct Pool {
    sections: Vec<Section>,
    bytes: Vec<u8>,
    by_sum: HashMap<([u8; 32], u64), u32>,
}

impl Pool {
    fn is_new(&self, frame: &[u8]) -> bool {
        let sum = sha256(frame);
        !self.by_sum.keys().any(|(known, _)| *known == sum)
    }

    /// Returns the section, its place, and whether it is new.
    fn put(&mut self, encoded: usize, frame: Vec<u8>) -> (Section, u32, bool) {
        let section = section(encoded, &frame);
        let key = (section.sha256, section.encoded_bytes);
        if let Some(place) = self.by_sum.get(&key) {
            return (section, *place, false);
        }
        let place = self.sections.len() as u32;
        self.by_sum.insert(key, place);
        self.sections.push(section);
        self.bytes.extend(frame);
        (section, place, true)
    }
}
