//! What may be wrong with an invocation or a session, whichever arm it helps: nothing here knows the verdict.
//!
//! An invalid invocation makes its block be done again, both arms of it. Tags void nothing: interleaving keeps the
//! estimate unbiased, and what they describe may be the change itself.

use espalier_stats::{States, Trend, fisher_exact, mann_kendall, mean, pettitt, two_states};

use crate::Arm;
use espalier_bench::{record::Measurement, summary};

/// Other programs' CPU time that makes an invocation invalid: this share of one CPU's time, plus three ticks of the
/// kernel's clock.
const OTHERS_SHARE: f64 = 0.05;
const OTHERS_MS: f64 = 30.0;

/// A trend is tagged beyond so many standard deviations, a step or unequal shares below this p-value.
const DRIFT_Z: f64 = 3.3;
const CHANCE: f64 = 0.001;

/// Two speeds are tagged where they differ by more than this factor and each has at least this share of the
/// invocations.
const SPEEDS_APART: f64 = 1.04;
const SPEED_SHARE: f64 = 0.1;

/// Why this invocation is invalid: the board was throttled. A value that a board cannot report does not make it
/// invalid.
pub fn held_back(measurement: &Measurement) -> Option<String> {
    let (before, after) = (&measurement.before, &measurement.after);
    if before.throttled == Some(true) || after.throttled == Some(true) {
        return Some("the board said that it was held back (heat or voltage)".to_owned());
    }
    summary::runs_slow(after).then(|| {
        let mhz = |khz: Option<u64>| khz.unwrap_or_default() / 1000;
        let (now, max) = (mhz(after.frequency_khz), mhz(after.max_frequency_khz));
        format!("the board ran at {now} of {max} MHz although its governor is `performance`")
    })
}

/// Why this invocation is invalid: other programs ran meanwhile. `wall_ms` as the host measured it.
pub fn disturbed(measurement: &Measurement, wall_ms: u64) -> Option<String> {
    let (before, after) = (&measurement.before, &measurement.after);
    let grown = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    if let Some(pages @ 1..) = grown(before.swap_ins, after.swap_ins) {
        return Some(format!("the board swapped in {pages} pages of memory"));
    }
    let busy = grown(before.busy_ms, after.busy_ms)?;
    let others = busy.saturating_sub(grown(before.own_cpu_ms, after.own_cpu_ms)?);
    (others as f64 > OTHERS_SHARE * wall_ms as f64 + OTHERS_MS)
        .then(|| format!("other programs used {others} ms of CPU time while it ran for {wall_ms} ms"))
}

/// Whether the runner reports what [`disturbed`] needs: an old baseline's may not.
pub fn reports_load(measurement: &Measurement) -> bool {
    let state = &measurement.after;
    state.busy_ms.is_some() && state.own_cpu_ms.is_some()
}

/// What a reader should know of a session: `x` is the logarithm of each invocation's statistic, in the order of time.
/// Values that are not finite are left out.
pub fn session_tags(x: &[(Arm, f64)]) -> Vec<String> {
    let x: Vec<(Arm, f64)> = x.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let residuals = residuals(&x);
    let mut tags = Vec::new();
    if let Ok(Trend { z, .. }) = mann_kendall(&residuals)
        && z.abs() > DRIFT_Z
    {
        tags.push(format!("drift z={z:.1}"));
    }
    if let Ok(step) = pettitt(&residuals)
        && step.p_value < CHANCE
        && let (Ok(before), Ok(after)) = (mean(&residuals[..step.index]), mean(&residuals[step.index..]))
    {
        let change = (after - before).exp_m1() * 100.0;
        tags.push(format!("step of {change:+.1} % after {} of {} invocations", step.index, residuals.len()));
    }
    tags.extend(speeds(&x, &residuals));
    tags
}

/// Each value less the mean of its arm: the difference between the arms is removed.
fn residuals(x: &[(Arm, f64)]) -> Vec<f64> {
    let of = |arm: Arm| {
        let values: Vec<f64> = x.iter().filter(|(of, _)| *of == arm).map(|(_, value)| *value).collect();
        mean(&values).unwrap_or_default()
    };
    let (base, candidate) = (of(Arm::A), of(Arm::B));
    x.iter().map(|(arm, value)| value - if *arm == Arm::A { base } else { candidate }).collect()
}

/// Looks at the values first: arms that are in a state differently often have different means because of it. Two groups
/// that are just the two arms are what the gate measures anyway; then the residuals may show speeds both arms share.
fn speeds(x: &[(Arm, f64)], residuals: &[f64]) -> Option<String> {
    let plain: Vec<f64> = x.iter().map(|(_, value)| *value).collect();
    [&plain[..], residuals].into_iter().find_map(|values| {
        let states = two_states(values)?;
        let is_large = |share: f64| (SPEED_SHARE..=1.0 - SPEED_SHARE).contains(&share);
        if states.gap <= SPEEDS_APART.ln() || !is_large(states.share_high) {
            return None;
        }
        let base = counts(x, values, Arm::A, &states);
        let candidate = counts(x, values, Arm::B, &states);
        let share = |(low, high): (u64, u64)| high as f64 / (low + high).max(1) as f64;
        // One outlier is not a second speed.
        let both = |counts: (u64, u64)| counts.0.min(counts.1) >= 2 && is_large(share(counts));
        if !both(base) && !both(candidate) {
            return None;
        }
        let mut tag = format!(
            "two speeds {:.1} % apart: {:.0} % of baseline, {:.0} % of candidate in the slow one",
            states.gap.exp_m1() * 100.0,
            share(base) * 100.0,
            share(candidate) * 100.0
        );
        let chance = fisher_exact(base, candidate);
        if chance < CHANCE {
            tag.push_str(&format!(", which is no chance (p {chance:.0e}): the change itself may switch the speed"));
        }
        Some(tag)
    })
}

/// Invocations of an arm in the fast and in the slow state.
fn counts(x: &[(Arm, f64)], values: &[f64], arm: Arm, states: &States) -> (u64, u64) {
    let of_arm = x.iter().zip(values).filter(|((of, _), _)| *of == arm);
    of_arm.fold((0, 0), |(low, high), (_, value)| if *value > states.split { (low, high + 1) } else { (low + 1, high) })
}

#[cfg(test)]
mod tests {
    use espalier_protocol::BoardState;
    use proptest::prelude::*;

    use super::*;
    use crate::{fixture, random::splitmix};

    fn measurement(before: BoardState, after: BoardState) -> Measurement {
        Measurement { before, after, ..fixture::measurement() }
    }

    /// A board that reports everything and is undisturbed.
    fn healthy() -> BoardState {
        BoardState {
            governor: Some("performance".into()),
            frequency_khz: Some(1_500_000),
            max_frequency_khz: Some(1_500_000),
            throttled: Some(false),
            swap_ins: Some(10),
            busy_ms: Some(50_000),
            own_cpu_ms: Some(20),
            ..BoardState::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut BoardState), expected: Option<&str>) {
        let mut after = BoardState { busy_ms: Some(51_000), own_cpu_ms: Some(1_020), ..healthy() };
        change(&mut after);
        assert_eq!(void(&measurement(healthy(), after), 1000).as_deref(), expected);
    }

    #[test]
    fn single_invocations() {
        check(|_| {}, None);
        check(|after| after.throttled = Some(true), Some("the board said that it was held back (heat or voltage)"));
        let slow = "the board ran at 1200 of 1500 MHz although its governor is `performance`";
        check(|after| after.frequency_khz = Some(1_200_000), Some(slow));
        check(|after| after.frequency_khz = Some(1_430_000), None);
        check(
            |after| {
                after.frequency_khz = Some(1_200_000);
                after.governor = Some("ondemand".into());
            },
            None,
        );
        check(|after| after.swap_ins = Some(13), Some("the board swapped in 3 pages of memory"));
        // 5 % of 1000 ms and three ticks.
        check(|after| after.busy_ms = Some(51_080), None);
        check(
            |after| after.busy_ms = Some(51_081),
            Some("other programs used 81 ms of CPU time while it ran for 1000 ms"),
        );
        // Ticks of 10 ms may show the runner alone as more than all together.
        check(|after| after.busy_ms = Some(50_990), None);
        check(
            |after| {
                after.busy_ms = Some(59_000);
                after.own_cpu_ms = None;
            },
            None,
        );
        let throttled = BoardState { throttled: Some(true), ..healthy() };
        assert!(void(&measurement(throttled, healthy()), 1000).is_some());
        assert_eq!(void(&measurement(BoardState::default(), BoardState::default()), 0), None);
    }

    /// ABBA and BAAB by turns, noise of about 0.5 % that is the same every time, plus `add(index, arm)`.
    fn session(blocks: usize, add: impl Fn(usize, Arm) -> f64) -> Vec<(Arm, f64)> {
        use Arm::{A, B};
        let order = [A, B, B, A, B, A, A, B];
        (0..blocks * 4)
            .map(|i| {
                let arm = order[i % 8];
                // The sum of three uniform values is near enough to normal.
                let uniform = |which: u64| {
                    let mut state = (i as u64 * 3 + which).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (splitmix(&mut state) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
                };
                let noise = uniform(0) + uniform(1) + uniform(2);
                (arm, 15.0 + 0.01 * noise + add(i, arm))
            })
            .collect()
    }

    #[track_caller]
    fn check_tags(x: &[(Arm, f64)], expected: &[&str]) {
        assert_eq!(session_tags(x), expected);
    }

    #[test]
    fn quiet_sessions_have_no_tags() {
        check_tags(&session(16, |_, _| 0.0), &[]);
        // However much slower the candidate is.
        check_tags(&session(16, |_, arm| if arm == Arm::B { 0.3 } else { 0.0 }), &[]);
        check_tags(&[], &[]);
        check_tags(&[(Arm::A, f64::NAN), (Arm::B, 1.0)], &[]);
    }

    /// z by pymannkendall 1.4, place and size of the step by pyhomogeneity 1.1.
    #[test]
    fn sessions_that_move() {
        check_tags(
            &session(16, |i, arm| 0.001 * i as f64 + if arm == Arm::B { 0.3 } else { 0.0 }),
            &["drift z=9.8", "step of +3.3 % after 32 of 64 invocations"],
        );
        check_tags(
            &session(16, |i, _| if i >= 40 { -0.03 } else { 0.0 }),
            &["drift z=-5.9", "step of -3.0 % after 40 of 64 invocations"],
        );
    }

    #[test]
    fn sessions_at_two_speeds() {
        // A third of all invocations, whatever the arm; also where the candidate is slower by more than the speeds
        // differ.
        let third = |i: usize| if i.is_multiple_of(3) { 0.06 } else { 0.0 };
        for slower in [0.0, 0.2] {
            let tags = session_tags(&session(16, |i, arm| third(i) + if arm == Arm::B { slower } else { 0.0 }));
            assert_eq!(tags.len(), 1, "{tags:?}");
            assert!(tags[0].starts_with("two speeds 6."), "{tags:?}");
            assert!(tags[0].ends_with("in the slow one"), "{tags:?}");
        }
        // Two thirds of the candidate's alone.
        let tags = session_tags(&session(16, |i, arm| if arm == Arm::B && i % 3 > 0 { 0.06 } else { 0.0 }));
        assert_eq!(tags.len(), 1, "{tags:?}");
        assert!(
            tags[0].contains(": 0 % of baseline, 66 % of candidate in the slow one, which is no chance"),
            "{tags:?}"
        );
        // Nearer than 4 %, or too seldom.
        check_tags(&session(16, |i, _| third(i) / 2.0), &[]);
        check_tags(&session(16, |i, _| if i % 16 == 3 { 0.06 } else { 0.0 }), &[]);
    }

    fn void(measurement: &Measurement, wall_ms: u64) -> Option<String> {
        held_back(measurement).or_else(|| disturbed(measurement, wall_ms))
    }

    fn shaped() -> impl Strategy<Value = Vec<(Arm, f64)>> {
        let shape = (0.0..0.002f64, 0.0..0.1f64, 2usize..5);
        shape.prop_map(|(slope, gap, each)| {
            session(12, |i, _| slope * i as f64 + if i.is_multiple_of(each) { gap } else { 0.0 })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A tag of drift or step says the same whichever arm is called the baseline; of speeds, with the shares
        /// exchanged.
        #[test]
        fn tags_do_not_know_the_arms(x in shaped()) {
            let swapped: Vec<(Arm, f64)> =
                x.iter().map(|(arm, value)| (if *arm == Arm::A { Arm::B } else { Arm::A }, *value)).collect();
            let speeds = |tags: &[String]| tags.iter().filter(|tag| tag.starts_with("two speeds")).count();
            let (there, back) = (session_tags(&x), session_tags(&swapped));
            prop_assert_eq!(speeds(&there), speeds(&back));
            let others = |tags: Vec<String>| tags.into_iter().filter(|tag| !tag.starts_with("two")).collect::<Vec<_>>();
            prop_assert_eq!(others(there), others(back));
        }

        /// A unit is an offset of the logarithms; one that changes no digit, or ranks might change with rounding.
        #[test]
        fn units_do_not_matter(x in shaped()) {
            let moved: Vec<(Arm, f64)> = x.iter().map(|(arm, value)| (*arm, value - 14.0)).collect();
            let kinds = |x: &[(Arm, f64)]| session_tags(x);
            prop_assert_eq!(kinds(&x), kinds(&moved));
        }
    }
}
