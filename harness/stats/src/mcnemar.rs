//! McNemar's exact test: two sets of answers to the same questions. Only questions that exactly one set answers right
//! count, and if neither set is better, each of those is a fair coin.

use statrs::distribution::{Binomial, DiscreteCDF};

/// P(Bin(lost + won, ½) ≥ lost): how likely that many losses are if the new answers are as good as the old. `lost`: old
/// right and new wrong; `won`: the reverse. 1 when nothing differs.
pub fn mcnemar_one_sided(lost: u64, won: u64) -> f64 {
    match (lost, Binomial::new(0.5, lost + won)) {
        (1.., Ok(coin)) => coin.sf(lost - 1),
        _ => 1.0,
    }
}

/// Twice the smaller tail, at most 1.
pub fn mcnemar_two_sided(lost: u64, won: u64) -> f64 {
    (2.0 * mcnemar_one_sided(lost.max(won), lost.min(won))).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `scipy.stats.binomtest`.
    #[test]
    fn golden_values() {
        for (lost, won, one, two) in [
            (20, 8, 0.017_849_069_088_697, 0.035_698_138_177_395),
            (8, 20, 0.993_729_524_314_404, 0.035_698_138_177_395),
            (120, 90, 0.022_557_043_932_420, 0.045_114_087_864_841),
            (5, 0, 0.031_25, 0.062_5),
            (3, 3, 0.656_25, 1.0),
            (1, 0, 0.5, 1.0),
            (0, 0, 1.0, 1.0),
        ] {
            assert!((mcnemar_one_sided(lost, won) - one).abs() < 1e-10, "one-sided {lost} {won}");
            assert!((mcnemar_two_sided(lost, won) - two).abs() < 1e-10, "two-sided {lost} {won}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_the_sets_gives_the_other_tail(lost in 1u64..400, won in 1u64..400) {
            prop_assert_eq!(mcnemar_two_sided(lost, won), mcnemar_two_sided(won, lost));
            // The two tails are all outcomes, and overlap in the one that was seen.
            let seen = mcnemar_one_sided(lost, won) - mcnemar_one_sided(lost + 1, won - 1);
            let both = mcnemar_one_sided(lost, won) + mcnemar_one_sided(won, lost);
            prop_assert!((both - 1.0 - seen).abs() < 1e-9, "{both} {seen}");
        }

        #[test]
        fn more_losses_are_stronger_evidence(lost in 0u64..200, won in 0u64..200) {
            prop_assert!(mcnemar_one_sided(lost + 1, won) <= mcnemar_one_sided(lost, won));
        }
    }
}
