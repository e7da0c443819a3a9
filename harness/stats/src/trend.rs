//! Does a series, in the order it was measured, drift or jump? The tests use ranks: they assume no distribution, and an
//! outlier weighs no more than any other value. They take the values for independent: an autocorrelated series looks
//! like a trend more often than the level says.

use std::cmp::Ordering;

use statrs::distribution::{ContinuousCDF, Normal};

use crate::quantile::median;
use crate::unfit::{Unfit, check};

/// The test of Mann and Kendall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Pairs that rise less pairs that fall.
    pub s: i64,
    /// `s` in standard deviations, one step nearer to zero (continuity); above zero if the series rises.
    pub z: f64,
    /// Two-sided.
    pub p_value: f64,
}

/// The test of Pettitt: the most likely place of one jump.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The first value after the jump.
    pub index: usize,
    /// Largest absolute difference, over all places, of the pairs across it that rise and those that fall.
    pub k: u64,
    /// Two-sided, by Pettitt's approximation: too large for short series, never too small.
    pub p_value: f64,
}

/// S = Σ sign(xⱼ − xᵢ) over i < j. The variance is Kendall's (1975) with ties; good from ten values on.
///
/// # Errors
/// Fewer than two values, or one that is not finite.
pub fn mann_kendall(values: &[f64]) -> Result<Trend, Unfit> {
    check(values, 2)?;
    let sign = |from: f64, to: f64| to.partial_cmp(&from).map_or(0, |order| order as i64);
    let rest = |(i, from): (usize, &f64)| values[i + 1..].iter().map(|to| sign(*from, *to)).sum::<i64>();
    let s: i64 = values.iter().enumerate().map(rest).sum();
    let spread = |count: usize| {
        let count = count as f64;
        count * (count - 1.0) * (2.0 * count + 5.0) / 18.0
    };
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|one, other| one == other).map(|tied| spread(tied.len())).sum();
    let variance = spread(values.len()) - ties;
    // All values are the same: no pair rises or falls.
    let z = if s == 0 { 0.0 } else { (s - s.signum()) as f64 / variance.sqrt() };
    Ok(Trend { s, z, p_value: 2.0 * Normal::standard().sf(z.abs()) })
}

/// The median slope of all pairs (Sen 1968), per step of the series.
///
/// # Errors
/// Fewer than two values, or one that is not finite.
pub(crate) fn theil_sen(values: &[f64]) -> Result<f64, Unfit> {
    check(values, 2)?;
    let slopes = values.iter().enumerate().flat_map(|(i, from)| {
        values[i + 1..].iter().enumerate().map(move |(steps, to)| (to - from) / (steps + 1) as f64)
    });
    median(&slopes.collect::<Vec<f64>>())
}

/// K = max |Uₜ|, p ≈ 2 exp(−6 K² / (n³ + n²)) (Pettitt 1979). Of places that are equally likely the first.
///
/// # Errors
/// Fewer than two values, or one that is not finite.
pub fn pettitt(values: &[f64]) -> Result<Step, Unfit> {
    check(values, 2)?;
    let n = values.len() as i64;
    let (mut rising, mut best) = (0, Step { index: 1, k: 0, p_value: 1.0 });
    for (index, moved) in values[..values.len() - 1].iter().enumerate() {
        // The values below `moved` less those above: what U gains when `moved` changes sides.
        rising += values.iter().map(|other| moved.partial_cmp(other).unwrap_or(Ordering::Equal) as i64).sum::<i64>();
        if rising.unsigned_abs() > best.k {
            best = Step { index: index + 1, k: rising.unsigned_abs(), p_value: 1.0 };
        }
    }
    let (k, n) = (best.k as f64, n as f64);
    Ok(Step { p_value: (2.0 * (-6.0 * k * k / (n.powi(3) + n * n)).exp()).min(1.0), ..best })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::normal;

    const RISING: [f64; 12] = [23.1, 24.0, 22.7, 25.3, 24.0, 26.1, 25.3, 24.9, 27.2, 26.1, 27.8, 26.4];
    const FALLING: [f64; 12] = [5.0, 5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 2.0, 5.0, 1.0];

    /// The flow of the Nile at Aswan, 1871 to 1970, in 10⁸ m³ (Cobb 1978); the dam of 1898 is in it.
    #[rustfmt::skip]
    const NILE: [f64; 100] = [
        1120., 1160., 963., 1210., 1160., 1160., 813., 1230., 1370., 1140., 995., 935., 1110., 994., 1020., 960.,
        1180., 799., 958., 1140., 1100., 1210., 1150., 1250., 1260., 1220., 1030., 1100., 774., 840., 874., 694.,
        940., 833., 701., 916., 692., 1020., 1050., 969., 831., 726., 456., 824., 702., 1120., 1100., 832.,
        764., 821., 768., 845., 864., 862., 698., 845., 744., 796., 1040., 759., 781., 865., 845., 944.,
        984., 897., 822., 1010., 771., 676., 649., 846., 812., 742., 801., 1040., 860., 874., 848., 890.,
        744., 749., 838., 1050., 918., 986., 797., 923., 975., 815., 1020., 906., 901., 1170., 912., 746.,
        919., 718., 714., 740.,
    ];

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{got} is not {expected}");
    }

    /// S, z, p and the slope by pymannkendall 1.4 (the slope by `scipy.stats.theilslopes` too); place and K by
    /// pyhomogeneity 1.1.
    #[test]
    fn golden_values() {
        let check = |values: &[f64], s, z, p, slope, index, k, step_p| {
            let trend = mann_kendall(values).unwrap();
            assert_eq!(trend.s, s);
            close(trend.z, z);
            close(trend.p_value, p);
            close(theil_sen(values).unwrap(), slope);
            let step = pettitt(values).unwrap();
            assert_eq!((step.index, step.k), (index, k));
            close(step.p_value, step_p);
        };
        let (z, p, step_p) = (2.900_578_309_751_624_7, 0.003_724_747_556_090_646, 0.075_102_299_501_129_14);
        check(&RISING, 43, z, p, 0.366_666_666_666_666_25, 5, 32, step_p);
        let (z, p, step_p) = (-2.725_900_169_195_219, 0.006_412_639_050_389_579, 0.162_078_688_165_640_46);
        check(&FALLING, -39, z, p, -0.333_333_333_333_333_3, 5, 28, step_p);
        let (z, p, step_p) = (-4.128_066_522_844_101, 3.658_262_921_657_496e-5, 3.591_022_176_936_292_7e-7);
        check(&NILE, -1387, z, p, -2.6, 28, 1617, step_p);
    }

    #[test]
    fn a_constant_series_is_no_trend() {
        assert_eq!(mann_kendall(&[2.0; 9]), Ok(Trend { s: 0, z: 0.0, p_value: 1.0 }));
        assert_eq!(pettitt(&[2.0; 9]), Ok(Step { index: 1, k: 0, p_value: 1.0 }));
        assert_eq!(theil_sen(&[2.0; 9]), Ok(0.0));
        assert_eq!(mann_kendall(&[1.0]), Err(Unfit::TooFew { needed: 2, given: 1 }));
        assert_eq!(pettitt(&[1.0, f64::NAN]), Err(Unfit::NotFinite));
        assert_eq!(theil_sen(&[1.0, f64::INFINITY]), Err(Unfit::NotFinite));
    }

    /// Independent values alarm as rarely as the levels say: 20 of 400 series at 5 %, within four standard deviations;
    /// Pettitt's test alarms less often.
    #[test]
    fn false_alarms_are_as_rare_as_said() {
        let series: Vec<Vec<f64>> = (0..400).map(|seed| normal(seed, 30)).collect();
        let alarms = |test: &dyn Fn(&[f64]) -> f64| series.iter().filter(|values| test(values) < 0.05).count();
        let trends = alarms(&|values| mann_kendall(values).unwrap().p_value);
        let steps = alarms(&|values| pettitt(values).unwrap().p_value);
        assert!((3..=37).contains(&trends) && (1..=30).contains(&steps), "{trends} {steps}");
    }

    proptest! {
        #[test]
        fn backwards_and_upside_down_turn_the_sign(values in proptest::collection::vec(-50i32..50, 2..40)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let trend = mann_kendall(&values).unwrap();
            let backwards: Vec<f64> = values.iter().rev().copied().collect();
            let upside_down: Vec<f64> = values.iter().map(|value| -value).collect();
            for turned in [&backwards, &upside_down] {
                let other = mann_kendall(turned).unwrap();
                prop_assert_eq!((other.s, other.z, other.p_value), (-trend.s, -trend.z, trend.p_value));
                prop_assert!((theil_sen(turned).unwrap() + theil_sen(&values).unwrap()).abs() < 1e-12);
                prop_assert_eq!(pettitt(turned).unwrap().k, pettitt(&values).unwrap().k);
            }
        }

        /// Ranks do not know of units: a rising function changes nothing.
        #[test]
        fn units_do_not_matter(values in proptest::collection::vec(1e3f64..1e9, 2..40), factor in 1e-6f64..1e6) {
            let logs: Vec<f64> = values.iter().map(|value| (value * factor).ln()).collect();
            // Two values may become one by rounding; then there is nothing to compare.
            prop_assume!(logs.iter().enumerate().all(|(i, one)| logs[i + 1..].iter().all(|other| one != other)));
            prop_assert_eq!(mann_kendall(&logs).unwrap(), mann_kendall(&values).unwrap());
            prop_assert_eq!(pettitt(&logs).unwrap(), pettitt(&values).unwrap());
        }
    }
}
