//! The types of stored values: f32, or narrower ones that round. Zero stays zero in all of them.

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
    /// Symmetric, with a scale for each output channel that maps its largest magnitude to 127.
    Int8,
    /// One byte a value: the index of one of at most `size` centroids of k-means, `size` from 2 to 256. Exact for a
    /// tensor with at most `size` distinct values.
    Codebook {
        size: u16,
    },
}

impl Values {
    /// Bytes of `stored` values, with a full codebook. `None` beyond u64.
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
                    let scale = scales[sparse.channels.pick(row, column)];
                    codes[place] = int8_value(values[place], scale) as u8;
                });
                out.put(codes);
            }
            Values::Codebook { size } => {
                if kmeans::distinct(values, size.into()).is_none() {
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
            // 65520 rounds to infinity.
            Values::F16 => ("f16", 65520.0f32.next_down()),
            Values::Int8 => ("int8", f32::MAX),
            Values::Codebook { .. } => ("a codebook", f32::MAX),
        };
        // NaN compares to nothing, so it does not fit.
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
                let scales = f32s(reader.planes(channels.pick(rows, columns))?);
                let codes = reader.take(stored)?;
                let mut values = vec![0.0; stored];
                index.for_each(rows, columns, |place, row, column| {
                    // Not `0 * scale`, which is -0.0 or NaN with an untrusted scale.
                    let code = codes[place] as i8;
                    values[place] = if code == 0 { 0.0 } else { f32::from(code) * scales[channels.pick(row, column)] };
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

/// One scale for each output channel; 0 for a channel of zeros.
pub fn int8_scales(sparse: &Sparse) -> Vec<f32> {
    let mut largest = vec![0.0f32; sparse.channels.pick(sparse.rows, sparse.columns)];
    sparse.index.for_each(sparse.rows, sparse.columns, |place, row, column| {
        let largest = &mut largest[sparse.channels.pick(row, column)];
        *largest = largest.max(sparse.values[place].abs());
    });
    largest.iter().map(|largest| largest / 127.0).collect()
}

/// The integer for a value: the value is about this integer times the scale.
pub fn int8_value(value: f32, scale: f32) -> i8 {
    // A scale that is too small for f32 is 0, and then all weights of the channel are 0.
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8 }
}
