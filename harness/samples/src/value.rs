//! What one file of a list holds.

/// Numbers of one sample, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub shape: Vec<u64>,
    pub values: Vec<f32>,
}
