//! Synthetic entries with known changes: which are found, and that an acknowledgement silences one point and no other.

use proptest::prelude::*;

use super::*;
use crate::{
    Verdict,
    history::fixture::{self, entries},
};

/// A level that goes up at each of some entries.
fn steps(at: &[(u32, f64)]) -> impl Fn(u32) -> f64 {
    move |entry| at.iter().filter(|(first, _)| entry >= *first).map(|(_, height)| height).sum()
}

/// Subject, entry, state of every point.
fn states(history: &History) -> Vec<(&'static str, usize, &'static str)> {
    let points = history.rows.iter().flat_map(|row| row.lines()).flat_map(|line| &line.points);
    points.map(|point| (point.subject.name(), point.entry, point.state.name())).collect()
}

#[test]
fn code_and_device_are_separate() {
    let both = entries(60, 1, steps(&[(40, 0.03)]), steps(&[(20, -0.05)]));
    let found = history(&both, &[]);
    assert_eq!(states(&found), [("code", 40, "confirmed"), ("device", 20, "confirmed")]);
    let point = &found.rows[0].code.points[0];
    assert_eq!((point.last_good, point.first_bad, point.entries_after, point.kind), (39, 40, 20, PointKind::Step));
    assert!((point.magnitude() - 0.03f64.exp_m1()).abs() < 0.002, "{point:?}");
    assert!(point.p_value.unwrap() < 1e-9);
    let [low, high] = point.after.bounds.unwrap();
    assert!(low < 0.03 && 0.03 < high && high - low < 0.006, "{point:?}");
    let stretches: Vec<(usize, usize)> = found.rows[0].code.stretches.iter().map(|s| (s.first, s.last)).collect();
    assert_eq!(stretches, [(0, 39), (40, 59)]);
    assert_eq!(found.suspects().count(), 2);
}

#[test]
fn a_point_is_new_then_confirmed() {
    let all = entries(50, 2, steps(&[(40, 0.05)]), |_| 0.0);
    let state = |count: usize| states(&history(&all[..count], &[])).first().map(|(_, entry, state)| (*entry, *state));
    assert_eq!(state(41), None);
    assert_eq!((state(43), state(44)), (Some((40, "new")), Some((40, "new"))));
    assert_eq!((state(45), state(50)), (Some((40, "confirmed")), Some((40, "confirmed"))));
}

/// Hollow entries have extreme values here: they are ignored, and points have the indexes of the file.
#[test]
fn hollow_entries_are_left_out() {
    let mut all = entries(60, 3, steps(&[(40, 0.03)]), |_| 0.0);
    for entry in [5, 6, 7, 38, 39, 41, 59] {
        all[entry].log_ratio = 0.5;
        all[entry].verdict = Verdict::Inconclusive;
    }
    all[50].tags = vec!["invalid: throttled".into()];
    let found = history(&all, &[]);
    assert_eq!(states(&found), [("code", 40, "confirmed")]);
    let point = &found.rows[0].code.points[0];
    assert_eq!((point.last_good, point.first_bad, point.entries_after), (37, 40, 17));
}

/// A change of 1 % where an entry is only good for 1 %: three standard errors of an entry are the least that is
/// reported.
#[test]
fn noisy_entries_have_a_larger_least_change() {
    let mut all = entries(80, 4, steps(&[(40, 0.015)]), |_| 0.0);
    assert_eq!(states(&history(&all, &[])), [("code", 40, "confirmed")]);
    all.iter_mut().for_each(|entry| entry.se = 0.01);
    let found = history(&all, &[]);
    assert_eq!(states(&found), []);
    assert!((found.rows[0].code.min_magnitude - 0.03).abs() < 1e-12);
}

/// 0.03 % an entry is nothing from one entry to the next, and no two levels lie a per cent apart.
#[test]
fn creep_is_noticed() {
    let creep = |entry: u32| 0.0003 * f64::from(entry.saturating_sub(20));
    let mut noticed = 0;
    for seed in 0..20 {
        for sign in [1.0, -1.0] {
            let found = history(&entries(72, seed, |entry| sign * creep(entry), |_| 0.0), &[]);
            let points = &found.rows[0].code.points;
            assert!(points.iter().all(|point| point.change * sign > 0.0), "seed {seed}: {points:?}");
            noticed += usize::from(!points.is_empty());
            for point in points.iter().filter(|point| point.kind == PointKind::Creep) {
                assert!(point.first_bad < point.entry && point.entry >= 35, "seed {seed}: {point:?}");
            }
        }
    }
    assert!(noticed >= 36, "{noticed} of 40");
    let kinds =
        |history: &History| -> Vec<PointKind> { history.rows[0].code.points.iter().map(|point| point.kind).collect() };
    let all = entries(58, 6, creep, |_| 0.0);
    let found = history(&all, &[]);
    assert_eq!(kinds(&found), [PointKind::Creep], "{:?}", found.rows[0].code.points);
    // Accepted: the level since then is intended.
    let point = &found.rows[0].code.points[0];
    let change = point.acknowledge(&found.rows[0].track, Acknowledged::Accepted, "Jana", "as decided", "2026-11-23");
    assert_eq!(states(&history(&all, std::slice::from_ref(&change))), [("code", point.entry, "accepted")]);
    // Which holds no longer than the level does.
    let later = entries(120, 6, creep, |_| 0.0);
    assert!(history(&later, std::slice::from_ref(&change)).suspects().count() > 0);
    let noise = Change { state: Acknowledged::Noise, ..change };
    assert_eq!(history(&all, &[noise]).suspects().count(), 0);
}

/// A hundred cases of three months, nothing changed: two series each.
#[test]
fn quiet_entries_are_quiet() {
    let mut alarms = Vec::new();
    for seed in 0..100 {
        let found = history(&entries(90, 1000 + seed, |_| 0.0, |_| 0.0), &[]);
        alarms.extend(states(&found).into_iter().map(|state| (seed, state)));
    }
    assert!(alarms.is_empty(), "{alarms:?}");
}

#[test]
fn one_commit_for_many_entries() {
    let mut all = entries(60, 7, |_| 0.0, steps(&[(25, 0.04), (40, 0.04)]));
    all[20..45].iter_mut().for_each(|entry| entry.commit = Some("abcd123".into()));
    let noise = |gate: Option<&str>| Change {
        subject: Subject::Device,
        gate: gate.map(str::to_owned),
        ..fixture::change("abcd123", Acknowledged::Noise)
    };
    let after = |changes: &[Change]| states(&history(&all, changes)).iter().map(|state| state.2).collect::<Vec<_>>();
    assert_eq!(after(&[noise(None)]), ["noise", "confirmed"], "one acknowledgement, one point");
    assert_eq!(after(&[noise(Some("g40"))]), ["confirmed", "noise"]);
    assert_eq!(after(&[noise(Some("g42"))]), ["confirmed", "noise"], "within two entries");
    assert_eq!(after(&[noise(Some("g43"))]), ["confirmed", "confirmed"]);
    assert_eq!(history(&all, &[noise(Some("g43"))]).unmatched.len(), 1);
    let other = Change { subject: Subject::Code, ..noise(None) };
    assert_eq!(after(&[other]), ["confirmed", "confirmed"], "it speaks of the other series");
}

#[test]
fn a_new_baseline_takes_what_was_for_granted() {
    let mut all = entries(60, 8, steps(&[(20, 0.03)]), |_| 0.0);
    all[40..].iter_mut().for_each(|entry| entry.baseline = "release-1.5".into());
    let found = history(&all, &[]);
    assert_eq!(states(&found), [("code", 20, "confirmed")]);
    assert_eq!(found.suspects().count(), 0);
    // Found where no point is: detection starts anew there all the same, and it is shown.
    let accepted = fixture::change("c00030", Acknowledged::Accepted);
    assert_eq!(states(&history(&all[..40], &[accepted])), [("code", 20, "confirmed"), ("code", 30, "accepted")]);
}

#[test]
fn short_histories() {
    for count in 0..8 {
        assert_eq!(states(&history(&entries(count, 9, |_| 0.0, |_| 0.0), &[])), [], "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_acknowledgement_silences_one_point_and_no_other(
        seed in any::<u64>(), gaps in proptest::collection::vec(8..25u32, 1..4), ups in any::<[bool; 4]>(),
        pick in any::<usize>(), accept in any::<bool>(),
    ) {
        let mut at = Vec::new();
        let mut entry = 0;
        for (gap, up) in gaps.iter().zip(ups) {
            entry += gap;
            at.push((entry, if up { 0.03 } else { -0.03 }));
        }
        let all = entries(entry + 12, seed, steps(&at), |_| 0.0);
        let before = history(&all, &[]);
        let is_step = |point: &&Point| point.kind == PointKind::Step;
        let count = before.rows[0].code.points.iter().filter(is_step).count();
        prop_assume!(count > 0);
        let point = before.rows[0].code.points.iter().filter(is_step).nth(pick % count).unwrap();
        let state = if accept { Acknowledged::Accepted } else { Acknowledged::Noise };
        let change = point.acknowledge(&before.rows[0].track, state, "Jana", "as decided", "2026-11-23");
        let after = history(&all, std::slice::from_ref(&change));
        prop_assert_eq!(&after.unmatched, &[]);
        let mut expected = before.clone();
        expected.rows[0].code.points[pick % count].state = State::Acknowledged(change);
        prop_assert_eq!(after, expected);
    }

    /// HistoryEntry by entry: the point that was answered for stays where it is, give or take two entries, and stays
    /// answered for.
    #[test]
    fn later_entries_do_not_reopen_a_point(
        seed in any::<u64>(), at in 10..30u32, height in 0.02..0.1f64, up in any::<bool>(), accept in any::<bool>(),
    ) {
        let height = if up { height } else { -height };
        let all = entries(at + 25, seed, steps(&[(at, height)]), |_| 0.0);
        let state = if accept { Acknowledged::Accepted } else { Acknowledged::Noise };
        let mut change: Option<Change> = None;
        for count in at as usize + 3..all.len() {
            let found = history(&all[..count], change.as_slice());
            let points = &found.rows[0].code.points;
            prop_assert!(points.iter().all(|point| point.entry.abs_diff(at as usize) <= TOLERANCE), "{points:?}");
            match (&change, points.first()) {
                (None, Some(point)) => {
                    change = Some(point.acknowledge(&found.rows[0].track, state, "Jana", "as decided", "2026-11-23"));
                }
                (Some(_), Some(point)) => prop_assert!(!point.is_open(), "{count}: {point:?}"),
                (None, None) => prop_assert!(count < at as usize + 8, "not found after {count} entries"),
                (Some(_), None) => prop_assert!(false, "lost after {count} entries"),
            }
        }
    }

    #[test]
    fn any_entries_have_a_history(
        values in proptest::collection::vec((-2.0..2.0f64, 1.0..1e9f64, 0.0..0.1f64, any::<bool>()), 0..40),
        named in proptest::collection::vec((0..45u32, any::<bool>(), any::<bool>()), 0..4),
    ) {
        let entry = |(index, &(ratio, anchor, se, solid)): (usize, &(f64, f64, f64, bool))| {
            let verdict = if solid { Verdict::Pass } else { Verdict::Inconclusive };
            HistoryEntry { se, anchor_se: se, verdict, ..fixture::entry(index as u32, ratio, anchor) }
        };
        let all: Vec<HistoryEntry> = values.iter().enumerate().map(entry).collect();
        let change = |&(entry, accepted, device): &(u32, bool, bool)| {
            let state = if accepted { Acknowledged::Accepted } else { Acknowledged::Noise };
            let subject = if device { Subject::Device } else { Subject::Code };
            Change { subject, ..fixture::change(&format!("c{entry:05}"), state) }
        };
        let found = history(&all, &named.iter().map(change).collect::<Vec<_>>());
        for line in found.rows.iter().flat_map(|row| row.lines()) {
            for point in &line.points {
                prop_assert!(point.last_good < point.first_bad && point.first_bad <= point.entry);
            }
            prop_assert!(line.stretches.windows(2).all(|pair| pair[0].last < pair[1].first));
        }
        let _ = (crate::history::render::render(&found, 80), crate::history::data::render(&found));
    }
}
