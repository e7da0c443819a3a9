//! The header of a pack, read and written: of one file (version 1), or of several that share sections (version 2).

use sha2::{Digest, Sha256};

use super::{MAGIC, MOST_RATIOS, VERSION, VERSION_OF_SEVERAL, check_size};
use crate::{Channels, Form, Layout, Values, WeightsError, bytes::Reader, source::Source};

pub type Sha = [u8; 32];

/// The bytes before the size of the header, and the size itself.
const FIXED: usize = MAGIC.len() + 4 + 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub file_bytes: u64,
    pub file_sha256: Sha,
    /// The file without its weights.
    pub rest: Section,
    /// In the order of the file.
    pub tensors: Vec<PackedTensor>,
}

/// One zstd frame, or several one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// After decompression.
    pub encoded_bytes: u64,
    pub packed_bytes: u64,
    /// Of the packed bytes.
    pub sha256: Sha,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PackedTensor {
    pub name: String,
    pub shape: Vec<u64>,
    /// Of the tensor as a matrix.
    pub rows: u64,
    pub channels: Channels,
    /// In the unpacked file.
    pub offset: u64,
    pub form: Form,
    pub section: Section,
    /// Only the index is stored. The values are those of this tensor of the first file, at the same places.
    pub base: Option<u32>,
}

/// One of several files, and the places of its sections in the list of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// `None` in a pack of one file.
    pub ratio: Option<f64>,
    pub header: Header,
    /// First of the rest, then of the tensors.
    pub places: Vec<u32>,
}

impl PackedTensor {
    /// The number of values. It was checked that they and their bytes can be counted.
    pub fn count(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn columns(&self) -> u64 {
        self.count() / self.rows.max(1)
    }

    /// In the unpacked file.
    pub fn dense_bytes(&self) -> u64 {
        4 * self.count()
    }
}

impl Header {
    #[cfg(feature = "encode")]
    pub fn write(&self) -> Vec<u8> {
        let mut out = begin(VERSION);
        out.extend(self.file_bytes.to_le_bytes());
        out.extend(self.file_sha256);
        write_section(&self.rest, &mut out);
        out.extend((self.tensors.len() as u32).to_le_bytes());
        for tensor in &self.tensors {
            write_tensor(tensor, &mut out);
            write_section(&tensor.section, &mut out);
        }
        sign(out)
    }

    fn check(&self, pack_bytes: u64) -> Result<(), WeightsError> {
        check_size(pack_bytes, self.file_bytes)?;
        let (mut end, mut cut) = (0, 0);
        for tensor in &self.tensors {
            let wrong = |why: &str| WeightsError::Span { tensor: tensor.name.clone(), why: why.to_owned() };
            let bytes = tensor.shape.iter().try_fold(4u64, |product, axis| product.checked_mul(*axis));
            let bytes = bytes.filter(|bytes| *bytes > 0 && *bytes <= self.file_bytes);
            let bytes = bytes.ok_or_else(|| wrong("has a shape that does not fit into the file"))?;
            let count = bytes / 4;
            if tensor.rows == 0 || count % tensor.rows != 0 {
                return Err(wrong("has rows that do not divide its values"));
            }
            let columns = count / tensor.rows;
            if tensor.rows > u32::MAX.into() || columns > u32::MAX.into() {
                return Err(wrong("has more rows or columns than 32 bits count"));
            }
            if tensor.offset < end {
                return Err(wrong("overlaps the one before it"));
            }
            let end_here = tensor.offset.checked_add(bytes).filter(|end| *end <= self.file_bytes);
            end = end_here.ok_or_else(|| wrong("is beyond the end of the file"))?;
            cut += bytes;
            let most = match tensor.base {
                None => tensor.form.most_bytes(tensor.rows, columns, tensor.channels),
                Some(_) => tensor.form.layout.most_index_bytes(tensor.rows, columns),
            };
            if most.is_none_or(|most| tensor.section.encoded_bytes > most) {
                return Err(wrong("claims more bytes than its form can take"));
            }
        }
        // No tensor overlaps another, so that those cut out are not more than the file.
        if self.rest.encoded_bytes != self.file_bytes - cut {
            return Err(WeightsError::Malformed { why: "its sections do not add up to the file".into() });
        }
        Ok(())
    }
}

/// The files of a pack, all of its sections in their order, and where the first section begins. All sizes are checked
/// here: the tensors of a file are within it and do not overlap, and every section takes at most what its form can.
pub fn read(pack: &dyn Source) -> Result<(Vec<Variant>, Vec<Section>, u64), WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { why };
    let start = first(pack, FIXED)?;
    if !start.starts_with(&MAGIC) {
        return Err(WeightsError::NotAPack);
    }
    let mut reader = Reader(&start[MAGIC.len()..]);
    let version = reader.u32().map_err(malformed)?;
    if version != VERSION && version != VERSION_OF_SEVERAL {
        return Err(WeightsError::Version { found: version, known: VERSION_OF_SEVERAL });
    }
    let bytes = reader.u32().map_err(malformed)? as usize;
    let header = first(pack, bytes)?;
    if header.len() != bytes {
        return Err(malformed("it is cut off within its header".into()));
    }
    let split = bytes.checked_sub(32).filter(|end| *end >= FIXED);
    let (signed, sha) = header.split_at(split.ok_or_else(|| malformed("its header is too short".into()))?);
    if sha256(signed) != *sha {
        return Err(WeightsError::Checksum { part: "the header".into() });
    }
    let fields = Reader(&signed[FIXED..]);
    let (variants, sections) =
        if version == VERSION { read_one(fields) } else { read_several(fields) }.map_err(malformed)?;
    for variant in &variants {
        variant.header.check(pack.length())?;
    }
    check_bases(&variants)?;
    Ok((variants, sections, bytes as u64))
}

/// The header of a pack of several files.
#[cfg(feature = "encode")]
pub fn write_several(variants: &[Variant], sections: &[Section]) -> Vec<u8> {
    let mut out = begin(VERSION_OF_SEVERAL);
    out.extend((sections.len() as u32).to_le_bytes());
    sections.iter().for_each(|section| write_section(section, &mut out));
    out.extend((variants.len() as u32).to_le_bytes());
    for Variant { ratio, header, places } in variants {
        out.extend(ratio.unwrap_or(0.0).to_le_bytes());
        out.extend(header.file_bytes.to_le_bytes());
        out.extend(header.file_sha256);
        out.extend((header.tensors.len() as u32).to_le_bytes());
        places.iter().for_each(|place| out.extend(place.to_le_bytes()));
        for tensor in &header.tensors {
            write_tensor(tensor, &mut out);
            out.extend(tensor.base.map_or(0, |base| base + 1).to_le_bytes());
        }
    }
    sign(out)
}

/// The first bytes, with room for the header's length.
#[cfg(feature = "encode")]
fn begin(version: u32) -> Vec<u8> {
    [&MAGIC[..], &version.to_le_bytes(), &[0; 4]].concat()
}

/// Adds the header's length and hash.
#[cfg(feature = "encode")]
fn sign(mut out: Vec<u8>) -> Vec<u8> {
    let bytes = out.len() as u32 + 32;
    out[FIXED - 4..FIXED].copy_from_slice(&bytes.to_le_bytes());
    let sha256 = sha256(&out);
    out.extend(sha256);
    out
}

#[cfg(feature = "encode")]
fn write_tensor(tensor: &PackedTensor, out: &mut Vec<u8>) {
    out.extend((tensor.name.len() as u32).to_le_bytes());
    out.extend(tensor.name.as_bytes());
    out.push(tensor.shape.len() as u8);
    tensor.shape.iter().for_each(|axis| out.extend(axis.to_le_bytes()));
    out.extend(tensor.rows.to_le_bytes());
    out.push(match tensor.channels {
        Channels::Rows => 0,
        Channels::Columns => 1,
    });
    out.extend(tensor.offset.to_le_bytes());
    let (layout, [height, width]) = match tensor.form.layout {
        Layout::Dense => (0, [0, 0]),
        Layout::Csr => (1, [0, 0]),
        Layout::BlockCsr { rows, columns } => (2, [rows, columns]),
        Layout::Bitmap => (3, [0, 0]),
    };
    let (values, size) = match tensor.form.values {
        Values::F32 => (0, 0),
        Values::F16 => (1, 0),
        Values::Int8 => (2, 0),
        Values::Codebook { size } => (3, size),
    };
    out.extend([layout, values]);
    [height, width, size].iter().for_each(|number| out.extend(number.to_le_bytes()));
}

#[cfg(feature = "encode")]
fn write_section(section: &Section, out: &mut Vec<u8>) {
    out.extend(section.encoded_bytes.to_le_bytes());
    out.extend(section.packed_bytes.to_le_bytes());
    out.extend(section.sha256);
}

fn read_section(reader: &mut Reader) -> Result<Section, String> {
    Ok(Section { encoded_bytes: reader.u64()?, packed_bytes: reader.u64()?, sha256: read_sha(reader)? })
}

fn read_sha(reader: &mut Reader) -> Result<Sha, String> {
    Ok(reader.take(32)?.try_into().expect("as many were taken"))
}

fn read_one(mut reader: Reader) -> Result<(Vec<Variant>, Vec<Section>), String> {
    let (file_bytes, file_sha256, rest) = (reader.u64()?, read_sha(&mut reader)?, read_section(&mut reader)?);
    let count = reader.u32()?;
    // Not allocated beforehand, because the count is untrusted input.
    let (mut tensors, mut sections) = (Vec::new(), vec![rest]);
    for _ in 0..count {
        let mut tensor = read_tensor(&mut reader)?;
        tensor.section = read_section(&mut reader)?;
        sections.push(tensor.section);
        tensors.push(tensor);
    }
    reader.end()?;
    let places = (0..sections.len() as u32).collect();
    let header = Header { file_bytes, file_sha256, rest, tensors };
    Ok((vec![Variant { ratio: None, header, places }], sections))
}

fn read_several(mut reader: Reader) -> Result<(Vec<Variant>, Vec<Section>), String> {
    let mut sections = Vec::new();
    for _ in 0..reader.u32()? {
        sections.push(read_section(&mut reader)?);
    }
    let count = reader.u32()?;
    if !(1..=MOST_RATIOS).contains(&count) {
        return Err(format!("it has {count} files, not 1 to {MOST_RATIOS}"));
    }
    let mut variants: Vec<Variant> = Vec::new();
    for _ in 0..count {
        let ratio = f64::from_bits(reader.u64()?);
        let ascends = variants.last().and_then(|last| last.ratio).is_none_or(|last| last < ratio);
        if !(0.0..=1.0).contains(&ratio) || !ascends {
            return Err("its ratios do not ascend from 0 to 1".into());
        }
        let (file_bytes, file_sha256) = (reader.u64()?, read_sha(&mut reader)?);
        let tensors_count = reader.u32()?;
        let mut places = Vec::new();
        for _ in 0..=tensors_count {
            places.push(reader.u32()?);
        }
        let section = |index: usize| -> Result<Section, String> {
            let section = places.get(index).and_then(|place| sections.get(*place as usize));
            section.copied().ok_or_else(|| "a file names a section that does not exist".into())
        };
        let rest = section(0)?;
        let mut tensors = Vec::new();
        for index in 1..=tensors_count as usize {
            let mut tensor = read_tensor(&mut reader)?;
            tensor.base = reader.u32()?.checked_sub(1);
            tensor.section = section(index)?;
            tensors.push(tensor);
        }
        let header = Header { file_bytes, file_sha256, rest, tensors };
        variants.push(Variant { ratio: Some(ratio), header, places });
    }
    reader.end()?;
    Ok((variants, sections))
}

/// Checks that bases are tensors of the same shape with values of their own.
fn check_bases(variants: &[Variant]) -> Result<(), WeightsError> {
    let first = &variants[0].header.tensors;
    for tensor in variants.iter().flat_map(|variant| &variant.header.tensors) {
        let Some(base) = tensor.base else { continue };
        let fits = |base: &&PackedTensor| base.base.is_none() && base.shape == tensor.shape && base.rows == tensor.rows;
        if first.get(base as usize).filter(fits).is_none() {
            let why = "takes its values from a tensor that does not exist".to_owned();
            return Err(WeightsError::Span { tensor: tensor.name.clone(), why });
        }
    }
    Ok(())
}

/// Reads everything but the section, which may be stored elsewhere.
fn read_tensor(reader: &mut Reader) -> Result<PackedTensor, String> {
    let name_bytes = reader.u32()? as usize;
    let name = std::str::from_utf8(reader.take(name_bytes)?).map_err(|_| "a name is not UTF-8")?.to_owned();
    let rank = reader.u8()?;
    let shape = (0..rank).map(|_| reader.u64()).collect::<Result<Vec<u64>, String>>()?;
    let rows = reader.u64()?;
    let channels = match reader.u8()? {
        0 => Channels::Rows,
        1 => Channels::Columns,
        other => return Err(format!("`{name}` has its channels on axis {other}")),
    };
    let offset = reader.u64()?;
    let (layout, values) = (reader.u8()?, reader.u8()?);
    let (height, width, size) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let is_side = |side: u16| (1..=Layout::MAX_BLOCK).contains(&side);
    let layout = match layout {
        0 => Layout::Dense,
        1 => Layout::Csr,
        2 if is_side(height) && is_side(width) => Layout::BlockCsr { rows: height, columns: width },
        3 => Layout::Bitmap,
        _ => return Err(format!("`{name}` is in the unknown layout {layout} ({height} x {width})")),
    };
    let values = match values {
        0 => Values::F32,
        1 => Values::F16,
        2 => Values::Int8,
        3 if (2..=256).contains(&size) => Values::Codebook { size },
        _ => return Err(format!("`{name}` has the unknown type of values {values} ({size})")),
    };
    let form = Form { layout, values };
    let section = Section { encoded_bytes: 0, packed_bytes: 0, sha256: [0; 32] };
    Ok(PackedTensor { name, shape, rows, channels, offset, form, section, base: None })
}

/// The first `bytes` bytes, or fewer if the pack is shorter.
fn first(pack: &dyn Source, bytes: usize) -> Result<Vec<u8>, WeightsError> {
    let there = pack.length().min(bytes as u64) as usize;
    let mut start = vec![0; there];
    pack.read_at(0, &mut start).map_err(unreadable)?;
    Ok(start)
}

pub fn unreadable(error: std::io::Error) -> WeightsError {
    WeightsError::Unreadable { why: error.to_string() }
}

pub fn sha256(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}
