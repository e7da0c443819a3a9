//! The values of a constant tensor, stored as raw little-endian bytes or as a list of floats.

use crate::{
    OnnxError, TensorProto,
    tensor_proto::{DataLocation, DataType},
};

/// The f32 values of a tensor, in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    Raw(&'a [[u8; 4]]),
    Floats(&'a [f32]),
}

impl<'a> Values<'a> {
    /// `tensor` must be of type f32; `name` is its name in the graph (the tensor of a `Constant` node often has none of
    /// its own).
    ///
    /// # Errors
    /// [`OnnxError::ExternalData`], and [`OnnxError::BadTensor`] where the values do not fit the shape.
    pub fn of(name: &str, tensor: &'a TensorProto) -> Result<Values<'a>, OnnxError> {
        let bad = |why: String| OnnxError::BadTensor { tensor: name.to_owned(), why };
        if let Some(location) = external_location(tensor) {
            return Err(OnnxError::ExternalData { tensor: name.to_owned(), location: location.to_owned() });
        }
        if tensor.segment.is_some() {
            return Err(bad("is stored in segments, which is not supported".into()));
        }
        let expected = element_count(name, tensor)?;
        let values = match &tensor.raw_data {
            Some(raw) if !raw.is_empty() => {
                let (values, rest) = raw.as_chunks();
                if !rest.is_empty() {
                    return Err(bad(format!("has {} bytes of f32 values, which are 4 bytes each", raw.len())));
                }
                Values::Raw(values)
            }
            _ => Values::Floats(&tensor.float_data),
        };
        if values.len() as u64 != expected {
            return Err(bad(format!(
                "has {} values, its shape {:?} wants {expected}; was the file cut off?",
                values.len(),
                tensor.dims
            )));
        }
        Ok(values)
    }

    pub fn len(self) -> usize {
        match self {
            Values::Raw(values) => values.len(),
            Values::Floats(values) => values.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with each value in order. Unlike an iterator it checks the kind of storage only once.
    pub fn for_each(self, mut f: impl FnMut(f32)) {
        match self {
            Values::Raw(values) => values.iter().for_each(|value| f(f32::from_le_bytes(*value))),
            Values::Floats(values) => values.iter().for_each(|value| f(*value)),
        }
    }

    pub fn zeros(self) -> u64 {
        let mut zeros = 0;
        self.for_each(|value| zeros += u64::from(value == 0.0));
        zeros
    }
}

/// The number of elements of a tensor's shape; 1 for a scalar.
///
/// # Errors
/// [`OnnxError::BadTensor`] for a negative axis or a product beyond u64.
pub fn element_count(name: &str, tensor: &TensorProto) -> Result<u64, OnnxError> {
    tensor.dims.iter().try_fold(1u64, |product, axis| product.checked_mul(u64::try_from(*axis).ok()?)).ok_or_else(
        || OnnxError::BadTensor { tensor: name.to_owned(), why: format!("has the impossible shape {:?}", tensor.dims) },
    )
}

/// The file that a tensor's values are in, if not in the model itself.
pub fn external_location(tensor: &TensorProto) -> Option<&str> {
    if tensor.data_location() != DataLocation::External {
        return None;
    }
    let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
    Some(location.map_or("", |entry| entry.value()))
}

/// The element type as NumPy calls it, e.g. `float32`; `unknown` for what this ONNX version does not know.
pub fn dtype_name(data_type: i32) -> &'static str {
    use DataType as D;
    match DataType::try_from(data_type) {
        Ok(D::Float) => "float32",
        Ok(D::Double) => "float64",
        Ok(D::Float16) => "float16",
        Ok(D::Bfloat16) => "bfloat16",
        Ok(D::Float8e4m3fn | D::Float8e4m3fnuz | D::Float8e5m2 | D::Float8e5m2fnuz | D::Float8e8m0) => "float8",
        Ok(D::Float6e2m3 | D::Float6e3m2) => "float6",
        Ok(D::Float4e2m1) => "float4",
        Ok(D::Int2) => "int2",
        Ok(D::Int4) => "int4",
        Ok(D::Int8) => "int8",
        Ok(D::Int16) => "int16",
        Ok(D::Int32) => "int32",
        Ok(D::Int64) => "int64",
        Ok(D::Uint2) => "uint2",
        Ok(D::Uint4) => "uint4",
        Ok(D::Uint8) => "uint8",
        Ok(D::Uint16) => "uint16",
        Ok(D::Uint32) => "uint32",
        Ok(D::Uint64) => "uint64",
        Ok(D::Bool) => "bool",
        Ok(D::String) => "string",
        Ok(D::Complex64) => "complex64",
        Ok(D::Complex128) => "complex128",
        Ok(D::Undefined) | Err(_) => "unknown",
    }
}

/// Whether numbers of this type may be weights: floats, and the narrow integers of quantised models. Wider integers are
/// shapes and indices.
pub fn may_hold_weights(data_type: i32) -> bool {
    !matches!(
        dtype_name(data_type),
        "int16" | "int32" | "int64" | "uint16" | "uint32" | "uint64" | "bool" | "string" | "unknown"
    )
}
