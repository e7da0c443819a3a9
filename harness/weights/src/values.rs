//! As what the stored values are kept: f32 as they are, or narrower and rounded. Zeros stay zeros in every one.

use crate::{
    Channels, Index, Sparse, WeightsError,
    bytes::{Planes, Reader, Streams},
    half::{f16_to_f32, f32_to_f16},
    kmeans::{self, Codebook},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    F32,
    F16,
    /// Symmetric, with one scale for each output channel: the largest magnitude becomes 127.
    Int8,
    /// One byte a value, which names one of at most `size` centroids of k-means; `size` is from 2 to 256. Exact for a tensor with no more different
    /// values than that.
    Codebook {
        size: u16,
    },
}

impl Values {
    /// Bytes with `stored` values; the codebook at its largest. `None` beyond u64.
    pub(crate) fn bytes(self, channels: u64, stored: u64) -> Option<u64> {
        let (width, table) = match self {
            Values::F32 => (4, 0),
            Values::F16 => (2, 0),
            Values::Int8 => (1, channels.checked_mul(4)?),
            Values::Codebook { size } => (1, 2 + 4 * u64::from(size)),
        };
        stored.checked_mul(width)?.checked_add(table)
    }

    pub(crate) fn write(self, sparse: &Sparse, out: &mut Streams) -> Result<(), WeightsError> {
        let values = &sparse.values;
        match self {
            Values::F32 => out.put_planes(values.iter().map(|value| value.to_le_bytes())),
            Values::F16 => {
                self.check_finite(values)?;
                out.put_planes(values.iter().map(|value| f32_to_f16(*value).to_le_bytes()));
            }
            Values::Int8 => {
                self.check_finite(values)?;
                let scales = int8_scales(sparse);
                out.put_planes(scales.iter().map(|scale| scale.to_le_bytes()));
                let mut codes = vec![0; values.len()];
                sparse.index.for_each(sparse.rows, sparse.columns, |place, row, column| {
                    let scale = scales[channel(sparse.channels, row, column)];
                    codes[place] = int8_value(values[place], scale) as u8;
                });
                out.put(codes);
            }
            Values::Codebook { size } => {
                if kmeans::different(values, size.into()).is_none() {
                    self.check_finite(values)?;
                }
                let codebook = Codebook::of(values, size.into());
                out.put((codebook.centroids.len() as u16).to_le_bytes());
                out.put_planes(codebook.centroids.iter().map(|centroid| centroid.to_le_bytes()));
                out.put(values.iter().map(|value| codebook.code(*value)));
            }
        }
        Ok(())
    }

    fn check_finite(self, values: &[f32]) -> Result<(), WeightsError> {
        let (form, most) = match self {
            Values::F32 => return Ok(()),
            // The next one rounds to infinity.
            Values::F16 => ("f16", 65520.0f32.next_down()),
            Values::Int8 => ("int8", f32::MAX),
            Values::Codebook { .. } => ("a codebook", f32::MAX),
        };
        // A NaN is not below anything.
        match values.iter().position(|value| !matches!(value.abs().partial_cmp(&most), Some(order) if order.is_le())) {
            Some(index) => Err(WeightsError::Unfit { index, value: values[index], form }),
            None => Ok(()),
        }
    }

    pub(crate) fn read(
        self,
        (rows, columns): (usize, usize),
        channels: Channels,
        index: &Index,
        reader: &mut Reader,
    ) -> Result<Vec<f32>, String> {
        let stored = index.stored(rows, columns);
        let f32s = |planes: Planes<4>| -> Vec<f32> { planes.iter().map(f32::from_le_bytes).collect() };
        match self {
            Values::F32 => Ok(f32s(reader.planes(stored)?)),
            Values::F16 => {
                Ok(reader.planes(stored)?.iter().map(|bytes| f16_to_f32(u16::from_le_bytes(bytes))).collect())
            }
            Values::Int8 => {
                let scales = f32s(reader.planes(match channels {
                    Channels::Rows => rows,
                    Channels::Columns => columns,
                })?);
                let codes = reader.take(stored)?;
                let mut values = vec![0.0; stored];
                index.for_each(rows, columns, |place, row, column| {
                    // Not `0 * scale`, which is -0.0 or NaN with a stranger's scale.
                    let code = codes[place] as i8;
                    values[place] =
                        if code == 0 { 0.0 } else { f32::from(code) * scales[channel(channels, row, column)] };
                });
                Ok(values)
            }
            Values::Codebook { size } => {
                let entries = reader.u16()?;
                if entries > size {
                    return Err(format!("its codebook has {entries} entries, more than {size}"));
                }
                let codebook = f32s(reader.planes(entries.into())?);
                let codes = reader.take(stored)?;
                let value = |code: &u8| codebook.get(usize::from(*code)).copied();
                codes.iter().map(value).collect::<Option<_>>().ok_or_else(|| "a value is not in its codebook".into())
            }
        }
    }
}

fn channel(channels: Channels, row: usize, column: usize) -> usize {
    match channels {
        Channels::Rows => row,
        Channels::Columns => column,
    }
}

/// One scale for each output channel; 0 for a channel of zeros.
pub fn int8_scales(sparse: &Sparse) -> Vec<f32> {
    let count = match sparse.channels {
        Channels::Rows => sparse.rows,
        Channels::Columns => sparse.columns,
    };
    let mut largest = vec![0.0f32; count];
    sparse.index.for_each(sparse.rows, sparse.columns, |place, row, column| {
        let largest = &mut largest[channel(sparse.channels, row, column)];
        *largest = largest.max(sparse.values[place].abs());
    });
    largest.iter().map(|largest| largest / 127.0).collect()
}

/// The integer a value becomes; it stands for that many times the scale.
pub fn int8_value(value: f32, scale: f32) -> i8 {
    // A scale too small for f32 is 0: so are the weights, as far as 8 bits tell.
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8 }
}
