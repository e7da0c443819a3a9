//! Quantiles of the type R-8 (Hyndman and Fan 1996, median-unbiased whatever the distribution; statrs uses the same)
//! and their distribution-free intervals. [`quantile_interval`] takes the values for independent, which those of one
//! process are not; [`clustered_quantile`] does not.

use statrs::distribution::{Binomial, DiscreteCDF};

use crate::interval::{Interval, student_t};
use crate::unfit::{Unfit, check};

/// An upper limit of a p90 lies below the p99.
const RARER: f64 = 10.0;

/// The value with a share `q` in [0, 1] of the values below it: linear between order statistics at (n + 1/3) q + 1/3.
///
/// # Errors
/// No value, or one that is not finite.
pub fn quantile_r8(values: &[f64], q: f64) -> Result<f64, Unfit> {
    Ok(quantile_of_sorted(&sorted(values)?, q))
}

/// # Errors
/// No value, or one that is not finite.
pub fn median(values: &[f64]) -> Result<f64, Unfit> {
    quantile_r8(values, 0.5)
}

/// The quantile with limits at the order statistics l = inv(α/2) and u = inv(1 − α/2) + 1 of Bin(n, q), for independent
/// values. `None` where a limit lies beyond the values: an upper one for q = 0.99 needs 368 of them at 95 %.
///
/// # Errors
/// No value, or one that is not finite.
pub fn quantile_interval(values: &[f64], q: f64, confidence: f64) -> Result<Option<Interval>, Unfit> {
    let values = sorted(values)?;
    let n = values.len();
    let Ok(binomial) = Binomial::new(q, n as u64) else { return Ok(None) };
    let tail = (1.0 - confidence) / 2.0;
    let low = smallest(n, |k| binomial.cdf(k as u64) >= tail);
    // The survival function keeps the digits that `cdf >= 1 - tail` would lose.
    let high = smallest(n, |k| binomial.sf(k as u64) <= tail) + 1;
    if low < 1 || high > n {
        return Ok(None);
    }
    let estimate = quantile_of_sorted(&values, q);
    Ok(Some(Interval { estimate, low: values[low - 1], high: values[high - 1], confidence }))
}

/// The quantile of all values together, each stream being one invocation, with limits that allow for streams that
/// differ (Woodruff 1952): the standard error of the share below the estimate comes from its spread between streams,
/// but is no smaller than that of independent values; Student's t with one degree of freedom less than there are
/// streams turns it into shares, and these into order statistics. Shares are bounded on their logits, which stay within
/// 0 and 1 (Korn and Graubard 1998). The interval is `None` with fewer than two streams, where a limit lies beyond the
/// values, and where the upper one would be a value `RARER` times as rare as the quantile itself: that is one of the
/// few slowest values, and says nothing about this quantile.
///
/// # Errors
/// No value, or one that is not finite.
pub fn clustered_quantile<S: AsRef<[f64]>>(
    streams: &[S],
    q: f64,
    confidence: f64,
) -> Result<(f64, Option<Interval>), Unfit> {
    let values = sorted(&streams.iter().flat_map(|stream| stream.as_ref()).copied().collect::<Vec<f64>>())?;
    let estimate = quantile_of_sorted(&values, q);
    let n = values.len() as f64;
    let streams: Vec<&[f64]> = streams.iter().map(AsRef::as_ref).filter(|stream| !stream.is_empty()).collect();
    let k = streams.len() as f64;
    if streams.len() < 2 {
        return Ok((estimate, None));
    }
    let share = values.partition_point(|value| *value <= estimate) as f64 / n;
    let between: f64 = streams
        .iter()
        .map(|stream| {
            let below = stream.iter().filter(|value| **value <= estimate).count() as f64;
            ((below - share * stream.len() as f64) / n).powi(2)
        })
        .sum();
    let error = (between * k / (k - 1.0)).max(q * (1.0 - q) / n).sqrt();
    let (logit, half) = ((q / (1.0 - q)).ln(), student_t(confidence, streams.len() - 1) * error / (q * (1.0 - q)));
    let share_at = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let (least, most) = (share_at(logit - half), share_at(logit + half));
    let (low, high) = ((n * least).floor(), (n * most).ceil() + 1.0);
    let within = |rank: f64| (1.0..=n).contains(&rank);
    let says_something = q <= 0.5 || 1.0 - most >= (1.0 - q) / RARER;
    let interval = (within(low) && within(high) && says_something).then(|| Interval {
        estimate,
        low: values[low as usize - 1],
        high: values[high as usize - 1],
        confidence,
    });
    Ok((estimate, interval))
}

/// The smallest of 0 to `n` that holds, where all above a holding one hold too.
fn smallest(n: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The values in ascending order, to take several quantiles of them.
///
/// # Errors
/// No value, or one that is not finite.
pub fn sorted(values: &[f64]) -> Result<Vec<f64>, Unfit> {
    check(values, 1)?;
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Ok(values)
}

/// As [`quantile_r8`] of values that are in ascending order; there is at least one.
pub fn quantile_of_sorted(values: &[f64], q: f64) -> f64 {
    let n = values.len();
    let h = ((n as f64 + 1.0 / 3.0) * q + 1.0 / 3.0).clamp(1.0, n as f64);
    let below = h.floor();
    let low = values[below as usize - 1];
    let high = values[(below as usize).min(n - 1)];
    low + (h - below) * (high - low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::statistics::{Data, OrderStatistics};

    use super::*;

    fn one_to(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    /// h by hand: (10 + 1/3) · 0.9 + 1/3 = 9.6333.
    #[test]
    fn by_hand() {
        let values = one_to(10);
        assert!((quantile_r8(&values, 0.9).unwrap() - 9.633_333_333_333).abs() < 1e-9);
        assert_eq!(quantile_r8(&values, 0.99).unwrap(), 10.0);
        assert_eq!(median(&values).unwrap(), 5.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert_eq!(median(&[]), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(median(&[1.0, f64::NAN]), Err(Unfit::NotFinite));
    }

    /// Ranks for the median of 100 by `scipy.stats.binom`: 40 and 61. The 95 % limits of a p99 need 368 values.
    #[test]
    fn ranks_are_the_binomial_ones() {
        let ranks =
            |n, q| quantile_interval(&one_to(n), q, 0.95).unwrap().map(|interval| (interval.low, interval.high));
        assert_eq!(ranks(100, 0.5), Some((40.0, 61.0)));
        assert_eq!(ranks(367, 0.99), None);
        assert_eq!(ranks(368, 0.99).map(|(_, high)| high), Some(368.0));
        assert_eq!(ranks(1000, 0.9), Some((881.0, 919.0)));
        assert_eq!(ranks(5, 0.5), None);
    }

    /// The chance that the limits include the true quantile, summed exactly over the binomial distribution.
    #[test]
    fn coverage_is_at_least_what_it_says() {
        for n in [20u32, 57, 100, 400, 1000] {
            for q in [0.5, 0.9, 0.95] {
                let Some(interval) = quantile_interval(&one_to(n), q, 0.95).unwrap() else { continue };
                let binomial = Binomial::new(q, u64::from(n)).unwrap();
                let covered = binomial.cdf(interval.high as u64 - 1) - binomial.cdf(interval.low as u64 - 1);
                assert!((0.95..0.999).contains(&covered), "n {n} q {q}: {covered}");
            }
        }
    }

    #[test]
    fn streams_that_differ_widen_the_interval() {
        let alike: Vec<Vec<f64>> = (0..5).map(|stream| (0..200).map(|i| f64::from(i * 5 + stream)).collect()).collect();
        let apart: Vec<Vec<f64>> =
            (0..5).map(|stream| (0..200).map(|i| f64::from(i + stream * 40)).collect()).collect();
        let width = |streams: &[Vec<f64>]| {
            let (_, interval) = clustered_quantile(streams, 0.5, 0.95).unwrap();
            let interval = interval.unwrap();
            let all = streams.concat();
            let share = |limit: f64| all.iter().filter(|value| **value <= limit).count() as f64 / all.len() as f64;
            share(interval.high) - share(interval.low)
        };
        // Independent values: 2 t √(¼ / n) of all values, t with four degrees of freedom.
        let independent = 2.0 * 2.776 * (0.25f64 / 1000.0).sqrt();
        assert!((width(&alike) - independent).abs() < 0.005, "{}", width(&alike));
        assert!(width(&apart) > 3.0 * independent, "{}", width(&apart));
        assert_eq!(clustered_quantile(&alike[..1], 0.5, 0.95).unwrap().1, None);
        assert_eq!(clustered_quantile::<Vec<f64>>(&[], 0.5, 0.95), Err(Unfit::TooFew { needed: 1, given: 0 }));
    }

    /// One invocation of ten was slow throughout, and a few values of it very slow: the limits of the p90 of all are
    /// not those few values.
    #[test]
    fn an_interval_does_not_reach_the_slowest_values() {
        let mut streams: Vec<Vec<f64>> =
            (0..10).map(|_| (0..60).map(|i| 25.0 + f64::from(i) / 60.0).collect()).collect();
        for value in &mut streams[9][52..] {
            *value = 395.5;
        }
        streams[9][..52].iter_mut().for_each(|value| *value += 1.2);
        let (estimate, interval) = clustered_quantile(&streams, 0.9, 0.95).unwrap();
        let p99 = quantile_r8(&streams.concat(), 0.99).unwrap();
        assert!(estimate < 27.2 && p99 > 300.0, "{estimate} {p99}");
        assert!(interval.is_none_or(|interval| interval.high < p99), "{interval:?}");
    }

    proptest! {
        #[test]
        fn statrs_agrees(values in proptest::collection::vec(-1e9..1e9, 1..200), q in 0.0..=1.0) {
            let expected = Data::new(values.clone()).quantile(q);
            let got = quantile_r8(&values, q).unwrap();
            prop_assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{got} {expected}");
        }

        #[test]
        fn order_does_not_matter_and_scale_carries_over(
            mut values in proptest::collection::vec(1.0..1e9, 2..100), q in 0.0..=1.0, factor in 1e-3f64..1e3,
        ) {
            let plain = quantile_r8(&values, q).unwrap();
            values.reverse();
            prop_assert_eq!(quantile_r8(&values, q).unwrap(), plain);
            let scaled = values.iter().map(|value| value * factor).collect::<Vec<f64>>();
            let scaled = quantile_r8(&scaled, q).unwrap();
            prop_assert!((scaled - plain * factor).abs() <= 1e-9 * plain * factor);
        }

        #[test]
        fn the_interval_holds_the_estimate(
            streams in proptest::collection::vec(proptest::collection::vec(1.0..1e6, 0..60), 0..8), q in 0.01..0.99,
        ) {
            if let Ok((estimate, Some(interval))) = clustered_quantile(&streams, q, 0.95) {
                prop_assert!(interval.low <= estimate && estimate <= interval.high, "{interval:?}");
                let rare = quantile_r8(&streams.concat(), 1.0 - (1.0 - q) / RARER).unwrap();
                let next = streams.concat().into_iter().filter(|value| *value > rare).fold(f64::INFINITY, f64::min);
                prop_assert!(q <= 0.5 || interval.high <= rare.max(next), "{interval:?} {rare}");
            }
        }
    }
}
