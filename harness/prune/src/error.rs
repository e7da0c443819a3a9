//! What can be wrong with a model or a recipe. Each message completes "failed to prune `FILE`: …".

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PruneError {
    #[error("it is not an ONNX file: {why}")]
    NotOnnx { why: String },
    /// Decodes, but breaks a rule of ONNX.
    #[error("the model is malformed: {why}")]
    Malformed { why: String },
    #[error("tensor `{tensor}` {why}")]
    BadTensor { tensor: String, why: String },
    #[error(
        "tensor `{tensor}` keeps its values in another file (`{location}`); read the model from its path, not from bytes alone"
    )]
    ExternalData { tensor: String, location: String },
    #[error(
        "tensor `{tensor}` has a NaN at flat index {index}; a weight that is not a number has no importance to rank"
    )]
    NotANumber { tensor: String, index: u64 },
    #[error("ratio {ratio} is not in [0, 1): it is the fraction of weights to remove")]
    Ratio { ratio: f64 },
    #[error("nothing in the model can be pruned: {why}")]
    NothingPrunable { why: String },
}
