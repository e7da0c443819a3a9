//! The wire format of protocol buffers, as much of it as is needed to find a message's fields and to copy a file
//! without some of its bytes.
//!
//! ONNX files are protocol buffers, and nearly all of their bytes are weights. Without these a graph of a few hundred
//! kilobytes remains that any decoder reads; it lacks only the values of the weights.

use std::{io, ops::Range};

use crate::source::Source;

/// The deepest nesting of messages. Constants of a graph are five deep.
const MOST_DEEP: u32 = 64;
/// The most bytes of a field's number and length.
const HEAD: usize = 20;

/// A field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub number: u64,
    /// The whole field, including its number.
    pub whole: Range<u64>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    /// Four or eight bytes.
    Fixed,
    /// The place in the file of a message, a text or bytes.
    Bytes(Range<u64>),
}

/// The field at `range.start` of a message that ends at `range.end`.
///
/// # Errors
/// A message for bytes that are no field.
pub fn field(file: &dyn Source, range: Range<u64>) -> Result<Field, String> {
    let mut head = [0; HEAD];
    let there = (range.end.saturating_sub(range.start)).min(HEAD as u64) as usize;
    read(file, range.start, &mut head[..there])?;
    let mut left = &head[..there];
    let tag = varint(&mut left)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(&mut left)?),
        1 | 5 => Value::Fixed,
        2 => {
            let length = varint(&mut left)?;
            let start = range.start + (there - left.len()) as u64;
            let end = start.checked_add(length).filter(|end| *end <= range.end);
            Value::Bytes(start..end.ok_or("a field goes on beyond its message")?)
        }
        other => return Err(format!("a field is of the unknown wire type {other}")),
    };
    let end = match &value {
        Value::Bytes(bytes) => bytes.end,
        Value::Number(_) => range.start + (there - left.len()) as u64,
        Value::Fixed => range.start + (there - left.len()) as u64 + if tag & 7 == 1 { 8 } else { 4 },
    };
    if end > range.end {
        return Err("a field goes on beyond its message".into());
    }
    Ok(Field { number: tag >> 3, whole: range.start..end, value })
}

/// A copy of the message in `file` in which each field that is one of `cuts` is empty. Cuts ascend and do not overlap;
/// they are never read.
///
/// # Errors
/// A message for a file that is no message, or cuts that are no fields.
pub fn without(file: &dyn Source, cuts: &[Range<u64>]) -> Result<Vec<u8>, String> {
    message(file, 0..file.length(), cuts, 0)
}

fn message(file: &dyn Source, range: Range<u64>, mut cuts: &[Range<u64>], depth: u32) -> Result<Vec<u8>, String> {
    if depth > MOST_DEEP {
        return Err("messages are nested too deep".into());
    }
    let mut out = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let next = field(file, at..range.end)?;
        at = next.whole.end;
        let inside = cuts.iter().take_while(|cut| cut.start < next.whole.end).count();
        let (here, later) = cuts.split_at(inside);
        cuts = later;
        if here.is_empty() {
            let start = out.len();
            out.resize(start + (next.whole.end - next.whole.start) as usize, 0);
            read(file, next.whole.start, &mut out[start..])?;
            continue;
        }
        let Value::Bytes(bytes) = next.value else { return Err("a weight is inside a number".into()) };
        let inner = if *here == [bytes.clone()] { Vec::new() } else { message(file, bytes.clone(), here, depth + 1)? };
        if here[0].start < bytes.start || here[here.len() - 1].end > bytes.end {
            return Err("a weight is no field of its own".into());
        }
        put_varint(next.number << 3 | 2, &mut out);
        put_varint(inner.len() as u64, &mut out);
        out.extend(inner);
    }
    if cuts.is_empty() { Ok(out) } else { Err("a weight is beyond the end".into()) }
}

fn read(file: &dyn Source, offset: u64, into: &mut [u8]) -> Result<(), String> {
    file.read_at(offset, into).map_err(|error: io::Error| format!("it cannot be read: {error}"))
}

/// Takes a number from the beginning of `left`.
///
/// # Errors
/// A message where there is none.
pub fn varint(left: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = left.split_first().ok_or("it ends within a number")?;
        *left = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number has more than 64 bits".into())
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(number << 3 | 2, &mut out);
        put_varint(content.len() as u64, &mut out);
        out.extend(content);
        out
    }

    /// `weight` twice in a message of a message, and the places.
    fn file(weight: &[u8]) -> (Vec<u8>, Vec<Range<u64>>) {
        let tensor =
            |name: &str| [vec![8, 150, 1, 0x15, 1, 2, 3, 4], bytes(9, weight), bytes(8, name.as_bytes())].concat();
        let graph = [bytes(5, &tensor("a")), bytes(1, b"node"), bytes(5, &tensor("b"))].concat();
        let file = [vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8], bytes(7, &graph), vec![0x70, 3]].concat();
        let mut cuts = Vec::new();
        if !weight.is_empty() {
            let starts = file.windows(weight.len()).enumerate().filter(|(_, window)| *window == weight);
            cuts.extend(starts.map(|(start, _)| start as u64..(start + weight.len()) as u64));
        }
        (file, cuts)
    }

    #[test]
    fn lengths_follow_what_was_cut() {
        for length in [1, 100, 127, 128, 300, 70_000] {
            let (whole, cuts) = file(&vec![0xee; length]);
            assert!(cuts.len() == 2 || length < 2, "{length}");
            if cuts.len() == 2 {
                assert_eq!(without(&&*whole, &cuts).unwrap(), file(&[]).0, "{length}");
            }
            assert_eq!(without(&&*whole, &[]).unwrap(), whole);
        }
    }

    #[test]
    fn what_was_cut_is_not_read() {
        struct Holes<'a>(&'a [u8], Vec<Range<u64>>);
        impl Source for Holes<'_> {
            fn length(&self) -> u64 {
                self.0.len() as u64
            }
            fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
                let end = offset + into.len() as u64;
                // What a head takes may reach into it.
                let deep = |hole: &Range<u64>| offset < hole.end && end > hole.start + HEAD as u64;
                assert!(!self.1.iter().any(deep), "{offset} to {end}");
                self.0.read_at(offset, into)
            }
        }
        let (whole, cuts) = file(&[0xee; 1000]);
        let holes = Holes(&whole, cuts.clone());
        assert_eq!(without(&holes, &cuts).unwrap(), file(&[]).0);
    }

    #[test]
    fn nonsense_is_an_error() {
        let (whole, cuts) = file(&[0xee; 50]);
        // All but the last field is a message too.
        for end in (0..whole.len()).filter(|end| *end != whole.len() - 2) {
            assert!(without(&&whole[..end], &cuts).is_err(), "{end}");
        }
        for shift in 1..8 {
            let moved: Vec<Range<u64>> = cuts.iter().map(|cut| cut.start + shift..cut.end + shift).collect();
            assert!(without(&&*whole, &moved).is_err(), "{shift}");
        }
        let deep = (0..200).fold(vec![0xee; 4], |inner, _| bytes(1, &inner));
        let end = deep.len() as u64;
        assert!(without(&&*deep, std::slice::from_ref(&(end - 4..end))).is_err());
    }
}
