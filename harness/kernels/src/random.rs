//! Synthetic numbers: for inputs of measurements and of tests, the same in every run.

/// Marsaglia's xorshift64.
pub struct XorShift(u64);

impl XorShift {
    pub fn new(seed: u64) -> XorShift {
        // The golden ratio of 64 bits spreads small seeds; a state of 0 would stay 0.
        XorShift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// In [0, 1), a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// In [-1, 1).
    pub fn signed(&mut self) -> f32 {
        2.0 * self.unit() - 1.0
    }
}

/// `count` numbers in [-1, 1).
pub fn synthetic(count: usize, seed: u64) -> Vec<f32> {
    let mut random = XorShift::new(seed);
    (0..count).map(|_| random.signed()).collect()
}
