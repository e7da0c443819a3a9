//! Dense arrays in row-major order, shared until one of their owners writes.

use std::sync::Arc;

use espalier_onnx::{OnnxError, TensorProto, tensor, tensor_proto::DataType};
use half::{bf16, f16};

/// `data.len()` is the product of `shape`; a scalar has shape `[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    shape: Vec<usize>,
    data: Arc<Vec<T>>,
}

impl<T: Clone> Array<T> {
    /// # Panics
    /// Where `data` does not fit `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<T>) -> Array<T> {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{} values for shape {shape:?}", data.len());
        Array { shape, data: Arc::new(data) }
    }

    pub fn filled(shape: impl Into<Vec<usize>>, value: T) -> Array<T> {
        let shape = shape.into();
        let len = shape.iter().product();
        Array::new(shape, vec![value; len])
    }

    pub fn scalar(value: T) -> Array<T> {
        Array::new([], vec![value])
    }

    /// With one axis.
    pub fn list(values: &[T]) -> Array<T> {
        Array::new([values.len()], values.to_vec())
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The values to write to; copied first where they are shared.
    pub fn data_mut(&mut self) -> &mut [T] {
        Arc::make_mut(&mut self.data).as_mut_slice()
    }

    pub fn into_data(self) -> Vec<T> {
        Arc::unwrap_or_clone(self.data)
    }

    /// The same values in another shape.
    ///
    /// # Panics
    /// Where the number of elements differs.
    pub fn reshaped(mut self, shape: impl Into<Vec<usize>>) -> Array<T> {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), self.len(), "shape {:?} as {shape:?}", self.shape);
        self.shape = shape;
        self
    }

    pub fn map<U: Clone>(&self, f: impl Fn(&T) -> U) -> Array<U> {
        Array::new(self.shape.clone(), self.data.iter().map(f).collect())
    }
}

impl Array<f32> {
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Array<f32> {
        Array::filled(shape, 0.0)
    }
}

/// A value of a graph. All floats are stored as f32, all integers as i64: kinds matter to the engine, widths do not.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    F32(Array<f32>),
    I64(Array<i64>),
    Bool(Array<bool>),
}

impl Tensor {
    pub fn shape(&self) -> &[usize] {
        match self {
            Tensor::F32(array) => array.shape(),
            Tensor::I64(array) => array.shape(),
            Tensor::Bool(array) => array.shape(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Tensor::F32(_) => "float",
            Tensor::I64(_) => "integer",
            Tensor::Bool(_) => "boolean",
        }
    }

    /// # Errors
    /// A sentence fragment, where it holds something else.
    pub fn f32(&self) -> Result<&Array<f32>, String> {
        match self {
            Tensor::F32(array) => Ok(array),
            other => Err(format!("a float tensor is needed, not {} one", other.with_article())),
        }
    }

    /// # Errors
    /// A sentence fragment, where it holds something else.
    pub fn i64(&self) -> Result<&Array<i64>, String> {
        match self {
            Tensor::I64(array) => Ok(array),
            other => Err(format!("an integer tensor is needed, not {} one", other.with_article())),
        }
    }

    /// # Errors
    /// A sentence fragment, where it holds something else.
    pub fn bool(&self) -> Result<&Array<bool>, String> {
        match self {
            Tensor::Bool(array) => Ok(array),
            other => Err(format!("a boolean tensor is needed, not {} one", other.with_article())),
        }
    }

    fn with_article(&self) -> String {
        format!("{} {}", if matches!(self, Tensor::I64(_)) { "an" } else { "a" }, self.kind())
    }

    /// The values of a constant.
    ///
    /// # Errors
    /// Where values do not fit the shape, are in another file, or are of a type no graph computes with.
    pub fn of(name: &str, proto: &TensorProto) -> Result<Tensor, OnnxError> {
        let count = tensor::element_count(name, proto)? as usize;
        let bad = |why: String| OnnxError::BadTensor { tensor: name.to_owned(), why };
        if let Some(location) = tensor::external_location(proto) {
            return Err(OnnxError::ExternalData { tensor: name.to_owned(), location: location.to_owned() });
        }
        let shape: Vec<usize> = proto.dims.iter().map(|axis| *axis as usize).collect();
        let raw = proto.raw_data.as_deref().filter(|raw| !raw.is_empty());
        // Reads each kind of number, from raw bytes or from its own list.
        macro_rules! values {
            ($type:ty, $list:expr, $from:expr) => {
                match raw {
                    Some(raw) => {
                        let (chunks, rest) = raw.as_chunks::<{ size_of::<$type>() }>();
                        if !rest.is_empty() {
                            return Err(bad(format!("has {} bytes, which is no whole number of values", raw.len())));
                        }
                        chunks.iter().map(|bytes| $from(<$type>::from_le_bytes(*bytes))).collect()
                    }
                    None => $list,
                }
            };
        }
        let ints = || proto.int32_data.iter().map(|value| i64::from(*value)).collect::<Vec<i64>>();
        let halves =
            |widen: fn(u16) -> f32| proto.int32_data.iter().map(|bits| widen(*bits as u16)).collect::<Vec<f32>>();
        let half = |bits| f16::from_bits(bits).to_f32();
        let bfloat = |bits| bf16::from_bits(bits).to_f32();
        let kind = DataType::try_from(proto.data_type()).unwrap_or(DataType::Undefined);
        let value = match kind {
            DataType::Float => Values::Floats(values!(f32, proto.float_data.clone(), |value| value)),
            DataType::Double => Values::Floats(values!(
                f64,
                proto.double_data.iter().map(|value| *value as f32).collect(),
                |value| value as f32
            )),
            DataType::Float16 => Values::Floats(values!(u16, halves(half), half)),
            DataType::Bfloat16 => Values::Floats(values!(u16, halves(bfloat), bfloat)),
            DataType::Int64 => Values::Ints(values!(i64, proto.int64_data.clone(), |value| value)),
            DataType::Int32 => Values::Ints(values!(i32, ints(), i64::from)),
            DataType::Int16 => Values::Ints(values!(i16, ints(), i64::from)),
            DataType::Int8 => Values::Ints(values!(i8, ints(), i64::from)),
            DataType::Uint8 => Values::Ints(values!(u8, ints(), i64::from)),
            DataType::Uint16 => Values::Ints(values!(u16, ints(), i64::from)),
            DataType::Bool => {
                Values::Bools(
                    values!(u8, proto.int32_data.iter().map(|value| *value != 0).collect(), |value| value != 0)
                )
            }
            _ => {
                return Err(bad(format!(
                    "is of type {}, which the engine does not compute with",
                    tensor::dtype_name(proto.data_type())
                )));
            }
        };
        let len = value.len();
        if len != count {
            return Err(bad(format!(
                "has {len} values, its shape {:?} wants {count}; was the file cut off?",
                proto.dims
            )));
        }
        Ok(match value {
            Values::Floats(data) => Tensor::F32(Array::new(shape, data)),
            Values::Ints(data) => Tensor::I64(Array::new(shape, data)),
            Values::Bools(data) => Tensor::Bool(Array::new(shape, data)),
        })
    }
}

enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Bools(Vec<bool>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Floats(data) => data.len(),
            Values::Ints(data) => data.len(),
            Values::Bools(data) => data.len(),
        }
    }
}
