//! The importance of every single prunable weight, and a mask of removed ones; both by tensor of a
//! [`Survey`](crate::prunable::Survey), in its order, row-major.

/// Importance; never NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores(pub Vec<Vec<f32>>);

/// `true` where a weight is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(pub Vec<Vec<bool>>);

impl Mask {
    /// How many weights are removed.
    pub fn removed(&self) -> u64 {
        self.0.iter().flatten().map(|removed| u64::from(*removed)).sum()
    }
}
