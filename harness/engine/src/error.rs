//! Errors of running or differentiating a graph. Each message completes "failed to run `FILE`: …".

use espalier_onnx::OnnxError;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Each as `Op (node)`.
    #[error("the engine does not know {}; weight magnitude and random importance work without it", .ops.join(", "))]
    UnknownOps { ops: Vec<String> },
    #[error(
        "`{op}` in node `{node}` has no gradient here; \
         weight magnitude, activation and random importance work without it"
    )]
    NoGradient { node: String, op: String },
    #[error("node `{node}` ({op}): {why}")]
    Node { node: String, op: String, why: String },
    #[error("input `{input}`: {why}")]
    Input { input: String, why: String },
}
