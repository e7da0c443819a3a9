//! Files of prepared inputs for a board: one JSON header line, then the raw little-endian values of each tensor in
//! turn.
//!
//! The host converts a user's file (`.npz`). The runner reads only this format, so it needs no zip, no inflate and no
//! npy parser.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    I64,
}

impl DType {
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::I64 => 8,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorHeader {
    /// The model's input; `x` stands for the first one.
    pub name: String,
    pub dtype: DType,
    /// The first axis counts samples.
    pub shape: Vec<u64>,
}

/// One tensor with its values as raw little-endian bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub header: TensorHeader,
    pub bytes: Vec<u8>,
}

pub fn encode(tensors: &[Tensor]) -> Vec<u8> {
    let headers: Vec<&TensorHeader> = tensors.iter().map(|tensor| &tensor.header).collect();
    let mut out = serde_json::to_vec(&headers).expect("headers of strings and numbers always encode");
    out.push(b'\n');
    for tensor in tensors {
        out.extend_from_slice(&tensor.bytes);
    }
    out
}

/// # Errors
/// A message that says what is wrong with the file. Sizes are checked before anything is allocated.
pub fn decode(file: &[u8]) -> Result<Vec<Tensor>, String> {
    let end = file.iter().position(|byte| *byte == b'\n').ok_or("no header line")?;
    let headers: Vec<TensorHeader> =
        serde_json::from_slice(&file[..end]).map_err(|error| format!("bad header: {error}"))?;
    let mut rest = &file[end + 1..];
    let mut tensors = Vec::new();
    for header in headers {
        let len = byte_len(&header).ok_or_else(|| format!("`{}` has an impossible shape", header.name))?;
        if len > rest.len() {
            return Err(format!("`{}` needs {len} bytes, {} are left", header.name, rest.len()));
        }
        let (bytes, tail) = rest.split_at(len);
        rest = tail;
        tensors.push(Tensor { header, bytes: bytes.to_vec() });
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    Ok(tensors)
}

/// The number of samples that a file's header line may stand for: the first axis of each tensor. Empty where the line
/// is no header.
pub fn sample_counts(header_line: &[u8]) -> Vec<u64> {
    let headers: Vec<TensorHeader> = serde_json::from_slice(header_line).unwrap_or_default();
    headers.iter().filter_map(|header| header.shape.first().copied()).collect()
}

fn byte_len(header: &TensorHeader) -> Option<usize> {
    let count = header.shape.iter().try_fold(1u64, |product, axis| product.checked_mul(*axis))?;
    usize::try_from(count).ok()?.checked_mul(header.dtype.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Tensor> {
        vec![
            Tensor {
                header: TensorHeader { name: "x".into(), dtype: DType::F32, shape: vec![2, 1] },
                bytes: vec![1, 2, 3, 4, 5, 6, 7, 8],
            },
            Tensor {
                header: TensorHeader { name: "ids".into(), dtype: DType::I64, shape: vec![1] },
                bytes: vec![10; 8],
            },
        ]
    }

    #[test]
    fn round_trip() {
        let file = encode(&sample());
        assert_eq!(decode(&file).unwrap(), sample());
        let line = file.split(|byte| *byte == b'\n').next().unwrap();
        assert_eq!((sample_counts(line), sample_counts(b"no header")), (vec![2, 1], vec![]));
    }

    #[test]
    fn a_cut_or_padded_file_is_refused() {
        let whole = encode(&sample());
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len} bytes");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(decode(&longer).unwrap_err().contains("too many"));
    }

    #[test]
    fn an_absurd_shape_is_refused_before_anything_is_allocated() {
        let file = br#"[{"name":"x","dtype":"f32","shape":[18446744073709551615,2]}]"#;
        let mut file = file.to_vec();
        file.push(b'\n');
        assert!(decode(&file).unwrap_err().contains("impossible shape"));
    }
}
