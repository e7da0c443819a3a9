//! Two small samples of values that hardly vary (peaks of memory): do they overlap at all? There is no model of their
//! spread: only their order counts, and a tolerance below which a difference does not matter.

use crate::quantile;

/// How the second sample compares with the first. `Higher` and `Lower` hold for every pair of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separation {
    /// All above, and the median by more than the tolerance.
    Higher,
    /// None below by more than the tolerance; some are above by more.
    AtLeast,
    /// All of both within the tolerance.
    Alike,
    /// None above by more than the tolerance; some are below by more.
    AtMost,
    /// All below, and the median by more than the tolerance.
    Lower,
    /// Some are above and some below.
    Overlapping,
}

impl Separation {
    /// Whether nothing in the second sample is above the first by more than the tolerance.
    pub fn is_not_higher(self) -> bool {
        matches!(self, Separation::Alike | Separation::AtMost | Separation::Lower)
    }
}

/// What two values may differ by: the larger of a share of the smaller value and an absolute number. Not below zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub relative: f64,
    pub absolute: f64,
}

impl Tolerance {
    /// Whether `other` is above `value` by more than this.
    fn exceeded(self, value: f64, other: f64) -> bool {
        other - value > (self.relative * value).max(self.absolute)
    }
}

/// `None` where there is no value or one is not finite.
pub fn separation(base: &[f64], other: &[f64], tolerance: Tolerance) -> Option<Separation> {
    let (base, other) = (Spread::of(base)?, Spread::of(other)?);
    let above = |one: &Spread, two: &Spread| two.low > one.high && tolerance.exceeded(one.median, two.median);
    let not_higher = |one: &Spread, two: &Spread| !tolerance.exceeded(one.low, two.high);
    Some(if above(&base, &other) {
        Separation::Higher
    } else if above(&other, &base) {
        Separation::Lower
    } else {
        match (not_higher(&base, &other), not_higher(&other, &base)) {
            (true, true) => Separation::Alike,
            (true, false) => Separation::AtMost,
            (false, true) => Separation::AtLeast,
            (false, false) => Separation::Overlapping,
        }
    })
}

/// 1 / C(n + m, n): how likely `m` values all lie above `n` others if all of them are exchangeable.
pub fn separation_chance(n: usize, m: usize) -> f64 {
    (1..=n).map(|i| i as f64 / (m + i) as f64).product()
}

struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Spread> {
        let median = quantile::median(values).ok()?;
        let low = values.iter().copied().reduce(f64::min)?;
        Some(Spread { low, median, high: values.iter().copied().reduce(f64::max)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it looks from the other sample.
    fn reversed(separation: Separation) -> Separation {
        match separation {
            Separation::Higher => Separation::Lower,
            Separation::AtLeast => Separation::AtMost,
            Separation::AtMost => Separation::AtLeast,
            Separation::Lower => Separation::Higher,
            Separation::Alike | Separation::Overlapping => separation,
        }
    }

    const ONE: Tolerance = Tolerance { relative: 0.01, absolute: 1.0 };

    #[test]
    fn each_kind() {
        let base = [1000.0, 1002.0, 1004.0, 1001.0];
        for (other, expected) in [
            ([1016.0, 1020.0, 1018.0, 1017.0], Separation::Higher),
            // Complete, but by less than one per cent.
            ([1005.0, 1006.0, 1008.0, 1007.0], Separation::Alike),
            // Complete, some by more than one per cent, the median by less.
            ([1005.0, 1006.0, 1012.0, 1007.0], Separation::AtLeast),
            ([1003.0, 1020.0, 1018.0, 1017.0], Separation::AtLeast),
            ([1001.0, 1003.0, 1002.0, 1001.0], Separation::Alike),
            ([1004.0, 980.0, 985.0, 986.0], Separation::AtMost),
            ([970.0, 980.0, 985.0, 986.0], Separation::Lower),
            ([970.0, 1020.0, 985.0, 1016.0], Separation::Overlapping),
        ] {
            assert_eq!(separation(&base, &other, ONE), Some(expected), "{other:?}");
        }
        // The absolute part counts where values are small.
        assert_eq!(separation(&[2.0, 2.0], &[3.0, 3.0], ONE), Some(Separation::Alike));
        assert_eq!(separation(&[2.0, 2.0], &[3.1, 3.1], ONE), Some(Separation::Higher));
        assert_eq!(separation(&[], &[1.0], ONE), None);
        assert_eq!(separation(&[1.0], &[f64::NAN], ONE), None);
    }

    /// 1/70 and 1/12870, counted.
    #[test]
    fn chances() {
        for (n, m, ways) in [(4, 4, 70.0), (8, 8, 12870.0), (4, 8, 495.0), (1, 1, 2.0), (0, 3, 1.0)] {
            assert!((separation_chance(n, m) * ways - 1.0).abs() < 1e-12, "{n} {m}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_reverses(
            base in proptest::collection::vec(900u32..1100, 1..9),
            other in proptest::collection::vec(900u32..1100, 1..9),
            shift in 0u32..200,
        ) {
            let base: Vec<f64> = base.into_iter().map(f64::from).collect();
            let other: Vec<f64> = other.into_iter().map(|value| f64::from(value + shift)).collect();
            let there = separation(&base, &other, ONE).unwrap();
            prop_assert_eq!(separation(&other, &base, ONE).unwrap(), reversed(there));
            prop_assert!(!(there == Separation::Higher && there.is_not_higher()));
        }
    }
}
