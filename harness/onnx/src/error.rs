//! Errors of an ONNX file. Each message completes "failed to read `FILE`: …".

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OnnxError {
    #[error("it is not an ONNX file: {why}")]
    NotOnnx { why: String },
    /// Decodes, but breaks a rule of ONNX.
    #[error("the model is malformed: {why}")]
    Malformed { why: String },
    #[error("tensor `{tensor}` {why}")]
    BadTensor { tensor: String, why: String },
    #[error(
        "tensor `{tensor}` keeps its values in another file (`{location}`); \
         read the model from its path, not from bytes alone"
    )]
    ExternalData { tensor: String, location: String },
}
