//! Numbers that look random and are the same on every machine: integers and sums only, no call into the system's mathematics, whose last
//! digits differ.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(u64);

impl Random {
    /// A stream of its own for each name (FNV-1a), so that a tensor keeps its values whatever is added before it.
    pub fn named(name: &str) -> Random {
        Random(
            name.bytes()
                .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Mean 0, deviation 1: the sum of four uniform numbers, which is near enough to a normal one, and quick.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xFFFF).sum();
        // Of each of the four: mean 32767.5, variance 2^32 / 12.
        let deviation = 65536.0 * (4.0f32 / 12.0).sqrt();
        // Half a step aside, so that nothing is exactly 0: that is what removed weights are.
        (sum as f32 - 131_070.5) / deviation
    }

    /// From 0 up to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}
