//! When has an invocation warmed up? For calibrating the warm-up and checking each timed part.

use crate::quantile::median;
use crate::trend::{mann_kendall, theil_sen};
use crate::unfit::check;

/// Values in a running median, and batches in a drift test.
const WINDOW: usize = 10;
const BATCHES: usize = 10;
/// The smallest deviation of a running median that counts, as a fraction: one per cent.
const BAND: f64 = 0.01;

/// The first inference from which on the running median of 10 (of the ten that begin there) stays within 1 % of the
/// final median, that of the second half. `times.len()` where it never does, with fewer than 20 values, and with values
/// that are not finite and above zero.
///
/// Where running medians are noisier than that, the band is five of their standard deviations: otherwise a noisy board
/// would seem never to warm up. These come from neighbouring windows of the second half, which a slow drift does not
/// widen (von Neumann's mean square of successive differences).
pub fn steady_from(times: &[f64]) -> usize {
    let never = times.len();
    if check(times, 2 * WINDOW).is_err() || times.iter().any(|time| *time <= 0.0) {
        return never;
    }
    let of = |values: &[f64]| median(values).expect("values are finite and not none");
    let second_half = &times[times.len() / 2..];
    let last = of(second_half);
    let windows: Vec<f64> = second_half.chunks_exact(WINDOW).map(of).collect();
    let steps: Vec<f64> = windows.windows(2).map(|pair| (pair[1] - pair[0]).powi(2) / 2.0).collect();
    // The spread of fewer than four windows is not known.
    let noise = if steps.len() < 3 { 0.0 } else { (steps.iter().sum::<f64>() / steps.len() as f64).sqrt() };
    let band = (BAND * last).max(5.0 * noise);
    let outside = |window: &[f64]| (of(window) - last).abs() > band;
    match times.windows(WINDOW).rposition(outside) {
        None => 0,
        // The last window of all.
        Some(index) if index + WINDOW == times.len() => never,
        Some(index) => index + 1,
    }
}

/// How the times of one invocation move from its first tenth to its last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchDrift {
    /// Of the test of Mann and Kendall on the batches' medians.
    pub p_value: f64,
    /// Change over the run by the slope of Theil and Sen, as a fraction of the median; negative if it speeds up.
    pub drift: f64,
    /// `p_value` below 0.001 and more than 1 % either way.
    pub flagged: bool,
}

/// Ten batches, their medians, a trend. The last batch takes what is left over. `None` with fewer than 20 values, or
/// with values that are not finite and above zero.
pub fn batch_drift(times: &[f64]) -> Option<BatchDrift> {
    check(times, 2 * BATCHES).ok()?;
    let edge = |batch: usize| batch * times.len() / BATCHES;
    let medians: Vec<f64> =
        (0..BATCHES).map(|batch| median(&times[edge(batch)..edge(batch + 1)])).collect::<Result<_, _>>().ok()?;
    let middle = median(&medians).ok()?;
    if times.iter().any(|time| *time <= 0.0) {
        return None;
    }
    let p_value = mann_kendall(&medians).ok()?.p_value;
    let drift = theil_sen(&medians).ok()? * BATCHES as f64 / middle;
    Some(BatchDrift { p_value, drift, flagged: p_value < 0.001 && drift.abs() > BAND })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::{chain, normal};

    /// `n` times of 1 ms that begin `excess` slower and lose a factor e of that in `pace` inferences, with noise as a
    /// fraction.
    fn warming(n: usize, excess: f64, pace: f64, noise: &[f64]) -> Vec<f64> {
        (0..n).map(|i| 1e6 * (1.0 + excess * (-(i as f64) / pace).exp()) * (1.0 + noise[i])).collect()
    }

    /// Without noise: 30 % too slow, e-fold every 20 inferences, is below 1 % after 20 ln 30 = 68.02; the median of ten
    /// lies 4.5 further on.
    #[test]
    fn a_smooth_warm_up() {
        assert_eq!(steady_from(&warming(400, 0.3, 20.0, &[0.0; 400])), 64);
        assert_eq!(steady_from(&warming(400, 0.009, 20.0, &[0.0; 400])), 0);
        assert_eq!(steady_from(&[1e6; 20]), 0);
    }

    #[test]
    fn what_never_is_steady() {
        let rising: Vec<f64> = (0..200).map(|i| 1e6 * (1.0 + 0.001 * f64::from(i))).collect();
        assert_eq!(steady_from(&rising), 200);
        assert_eq!(steady_from(&[1.0; 19]), 19);
        assert_eq!(steady_from(&[]), 0);
        assert_eq!(steady_from(&[f64::NAN; 30]), 30);
        assert_eq!(steady_from(&[0.0; 30]), 30);
    }

    /// Single inferences that spread, in a chain: the warm-up is still seen, and no end of it invented.
    #[test]
    fn a_noisy_warm_up() {
        for (spread, expected) in [(0.02, 25..=100), (0.05, 8..=150)] {
            for seed in 0..20 {
                let noise: Vec<f64> = chain(seed, 600, 0.6).iter().map(|value| spread * value).collect();
                let from = steady_from(&warming(600, 0.5, 20.0, &noise));
                assert!(expected.contains(&from), "spread {spread}, seed {seed}: {from}");
            }
        }
    }

    #[test]
    fn drift_over_a_run() {
        let noise: Vec<f64> = normal(1, 300).iter().map(|value| 0.005 * value).collect();
        let sloping = |slope: f64| -> Vec<f64> {
            noise.iter().enumerate().map(|(i, noise)| 1e6 * (1.0 + slope * i as f64 / 300.0 + noise)).collect()
        };
        for (slope, flagged) in [(0.05, true), (-0.05, true), (0.008, false), (0.0, false)] {
            let found = batch_drift(&sloping(slope)).unwrap();
            assert_eq!(found.flagged, flagged, "{slope}: {found:?}");
            assert!((found.drift - slope).abs() < 0.006, "{slope}: {found:?}");
        }
        assert_eq!(batch_drift(&[1.0; 19]), None);
        assert_eq!(batch_drift(&[0.0; 40]), None);
        let still = BatchDrift { p_value: 1.0, drift: 0.0, flagged: false };
        assert_eq!(batch_drift(&[5.0; 20]), Some(still));
    }

    /// At most 4 of 1000 runs without drift, although their inferences are chains.
    #[test]
    fn no_drift_is_seldom_flagged() {
        let flagged = (0..1000).filter(|seed| {
            let times: Vec<f64> = chain(*seed, 100, 0.3).iter().map(|value| 1e6 * (1.0 + 0.02 * value)).collect();
            batch_drift(&times).unwrap().flagged
        });
        assert!(flagged.count() <= 4);
    }

    proptest! {
        #[test]
        fn the_unit_does_not_matter(seed in any::<u64>(), excess in 0.02..1.0, power in -10i32..10) {
            let noise: Vec<f64> = normal(seed, 120).iter().map(|value| 0.002 * value).collect();
            let times = warming(120, excess, 10.0, &noise);
            // A power of two changes no digit.
            let scaled: Vec<f64> = times.iter().map(|time| time * 2f64.powi(power)).collect();
            prop_assert_eq!(steady_from(&scaled), steady_from(&times));
            prop_assert_eq!(batch_drift(&scaled), batch_drift(&times));
        }
    }
}
