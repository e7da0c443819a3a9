//! Peaks of memory: a handful of invocations an arm, no model of their spread. Regressed requires every peak of the
//! candidate above every one of the baseline; a pass requires none above the baseline's lowest by more than the
//! tolerance. In between, the caller measures more.

use espalier_stats::{Separation, Tolerance, separation, separation_chance};

use crate::{Finding, Judged, Verdict};
use espalier_bench::sheet::size;

/// Invocations an arm below which nothing is decided, and from which on measuring more is not worth it.
const FEWEST_PEAKS: usize = 4;
const MOST_PEAKS: usize = 8;

/// The larger of one per cent and 256 KiB: allocators and the kernel hand out memory in steps.
const TOLERANCE: Tolerance = Tolerance { relative: 0.01, absolute: 256.0 * 1024.0 };

/// Peaks in bytes, of any order. A peak of zero is no measurement.
pub fn judge_peaks(base: &[u64], candidate: &[u64]) -> Judged {
    if base.is_empty() || candidate.is_empty() {
        let (base, candidate) = (base.len(), candidate.len());
        let reason =
            format!("no comparison: {base} peaks of the baseline and {candidate} of the candidate were measured");
        return (Verdict::Inconclusive, Finding::Nothing, reason);
    }
    let finding = Finding::Peaks { base: base.to_vec(), candidate: candidate.to_vec() };
    if base.iter().chain(candidate).any(|peak| *peak == 0) {
        return (Verdict::Inconclusive, finding, "a peak of 0 bytes was reported, which is no measurement".to_owned());
    }
    let few = base.len().min(candidate.len());
    if few < FEWEST_PEAKS {
        let reason = format!("{few} memory invocations an arm, at least {FEWEST_PEAKS} are needed");
        return (Verdict::Inconclusive, finding, reason);
    }
    let values = |peaks: &[u64]| peaks.iter().map(|peak| *peak as f64).collect::<Vec<f64>>();
    let separation = separation(&values(base), &values(candidate), TOLERANCE);
    let (was, is) = (range(base), range(candidate));
    let slack = format!("{} % or {}", TOLERANCE.relative * 100.0, size(TOLERANCE.absolute as u64));
    let (verdict, reason) = match separation {
        Some(Separation::Higher) => {
            let chance = separation_chance(base.len(), candidate.len()).recip().round();
            let reason =
                format!("all peaks ({is}) are above all of the baseline's ({was}); by chance once in {chance}");
            (Verdict::Regressed, reason)
        }
        Some(Separation::Lower) => (Verdict::Pass, format!("all peaks ({is}) are below all of the baseline's ({was})")),
        Some(separation) if separation.is_not_higher() => {
            (Verdict::Pass, format!("no peak ({is}) is above the baseline's lowest ({was}) by more than {slack}"))
        }
        _ => {
            let more = if few < MOST_PEAKS { ": more memory invocations may tell" } else { "" };
            let reason =
                format!("peaks ({is}) are neither all above the baseline's ({was}) nor all within {slack}{more}");
            (Verdict::Inconclusive, reason)
        }
    };
    (verdict, finding, reason)
}

/// `50.0 MiB` or `50.0 MiB to 52.1 MiB`; empty of no peaks.
fn range(peaks: &[u64]) -> String {
    let text = |peak: Option<&u64>| peak.map(|peak| size(*peak)).unwrap_or_default();
    let (low, high) = (text(peaks.iter().min()), text(peaks.iter().max()));
    if low == high { low } else { format!("{low} to {high}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    fn mib(peaks: &[f64]) -> Vec<u64> {
        peaks.iter().map(|peak| (peak * MIB) as u64).collect()
    }

    #[track_caller]
    fn check(base: &[f64], candidate: &[f64], verdict: Verdict, reason: &str) {
        let (got, _, text) = judge_peaks(&mib(base), &mib(candidate));
        assert_eq!((got, text.as_str()), (verdict, reason));
    }

    #[test]
    fn verdicts_and_their_words() {
        let base = [50.0, 50.25, 50.5, 50.0];
        check(
            &base,
            &[52.0, 52.5, 52.0, 52.25],
            Verdict::Regressed,
            "all peaks (52.0 MiB to 52.5 MiB) are above all of the baseline's (50.0 MiB to 50.5 MiB); by chance once \
             in 70",
        );
        check(
            &base,
            &[50.0, 50.5, 50.0, 50.25],
            Verdict::Pass,
            "no peak (50.0 MiB to 50.5 MiB) is above the baseline's lowest (50.0 MiB to 50.5 MiB) by more than 1 % or \
             256 KiB",
        );
        check(
            &base,
            &[40.0; 4],
            Verdict::Pass,
            "all peaks (40.0 MiB) are below all of the baseline's (50.0 MiB to 50.5 MiB)",
        );
        check(
            &base,
            &[50.0, 52.5, 52.0, 52.25],
            Verdict::Inconclusive,
            "peaks (50.0 MiB to 52.5 MiB) are neither all above the baseline's (50.0 MiB to 50.5 MiB) nor all within \
             1 % or 256 KiB: \
             more memory invocations may tell",
        );
    }

    #[test]
    fn small_differences_are_no_news() {
        // All above, but by 0.8 %; and all above by 20 %, but 200 KiB.
        let (verdict, _, _) = judge_peaks(&mib(&[50.0; 4]), &mib(&[50.4; 4]));
        assert_eq!(verdict, Verdict::Pass);
        let (verdict, _, _) = judge_peaks(&[1_000 << 10; 4], &[1_200 << 10; 4]);
        assert_eq!(verdict, Verdict::Pass);
        let (verdict, _, _) = judge_peaks(&[1_000 << 10; 4], &[1_257 << 10; 4]);
        assert_eq!(verdict, Verdict::Regressed);
    }

    #[test]
    fn what_was_not_measured_is_inconclusive() {
        assert_eq!(
            judge_peaks(&[], &[1]),
            (
                Verdict::Inconclusive,
                Finding::Nothing,
                "no comparison: 0 peaks of the baseline and 1 of the candidate were measured".to_owned()
            )
        );
        let (verdict, finding, reason) = judge_peaks(&mib(&[50.0; 3]), &mib(&[90.0; 4]));
        assert_eq!(
            (verdict, reason.as_str()),
            (Verdict::Inconclusive, "3 memory invocations an arm, at least 4 are needed")
        );
        assert_eq!(finding, Finding::Peaks { base: mib(&[50.0; 3]), candidate: mib(&[90.0; 4]) });
        assert_eq!(judge_peaks(&[1 << 20; 4], &[1 << 20, 0, 1 << 20, 1 << 20]).0, Verdict::Inconclusive);
        let (verdict, _, reason) = judge_peaks(&mib(&[50.0, 52.0].repeat(4)), &mib(&[50.0, 52.0].repeat(4)));
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(!reason.ends_with("may tell"), "{reason}");
    }

    proptest! {
        /// A regression seen from the other side is a pass, and no pair of arms regresses in both directions.
        #[test]
        fn exchanging_the_arms(
            base in proptest::collection::vec(90u64..110, 4..9),
            candidate in proptest::collection::vec(90u64..130, 4..9),
            order in any::<usize>(),
        ) {
            let bytes = |peaks: &[u64]| peaks.iter().map(|peak| peak << 20).collect::<Vec<u64>>();
            let (base, mut candidate) = (bytes(&base), bytes(&candidate));
            let there = judge_peaks(&base, &candidate).0;
            let back = judge_peaks(&candidate, &base).0;
            prop_assert!(there != Verdict::Regressed || back == Verdict::Pass);
            prop_assert!(back != Verdict::Regressed || there == Verdict::Pass);
            let len = candidate.len();
            candidate.rotate_left(order % len);
            prop_assert_eq!(judge_peaks(&base, &candidate).0, there);
        }
    }
}
