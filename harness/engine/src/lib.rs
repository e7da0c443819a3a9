//! Runs ONNX graphs on the host, and differentiates them: reverse mode over the graph's own nodes, in f32.
//!
//! ```text
//! Model ─► Network (values numbered, nodes in order) ─► run ─► Run (values) ─► backward ─► Gradients
//! ```
//! It is for importance, fine-tuning and shapes, not for speed records: inference is measured with the runner. Every operator is one type
//! in [`ops`] with its forward and its vector-Jacobian product side by side, and each is held against finite differences.

pub mod array;
pub mod ops;

mod error;
mod gradients;
mod network;
mod run;

pub use array::{Array, Tensor};
pub use error::EngineError;
pub use gradients::Gradients;
pub use network::{Network, Node, ValueId};
pub use run::{Keep, Observe, Run};
