//! A drop of accuracy and its upper limit: two sets of answers to the same questions, where only questions count that
//! exactly one set answers right. Whether there is a drop at all is [`crate::mcnemar_one_sided`]'s test.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::unfit::Unfit;

/// A difference of paired shares, as fractions; above zero if the new answers are worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedDrop {
    /// (lost − won) / total, as seen.
    pub observed: f64,
    /// What the limits are around: `observed`, or with one more of each, see [`paired_drop`].
    pub centre: f64,
    pub standard_error: f64,
}

impl PairedDrop {
    /// The drop is smaller than this with `confidence` in (0, 1), one-sided.
    pub fn upper(self, confidence: f64) -> f64 {
        self.centre - Normal::standard().inverse_cdf(1.0 - confidence) * self.standard_error
    }
}

/// Changed answers below which the normal approximation needs help.
const FEW: u64 = 20;

/// `lost`: old right and new wrong; `won`: the reverse. The standard error is √(b + c − (b − c)²/N) / N with b lost and
/// c won. With fewer than 20 changed answers one is added to both, and two to the total (Bonett and Price 2012):
/// without this no change at all would claim an error of zero.
///
/// # Errors
/// No answer, or fewer than changed.
pub fn paired_drop(lost: u64, won: u64, total: u64) -> Result<PairedDrop, Unfit> {
    let needed = lost.saturating_add(won).max(1);
    if total < needed {
        return Err(Unfit::TooFew { needed: needed as usize, given: total as usize });
    }
    let (b, c, n) = (lost as f64, won as f64, total as f64);
    let observed = (b - c) / n;
    let extra = if needed < FEW { 1.0 } else { 0.0 };
    let (b, c, n) = (b + extra, c + extra, n + 2.0 * extra);
    let standard_error = (b + c - (b - c).powi(2) / n).max(0.0).sqrt() / n;
    Ok(PairedDrop { observed, centre: (b - c) / n, standard_error })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The formulas in numpy, the quantile by `scipy.stats.norm`.
    #[test]
    fn golden_values() {
        for (lost, won, total, observed, error, upper) in [
            (20, 8, 497, 0.024_144_869_215_291_75, 0.010_591_657_384_758_903, 0.041_566_595_280_039_774),
            (60, 40, 10_000, 0.002, 0.000_999_799_979_995_999, 0.003_644_524_623_322_428_5),
            (3, 1, 497, 0.008_048_289_738_430_584 / 2.0, 0.004_905_516_894_207_675, 0.012_076_873_287_573_345),
            (0, 0, 497, 0.0, 0.002_834_095_315_376_944, 0.004_661_671_958_623_943),
            (10, 10, 1000, 0.0, 0.004_472_135_954_999_58, 0.007_356_009_045_801_144),
            (10, 9, 1000, 0.001, 0.004_573_320_162_174_93, 0.008_520_446_247_979_697),
        ] {
            let drop = paired_drop(lost, won, total).unwrap();
            assert!((drop.observed - observed).abs() < 1e-12, "{drop:?}");
            assert!((drop.standard_error - error).abs() < 1e-12, "{drop:?}");
            assert!((drop.upper(0.95) - upper).abs() < 1e-9, "{drop:?} {}", drop.upper(0.95));
        }
        assert_eq!(paired_drop(0, 0, 0), Err(Unfit::TooFew { needed: 1, given: 0 }));
        assert_eq!(paired_drop(3, 2, 4), Err(Unfit::TooFew { needed: 5, given: 4 }));
        assert!(paired_drop(u64::MAX, u64::MAX, 4).is_err());
    }

    /// The limit is above the true drop in at least 93 of 100 sets, summed exactly over all outcomes of 300 answers by
    /// shares of lost and won.
    #[test]
    fn coverage_is_about_what_it_says() {
        use statrs::distribution::{Binomial, Discrete};
        for (p_lost, p_won) in [(0.005, 0.005), (0.02, 0.01), (0.06, 0.02), (0.1, 0.1)] {
            let n = 300;
            let lost_law = Binomial::new(p_lost, n).unwrap();
            let mut covered = 0.0;
            for lost in 0..=90 {
                let won_law = Binomial::new(p_won / (1.0 - p_lost), n - lost).unwrap();
                for won in 0..=90 {
                    if paired_drop(lost, won, n).unwrap().upper(0.95) > p_lost - p_won {
                        covered += lost_law.pmf(lost) * won_law.pmf(won);
                    }
                }
            }
            assert!((0.93..=1.0).contains(&covered), "{p_lost} {p_won}: {covered}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_the_sets_turns_the_sign(lost in 0u64..300, won in 0u64..300, same in 1u64..1000) {
            let there = paired_drop(lost, won, lost + won + same).unwrap();
            let back = paired_drop(won, lost, lost + won + same).unwrap();
            prop_assert_eq!((back.observed, back.centre), (-there.observed, -there.centre));
            prop_assert_eq!(back.standard_error, there.standard_error);
            prop_assert!(there.upper(0.95) >= there.centre && there.upper(0.99) >= there.upper(0.95));
        }
    }
}
