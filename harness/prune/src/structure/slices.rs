//! Constants cut along their axes, and the same indices zeroed.

use crate::{
    Bytes, OnnxError, PruneError,
    onnx::{TensorProto, tensor_proto::DataType},
    tensor::{element_count, external_location},
};

/// Keeps the given indices of each given axis, in order.
///
/// # Errors
/// A broken constant, one in another file, or one of a type without whole bytes.
pub fn keep(tensor: &TensorProto, axes: &[(usize, Vec<usize>)]) -> Result<TensorProto, PruneError> {
    let mut shape = shape(tensor)?;
    let (mut bytes, size) = bytes(tensor)?;
    for (axis, kept) in axes {
        let inner = shape[axis + 1..].iter().product::<usize>() * size;
        let outer: usize = shape[..*axis].iter().product();
        let mut cut = Vec::with_capacity(outer * kept.len() * inner);
        for block in 0..outer {
            let start = block * shape[*axis] * inner;
            for index in kept {
                let from = start + index * inner;
                cut.extend_from_slice(&bytes[from..from + inner]);
            }
        }
        bytes = cut.into();
        shape[*axis] = kept.len();
    }
    Ok(TensorProto {
        dims: shape.iter().map(|len| *len as i64).collect(),
        raw_data: Some(bytes),
        float_data: Vec::new(),
        double_data: Vec::new(),
        int32_data: Vec::new(),
        int64_data: Vec::new(),
        ..tensor.clone()
    })
}

/// Zeroes all but the given indices of each given axis.
///
/// # Errors
/// As [`keep`].
pub fn zero(tensor: &TensorProto, axes: &[(usize, Vec<usize>)]) -> Result<TensorProto, PruneError> {
    let shape = shape(tensor)?;
    let (bytes, size) = bytes(tensor)?;
    let mut zeroed = bytes.to_vec();
    for (axis, kept) in axes {
        let inner = shape[axis + 1..].iter().product::<usize>() * size;
        let mut stays = vec![false; shape[*axis]];
        kept.iter().for_each(|index| stays[*index] = true);
        for (index, block) in zeroed.chunks_exact_mut(inner.max(1)).enumerate() {
            if !stays[index % shape[*axis]] {
                block.fill(0);
            }
        }
    }
    Ok(TensorProto { raw_data: Some(zeroed.into()), ..keep(tensor, &[])? })
}

fn shape(tensor: &TensorProto) -> Result<Vec<usize>, PruneError> {
    element_count(tensor.name(), tensor)?;
    Ok(tensor.dims.iter().map(|axis| *axis as usize).collect())
}

/// The values as raw bytes, and how many bytes one takes.
fn bytes(tensor: &TensorProto) -> Result<(Bytes, usize), PruneError> {
    let bad = |why: String| OnnxError::BadTensor { tensor: tensor.name().to_owned(), why };
    if let Some(location) = external_location(tensor) {
        let (tensor, location) = (tensor.name().to_owned(), location.to_owned());
        return Err(OnnxError::ExternalData { tensor, location }.into());
    }
    use DataType as D;
    let size = match DataType::try_from(tensor.data_type()) {
        Ok(D::Bool | D::Int8 | D::Uint8) => 1,
        Ok(D::Float16 | D::Bfloat16 | D::Int16 | D::Uint16) => 2,
        Ok(D::Float | D::Int32) => 4,
        Ok(D::Double | D::Int64) => 8,
        _ => return Err(bad("is of a type that cannot be cut".into()).into()),
    };
    let bytes = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => raw.clone(),
        _ => {
            let narrow = |size: usize| {
                tensor.int32_data.iter().flat_map(move |value| value.to_le_bytes().into_iter().take(size))
            };
            let listed: Vec<u8> = match DataType::try_from(tensor.data_type()) {
                Ok(D::Float) => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Ok(D::Double) => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Ok(D::Int64) => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                _ => narrow(size).collect(),
            };
            listed.into()
        }
    };
    let expected = element_count(tensor.name(), tensor)?.checked_mul(size as u64);
    if expected != Some(bytes.len() as u64) {
        return Err(
            bad(format!("has {} bytes of values, which do not fit its shape {:?}", bytes.len(), tensor.dims)).into()
        );
    }
    Ok((bytes, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_and_what_is_zeroed() {
        let values: Vec<f32> = (0..12).map(|value| value as f32 + 1.0).collect();
        let tensor =
            TensorProto { dims: vec![2, 3, 2], data_type: Some(1), float_data: values, ..TensorProto::default() };
        let floats = |tensor: &TensorProto| -> Vec<f32> {
            tensor.raw_data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let axes = [(1, vec![0, 2]), (2, vec![1])];
        let cut = keep(&tensor, &axes).unwrap();
        assert_eq!((cut.dims.as_slice(), floats(&cut)), ([2, 2, 1].as_slice(), vec![2.0, 6.0, 8.0, 12.0]));
        let zeroed = zero(&tensor, &axes).unwrap();
        assert_eq!(zeroed.dims, [2, 3, 2]);
        assert_eq!(floats(&zeroed), [0.0, 2.0, 0.0, 0.0, 0.0, 6.0, 0.0, 8.0, 0.0, 0.0, 0.0, 12.0]);
    }
}
