//! What can be wrong with weights, with a choice of form, or with a pack. Each message completes "failed to pack (or unpack) `FILE`: …".

use crate::Form;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightsError {
    #[error("{values} values are no {rows} x {columns} matrix")]
    Shape { rows: usize, columns: usize, values: usize },
    #[error("value {index} is {value}, which {form} cannot hold; f32 can")]
    Unfit { index: usize, value: f32, form: &'static str },
    #[error("it has more values than 32-bit indices reach; dense and bitmap have no such limit")]
    TooManyValues,
    #[error("`{text}` is no form of weights: {why}")]
    NoForm { text: String, why: String },
    /// Bytes that are no tensor in the form they should be in.
    #[error("the bytes are not weights as {form}: {why}")]
    Damaged { form: Form, why: String },
    #[error("tensor `{tensor}`: {source}")]
    Tensor { tensor: String, source: Box<WeightsError> },
    #[error("tensor `{tensor}` {why}")]
    Span { tensor: String, why: String },

    #[error("it is not a packed model")]
    NotAPack,
    #[error(
        "it is a pack of version {found}, this program reads version {known}; pack the model again, or use a newer program"
    )]
    Version { found: u32, known: u32 },
    #[error("the pack is damaged: {why}")]
    Malformed { why: String },
    #[error("the pack is damaged: the checksum of {part} is wrong")]
    Checksum { part: String },
    #[error(
        "the pack of {pack} bytes claims to hold a file of {file} bytes, more than the {limit} that are believed of one of its size"
    )]
    Bomb { pack: u64, file: u64, limit: u64 },
}

impl WeightsError {
    pub(crate) fn of_tensor(tensor: &str) -> impl Fn(WeightsError) -> WeightsError + '_ {
        |source| WeightsError::Tensor { tensor: tensor.to_owned(), source: Box::new(source) }
    }
}
