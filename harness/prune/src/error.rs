//! Errors of a model or a recipe. Each message completes "failed to prune `FILE`: …".

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
    #[error("threshold {threshold} is not in [0, 1]: what is less important than that part of the most important goes")]
    Threshold { threshold: f64 },
    #[error(
        "with the unit {keep}:{of} {keep} of each {of} weights stay, so the ratio is {only} or 0, and there is no \
         threshold"
    )]
    NOfM { keep: u32, of: u32, only: f64 },
    #[error(
        "the importance of tensor `{tensor}` at flat index {index} is not a number; are there infinities in the \
         weights or the samples?"
    )]
    NotAScore { tensor: String, index: u64 },
    /// Scores, masks or values that belong to another model.
    #[error("{what} do not fit the model: {why}")]
    Mismatch { what: &'static str, why: String },
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
