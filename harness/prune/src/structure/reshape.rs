//! `Reshape` and its like as regrouped axes: one axis is several factors, as `[D]` is `[heads, width]` and `[C, h, w]`
//! is `[C·h·w]`.
//!
//! What is removed of the merged axis is removed along one factor, and the other factors stay. Which one is decided
//! after all other rules: a factor that is not pinned; of several the one that attention runs over in parallel, else
//! the longest.

use super::units::{Pin, Units, Value, pin};
use crate::onnx::NodeProto;

type Axis = (Value, usize);

#[derive(Clone, Debug, PartialEq)]
pub enum Regroup {
    /// The same axis before and after.
    Same { from: Axis, to: Axis },
    Factors {
        merged: Axis,
        /// From the outermost.
        factors: Vec<Axis>,
        pin: Pin,
    },
    /// Several axes became several others: which is which is unknown.
    Mixed { axes: Vec<Axis>, pin: Pin },
}

impl Regroup {
    /// How the axes of `x` became those of `y`; `None` for values without elements, or of different numbers of
    /// elements.
    pub fn of(node: &NodeProto, (x, from): (Value, &[usize]), (y, to): (Value, &[usize])) -> Option<Vec<Regroup>> {
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |product, len| product.checked_mul(*len));
        (count(from)? == count(to)? && count(from)? > 0).then_some(())?;
        // Axes of length 1 do not count.
        let long = |value: Value, shape: &[usize]| -> Vec<(Axis, usize)> {
            shape.iter().enumerate().filter(|(_, len)| **len > 1).map(|(axis, len)| ((value, axis), *len)).collect()
        };
        let (mut from, mut to) = (long(x, from).into_iter(), long(y, to).into_iter());
        let mut regroups = Vec::new();
        while let Some((first, mut before)) = from.next() {
            let (other, mut after) = to.next()?;
            let (mut froms, mut tos) = (vec![first], vec![other]);
            while before != after {
                if before < after {
                    let (axis, len) = from.next()?;
                    before *= len;
                    froms.push(axis);
                } else {
                    let (axis, len) = to.next()?;
                    after *= len;
                    tos.push(axis);
                }
            }
            let pin = pin(node, "it is a factor of an axis that is split or merged");
            regroups.push(match (froms.as_slice(), tos.as_slice()) {
                ([from], [to]) => Regroup::Same { from: *from, to: *to },
                ([merged], _) => Regroup::Factors { merged: *merged, factors: tos, pin },
                (_, [merged]) => Regroup::Factors { merged: *merged, factors: froms, pin },
                _ => Regroup::Mixed { axes: froms.into_iter().chain(tos).collect(), pin },
            });
        }
        Some(regroups)
    }
}

/// Decides all regroups, to a fixpoint: each decision may pin factors of others.
pub fn decide(units: &mut Units, mut regroups: Vec<Regroup>) {
    regroups.retain(|regroup| {
        if let Regroup::Mixed { axes, pin } = regroup {
            axes.iter().for_each(|(value, axis)| units.pin_axis(*value, *axis, pin));
        }
        matches!(regroup, Regroup::Factors { .. })
    });
    while !regroups.is_empty() {
        // Certain ones first: they may pin factors of others.
        let before = regroups.len();
        regroups.retain(|regroup| {
            let open = open_factors(units, regroup);
            let certain = open.len() <= 1;
            if certain {
                follow(units, regroup, open.first().copied());
            }
            !certain
        });
        if regroups.len() < before {
            continue;
        }
        let heads = regroups.iter().position(|regroup| has_heads(units, regroup));
        let regroup = regroups.remove(heads.unwrap_or(0));
        let chosen = choose(units, &regroup);
        follow(units, &regroup, chosen);
    }
}

/// Which factors may shrink; none where the merged axis may not.
fn open_factors(units: &mut Units, regroup: &Regroup) -> Vec<usize> {
    let Regroup::Factors { merged, factors, .. } = regroup else { return Vec::new() };
    if !units.is_open(merged.0, merged.1) {
        return Vec::new();
    }
    (0..factors.len()).filter(|factor| units.is_open(factors[*factor].0, factors[*factor].1)).collect()
}

fn has_heads(units: &mut Units, regroup: &Regroup) -> bool {
    let Regroup::Factors { merged, factors, .. } = regroup else { return false };
    factors.iter().chain([merged]).any(|(value, axis)| units.has_heads(*value, *axis))
}

fn choose(units: &mut Units, regroup: &Regroup) -> Option<usize> {
    let Regroup::Factors { factors, merged, .. } = regroup else { return None };
    let open = open_factors(units, regroup);
    let heads = open.iter().find(|factor| units.has_heads(factors[**factor].0, factors[**factor].1));
    if heads.is_some() || units.has_heads(merged.0, merged.1) {
        return heads.or(open.first()).copied();
    }
    let len = |factor: usize| units.len(factors[factor].0, factors[factor].1);
    // The first of the longest.
    open.into_iter().rev().max_by_key(|factor| len(*factor))
}

/// Ties the merged axis to one factor; all other factors stay. Without a factor the merged axis stays too.
fn follow(units: &mut Units, regroup: &Regroup, chosen: Option<usize>) {
    let Regroup::Factors { merged: (merged, axis), factors, pin } = regroup else { return };
    for (index, (value, axis)) in factors.iter().enumerate() {
        if Some(index) != chosen {
            units.pin_axis(*value, *axis, pin);
        }
    }
    let Some(chosen) = chosen else {
        units.pin_axis(*merged, *axis, pin);
        return;
    };
    let (value, factor_axis) = factors[chosen];
    let inner: usize = factors[chosen + 1..].iter().map(|(value, axis)| units.len(*value, *axis)).product();
    let len = units.len(value, factor_axis);
    for index in 0..units.len(*merged, *axis) {
        let along = index / inner % len;
        units.tie(units.unit(*merged, *axis, index), units.unit(value, factor_axis, along));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[split]` for a merged axis and its factors, `=` for the same axis, `mixed`.
    #[track_caller]
    fn check(from: &[usize], to: &[usize], expected: &[&str]) {
        let node = NodeProto::default();
        let found = Regroup::of(&node, (0, from), (1, to)).unwrap();
        let words: Vec<String> = found
            .iter()
            .map(|regroup| match regroup {
                Regroup::Same { from, to } => format!("{}={}", from.1, to.1),
                Regroup::Factors { merged, factors, .. } => {
                    let factors: Vec<String> = factors.iter().map(|(_, axis)| axis.to_string()).collect();
                    format!("{}:{}={}", merged.0, merged.1, factors.join(","))
                }
                Regroup::Mixed { .. } => "mixed".to_owned(),
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn axes_are_matched_by_their_products() {
        check(&[3, 7, 128], &[3, 7, 4, 32], &["0=0", "1=1", "0:2=2,3"]);
        check(&[3, 64, 1, 1], &[3, 64], &["0=0", "1=1"]);
        check(&[3, 8, 4, 4], &[3, 128], &["0=0", "1:1=1,2,3"]);
        check(&[3, 7, 5], &[21, 5], &["1:0=0,1", "2=1"]);
        check(&[6, 4], &[4, 6], &["mixed"]);
        assert_eq!(Regroup::of(&NodeProto::default(), (0, &[2, 3]), (1, &[5])), None);
        assert_eq!(Regroup::of(&NodeProto::default(), (0, &[0, 3]), (1, &[0])), None);
    }

    #[test]
    fn the_factor_that_may_go_is_followed() {
        let pin = pin(&NodeProto::default(), "test");
        for (pinned, heads, follows) in [(Some(0), None, 1), (Some(1), None, 0), (None, Some(0), 0), (None, None, 1)] {
            let mut units = Units::default();
            let merged = units.add("merged", &[12]).unwrap();
            let split = units.add("split", &[3, 4]).unwrap();
            pinned.into_iter().for_each(|axis| units.pin_axis(split, axis, &pin));
            heads.into_iter().for_each(|axis| units.mark_heads(split, axis));
            let factors = vec![(split, 0), (split, 1)];
            decide(&mut units, vec![Regroup::Factors { merged: (merged, 0), factors, pin: pin.clone() }]);
            assert!(units.is_open(split, follows) && !units.is_open(split, 1 - follows));
            // The seventh is row 1, column 3.
            let along = units.unit(split, follows, if follows == 0 { 1 } else { 3 });
            let seventh = units.unit(merged, 0, 7);
            assert_eq!(units.root(seventh), units.root(along));
        }
    }
}
