//! Synthetic measurements for the tests: normal values that are the same every time and on every machine.

use statrs::distribution::{ContinuousCDF, Normal};

/// `n` independent values of a standard normal; splitmix64 (Steele, Lea and Flood 2014) gives the uniform ones.
pub fn normal(seed: u64, n: usize) -> Vec<f64> {
    let standard = Normal::standard();
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64
    };
    (0..n).map(|_| standard.inverse_cdf((next() + 0.5) / (1u64 << 53) as f64)).collect()
}

/// An autoregressive series with coefficient `phi` and standard deviation 1.
pub fn chain(seed: u64, n: usize, phi: f64) -> Vec<f64> {
    let fresh = (1.0 - phi * phi).sqrt();
    let mut last = None;
    let step = |noise: f64| {
        let value = last.map_or(noise, |last: f64| phi * last + fresh * noise);
        last = Some(value);
        value
    };
    normal(seed, n).into_iter().map(step).collect()
}
