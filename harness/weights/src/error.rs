//! Errors of weights, of forms and of packs. Each message completes "failed to pack (or unpack) `FILE`: …".
//!
//! Written by hand: a derive would bring proc-macro crates into the runner, whose features make cargo compile tract
//! again for every target.

use std::{error::Error, fmt};

use crate::Form;

#[derive(Clone, Debug, PartialEq)]
pub enum WeightsError {
    Shape {
        rows: usize,
        columns: usize,
        values: usize,
    },
    Unfit {
        index: usize,
        value: f32,
        form: &'static str,
    },
    TooManyValues,
    NoForm {
        text: String,
        why: String,
    },
    /// Bytes that are no tensor in this form.
    Damaged {
        form: Form,
        why: String,
    },
    Tensor {
        tensor: String,
        source: Box<WeightsError>,
    },
    Span {
        tensor: String,
        why: String,
    },

    /// The file itself cannot be read.
    Unreadable {
        why: String,
    },
    NotAPack,
    Version {
        found: u32,
        known: u32,
    },
    Malformed {
        why: String,
    },
    Checksum {
        part: String,
    },
    Bomb {
        pack: u64,
        file: u64,
        limit: u64,
    },
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightsError::Shape { rows, columns, values } => {
                write!(f, "{values} values are no {rows} x {columns} matrix")
            }
            WeightsError::Unfit { index, value, form } => {
                write!(f, "value {index} is {value}, which {form} cannot hold; f32 can")
            }
            WeightsError::TooManyValues => {
                write!(f, "it has more values than 32-bit indices reach; dense and bitmap have no such limit")
            }
            WeightsError::NoForm { text, why } => write!(f, "`{text}` is no form of weights: {why}"),
            WeightsError::Damaged { form, why } => write!(f, "the bytes are not weights as {form}: {why}"),
            WeightsError::Tensor { tensor, source } => write!(f, "tensor `{tensor}`: {source}"),
            WeightsError::Span { tensor, why } => write!(f, "tensor `{tensor}` {why}"),
            WeightsError::Unreadable { why } => write!(f, "it cannot be read: {why}"),
            WeightsError::NotAPack => write!(f, "it is not a packed model"),
            WeightsError::Version { found, known } => write!(
                f,
                "it is a pack of version {found}, this program reads version {known}; pack the model again, or use a \
                 newer program"
            ),
            WeightsError::Malformed { why } => write!(f, "the pack is damaged: {why}"),
            WeightsError::Checksum { part } => write!(f, "the pack is damaged: the checksum of {part} is wrong"),
            WeightsError::Bomb { pack, file, limit } => write!(
                f,
                "the pack of {pack} bytes claims to hold a file of {file} bytes, more than the {limit} that are \
                 believed of one of its size"
            ),
        }
    }
}

impl Error for WeightsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            WeightsError::Tensor { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl WeightsError {
    pub(crate) fn of_tensor(tensor: &str) -> impl Fn(WeightsError) -> WeightsError + '_ {
        |source| WeightsError::Tensor { tensor: tensor.to_owned(), source: Box::new(source) }
    }
}
