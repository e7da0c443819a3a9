//! Does a board run at two speeds? Its times then fall into two groups on the logarithm: two frequencies, two memory
//! layouts, a cache that fits or does not.
//!
//! Any values can be split in two, and the halves of one normal cloud lie 2.65 of their own standard deviations apart.
//! So a split counts only where the gap is several times the spread within the groups, more so with few values.

use statrs::distribution::{Discrete, Hypergeometric};

/// Two groups of values, in the unit of the values; of logarithms, a gap of 0.04 is "four per cent".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct States {
    pub low_mean: f64,
    pub high_mean: f64,
    /// `high_mean` less `low_mean`.
    pub gap: f64,
    /// Half-way between the groups' means: values above it are in the high state.
    pub split: f64,
    /// In (0, 1).
    pub share_high: f64,
}

/// Fewer values than this show no groups.
const FEWEST: usize = 8;

/// The split with the least spread within its groups (2-means; in one dimension the best split is one of the n − 1
/// splits of the sorted values, so all are tried). `None` for one cloud, fewer than 8 values, or non-finite ones.
///
/// A gap of at most (4 + 25 / n) pooled standard deviations within the groups is one cloud. Of 4000 simulated samples
/// of normal values at most 1.5 % were above it with n = 8 to 10, and 0.5 % from n = 12 on; of evenly spread values,
/// which a steady drift gives, at most 3.5 % and 2.5 %. Closer speeds overlap too much.
pub fn two_states(values: &[f64]) -> Option<States> {
    let n = values.len();
    if n < FEWEST || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean = sorted.iter().sum::<f64>() / n as f64;
    // With y the sum of the deviations of the lower k, the spread between the groups is y² n / (k (n − k)). The larger
    // it is, the smaller the spread within.
    let (mut y, mut best) = (0.0, (0.0, 0));
    for (below, value) in sorted[..n - 1].iter().enumerate() {
        y += value - mean;
        let k = below + 1;
        let between = y * y * n as f64 / (k * (n - k)) as f64;
        // Equal values belong to one group.
        if between > best.0 && sorted[k] > *value {
            best = (between, k);
        }
    }
    let (low, high) = sorted.split_at(best.1);
    if low.is_empty() {
        return None;
    }
    let mean_of = |group: &[f64]| group.iter().sum::<f64>() / group.len() as f64;
    let (low_mean, high_mean) = (mean_of(low), mean_of(high));
    let spread = |group: &[f64], mean: f64| group.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let within = ((spread(low, low_mean) + spread(high, high_mean)) / (n - 2) as f64).sqrt();
    let gap = high_mean - low_mean;
    (gap > (4.0 + 25.0 / n as f64) * within).then(|| States {
        low_mean,
        high_mean,
        gap,
        split: low_mean.midpoint(high_mean),
        share_high: high.len() as f64 / n as f64,
    })
}

/// Fisher's exact test, two-sided, of two arms' (low, high) counts: the probability of all tables that are no likelier.
///
/// Summed here because statrs' `fishers_exact` takes the upper tail as 1 − cdf, below zero for (5, 55), (58, 2).
pub fn fisher_exact(base: (u64, u64), candidate: (u64, u64)) -> f64 {
    let (lows, drawn) = (base.0 + candidate.0, base.0 + base.1);
    let population = drawn + candidate.0 + candidate.1;
    // The only error is a sample larger than the population, which counts cannot give.
    let Ok(tables) = Hypergeometric::new(population, lows, drawn) else { return 1.0 };
    // Tables that only rounding makes likelier count as equally likely, as in R.
    let seen = tables.pmf(base.0) * (1.0 + 1e-7);
    let all = (drawn + lows).saturating_sub(population)..=drawn.min(lows);
    all.map(|low| tables.pmf(low)).filter(|chance| *chance <= seen).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::normal;

    /// `n` values of which every `each`-th is `gap` higher, with noise of standard deviation `sd`.
    fn mixture(seed: u64, n: usize, each: usize, gap: f64, sd: f64) -> Vec<f64> {
        let level = |i: usize| if i.is_multiple_of(each) { gap } else { 0.0 };
        normal(seed, n).iter().enumerate().map(|(i, noise)| level(i) + sd * noise).collect()
    }

    #[test]
    fn by_hand() {
        let states = two_states(&[1.0, 2.0, 1.5, 1.5, 21.0, 20.0, 1.0, 2.0, 19.0, 20.0]).unwrap();
        assert_eq!((states.low_mean, states.high_mean, states.gap, states.split), (1.5, 20.0, 18.5, 10.75));
        assert_eq!(states.share_high, 0.4);
        assert_eq!(two_states(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]).map(|states| states.gap), Some(1.0));
        assert_eq!(two_states(&[3.0; 20]), None);
        assert_eq!(two_states(&[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]), None);
        assert_eq!(two_states(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, f64::NAN]), None);
    }

    /// At most 2 % of samples with both sides above a tenth, which is the least callers ask for.
    #[test]
    fn one_cloud_is_one_cloud() {
        for n in [8, 16, 32, 64, 128] {
            let called = (0..200).filter(|seed| two_states(&normal(*seed, n)).is_some()).count();
            assert!(called <= 4, "{called} of 200 with {n} values");
        }
    }

    /// Boards that switch by 6 % around noise of 0.8 %, as seldom as one time in five.
    #[test]
    fn two_speeds_are_found() {
        for (n, each, share) in [(32, 2, 0.5), (64, 3, 22.0 / 64.0), (64, 5, 13.0 / 64.0), (128, 4, 0.25)] {
            for seed in 0..40 {
                let states = two_states(&mixture(seed, n, each, 0.06, 0.008)).unwrap_or_else(|| panic!("{n} {each}"));
                assert!((states.share_high - share).abs() < 0.05, "{n} {each}: {states:?}");
                assert!((states.gap - 0.06).abs() < 0.01, "{n} {each}: {states:?}");
            }
        }
    }

    /// `scipy.stats.fisher_exact`.
    #[test]
    fn fisher_by_scipy() {
        for (base, candidate, expected) in [
            ((3, 5), (4, 50), 0.039_707_492_465_292_8),
            ((10, 6), (2, 14), 0.009_147_039_383_533_8),
            ((0, 16), (16, 0), 3.327_341_955_041_987e-9),
            ((8, 8), (8, 8), 1.0),
            ((1, 31), (14, 18), 0.000_196_235_707_764_8),
            ((20, 108), (55, 73), 2.229_751_805_981_45e-6),
            ((5, 0), (1, 4), 0.047_619_047_619_047_6),
            ((0, 5), (0, 9), 1.0),
            ((0, 0), (4, 9), 1.0),
            ((0, 0), (0, 0), 1.0),
        ] {
            let got = fisher_exact(base, candidate);
            assert!((got - expected).abs() < 1e-8 * expected, "{base:?} {candidate:?}: {got}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_arms_or_states_changes_nothing(a in 0u64..70, b in 0u64..70, c in 0u64..70, d in 0u64..70) {
            let p = fisher_exact((a, b), (c, d));
            prop_assert!(p > 0.0 && p <= 1.0);
            for other in [fisher_exact((c, d), (a, b)), fisher_exact((b, a), (d, c))] {
                prop_assert!((p - other).abs() < 1e-6 * p, "{p} {other}");
            }
        }

        #[test]
        fn offset_and_order_do_not_matter(seed in any::<u64>(), each in 2usize..5, offset in -20.0f64..20.0) {
            let mut values = mixture(seed, 40, each, 0.08, 0.008);
            let plain = two_states(&values).unwrap();
            values.reverse();
            let moved = two_states(&values.iter().map(|value| value + offset).collect::<Vec<f64>>()).unwrap();
            prop_assert!((moved.gap - plain.gap).abs() < 1e-9 && (moved.split - plain.split - offset).abs() < 1e-9);
            prop_assert_eq!(moved.share_high, plain.share_high);
        }
    }
}
