//! Which classes are removed: exactly as many as requested, the least important first, and never all of a group.

use std::collections::{HashMap, HashSet};

use super::dependencies::ChannelGroup;
use crate::{Amount, PruneError, Scope, Scores, Structure};

/// Limits of removal beside the ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Kept counts are rounded up to multiples of it, except of heads.
    pub round_to: usize,
    /// The fraction of each group that stays; one unit stays in any case.
    pub keep_at_least: f64,
}

impl Limits {
    /// How many classes of a group may be removed.
    fn removable(&self, group: &ChannelGroup) -> usize {
        let len = group.classes.len();
        let stay = (self.keep_at_least.clamp(0.0, 1.0) * len as f64).ceil() as usize;
        len - stay.clamp(1, len)
    }
}

/// Which classes are removed, by group; and notes on why the count is not the requested one.
pub struct Choice {
    pub removed: Vec<Vec<bool>>,
    pub notes: Vec<String>,
}

/// Importance of each class, by group: the sum of the scores of all its weights. `tensors` are the scored tensors as
/// (initialiser, shape), in the order of the scores.
pub fn importance(groups: &[ChannelGroup], tensors: &[(usize, Vec<usize>)], scores: &Scores) -> Vec<Vec<f64>> {
    let mut sums: HashMap<(usize, usize), Vec<f64>> = HashMap::new();
    let scored: HashSet<(usize, usize)> = groups.iter().flat_map(|group| group.axes.iter().copied()).collect();
    for ((tensor, shape), scores) in tensors.iter().zip(&scores.0) {
        for axis in (0..shape.len()).filter(|axis| scored.contains(&(*tensor, *axis))) {
            let mut sum = vec![0.0; shape[axis]];
            add_along(&mut sum, scores, shape, axis, f64::from);
            sums.insert((*tensor, axis), sum);
        }
    }
    let of = |&(tensor, axis, index): &(usize, usize, usize)| {
        sums.get(&(tensor, axis)).and_then(|sum| sum.get(index)).copied().unwrap_or(0.0)
    };
    groups.iter().map(|group| group.classes.iter().map(|class| class.members.iter().map(of).sum()).collect()).collect()
}

/// Adds `of` each value to the sum of its index along an axis.
pub fn add_along(sums: &mut [f64], values: &[f32], shape: &[usize], axis: usize, of: fn(f32) -> f64) {
    let inner: usize = shape[axis + 1..].iter().product::<usize>().max(1);
    for (block, values) in values.chunks(inner).enumerate() {
        sums[block % shape[axis]] += values.iter().map(|value| of(*value)).sum::<f64>();
    }
}

/// # Errors
/// Importance that is NaN or infinite.
pub fn choose(
    groups: &[ChannelGroup],
    importance: &[Vec<f64>],
    scope: Scope,
    amount: Amount,
    limits: &Limits,
) -> Result<Choice, PruneError> {
    for (group, importance) in groups.iter().zip(importance) {
        if let Some(index) = importance.iter().position(|importance| !importance.is_finite()) {
            return Err(PruneError::NotAScore { tensor: group.name.clone(), index: index as u64 });
        }
    }
    let mut choice =
        Choice { removed: groups.iter().map(|group| vec![false; group.classes.len()]).collect(), notes: Vec::new() };
    match scope {
        // Groups differ in size and in the scale of their weights: a class is compared with the mean of its group.
        Scope::Global => {
            let relative = importance.iter().map(|importance| {
                let mean = importance.iter().sum::<f64>() / importance.len().max(1) as f64;
                importance.iter().map(|value| if mean > 0.0 { value / mean } else { 0.0 }).collect::<Vec<f64>>()
            });
            let relative: Vec<Vec<f64>> = relative.collect();
            let all: Vec<usize> = (0..groups.len()).collect();
            take(groups, &relative, &all, amount, limits, &mut choice);
        }
        Scope::Local => {
            for group in 0..groups.len() {
                take(groups, importance, &[group], amount, limits, &mut choice);
            }
        }
    }
    if limits.round_to > 1 {
        round(groups, importance, limits.round_to, &mut choice);
    }
    Ok(choice)
}

/// Removes classes of the given groups, which compete with each other.
fn take(
    groups: &[ChannelGroup],
    importance: &[Vec<f64>],
    among: &[usize],
    amount: Amount,
    limits: &Limits,
    choice: &mut Choice,
) {
    let mut order: Vec<(usize, usize)> =
        among.iter().flat_map(|group| (0..groups[*group].classes.len()).map(move |class| (*group, class))).collect();
    // Stable: of equals the earlier ones are removed first.
    order.sort_by(|a, b| importance[a.0][a.1].total_cmp(&importance[b.0][b.1]));
    let sorted: Vec<f64> = order.iter().map(|(group, class)| importance[*group][*class]).collect();
    let requested = amount.count(&sorted);
    let mut left: HashMap<usize, usize> =
        among.iter().map(|group| (*group, limits.removable(&groups[*group]))).collect();
    let mut removed = 0;
    for (group, class) in order {
        if removed == requested {
            break;
        }
        match left.get_mut(&group) {
            Some(left) if *left > 0 => {
                *left -= 1;
                removed += 1;
                choice.removed[group][class] = true;
            }
            // Another group gives up one more instead.
            _ => {}
        }
    }
    if removed < requested {
        let what = if among.len() == 1 { format!("`{}`", groups[among[0]].name) } else { "all groups".to_owned() };
        let note = format!("{what}: {removed} units removed, not {requested}, as at least one of each group stays");
        choice.notes.push(note);
    }
}

/// Puts back the most important removed classes until the kept count is a multiple.
fn round(groups: &[ChannelGroup], importance: &[Vec<f64>], multiple: usize, choice: &mut Choice) {
    let mut back = 0;
    for (index, group) in groups.iter().enumerate() {
        if group.kind == Structure::Head {
            continue;
        }
        let removed = &mut choice.removed[index];
        let kept = removed.iter().filter(|removed| !**removed).count();
        if kept == removed.len() {
            continue;
        }
        let target = kept.next_multiple_of(multiple).min(removed.len());
        let mut order: Vec<usize> = (0..removed.len()).filter(|class| removed[*class]).collect();
        order.sort_by(|a, b| importance[index][*a].total_cmp(&importance[index][*b]));
        for class in order.into_iter().rev().take(target - kept) {
            removed[class] = false;
            back += 1;
        }
    }
    if back > 0 {
        choice.notes.push(format!("{back} units stay so that what is kept is a multiple of {multiple}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{recipe::removed as rounded, structure::AxisClass};

    fn group(len: usize, kind: Structure) -> ChannelGroup {
        let classes = (0..len).map(|class| AxisClass { root: class as u32, members: vec![(0, 0, class)] }).collect();
        ChannelGroup { kind, axes: vec![(0, 0)], name: "w".into(), classes }
    }

    fn count(choice: &Choice) -> Vec<usize> {
        choice.removed.iter().map(|removed| removed.iter().filter(|removed| **removed).count()).collect()
    }

    fn limits(round_to: usize, keep_at_least: f64) -> Limits {
        Limits { round_to, keep_at_least }
    }

    proptest! {
        /// Exactly as many as requested, at least one of each group stays, and no unit that stays is less important
        /// than a removed one.
        #[test]
        fn exactly_as_many_as_requested(
            scores in prop::collection::vec(prop::collection::vec(0..5u8, 2..30), 1..6),
            ratio in 0.0..0.9f64,
            local: bool,
        ) {
            let groups: Vec<ChannelGroup> =
                scores.iter().map(|scores| group(scores.len(), Structure::Channel)).collect();
            let importance: Vec<Vec<f64>> =
                scores.iter().map(|scores| scores.iter().map(|score| f64::from(*score) + 0.5).collect()).collect();
            let scope = if local { Scope::Local } else { Scope::Global };
            let choice = choose(&groups, &importance, scope, Amount::Ratio(ratio), &limits(1, 0.0)).unwrap();
            let counts = count(&choice);
            for (index, count) in counts.iter().enumerate() {
                let len = scores[index].len();
                prop_assert!(*count < len);
                if local {
                    prop_assert_eq!(*count as u64, rounded(ratio, len as u64).min(len as u64 - 1));
                }
                let goes = importance[index].iter().zip(&choice.removed[index]);
                let most = goes.clone().filter(|(_, goes)| **goes).map(|(score, _)| *score).fold(0.0, f64::max);
                prop_assert!(goes.filter(|(_, goes)| !**goes).all(|(score, _)| *score >= most));
            }
            if !local {
                let all: usize = scores.iter().map(Vec::len).sum();
                let most = all - scores.len();
                prop_assert_eq!(counts.iter().sum::<usize>(), (rounded(ratio, all as u64) as usize).min(most));
            }
        }
    }

    #[test]
    fn limits_hold_and_are_reported() {
        let groups = [group(10, Structure::Channel), group(4, Structure::Head)];
        let importance = [(0..10).map(f64::from).collect(), vec![1.0; 4]];
        let choose = |amount, limits: Limits| choose(&groups, &importance, Scope::Local, amount, &limits).unwrap();
        assert_eq!(count(&choose(Amount::Ratio(0.5), limits(1, 0.0))), [5, 2]);
        // 5 kept become 8; heads are not rounded.
        let rounded = choose(Amount::Ratio(0.5), limits(8, 0.0));
        assert_eq!(count(&rounded), [2, 2]);
        assert!(rounded.removed[0][0] && rounded.removed[0][1]);
        assert!(rounded.notes[0].contains("multiple of 8"), "{:?}", rounded.notes);
        let kept = choose(Amount::Ratio(0.9), limits(1, 0.3));
        assert_eq!(count(&kept), [7, 2]);
        assert!(kept.notes[0].contains("7 units removed, not 9"), "{:?}", kept.notes);
        assert_eq!(count(&choose(Amount::Threshold(0.5), limits(1, 0.0))), [5, 0]);
    }

    #[test]
    fn importance_is_the_sum_over_all_that_belongs_to_a_class() {
        let mut channels = group(2, Structure::Channel);
        channels.axes = vec![(0, 0), (1, 1)];
        channels.classes[0].members = vec![(0, 0, 0), (1, 1, 0)];
        channels.classes[1].members = vec![(0, 0, 1), (1, 1, 1)];
        let scores = Scores(vec![vec![1.0, 2.0, 3.0, 4.0], vec![10.0, 20.0, 30.0, 40.0]]);
        let tensors = [(0, vec![2, 2]), (1, vec![2, 2])];
        assert_eq!(importance(&[channels], &tensors, &scores), [[3.0 + 40.0, 7.0 + 60.0]]);
    }
}
