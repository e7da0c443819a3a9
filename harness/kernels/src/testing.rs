//! Numbers for tests, the same in every run.

use crate::random::XorShift;

pub use crate::random::synthetic;

pub struct Numbers(XorShift);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(XorShift::new(seed))
    }

    /// Between -1 and 1.
    pub fn some(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.0.signed()).collect()
    }

    /// A matrix in which `kept` of 16 blocks of `height` rows are not zero.
    pub fn matrix(&mut self, rows: usize, columns: usize, height: usize, kept: u32) -> Vec<f32> {
        let mut values = self.some(rows * columns);
        for band in 0..rows.div_ceil(height) {
            for column in 0..columns {
                if self.0.unit() * 16.0 >= kept as f32 {
                    (band * height..rows.min((band + 1) * height)).for_each(|row| values[row * columns + column] = 0.0);
                }
            }
        }
        values
    }
}

/// A weight in which a share of the blocks of `height` neighbouring outputs and one input is zero.
pub fn pruned(outputs: usize, inputs: usize, height: usize, zeros: f64, by_output: bool) -> Vec<f32> {
    let mut values = synthetic(outputs * inputs, 21);
    let draws = synthetic(outputs.div_ceil(height) * inputs, 22);
    for output in 0..outputs {
        for input in 0..inputs {
            if f64::from(draws[output / height * inputs + input]) < 2.0 * zeros - 1.0 {
                values[if by_output { output * inputs + input } else { input * outputs + output }] = 0.0;
            }
        }
    }
    values
}

pub fn is_close(found: f32, exact: f64) -> bool {
    (f64::from(found) - exact).abs() <= 1e-4 * exact.abs().max(0.1)
}
