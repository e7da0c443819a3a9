//! Makes packs. The caller says which spans of the file are weights, and their form or that the smallest form is to be
//! found.

use std::io;

use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{
    Pack, PackedTensor, Section, check_size,
    header::{Header, sha256},
};
use crate::{Channels, Form, Layout, Matrix, Values, WeightsError, bytes::Streams};

/// The levels of zstd that are tried. Bitmaps and codes do not repeat, and a search for repetitions in them costs more
/// than it saves. The quick level, with a hash table of 64 entries, comes within half a per cent of the thorough one,
/// which takes a second for a megabyte or two.
const QUICK: i32 = 1;
const QUICK_HASH_LOG: u32 = 6;
const THOROUGH: i32 = 19;

/// The thorough level is tried for streams of up to this many bytes, and for graphs, which compress well.
const THOROUGH_STREAM: usize = 64 << 10;
const THOROUGH_GRAPH: usize = 16 << 20;

/// Larger streams gain little from a common frame, because each block of a frame has a code of its own.
const TOGETHER_BELOW: usize = 128 << 10;

/// The place in the file of a tensor's f32 values, little-endian and row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: String,
    pub shape: Vec<u64>,
    /// Of the tensor as a matrix.
    pub rows: u64,
    pub channels: Channels,
    /// In bytes from the beginning of the file.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Form(Form),
    /// The smallest layout with these values. For f32 a codebook is tried as well where it is exact.
    Smallest(Values),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub bytes: Vec<u8>,
    /// In the order of the file.
    pub tensors: Vec<PackedTensor>,
}

/// Cuts the tensors out of the file and packs both. The pack is read back and compared before it is returned.
///
/// # Errors
/// Spans that overlap or are outside of the file, values that a form cannot hold (with the tensor's name), or a file
/// with so many zeros that its pack would be refused as a decompression bomb.
pub fn pack(file: &[u8], tensors: &[(Span, Choice)]) -> Result<Packed, WeightsError> {
    let cut = cut(file, tensors)?;
    let header = Header {
        file_bytes: file.len() as u64,
        file_sha256: cut.unpacked_sha256,
        rest: section(cut.rest_bytes as usize, &cut.rest_frame),
        tensors: cut.tensors.iter().map(|(tensor, _)| tensor.clone()).collect(),
    };
    let mut bytes = header.write();
    bytes.extend_from_slice(&cut.rest_frame);
    cut.tensors.iter().for_each(|(_, frame)| bytes.extend_from_slice(frame));
    check_size(bytes.len() as u64, header.file_bytes)?;
    // Boards have another zstd decoder than this encoder's library: the pack is read back with theirs.
    if Pack::open(&bytes)?.unpack()? != cut.unpacked {
        return Err(WeightsError::Malformed { why: "it does not unpack to what was packed; this is a bug".into() });
    }
    Ok(Packed { bytes, tensors: header.tensors })
}

/// A tensor's values in a file.
pub fn values(file: &[u8], tensor: &PackedTensor) -> Vec<f32> {
    let bytes = &file[tensor.offset as usize..][..tensor.dense_bytes() as usize];
    bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

/// A file with its tensors cut out.
pub struct Cut {
    pub rest_bytes: u64,
    pub rest_frame: Vec<u8>,
    /// Each tensor with its frames.
    pub tensors: Vec<(PackedTensor, Vec<u8>)>,
    /// The file that unpacking returns.
    pub unpacked: Vec<u8>,
    pub unpacked_sha256: [u8; 32],
}

/// # Errors
/// Those of [`pack`] but the last.
pub fn cut(file: &[u8], tensors: &[(Span, Choice)]) -> Result<Cut, WeightsError> {
    let mut tensors: Vec<&(Span, Choice)> = tensors.iter().collect();
    tensors.sort_by_key(|(span, _)| span.offset);
    let mut unpacked = file.to_vec();
    let (mut rest, mut rest_at) = (Vec::new(), 0);
    let mut listed = Vec::new();
    for (span, choice) in tensors {
        let (start, end) = place(span, file.len())?;
        let between = file.get(rest_at..start).ok_or_else(|| wrong(span, "overlaps the one before it"))?;
        rest.extend_from_slice(between);
        rest_at = end;

        let values: Vec<f32> = file[start..end].as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let matrix = matrix(span, &values).map_err(WeightsError::of_tensor(&span.name))?;
        let smallest = smallest(&matrix, *choice).map_err(WeightsError::of_tensor(&span.name))?;
        let Encoded { form, bytes, frame } = smallest;
        let back = form.decode(matrix.rows, matrix.columns, matrix.channels, &bytes)?.to_dense();
        for (value, out) in back.iter().zip(unpacked[start..end].as_chunks_mut().0) {
            *out = value.to_le_bytes();
        }
        let tensor = PackedTensor {
            name: span.name.clone(),
            shape: span.shape.clone(),
            rows: span.rows,
            channels: span.channels,
            offset: span.offset,
            form,
            section: section(bytes.len(), &frame),
            base: None,
        };
        listed.push((tensor, frame));
    }
    rest.extend_from_slice(&file[rest_at..]);
    let rest_frame = compress(&rest, THOROUGH_GRAPH);
    let unpacked_sha256 = sha256(&unpacked);
    Ok(Cut { rest_bytes: rest.len() as u64, rest_frame, tensors: listed, unpacked, unpacked_sha256 })
}

/// Bytes of a matrix in a form, before zstd and after it.
///
/// # Errors
/// Values the form cannot hold.
pub fn packed_bytes(matrix: &Matrix, form: Form) -> Result<(u64, u64), WeightsError> {
    let streams = form.streams(matrix)?;
    Ok((streams.bytes.len() as u64, compress_streams(&streams).len() as u64))
}

struct Encoded {
    form: Form,
    bytes: Vec<u8>,
    frame: Vec<u8>,
}

fn smallest(matrix: &Matrix, choice: Choice) -> Result<Encoded, WeightsError> {
    let forms = match choice {
        Choice::Form(form) => vec![form],
        Choice::Smallest(values) => candidates(matrix, values),
    };
    let mut best: Option<Encoded> = None;
    for form in forms {
        let streams = form.streams(matrix)?;
        let frame = compress_streams(&streams);
        if best.as_ref().is_none_or(|best| frame.len() < best.frame.len()) {
            best = Some(Encoded { form, bytes: streams.bytes, frame });
        }
    }
    Ok(best.expect("there is at least one candidate"))
}

/// Forms one of which is the smallest. No others are tried, because zstd's thorough level is slow.
fn candidates(matrix: &Matrix, values: Values) -> Vec<Form> {
    let mut types = vec![values];
    let exact = Values::Codebook { size: 256 };
    if values == Values::F32 && crate::kmeans::distinct(matrix.values, 256).is_some() {
        types.push(exact);
    }
    layouts(matrix)
        .iter()
        .flat_map(|layout| types.iter().map(|values| Form { layout: *layout, values: *values }))
        .collect()
}

/// Layouts one of which is the smallest.
pub fn layouts(matrix: &Matrix) -> Vec<Layout> {
    let zeros = matrix.values.iter().filter(|value| value.to_bits() == 0).count();
    let share = zeros as f64 / matrix.values.len().max(1) as f64;
    let mut layouts = Vec::new();
    if share < 0.2 {
        layouts.push(Layout::Dense);
    }
    if share > 0.01 {
        layouts.push(Layout::Bitmap);
    }
    if share > 0.9 {
        layouts.push(Layout::Csr);
    }
    if share > 0.2 {
        let blocks = [(4, 1), (8, 1), (16, 1), (1, 4), (1, 8), (1, 16)].into_iter();
        let full = |(rows, columns): &(u16, u16)| blocks_are_full(matrix, (*rows).into(), (*columns).into());
        layouts.extend(blocks.filter(full).map(|(rows, columns)| Layout::BlockCsr { rows, columns }));
    }
    layouts
}

/// Whether blocks of this size would store at most a tenth of zeros.
fn blocks_are_full(matrix: &Matrix, height: usize, width: usize) -> bool {
    let (mut stored, mut full) = (0, 0);
    let mut counts = vec![0; matrix.columns.div_ceil(width)];
    for row in 0..matrix.rows {
        let cells = matrix.values[row * matrix.columns..][..matrix.columns].chunks(width);
        for (count, cells) in counts.iter_mut().zip(cells) {
            *count += cells.iter().filter(|value| value.to_bits() != 0).count();
        }
        if row % height == height - 1 || row + 1 == matrix.rows {
            stored += counts.iter().sum::<usize>();
            full += counts.iter().filter(|count| **count > 0).count() * height * width;
            counts.fill(0);
        }
    }
    stored as f64 >= 0.9 * full as f64
}

fn place(span: &Span, file_bytes: usize) -> Result<(usize, usize), WeightsError> {
    let bytes = span.shape.iter().try_fold(4u64, |product, axis| product.checked_mul(*axis)).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| wrong(span, "has no values, or more than can be counted"))?;
    let end = span.offset.checked_add(bytes).filter(|end| *end <= file_bytes as u64);
    let end = end.ok_or_else(|| wrong(span, "is beyond the end of the file"))?;
    if span.shape.len() > u8::MAX.into() {
        return Err(wrong(span, "has more axes than a pack can store"));
    }
    Ok((span.offset as usize, end as usize))
}

fn matrix<'a>(span: &Span, values: &'a [f32]) -> Result<Matrix<'a>, WeightsError> {
    let rows = span.rows as usize;
    let columns = values.len().checked_div(rows).unwrap_or(0);
    Matrix::new(rows, columns, span.channels, values)
}

pub fn section(encoded_bytes: usize, frame: &[u8]) -> Section {
    Section { encoded_bytes: encoded_bytes as u64, packed_bytes: frame.len() as u64, sha256: sha256(frame) }
}

/// Compresses streams into frames. Neighbouring streams share a frame where that is smaller: in a small tensor a frame
/// costs a dozen bytes, while one code for both bitmap and values loses half of what packing gains.
pub fn compress_streams(streams: &Streams) -> Vec<u8> {
    let (mut packed, mut frame) = (Vec::new(), Vec::new());
    // The starts of the current frame and of the next stream.
    let (mut from, mut start) = (0, 0);
    for end in streams.ends.iter().copied() {
        if end == start {
            continue;
        }
        let alone = compress(&streams.bytes[start..end], THOROUGH_STREAM);
        let together = if end - from <= TOGETHER_BELOW {
            compress(&streams.bytes[from..end], THOROUGH_STREAM)
        } else {
            Vec::new()
        };
        if !frame.is_empty() && !together.is_empty() && together.len() <= frame.len() + alone.len() {
            frame = together;
        } else {
            packed.append(&mut frame);
            (frame, from) = (alone, start);
        }
        start = end;
    }
    packed.append(&mut frame);
    packed
}

fn compress(bytes: &[u8], thorough_below: usize) -> Vec<u8> {
    let at = |level, parameters: &[CParameter]| -> io::Result<Vec<u8>> {
        let mut compressor = Compressor::new(level)?;
        parameters.iter().try_for_each(|parameter| compressor.set_parameter(*parameter))?;
        compressor.compress(bytes)
    };
    let refused = "zstd fails only for lack of memory";
    let quick = at(QUICK, &[CParameter::HashLog(QUICK_HASH_LOG)]).expect(refused);
    if bytes.len() > thorough_below {
        return quick;
    }
    let thorough = at(THOROUGH, &[]).expect(refused);
    if thorough.len() < quick.len() { thorough } else { quick }
}

fn wrong(span: &Span, why: &str) -> WeightsError {
    WeightsError::Span { tensor: span.name.clone(), why: why.to_owned() }
}
