//! Scores drawn from a seed: the baseline that every other method has to beat. The generator is our own, so that a seed
//! always means the same weights.

use crate::{
    onnx::random::{SplitMix64, unit},
    prunable::Survey,
};

/// Uniform in [0, 1) with 24 bits. Each depends only on the seed and the weight's place in the whole model.
pub fn scores(survey: &Survey, tensor: usize, seed: u64) -> Vec<f32> {
    let first: u64 = survey.weights[..tensor].iter().map(|weight| weight.count).sum();
    (0..survey.weights[tensor].count).map(|index| unit(SplitMix64::at(seed, first + index))).collect()
}
