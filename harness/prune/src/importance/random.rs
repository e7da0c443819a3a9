//! Scores drawn from a seed: what an informed method has to beat. The generator is our own, so that a seed means the same weights for good.

use crate::prunable::Survey;

/// Uniform in [0, 1) with 24 bits; each depends on the seed and the weight's place in the whole model alone.
pub fn scores(survey: &Survey, tensor: usize, seed: u64) -> Vec<f32> {
    let first: u64 = survey.weights[..tensor].iter().map(|weight| weight.count).sum();
    (0..survey.weights[tensor].count).map(|index| uniform(seed, first + index)).collect()
}

pub fn uniform(seed: u64, index: u64) -> f32 {
    (splitmix(seed, index) >> 40) as f32 / (1 << 24) as f32
}

/// The number at `index` of the SplitMix64 sequence of `seed` (Steele, Lea and Flood, 2014).
pub fn splitmix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(index.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator for seed 1234567.
    #[test]
    fn the_published_sequence() {
        let expected = [6457827717110365317u64, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([0, 1, 2, 3].map(|index| splitmix(1234567, index)), expected);
    }
}
