//! How strictly a session is judged: when the test looks, its margins and its error rates.
//!
//! The margins are slow-downs as fractions: a case regresses when it is proved slower than the lower one and passes
//! when it is proved not slower than the upper one. Error rates: "regressed" is wrong in `ALPHA` of all comparisons at
//! most, and in `FAMILY` of all runs, whatever the number of comparisons in them (Bonferroni). "Pass" is wrong in
//! `BETA` of the cases that are as slow as the upper margin, each case for itself.

use espalier_stats::{Design, Margins};

use crate::Criterion;

/// Of one comparison, at most.
const ALPHA: f64 = 0.001;
/// Of all comparisons of a run together.
const FAMILY: f64 = 0.01;
const BETA: f64 = 0.05;
/// Share of either error that the sign test may add, where there are outliers and the mean decides nothing.
const SIGNS: f64 = 0.1;
/// Of a confirmation: two independent sessions multiply, so that a wrong "regressed" has a chance of
/// `ALPHA * CONFIRMING`.
const CONFIRMING: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    pub name: &'static str,
    /// Blocks after which the test looks, rising.
    pub looks: &'static [usize],
    /// Of the median; the tail's are the same in every profile.
    pub median: Tolerance,
}

/// Slow-downs as fractions: 0.03 is three per cent. `lower` is not above `upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Proved worse than this: regressed.
    pub lower: f64,
    /// Proved not worse than this: pass.
    pub upper: f64,
}

/// What else a comparison's levels and margins depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Comparisons judged in the same run, this one among them.
    pub comparisons: usize,
    /// A second session after a regression.
    pub confirming: bool,
    /// Where the two arms have different runners: the standard deviation of the logarithm of the time between builds of
    /// the same code.
    pub other_binary: Option<f64>,
}

impl Terms {
    /// One comparison by itself, both arms with the same runner.
    pub const ALONE: Terms = Terms { comparisons: 1, confirming: false, other_binary: None };
}

const P95: Tolerance = Tolerance { lower: 0.02, upper: 0.10 };
const P99: Tolerance = Tolerance { lower: 0.05, upper: 0.15 };

impl Profile {
    pub const NIGHTLY: Profile =
        Profile { name: "nightly", looks: &[8, 12, 16, 24, 32], median: Tolerance { lower: 0.005, upper: 0.03 } };
    pub const RELEASE: Profile =
        Profile { name: "release", looks: &[8, 16, 32, 48, 64], median: Tolerance { lower: 0.005, upper: 0.02 } };
    /// For pull requests.
    pub const COARSE: Profile =
        Profile { name: "coarse", looks: &[4, 6, 8, 12, 16], median: Tolerance { lower: 0.01, upper: 0.05 } };

    pub const ALL: [Profile; 3] = [Profile::NIGHTLY, Profile::RELEASE, Profile::COARSE];

    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// Blocks of a session that is never decided.
    pub fn most_blocks(&self) -> usize {
        self.looks.last().copied().unwrap_or_default()
    }

    /// The margins of a latency, `None` for any other criterion. Different binaries have their code at different places
    /// in memory, which alone makes a difference in time: the lower margin is then at least twice the standard
    /// deviation of that, and the upper margin at least the lower.
    pub fn tolerance(&self, criterion: Criterion, other_binary: Option<f64>) -> Option<Tolerance> {
        let tolerance = match criterion {
            Criterion::P50 | Criterion::Fastest => self.median,
            Criterion::P95 => P95,
            Criterion::P99 => P99,
            _ => return None,
        };
        let lower = tolerance.lower.max(2.0 * other_binary.unwrap_or(0.0));
        Some(Tolerance { lower, upper: tolerance.upper.max(lower) })
    }

    /// The chance of a wrong "regressed" of one comparison.
    pub fn alpha(&self, terms: Terms) -> f64 {
        match terms.confirming {
            true => CONFIRMING,
            false => ALPHA.min(FAMILY / terms.comparisons.max(1) as f64),
        }
    }

    /// The test of a latency, in pairs; `None` for any other criterion.
    pub fn design(&self, criterion: Criterion, terms: Terms) -> Option<Design> {
        self.at_levels(criterion, terms, 1.0)
    }

    /// The levels of the sign test of the median; `None` as in [`Profile::design`].
    pub fn signs(&self, criterion: Criterion, terms: Terms) -> Option<Design> {
        self.at_levels(criterion, terms, SIGNS)
    }

    fn at_levels(&self, criterion: Criterion, terms: Terms, share: f64) -> Option<Design> {
        let tolerance = self.tolerance(criterion, terms.other_binary)?;
        let pairs: Vec<usize> = self.looks.iter().map(|blocks| blocks * 2).collect();
        let margins = Margins { fail: tolerance.lower.ln_1p(), pass: tolerance.upper.ln_1p() };
        Some(Design::new(&pairs, margins, share * self.alpha(terms), share * BETA))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_sound() {
        for profile in Profile::ALL {
            assert_eq!(Profile::named(profile.name), Some(profile));
            assert!(profile.looks.is_sorted_by(|a, b| a < b), "{profile:?}");
            // A judge by blocks needs four of them.
            assert!(profile.looks[0] >= 4, "{profile:?}");
            for criterion in [Criterion::P50, Criterion::P95, Criterion::P99] {
                let Tolerance { lower, upper } = profile.tolerance(criterion, None).unwrap();
                assert!(0.0 < lower && lower < upper, "{profile:?} {criterion:?}");
            }
            assert_eq!(profile.tolerance(Criterion::PeakRss, None), None);
        }
        assert_eq!(Profile::named("weekly"), None);
    }

    /// A chance of α·0.05 of a wrong "regressed" each; at most one run in a hundred has one.
    #[test]
    fn errors_are_shared_over_the_run() {
        let alpha =
            |comparisons, confirming| Profile::NIGHTLY.alpha(Terms { comparisons, confirming, other_binary: None });
        assert_eq!(alpha(1, false), 0.001);
        assert_eq!(alpha(10, false), 0.001);
        assert_eq!(alpha(50, false), 0.0002);
        assert_eq!(alpha(0, false), 0.001);
        assert_eq!(alpha(50, true), 0.05);
    }

    #[test]
    fn another_binary_widens_the_lower_margin() {
        let tolerance = |sd| Profile::NIGHTLY.tolerance(Criterion::P50, Some(sd)).unwrap();
        assert_eq!(tolerance(0.001), Profile::NIGHTLY.median);
        assert_eq!(tolerance(0.01), Tolerance { lower: 0.02, upper: 0.03 });
        assert_eq!(tolerance(0.02), Tolerance { lower: 0.04, upper: 0.04 });
    }

    /// Section 4 of the design publishes these levels for 10 and 50 comparisons; the last ones, at the last look.
    #[test]
    fn levels_are_the_published_ones() {
        for (profile, comparisons, expected) in
            [(Profile::NIGHTLY, 1, 3.68e-4), (Profile::NIGHTLY, 50, 6.78e-5), (Profile::RELEASE, 10, 3.73e-4)]
        {
            let design = profile.design(Criterion::P50, Terms { comparisons, ..Terms::ALONE }).unwrap();
            let (alpha, beta) = design.levels().last().unwrap();
            assert!((alpha / expected - 1.0).abs() < 0.03, "{} {comparisons}: {alpha}", profile.name);
            assert!((beta / 2.63e-2 - 1.0).abs() < 0.03, "{} {comparisons}: {beta}", profile.name);
            assert_eq!(design.looks().last(), Some(&(profile.most_blocks() * 2)));
        }
        assert!(Profile::NIGHTLY.design(Criterion::Accuracy, Terms::ALONE).is_none());
    }
}
