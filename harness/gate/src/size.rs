//! Sizes: of the artifact, of the variant's file, of the most bytes allocated at once. They are exact, so they are
//! compared with a budget, without a test.

use crate::{Finding, Judged, Verdict};
use espalier_bench::sheet::{percent, size};

/// What a size may grow by, as a fraction.
pub const BUDGET: f64 = 0.005;

/// Sizes in bytes, `budget` as a fraction. A size of zero is no measurement.
pub fn judge_sizes(base: u64, candidate: u64, budget: f64) -> Judged {
    let finding = Finding::Sizes { base, candidate };
    if base == 0 || candidate == 0 {
        return (Verdict::Inconclusive, finding, "a size of 0 bytes was reported, which is no measurement".to_owned());
    }
    if base == candidate {
        return (Verdict::Pass, finding, format!("{}, as before", size(base)));
    }
    // Sizes are whole: an excess of less than a thousandth of a byte is the rounding of the product.
    let over = candidate.saturating_sub(base) as f64 > budget * base as f64 + 1e-3;
    let more = if candidate > base { "more" } else { "less" };
    let change = (candidate as f64 / base as f64 - 1.0) * 100.0;
    let verdict = if over { Verdict::Regressed } else { Verdict::Pass };
    let against = match (over, candidate > base) {
        (true, _) => format!(", over the budget of +{} %", percent(budget, 6)),
        (false, true) => format!(", within the budget of +{} %", percent(budget, 6)),
        (false, false) => String::new(),
    };
    let (now, difference) = (size(candidate), size(base.abs_diff(candidate)));
    (verdict, finding, format!("{now}, {difference} {more} than before ({change:+.2} %){against}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verdicts_and_their_words() {
        for (base, candidate, budget, verdict, reason) in [
            (1_000_000, 1_000_000, BUDGET, Verdict::Pass, "977 KiB, as before"),
            (
                1_000_000,
                1_005_000,
                BUDGET,
                Verdict::Pass,
                "981 KiB, 4.88 KiB more than before (+0.50 %), within the budget of +0.5 %",
            ),
            (
                1_000_000,
                1_005_001,
                BUDGET,
                Verdict::Regressed,
                "981 KiB, 4.88 KiB more than before (+0.50 %), over the budget of +0.5 %",
            ),
            (1_000_000, 900_000, BUDGET, Verdict::Pass, "879 KiB, 97.7 KiB less than before (-10.00 %)"),
            (100, 101, 0.0, Verdict::Regressed, "101 B, 1 B more than before (+1.00 %), over the budget of +0 %"),
            // 0.29 · 100 is 28.999999999999996 in binary.
            (100, 129, 0.29, Verdict::Pass, "129 B, 29 B more than before (+29.00 %), within the budget of +29 %"),
            (0, 5, BUDGET, Verdict::Inconclusive, "a size of 0 bytes was reported, which is no measurement"),
            (5, 0, BUDGET, Verdict::Inconclusive, "a size of 0 bytes was reported, which is no measurement"),
        ] {
            let finding = Finding::Sizes { base, candidate };
            assert_eq!(judge_sizes(base, candidate, budget), (verdict, finding, reason.to_owned()));
        }
        assert_eq!(judge_sizes(u64::MAX, u64::MAX - 1, BUDGET).0, Verdict::Pass);
        assert_eq!(judge_sizes(1, u64::MAX, BUDGET).0, Verdict::Regressed);
    }

    proptest! {
        #[test]
        fn a_regression_is_a_pass_the_other_way_round(
            base in 1u64..1 << 40, candidate in 1u64..1 << 40, budget in 0.0..0.1,
        ) {
            let verdicts = (judge_sizes(base, candidate, budget).0, judge_sizes(candidate, base, budget).0);
            prop_assert!(verdicts != (Verdict::Regressed, Verdict::Regressed), "{verdicts:?}");
            prop_assert!(verdicts.0 != Verdict::Inconclusive && verdicts.1 != Verdict::Inconclusive);
        }

        /// Thousandths, which divide exactly.
        #[test]
        fn the_budget_is_exact(thousands in 1u64..1 << 30, budget in 0u64..100) {
            let (base, most) = (thousands * 1000, thousands * (1000 + budget));
            let budget = budget as f64 / 1000.0;
            prop_assert_eq!(judge_sizes(base, most, budget).0, Verdict::Pass);
            prop_assert_eq!(judge_sizes(base, most + 1, budget).0, Verdict::Regressed);
        }
    }
}
