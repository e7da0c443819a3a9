//! What can be wrong with a model or a recipe. Each message completes "failed to prune `FILE`: …".

use espalier_engine::EngineError;
use espalier_onnx::OnnxError;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(
        "tensor `{tensor}` has a NaN at flat index {index}; a weight that is not a number has no importance to rank"
    )]
    NotANumber { tensor: String, index: u64 },
    #[error("ratio {ratio} is not in [0, 1): it is the fraction of weights to remove")]
    Ratio { ratio: f64 },
    #[error("nothing in the model can be pruned: {why}")]
    NothingPrunable { why: String },
    #[error("pruning by {what} is not there yet")]
    NotYet { what: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The samples do not fit the network, or a method's needs.
    #[error("the samples do not do: {why}")]
    Samples { why: String },
}
