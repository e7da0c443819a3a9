//! How a gate that looks several times splits its error over the looks: Lan and DeMets' alpha spending, one-sided.
//!
//! In: the error and the share of the information each look has. Out: the level at which each look may reject. The
//! spending function is the power family with exponent 1 (Kim & DeMets 1987), alpha(t) = alpha · t: early looks get
//! their share, because a regression is usually found early and every block costs a minute of a board. Levels come from
//! the recursion of Armitage, McPherson & Rowe (1969), which credits what the earlier looks have already ruled out.
//! Without it (Bonferroni over the increments) the test is valid too, but less powerful.

use std::f64::consts::TAU;

use statrs::distribution::{ContinuousCDF, Normal};

/// The one-sided level of each look, so that a process without drift has crossed by look k with probability alpha · t_k
/// (Lan & DeMets, Biometrika 70, 1983, 659-663). `information`: the share t_k each look has of the whole, ascending and
/// above zero, the last usually 1. Exact to about ten digits for normal values of known variance; for Student's t the
/// levels are used as they are, as is customary.
///
/// # Panics
/// If `alpha` is not in (0, 1) or `information` does not rise from above zero.
pub(crate) fn nominal_levels(alpha: f64, information: &[f64]) -> Vec<f64> {
    assert!(alpha > 0.0 && alpha < 1.0, "an error of {alpha} cannot be spent: it must lie between 0 and 1");
    let steps = steps(information);
    let normal = Normal::standard();
    let mut levels = Vec::with_capacity(steps.len());
    // The process is the sum S(t) with variance t; where it has not crossed, it lies below every boundary so far.
    let mut paths = Paths { at: vec![0.0], mass: vec![1.0] };
    for (k, (&t, &step)) in information.iter().zip(&steps).enumerate() {
        let spent = alpha * step;
        // Starts from Bonferroni's boundary, which is never below the solution.
        let mut boundary = -t.sqrt() * normal.inverse_cdf(spent);
        if k > 0 {
            boundary = paths.boundary(spent, step.sqrt(), boundary);
        }
        levels.push(if k == 0 { spent } else { normal.sf(boundary / t.sqrt()) });
        if let Some(next) = steps.get(k + 1) {
            paths = paths.moved(step.sqrt(), -REACH * t.sqrt(), boundary, step.min(*next).sqrt());
        }
    }
    levels
}

/// Increments of information, each above zero.
fn steps(information: &[f64]) -> Vec<f64> {
    let before = [0.0].into_iter().chain(information.iter().copied());
    let steps: Vec<f64> = information.iter().zip(before).map(|(t, before)| t - before).collect();
    assert!(
        steps.iter().all(|step| *step > 0.0 && step.is_finite()),
        "information must rise from look to look: {information:?}"
    );
    steps
}

/// Standard deviations below zero that are followed; what lies lower comes back with probability 1e-15.
const REACH: f64 = 8.0;
/// Width of a panel in standard deviations of the increments. Ten nodes give twelve digits.
const PANEL: f64 = 3.0;
/// Gauss and Legendre's ten nodes on (-1, 1), the positive half, with their weights (Abramowitz & Stegun table 25.4).
const NODES: [(f64, f64); 5] = [
    (0.148_874_338_981_631_2, 0.295_524_224_714_752_9),
    (0.433_395_394_129_247_2, 0.269_266_719_309_996_4),
    (0.679_409_568_299_024_4, 0.219_086_362_515_982),
    (0.865_063_366_688_984_5, 0.149_451_349_150_580_6),
    (0.973_906_528_517_171_7, 0.066_671_344_308_688_1),
];

/// Where the process is if it has not crossed: points, and the probability each stands for.
struct Paths {
    at: Vec<f64>,
    mass: Vec<f64>,
}

impl Paths {
    /// The value the next increment, of standard deviation `sd`, exceeds with probability `spent`. By Newton's method
    /// on the logarithm, which is concave: from `start`, at or above the solution, it comes down and never passes it.
    fn boundary(&self, spent: f64, sd: f64, start: f64) -> f64 {
        let normal = Normal::standard();
        let mut boundary = start;
        for _ in 0..50 {
            let (mut above, mut slope) = (0.0, 0.0);
            for (at, mass) in self.at.iter().zip(&self.mass) {
                let z = (boundary - at) / sd;
                above += mass * normal.sf(z);
                slope += mass * density(z) / sd;
            }
            let step = (above / spent).ln() * above / slope;
            boundary += step;
            if step.abs() <= 1e-13 * sd {
                break;
            }
        }
        boundary
    }

    /// The paths one increment of standard deviation `sd` later, between `low` and `high`; `scale`: the finest detail.
    fn moved(&self, sd: f64, low: f64, high: f64, scale: f64) -> Paths {
        let panels = ((high - low) / (PANEL * scale)).ceil().max(1.0);
        let half = (high - low) / panels / 2.0;
        let (mut at, mut mass) = (Vec::new(), Vec::new());
        for panel in 0..panels as usize {
            let middle = low + half * (2 * panel + 1) as f64;
            for (node, weight) in NODES.into_iter().flat_map(|(node, weight)| [(-node, weight), (node, weight)]) {
                let point = middle + half * node;
                let arrivals = self.at.iter().zip(&self.mass).map(|(from, mass)| mass * density((point - from) / sd));
                mass.push(half * weight * arrivals.sum::<f64>() / sd);
                at.push(point);
            }
        }
        Paths { at, mass }
    }
}

/// Of the standard normal distribution.
fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{noise::normal, student::t_quantile};

    const NIGHTLY: [f64; 5] = [8.0, 12.0, 16.0, 24.0, 32.0];
    const RELEASE: [f64; 5] = [8.0, 16.0, 32.0, 48.0, 64.0];

    fn levels(alpha: f64, looks: &[f64]) -> Vec<f64> {
        nominal_levels(alpha, &looks.iter().map(|look| look / looks[looks.len() - 1]).collect::<Vec<f64>>())
    }

    /// The same recursion by Simpson's rule on 4001 points a look and `brentq`, in numpy and scipy.
    #[test]
    fn golden_values() {
        let by_simpson: [(f64, [f64; 5], [f64; 5]); 5] = [
            (0.001, NIGHTLY, [2.5e-4, 1.726_474_17e-4, 1.882_698_30e-4, 3.201_624_07e-4, 3.767_582_92e-4]),
            (0.0002, NIGHTLY, [5e-5, 3.242_739_87e-5, 3.488_663_73e-5, 6.036_184_42e-5, 6.967_292_71e-5]),
            (0.05, NIGHTLY, [1.25e-2, 1.105_384_94e-2, 1.288_644_79e-2, 2.113_410_16e-2, 2.677_293_10e-2]),
            (0.001, RELEASE, [1.25e-4, 1.393_124_62e-4, 2.752_483_07e-4, 3.271_730_94e-4, 3.787_770_59e-4]),
            (0.05, RELEASE, [6.25e-3, 8.038_485_92e-3, 1.609_861_60e-2, 2.139_271_46e-2, 2.681_448_86e-2]),
        ];
        for (alpha, looks, expected) in by_simpson {
            for (got, expected) in levels(alpha, &looks).into_iter().zip(expected) {
                assert!((got / expected - 1.0).abs() < 1e-8, "{got:e} is not {expected:e}");
            }
        }
    }

    /// The table of the gate's design, whose levels are up to 6 % below the exact ones: it was computed by convolution
    /// on a grid of 0.004 in S(t), each boundary rounded outwards to a grid point (the same convolution in numpy gives
    /// all 25 values to their last digit, and with a grid eight times finer levels within 1 % of ours). Its first
    /// levels show it without any recursion: they are alpha · t₁ by definition, 1.25e-4 where the table has 1.18e-4.
    #[test]
    fn lies_at_or_just_above_the_table_of_the_design() {
        let by_grid: [(f64, [f64; 5], [f64; 5]); 5] = [
            (0.001, NIGHTLY, [2.43e-4, 1.68e-4, 1.83e-4, 3.16e-4, 3.68e-4]),
            (0.0002, NIGHTLY, [4.89e-5, 3.11e-5, 3.41e-5, 5.86e-5, 6.78e-5]),
            (0.05, NIGHTLY, [1.23e-2, 1.07e-2, 1.25e-2, 2.06e-2, 2.62e-2]),
            (0.001, RELEASE, [1.18e-4, 1.36e-4, 2.68e-4, 3.21e-4, 3.73e-4]),
            (0.05, RELEASE, [6.01e-3, 7.85e-3, 1.58e-2, 2.11e-2, 2.64e-2]),
        ];
        for (alpha, looks, expected) in by_grid {
            for ((look, got), expected) in looks.iter().zip(levels(alpha, &looks)).zip(expected) {
                let critical = |level| -t_quantile(level, 2 * *look as usize - 1);
                assert!((1.0..1.06).contains(&(got / expected)), "{got:e} against {expected:e}");
                assert!((0.99..1.0).contains(&(critical(got) / critical(expected))), "{got:e} against {expected:e}");
            }
        }
    }

    #[test]
    fn one_look_has_everything() {
        assert_eq!(nominal_levels(0.001, &[1.0]), [0.001]);
    }

    /// Random walks, independent of any quadrature: by look k the share alpha · t_k has crossed.
    #[test]
    fn random_walks_spend_what_is_planned() {
        const WALKS: usize = 20_000;
        let levels = levels(0.2, &NIGHTLY);
        let boundaries: Vec<f64> = levels.iter().map(|level| -Normal::standard().inverse_cdf(*level)).collect();
        let noise = normal(5, 5 * WALKS);
        let mut crossed = [0; 5];
        for noise in noise.chunks(5) {
            let (mut walk, mut before) = (0.0, 0.0);
            for (k, look) in NIGHTLY.iter().enumerate() {
                walk += noise[k] * (look - before).sqrt();
                before = *look;
                if walk / look.sqrt() > boundaries[k] {
                    crossed[k..].iter_mut().for_each(|count| *count += 1);
                    break;
                }
            }
        }
        for (look, crossed) in NIGHTLY.iter().zip(crossed) {
            let (got, expected) = (crossed as f64 / WALKS as f64, 0.2 * look / 32.0);
            assert!((got - expected).abs() < 4.0 * (expected / WALKS as f64).sqrt(), "{got} crossed, not {expected}");
        }
    }

    /// P(Z₁ > a, Z₂ > b) of the bivariate normal by Plackett's identity: an integral over the correlation, not over the
    /// process.
    fn both_above(a: f64, b: f64, correlation: f64) -> f64 {
        let density = |r: f64| {
            let rest = 1.0 - r * r;
            (-(a * a - 2.0 * r * a * b + b * b) / (2.0 * rest)).exp() / (TAU * rest.sqrt())
        };
        let panels = 400;
        let width = correlation / panels as f64;
        let integral: f64 = (0..panels)
            .map(|panel| {
                let left = panel as f64 * width;
                width / 6.0 * (density(left) + 4.0 * density(left + width / 2.0) + density(left + width))
            })
            .sum();
        Normal::standard().sf(a) * Normal::standard().sf(b) + integral
    }

    proptest! {
        #[test]
        fn two_looks_spend_alpha_by_the_bivariate_normal(alpha in 1e-5..0.3f64, first in 0.02..0.95f64) {
            let levels = nominal_levels(alpha, &[first, 1.0]);
            let critical = |level| -Normal::standard().inverse_cdf(level);
            let spent = levels[0] + levels[1] - both_above(critical(levels[0]), critical(levels[1]), first.sqrt());
            prop_assert!((spent / alpha - 1.0).abs() < 1e-6, "{spent} of {alpha}: {levels:?}");
        }

        #[test]
        fn no_look_is_below_bonferroni(alpha in 1e-6..0.3f64, looks in proptest::collection::vec(0.02..1.0f64, 1..7)) {
            let total: f64 = looks.iter().sum();
            let mut so_far = 0.0;
            let mut add = |look: &f64| {
                so_far += look / total;
                so_far
            };
            let information: Vec<f64> = looks.iter().map(&mut add).collect();
            let mut before = 0.0;
            for (level, t) in nominal_levels(alpha, &information).into_iter().zip(information) {
                let bonferroni = alpha * (t - before);
                prop_assert!(level >= bonferroni * (1.0 - 1e-9) && level <= alpha, "{level} at {t} after {before}");
                before = t;
            }
        }
    }
}
