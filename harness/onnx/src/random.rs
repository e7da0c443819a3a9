//! Numbers that look random and are the same on every machine: integers and sums only, no call into the system's
//! mathematics, whose last digits differ. For synthetic weights and samples, and for whatever a seed decides.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// A stream of its own for each name (FNV-1a), so that a tensor keeps its values whatever is added before it.
    pub fn named(name: &str) -> SplitMix64 {
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        SplitMix64(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// The number at `index` (from 0) of the stream of `seed`.
    pub fn at(seed: u64, index: u64) -> u64 {
        SplitMix64(seed.wrapping_add(GAMMA.wrapping_mul(index))).next()
    }

    #[expect(clippy::should_implement_trait, reason = "the stream has no end: an `Option` would say it had")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// Below `end`, which must not be 0. The bias of not rejecting is below `end / 2^64`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Uniform in `[from, to)`, with 24 bits.
    pub fn between(&mut self, from: f32, to: f32) -> f32 {
        from + (to - from) * unit(self.next())
    }

    /// Mean 0, deviation 1: the sum of four uniform numbers, which is near enough to a normal one, and quick.
    pub fn normal(&mut self) -> f32 {
        (self.sum_of_four() - 131_070.0) / DEVIATION
    }

    /// As [`SplitMix64::normal`], half a step aside: never exactly 0, which is what removed weights are.
    pub fn normal_but_zero(&mut self) -> f32 {
        (self.sum_of_four() - 131_070.5) / DEVIATION
    }

    /// Each of the four has mean 32767.5 and variance 2^32 / 12.
    fn sum_of_four(&mut self) -> f32 {
        let bits = self.next();
        (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xffff).sum::<u32>() as f32
    }

    /// The numbers below `len` in random order (Fisher and Yates).
    pub fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// `65536 * sqrt(4 / 12)`.
const DEVIATION: f32 = 37_837.227;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The upper 24 bits as a number in `[0, 1)`.
pub fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u64 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator for seed 1234567.
    #[test]
    fn the_published_sequence() {
        let expected = [6457827717110365317u64, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([0, 1, 2, 3].map(|index| SplitMix64::at(1234567, index)), expected);
        let mut stream = SplitMix64::new(1234567);
        assert_eq!(expected.map(|_| stream.next()), expected);
    }

    #[test]
    fn an_order_has_every_number_once() {
        let mut order = SplitMix64::new(3).order(100);
        assert_ne!(order, SplitMix64::new(4).order(100));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert!(SplitMix64::new(0).order(0).is_empty());
    }
}
