//! Makes packs. Which parts of the file are weights is the caller's to say, and in which form they go, or that the smallest is to be found.

use std::io;

use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{
    Pack, PackedTensor, Part,
    header::{Header, sha256},
    most_file_bytes,
};
use crate::{Channels, Form, Layout, Matrix, Values, WeightsError, bytes::Streams};

/// zstd's levels that are tried. Bitmaps and codes have nothing that repeats, and what a search finds in them all the same costs more than it saves: the
/// quick level, with room to remember 64 places, comes within half a per cent of the thorough one, which takes a second for a megabyte or two.
const QUICK: i32 = 1;
const QUICK_HASH_LOG: u32 = 6;
const THOROUGH: i32 = 19;

/// Up to how many bytes of a stream the thorough level is tried, and of the graph, which is text and worth it.
const THOROUGH_STREAM: usize = 64 << 10;
const THOROUGH_GRAPH: usize = 16 << 20;

/// Larger streams hardly gain from a common frame, of whose blocks each has its own code anyway.
const TOGETHER_BELOW: usize = 128 << 10;

/// Where in the file a tensor's f32 values lie, little-endian and row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: String,
    pub shape: Vec<u64>,
    /// Of the matrix it is to be seen as.
    pub rows: u64,
    pub channels: Channels,
    /// In bytes from the beginning of the file.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Form(Form),
    /// Whatever layout is the smallest with these values. With f32 also a codebook, where it is exact: nothing is lost.
    Smallest(Values),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub bytes: Vec<u8>,
    /// In the order of the file.
    pub tensors: Vec<PackedTensor>,
}

/// Cuts the tensors out of the file and packs both. The pack is read again and compared before it is handed out.
///
/// # Errors
/// Spans that overlap or leave the file, values a form cannot hold (the tensor is named), or a file of hardly anything but zeros, whose pack would pass
/// for a trap.
pub fn pack(file: &[u8], tensors: &[(Span, Choice)]) -> Result<Packed, WeightsError> {
    let cut = cut(file, tensors)?;
    let header = Header {
        file_bytes: file.len() as u64,
        file_sha256: cut.unpacked_sha256,
        rest: part(cut.rest_bytes as usize, &cut.rest_frame),
        tensors: cut.tensors.iter().map(|(tensor, _)| tensor.clone()).collect(),
    };
    let mut bytes = header.write();
    bytes.extend_from_slice(&cut.rest_frame);
    cut.tensors.iter().for_each(|(_, frame)| bytes.extend_from_slice(frame));
    if header.file_bytes > most_file_bytes(bytes.len() as u64) {
        let (pack, limit) = (bytes.len() as u64, most_file_bytes(bytes.len() as u64));
        return Err(WeightsError::Bomb { pack, file: header.file_bytes, limit });
    }
    // Two decoders of zstd are involved; what is written is read back with the one the boards have.
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

/// A file in pieces.
pub struct Cut {
    pub rest_bytes: u64,
    pub rest_frame: Vec<u8>,
    /// Each with its frame.
    pub tensors: Vec<(PackedTensor, Vec<u8>)>,
    /// The file that comes back.
    pub unpacked: Vec<u8>,
    pub unpacked_sha256: [u8; 32],
}

/// # Errors
/// Those of [`pack`], but for the last.
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
            part: part(bytes.len(), &frame),
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

/// Forms of which one is the smallest: others are not tried, since zstd at its best takes its time.
fn candidates(matrix: &Matrix, values: Values) -> Vec<Form> {
    let mut kinds = vec![values];
    let exact = Values::Codebook { size: 256 };
    if values == Values::F32 && crate::kmeans::different(matrix.values, 256).is_some() {
        kinds.push(exact);
    }
    layouts(matrix)
        .iter()
        .flat_map(|layout| kinds.iter().map(|values| Form { layout: *layout, values: *values }))
        .collect()
}

/// Layouts of which one is the smallest.
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

/// Whether hardly a zero would be stored along with the rest.
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
    let end = end.ok_or_else(|| wrong(span, "lies beyond the end of the file"))?;
    if span.shape.len() > u8::MAX.into() {
        return Err(wrong(span, "has more axes than a pack can tell"));
    }
    Ok((span.offset as usize, end as usize))
}

fn matrix<'a>(span: &Span, values: &'a [f32]) -> Result<Matrix<'a>, WeightsError> {
    let rows = span.rows as usize;
    let columns = values.len().checked_div(rows).unwrap_or(0);
    Matrix::new(rows, columns, span.channels, values)
}

pub fn part(encoded_bytes: usize, frame: &[u8]) -> Part {
    Part { encoded_bytes: encoded_bytes as u64, packed_bytes: frame.len() as u64, sha256: sha256(frame) }
}

/// One frame for all streams or one for each, or whatever is between: neighbours are put together where that is smaller. In a small tensor a frame more
/// costs a dozen bytes, and one code for bitmap and values together half of what packing gains.
pub fn compress_streams(streams: &Streams) -> Vec<u8> {
    let (mut packed, mut frame) = (Vec::new(), Vec::new());
    // Where the frame under way begins, and where the next stream does.
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
    let refused = "zstd refuses nothing but a lack of memory";
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
