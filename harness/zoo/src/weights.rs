//! The tensors of a graph as descriptions: values are made while the file is written, so that a network of gigabytes
//! takes no memory.

use std::io::{self, Write};

use espalier_onnx::{TensorProto, tensor_proto::DataType};

use espalier_onnx::random::SplitMix64;

/// An initialiser.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<usize>,
    pub values: Values,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Drawn at random, from the tensor's name.
    Normal {
        mean: f32,
        deviation: f32,
    },
    /// The same, but the values of each output (the first axis) have exactly this mean. The output of a ReLU is never
    /// negative; filters whose sums differ would respond mainly to that, more from layer to layer, until all inputs
    /// look the same.
    Level {
        mean: f32,
        deviation: f32,
    },
    /// The same around 0, for a matrix whose outputs are the second axis.
    LevelColumns {
        deviation: f32,
    },
    Ints(Vec<i64>),
}

/// Values made at a time.
const PIECE: usize = 1 << 14;

impl Tensor {
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_float(&self) -> bool {
        !matches!(self.values, Values::Ints(_))
    }

    /// Of its values.
    pub fn bytes(&self) -> usize {
        self.elements() * if self.is_float() { size_of::<f32>() } else { size_of::<i64>() }
    }

    /// All but the values.
    pub fn header(&self) -> TensorProto {
        let data_type = if self.is_float() { DataType::Float } else { DataType::Int64 };
        TensorProto {
            name: Some(self.name.clone()),
            dims: self.dims.iter().map(|axis| *axis as i64).collect(),
            data_type: Some(data_type as i32),
            ..TensorProto::default()
        }
    }

    /// The values as the file has them: little-endian, one after the other.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut random = SplitMix64::named(&self.name);
        match &self.values {
            Values::Normal { mean, deviation } => {
                let mut left = self.elements();
                while left > 0 {
                    let count = left.min(PIECE);
                    let piece = (0..count).map(|_| mean + deviation * random.normal_but_zero());
                    out.write_all(&piece.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
                    left -= count;
                }
            }
            Values::Level { mean: level, deviation } => {
                let inputs: usize = self.dims[1..].iter().product();
                for _ in 0..self.dims[0] {
                    let row: Vec<f32> = (0..inputs).map(|_| random.normal_but_zero()).collect();
                    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / inputs as f64;
                    let levelled = row.iter().map(|value| level + deviation * (value - mean as f32));
                    out.write_all(&levelled.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
                }
            }
            Values::LevelColumns { deviation } => {
                let columns = self.dims[1];
                let mut values: Vec<f32> = (0..self.elements()).map(|_| random.normal_but_zero()).collect();
                let mut sums = vec![0f64; columns];
                for row in values.chunks(columns) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                for row in values.chunks_mut(columns) {
                    for (value, sum) in row.iter_mut().zip(&sums) {
                        *value = deviation * (*value - (sum / self.dims[0] as f64) as f32);
                    }
                }
                out.write_all(&values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
            }
            Values::Ints(values) => {
                out.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
            }
        }
        Ok(())
    }
}

/// The deviation of weights of which each output has `inputs`: the output has `gain` times the variance of the input.
pub fn deviation(gain: f64, inputs: usize) -> f32 {
    (gain / inputs as f64).sqrt() as f32
}
