//! Pseudo-random numbers that are the same on every machine: orders of blocks, and simulated boards.

/// xoshiro256++ seeded by splitmix64 (Blackman and Vigna 2021, Steele et al. 2014): small, and good enough for a
/// simulation.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut seed = seed;
        Random { state: std::array::from_fn(|_| splitmix(&mut seed)) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.uniform() * count as f64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// With mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// With mean 0 and SD 1 (Box and Muller 1958). The second value of each pair is dropped, so that a value depends on
    /// its own two draws only.
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// The next number of the sequence that starts at `state`; also a way to make independent seeds of 0, 1, 2…
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers as the generators' authors publish them: splitmix64 from 1234567, xoshiro256++ from the state
    /// 1, 2, 3, 4.
    #[test]
    fn generators_are_the_published_ones() {
        let mut seed = 1_234_567;
        let first: [u64; 3] = std::array::from_fn(|_| splitmix(&mut seed));
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut random = Random { state: [1, 2, 3, 4] };
        let first: [u64; 4] = std::array::from_fn(|_| random.bits());
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn draws_have_their_moments() {
        let mut random = Random::new(7);
        let n = 20_000;
        let moments = |mut draw: Box<dyn FnMut() -> f64 + '_>| {
            let values: Vec<f64> = (0..n).map(|_| draw()).collect();
            (espalier_stats::mean(&values).unwrap(), espalier_stats::sd(&values).unwrap())
        };
        let near = |(mean, sd): (f64, f64), expected: (f64, f64)| {
            assert!((mean - expected.0).abs() < 0.03 && (sd - expected.1).abs() < 0.03, "{mean} {sd}");
        };
        near(moments(Box::new(|| random.normal())), (0.0, 1.0));
        near(moments(Box::new(|| random.exponential())), (1.0, 1.0));
        near(moments(Box::new(|| random.uniform())), (0.5, (1.0f64 / 12.0).sqrt()));
        assert!((0..100).all(|_| random.below(4) < 4));
    }
}
