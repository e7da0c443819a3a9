//! A layout and a type of values, which together define a tensor's bytes, and their name, e.g. `bitmap-codebook` or
//! `block-csr-4x1-f16`.

use std::{fmt, str::FromStr};

use crate::{
    Channels, Index, Layout, Matrix, Sparse, Values, WeightsError,
    bytes::{Reader, Streams},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub layout: Layout,
    pub values: Values,
}

/// The default number of centroids. With twice as many the pack is about a tenth larger, and the error two thirds.
const CODEBOOK: u16 = 32;

impl Form {
    pub const DENSE: Form = Form { layout: Layout::Dense, values: Values::F32 };

    /// Whether every tensor comes back bit for bit.
    pub fn is_lossless(self) -> bool {
        self.values == Values::F32
    }

    /// # Errors
    /// Values the form cannot hold, or more than it can count.
    pub fn encode(self, matrix: &Matrix) -> Result<Vec<u8>, WeightsError> {
        Ok(self.streams(matrix)?.bytes)
    }

    pub(crate) fn streams(self, matrix: &Matrix) -> Result<Streams, WeightsError> {
        let sparse = Sparse::new(self.layout, matrix)?;
        let mut out = Streams::default();
        sparse.index.write(&mut out);
        self.values.write(&sparse, &mut out)?;
        Ok(out)
    }

    /// # Errors
    /// [`WeightsError::Damaged`] for bytes [`Form::encode`] does not write for a matrix of this shape.
    pub fn decode(self, rows: usize, columns: usize, channels: Channels, bytes: &[u8]) -> Result<Sparse, WeightsError> {
        let mut reader = Reader(bytes);
        let index = self.read_index(rows, columns, &mut reader)?;
        let values =
            self.values.read((rows, columns), channels, &index, &mut reader).map_err(|why| self.damaged(why))?;
        reader.end().map_err(|why| self.damaged(why))?;
        Ok(Sparse { rows, columns, channels, index, values })
    }

    /// The index of a matrix whose values are elsewhere.
    pub(crate) fn decode_index(self, rows: usize, columns: usize, bytes: &[u8]) -> Result<Index, WeightsError> {
        let mut reader = Reader(bytes);
        let index = self.read_index(rows, columns, &mut reader)?;
        reader.end().map_err(|why| self.damaged(why))?;
        Ok(index)
    }

    fn read_index(self, rows: usize, columns: usize, reader: &mut Reader) -> Result<Index, WeightsError> {
        if rows.checked_mul(columns).is_none() {
            return Err(self.damaged(format!("{rows} x {columns} cells are more than memory can hold")));
        }
        Index::read(self.layout, rows, columns, reader).map_err(|why| self.damaged(why))
    }

    fn damaged(self, why: String) -> WeightsError {
        WeightsError::Damaged { form: self, why }
    }

    /// The size in bytes of [`Form::encode`] for a matrix with `stored` stored cells (for blocks, those of whole
    /// blocks). For a codebook it is an upper bound. `None` beyond u64.
    pub fn bytes(self, rows: u64, columns: u64, channels: Channels, stored: u64) -> Option<u64> {
        let index = self.layout.index_bytes(rows, columns, stored)?;
        index.checked_add(self.values.bytes(channels.pick(rows, columns), stored)?)
    }

    /// An upper bound of bytes for any matrix of this shape.
    pub fn most_bytes(self, rows: u64, columns: u64, channels: Channels) -> Option<u64> {
        self.bytes(rows, columns, channels, self.layout.most_stored(rows, columns)?)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.layout, self.values)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Dense => f.write_str("dense"),
            Layout::Csr => f.write_str("csr"),
            Layout::BlockCsr { rows, columns } => write!(f, "block-csr-{rows}x{columns}"),
            Layout::Bitmap => f.write_str("bitmap"),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Values::F32 => f.write_str("f32"),
            Values::F16 => f.write_str("f16"),
            Values::Int8 => f.write_str("int8"),
            Values::Codebook { size: CODEBOOK } => f.write_str("codebook"),
            Values::Codebook { size } => write!(f, "codebook-{size}"),
        }
    }
}

impl FromStr for Form {
    type Err = WeightsError;

    /// A name without values, such as `csr`, means f32.
    fn from_str(text: &str) -> Result<Form, WeightsError> {
        if let Ok(layout) = text.parse() {
            return Ok(Form { layout, values: Values::F32 });
        }
        // Names of layouts and of values may have hyphens.
        let mut splits = text.match_indices('-').map(|(at, _)| (text[..at].parse(), text[at + 1..].parse()));
        let form = splits.find_map(|(layout, values)| Some(Form { layout: layout.ok()?, values: values.ok()? }));
        form.ok_or_else(|| no_form(text, "a form is a layout and a type of values, as `bitmap-codebook` or `csr-f16`"))
    }
}

impl FromStr for Layout {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Layout, WeightsError> {
        match text {
            "dense" => Ok(Layout::Dense),
            "csr" => Ok(Layout::Csr),
            "bitmap" => Ok(Layout::Bitmap),
            _ => {
                let block = text.strip_prefix("block-csr-");
                let block = block.ok_or_else(|| no_form(text, "expected dense, csr, block-csr-4x1 or bitmap"))?;
                let side = |side: &str| {
                    side.parse()
                        .ok()
                        .filter(|side| (1..=Layout::MAX_BLOCK).contains(side))
                        .ok_or_else(|| no_form(text, "a block is rows x columns, as 4x1, each from 1 to 256"))
                };
                let (rows, columns) = block.split_once('x').unwrap_or((block, ""));
                Ok(Layout::BlockCsr { rows: side(rows)?, columns: side(columns)? })
            }
        }
    }
}

impl FromStr for Values {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Values, WeightsError> {
        match text {
            "f32" => Ok(Values::F32),
            "f16" => Ok(Values::F16),
            "int8" => Ok(Values::Int8),
            "codebook" => Ok(Values::Codebook { size: CODEBOOK }),
            _ => {
                let size = text.strip_prefix("codebook-").and_then(|size| size.parse().ok());
                let size = size.filter(|size| (2..=256).contains(size));
                let size =
                    size.ok_or_else(|| no_form(text, "expected f32, f16, int8, codebook or codebook-16 (2 to 256)"))?;
                Ok(Values::Codebook { size })
            }
        }
    }
}

fn no_form(text: &str, why: &str) -> WeightsError {
    WeightsError::NoForm { text: text.to_owned(), why: why.to_owned() }
}
