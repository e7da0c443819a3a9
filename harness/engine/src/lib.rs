//! Runs ONNX graphs on the host, and differentiates them: reverse mode over the graph's own nodes, in f32.
//!
//! ```text
//! Model ─► Network (values numbered, nodes sorted) ─► run ─► Run (values) ─► backward ─► Gradients
//! ```
//! It serves importance, fine-tuning and shapes. It is not built for speed: inference is measured with the runner.
//! Every operator is one type in [`ops`] with its forward pass and its vector-Jacobian product side by side, and each
//! gradient is checked against finite differences.

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
