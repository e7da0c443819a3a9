//! ONNX files: bytes in, typed messages out, and back; values of constant tensors; models on disk.
//!
//! Decoding copies no weights: every `raw_data` is a slice of the file it came from, so that a pruned file can be a
//! patched copy of the dense one (see [`Model::offset`]). What a file may cost in memory is bounded before it is
//! decoded, in `budget`. Only [`mod@file`] touches the disk.

pub mod file;
pub mod random;
pub mod runnable;
pub mod tensor;

mod budget;
mod error;
mod generated;
mod graph;
mod model;
mod node;

pub use bytes::Bytes;
pub use error::OnnxError;
pub use generated::*;
pub use graph::Axis;
pub use model::Model;
pub use node::axis_of;
