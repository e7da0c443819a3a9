//! Formats for pruned weights: the size of a tensor in each, and a container for a whole model in these formats.
//!
//! ```text
//! f32 matrix ─► layout (which cells are stored) ─► values (as what) ─► bytes      Form = Layout + Values
//! ONNX file + spans of its weights ─► pack (one zstd section a tensor, checksums) ─► ONNX file again
//! ```
//! Pure: bytes in, bytes out. All that this crate knows of ONNX is that it is a protocol buffer. The caller says where
//! in a file the weights are; unpacking puts them back in the same place, or leaves them out for a caller that reads
//! them as they are stored. Decoding takes untrusted input: it never panics, and it allocates no more than sizes that
//! were checked before.

#![warn(clippy::undocumented_unsafe_blocks)]

mod bytes;
mod error;
mod form;
mod half;
mod kmeans;
mod layout;
mod values;

pub mod pack;
pub mod protobuf;
pub mod source;

pub use error::WeightsError;
pub use form::Form;
pub use half::{f16_to_f32, f32_to_f16};
pub use layout::{Columns, Index, Layout, Sparse};
pub use values::{Values, int8_scales, int8_value};

/// Which axis of a matrix has the output channels. int8 has a scale for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channels {
    /// As in Conv and in Gemm with `transB`.
    Rows,
    /// As in MatMul.
    Columns,
}

impl Channels {
    /// The one of the two values that belongs to the output channels.
    pub(crate) fn pick<T>(self, of_rows: T, of_columns: T) -> T {
        match self {
            Channels::Rows => of_rows,
            Channels::Columns => of_columns,
        }
    }
}

/// A tensor as a matrix, row after row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix<'a> {
    pub rows: usize,
    pub columns: usize,
    pub channels: Channels,
    pub values: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// # Errors
    /// [`WeightsError::Shape`] unless there are `rows * columns` values, each of the two at most `u32::MAX`.
    pub fn new(rows: usize, columns: usize, channels: Channels, values: &'a [f32]) -> Result<Matrix<'a>, WeightsError> {
        let fits = rows.checked_mul(columns) == Some(values.len());
        if !fits || u32::try_from(rows).is_err() || u32::try_from(columns).is_err() {
            return Err(WeightsError::Shape { rows, columns, values: values.len() });
        }
        Ok(Matrix { rows, columns, channels, values })
    }
}
