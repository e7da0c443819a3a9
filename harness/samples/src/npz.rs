//! NumPy's `.npz`: a zip file of `.npy` arrays. Bytes in, arrays out.
//!
//! Read by hand because the crates for it cost more than they save: they build zstd, bzip2 and AES for archives that
//! NumPy never writes, and trust a header's shape before they know how many bytes follow. Here nothing is allocated
//! that the file does not hold. Formats: PKWARE's APPNOTE 6.3 (4.3.7, 4.3.12, 4.3.16) and NumPy's `numpy.lib.format`.

use std::io::Read;

use flate2::{Crc, read::DeflateDecoder};

/// All arrays of a file together, uncompressed, in bytes. A zip of a few kilobytes can unpack to terabytes.
const MAX_BYTES: u64 = 2 << 30;

/// One array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<u64>,
    /// Little-endian values.
    pub bytes: Vec<u8>,
}

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DType {
    pub class: DTypeClass,
    /// Bytes an element.
    pub size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DTypeClass {
    Bool,
    Int,
    Uint,
    Float,
}

/// As NumPy writes it, e.g. `float32`.
impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = self.size * 8;
        match self.class {
            DTypeClass::Bool => write!(f, "bool"),
            DTypeClass::Int => write!(f, "int{bits}"),
            DTypeClass::Uint => write!(f, "uint{bits}"),
            DTypeClass::Float => write!(f, "float{bits}"),
        }
    }
}

/// # Errors
/// A sentence fragment that names the array at fault, where there is one.
pub fn read(file: &[u8]) -> Result<Vec<Array>, String> {
    let mut arrays: Vec<Array> = Vec::new();
    let mut left = MAX_BYTES;
    for entry in entries(file)? {
        let Some(name) = entry.name.strip_suffix(".npy") else {
            continue;
        };
        if arrays.iter().any(|array| array.name == name) {
            return Err(format!("it has two arrays `{name}`"));
        }
        let bytes = entry.unpack(file, left).map_err(|why| format!("array `{name}` {why}"))?;
        left -= bytes.len() as u64;
        arrays.push(parse_npy(name, &bytes).map_err(|why| format!("array `{name}` {why}"))?);
    }
    Ok(arrays)
}

/// One line of a zip file's directory.
struct Entry {
    name: String,
    encrypted: bool,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    /// Of its local header, from the start of the file.
    offset: u64,
}

const NOT_NPZ: &str = "it is no `.npz` file, or was cut off: it has no zip directory at its end";

/// The entries by the directory at the end of the file.
fn entries(file: &[u8]) -> Result<Vec<Entry>, String> {
    // The end record is 22 bytes and a comment of at most 65535.
    let earliest = file.len().saturating_sub(22 + 65_535);
    let end = (earliest..file.len().saturating_sub(21)).rev().find(|at| file[*at..].starts_with(b"PK\x05\x06"));
    let end = Fields(&file[end.ok_or(NOT_NPZ)?..]);
    let (count, start) = (end.u16(10).ok_or(NOT_NPZ)?, end.u32(16).ok_or(NOT_NPZ)?);
    if start == u32::MAX || count == u16::MAX {
        return Err("it is a zip64 file: more than 4 GiB, or 65534 arrays, is not supported".into());
    }

    let mut entries = Vec::new();
    let mut rest = file.get(start as usize..).ok_or(NOT_NPZ)?;
    for _ in 0..count {
        let damaged = "its zip directory is damaged";
        let line = Fields(rest);
        if !rest.starts_with(b"PK\x01\x02") {
            return Err(damaged.into());
        }
        let len = |at| line.u16(at).map(usize::from);
        let read = || {
            let name = line.0.get(46..46 + len(28)?)?;
            let entry = Entry {
                name: String::from_utf8_lossy(name).into_owned(),
                encrypted: line.u16(8)? & 1 == 1,
                method: line.u16(10)?,
                crc: line.u32(16)?,
                packed: line.u32(20)?.into(),
                unpacked: line.u32(24)?.into(),
                offset: line.u32(42)?.into(),
            };
            Some((entry, line.0.get(46 + len(28)? + len(30)? + len(32)?..)?))
        };
        let (entry, next) = read().ok_or(damaged)?;
        entries.push(entry);
        rest = next;
    }
    Ok(entries)
}

impl Entry {
    /// Its content, checked against size and checksum.
    fn unpack(&self, file: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        if self.unpacked > limit {
            return Err(format!("is too large: arrays may take {} MiB together", MAX_BYTES >> 20));
        }
        if self.encrypted {
            return Err("is encrypted".into());
        }
        let packed = self.packed_bytes(file).ok_or("lies outside the file; was it cut off?")?;
        let mut bytes = Vec::new();
        match self.method {
            0 => bytes.extend_from_slice(packed),
            8 => {
                // One byte more than the directory says is enough to see that it is wrong.
                let mut decoder = DeflateDecoder::new(packed).take(self.unpacked + 1);
                decoder.read_to_end(&mut bytes).map_err(|error| format!("cannot be unpacked: {error}"))?;
            }
            method => return Err(format!("is packed by method {method}; NumPy writes 0 (stored) and 8 (deflate)")),
        }
        let mut crc = Crc::new();
        crc.update(&bytes);
        if bytes.len() as u64 != self.unpacked || crc.sum() != self.crc {
            return Err("is damaged: size or checksum differ".into());
        }
        Ok(bytes)
    }

    fn packed_bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let local = file.get(usize::try_from(self.offset).ok()?..)?;
        let fields = Fields(local);
        if !local.starts_with(b"PK\x03\x04") {
            return None;
        }
        let start = 30 + usize::from(fields.u16(26)?) + usize::from(fields.u16(28)?);
        local.get(start..)?.get(..usize::try_from(self.packed).ok()?)
    }
}

/// Little-endian numbers at fixed places.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }
}

/// One `.npy` file.
///
/// # Errors
/// A sentence fragment that follows the array's name.
pub fn parse_npy(name: &str, file: &[u8]) -> Result<Array, String> {
    let (header, data) = split_header(file).ok_or("has no complete `.npy` header")?;
    let no = |key: &str| format!("has no `{key}` in its header");
    let descr = dict_value(header, "descr").ok_or_else(|| no("descr"))?;
    let (dtype, big_endian) = parse_descr(descr)?;
    let fortran = dict_value(header, "fortran_order").ok_or_else(|| no("fortran_order"))?.starts_with("True");
    let shape = dict_value(header, "shape").and_then(parse_shape).ok_or_else(|| no("shape"))?;

    let expected = shape.iter().try_fold(dtype.size as u64, |product, axis| product.checked_mul(*axis));
    if expected != Some(data.len() as u64) {
        return Err(format!("has {} bytes of values, which its shape {shape:?} of {dtype} does not fit", data.len()));
    }
    let mut bytes = if fortran { row_major(&shape, dtype.size, data) } else { data.to_vec() };
    if big_endian {
        bytes.chunks_exact_mut(dtype.size).for_each(<[u8]>::reverse);
    }
    Ok(Array { name: name.to_owned(), dtype, shape, bytes })
}

/// The dictionary and the values after it.
fn split_header(file: &[u8]) -> Option<(&str, &[u8])> {
    let after = file.strip_prefix(b"\x93NUMPY")?;
    let fields = Fields(after);
    // Two bytes of version, then the length of the dictionary: 16 bits in version 1, 32 after that.
    let (start, len) = match after.first()? {
        1 => (4, usize::from(fields.u16(2)?)),
        2 | 3 => (6, usize::try_from(fields.u32(2)?).ok()?),
        _ => return None,
    };
    let (header, data) = after.get(start..)?.split_at_checked(len)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What follows `'key':` in a dictionary as NumPy prints it. Plain types have keys of the first level only.
fn dict_value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}':"))?;
    Some(header[at + key.len() + 3..].trim_start())
}

/// The type and whether its values are big-endian, of e.g. `'<f4'`.
fn parse_descr(descr: &str) -> Result<(DType, bool), String> {
    let quoted = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(text, _)| text);
    let text = quoted.ok_or("has records for elements; only plain numbers are read")?;
    let unknown = || format!("has elements of type `{}`; only plain numbers are read", text.escape_default());
    let number = text.strip_prefix(['<', '>', '|', '=']).unwrap_or(text);
    let (class, size) = number.split_at_checked(1).ok_or_else(unknown)?;
    let class = match (class, size) {
        ("b", "1") => DTypeClass::Bool,
        ("i", "1" | "2" | "4" | "8") => DTypeClass::Int,
        ("u", "1" | "2" | "4" | "8") => DTypeClass::Uint,
        ("f", "2" | "4" | "8") => DTypeClass::Float,
        ("O", _) => return Err("has Python objects for elements; only plain numbers are read".into()),
        _ => return Err(unknown()),
    };
    let size = size.parse().map_err(|_| unknown())?;
    Ok((DType { class, size }, text.starts_with('>')))
}

/// Of e.g. `(497, 1, 8, 8)`; `()` is a scalar's.
fn parse_shape(text: &str) -> Option<Vec<u64>> {
    let (axes, _) = text.strip_prefix('(')?.split_once(')')?;
    axes.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(|axis| axis.parse().ok()).collect()
}

/// From column-major order, where the first axis runs fastest. `data` holds exactly the elements of `shape`.
fn row_major(shape: &[u64], size: usize, data: &[u8]) -> Vec<u8> {
    let axes: Vec<usize> = shape.iter().map(|axis| *axis as usize).collect();
    let mut strides = vec![size; axes.len()];
    for axis in 1..axes.len() {
        strides[axis] = strides[axis - 1] * axes[axis - 1];
    }
    let mut index = vec![0; axes.len()];
    let mut out = Vec::with_capacity(data.len());
    for _ in 0..data.len() / size {
        let at: usize = index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
        out.extend_from_slice(&data[at..at + size]);
        // Counts on, the last axis fastest.
        for axis in (0..axes.len()).rev() {
            index[axis] += 1;
            if index[axis] < axes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// An uncompressed `.npz` of `(name, header's dictionary, values)`.
    pub(crate) fn npz(arrays: &[(&str, &str, &[u8])]) -> Vec<u8> {
        zip(arrays.iter().map(|(name, dict, values)| (format!("{name}.npy"), npy(dict, values), false)))
    }

    fn npy(dict: &str, values: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((dict.len() as u16).to_le_bytes());
        out.extend(dict.as_bytes());
        out.extend(values);
        out
    }

    fn zip(files: impl Iterator<Item = (String, Vec<u8>, bool)>) -> Vec<u8> {
        let (mut out, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
        for (name, content, deflate) in files {
            let mut crc = Crc::new();
            crc.update(&content);
            let packed = if deflate {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&content).unwrap();
                encoder.finish().unwrap()
            } else {
                content.clone()
            };
            let mut common = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
            for number in [crc.sum(), packed.len() as u32, content.len() as u32, name.len() as u32] {
                common.extend(number.to_le_bytes());
            }
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&common);
            directory.extend([0; 10]);
            directory.extend((out.len() as u32).to_le_bytes());
            directory.extend(name.as_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend(name.as_bytes());
            out.extend(packed);
            count += 1;
        }
        let (start, len) = (out.len() as u32, directory.len() as u32);
        out.extend(directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
        out.extend([len.to_le_bytes(), start.to_le_bytes()].concat());
        out.extend([0; 2]);
        out
    }

    /// Made by NumPy 2.4 (`tests/fixtures/make_npz.py`): each array holds 0 to 23 in row-major order, shape [2, 3, 4],
    /// whatever its type, byte order, memory order and compression.
    #[test]
    fn what_numpy_writes() {
        for file in
            [&include_bytes!("../tests/fixtures/stored.npz")[..], &include_bytes!("../tests/fixtures/deflated.npz")[..]]
        {
            let arrays = read(file).unwrap();
            let names: Vec<&str> = arrays.iter().map(|array| array.name.as_str()).collect();
            assert_eq!(
                names,
                ["f2", "f4", "f8", "f4_big", "f8_columns", "i2_columns_big", "i4", "i8", "u1", "u8", "bool", "scalar"]
            );
            for array in &arrays {
                let expected: Vec<u8> = match array.name.as_str() {
                    "scalar" => 7.0f64.to_le_bytes().to_vec(),
                    "bool" => (0..24).map(|value| u8::from(value != 0)).collect(),
                    // Half precision, written out: 1 is 0x3c00.
                    "f2" => {
                        let half = |value: u16| match value {
                            0 => 0,
                            _ => ((15 + value.ilog2() as u16) << 10) | (value << (10 - value.ilog2()) & 0x3ff),
                        };
                        (0..24).flat_map(|value| half(value).to_le_bytes()).collect()
                    }
                    "f4" | "f4_big" => (0..24).flat_map(|value| (value as f32).to_le_bytes()).collect(),
                    "f8" | "f8_columns" => (0..24).flat_map(|value| f64::from(value).to_le_bytes()).collect(),
                    "i2_columns_big" => (0..24i16).flat_map(i16::to_le_bytes).collect(),
                    "i4" => (0..24i32).flat_map(i32::to_le_bytes).collect(),
                    "i8" | "u8" => (0..24i64).flat_map(i64::to_le_bytes).collect(),
                    _ => (0..24).collect(),
                };
                assert_eq!(array.bytes, expected, "{}", array.name);
                let shape: &[u64] = if array.name == "scalar" { &[] } else { &[2, 3, 4] };
                assert_eq!(array.shape, shape, "{}", array.name);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        #[track_caller]
        fn check(file: &[u8], expected: &str) {
            assert_eq!(read(file).unwrap_err(), expected);
        }
        let one = |dict: &str| npz(&[("x", dict, &[0; 8])]);
        check(b"", NOT_NPZ);
        check(b"not a zip file at all, but long enough to be one", NOT_NPZ);
        check(&one("{}"), "array `x` has no `descr` in its header");
        check(&one("{'descr': '<f4', 'fortran_order': False}"), "array `x` has no `shape` in its header");
        check(
            &one("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
            "array `x` has Python objects for elements; only plain numbers are read",
        );
        check(
            &one("{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}"),
            "array `x` has elements of type `<U2`; only plain numbers are read",
        );
        check(
            &one("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}"),
            "array `x` has records for elements; only plain numbers are read",
        );
        check(
            &one("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"),
            "array `x` has 8 bytes of values, which its shape [3] of float32 does not fit",
        );
        check(
            &one("{'descr': '<f4', 'fortran_order': True, 'shape': (18446744073709551615, 4)}"),
            "array `x` has 8 bytes of values, which its shape [18446744073709551615, 4] of float32 does not fit",
        );
        let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}";
        check(&npz(&[("x", dict, &[0; 8]), ("x", dict, &[0; 8])]), "it has two arrays `x`");
    }

    /// A megabyte of zeros in a kilobyte, whose directory says it is ten bytes: no more than eleven are unpacked.
    #[test]
    fn a_wrong_size_in_the_directory_is_an_error() {
        let mut file = zip([("x.npy".to_owned(), vec![0; 1 << 20], true)].into_iter());
        let directory = file.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        file[directory + 24..directory + 28].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(read(&file).unwrap_err(), "array `x` is damaged: size or checksum differ");
        file[directory + 24..directory + 28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&file).unwrap_err(), "array `x` is too large: arrays may take 2048 MiB together");
    }

    #[test]
    fn a_cut_or_changed_file_is_an_error_not_a_panic() {
        let intact = include_bytes!("../tests/fixtures/deflated.npz");
        let arrays = read(intact).unwrap();
        for len in 0..intact.len() {
            assert!(read(&intact[..len]).is_err(), "{len} bytes");
        }
        for at in 0..intact.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut file = intact.to_vec();
                file[at] ^= change;
                // Times, names and unused fields may change without harm; values may not.
                if let Ok(changed) = read(&file) {
                    for array in &changed {
                        assert!(arrays.iter().any(|original| original.bytes == array.bytes), "byte {at}");
                    }
                }
            }
        }
    }
}
