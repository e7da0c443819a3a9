//! The last wall of structured pruning: before anything is written, the pruned model is run, and its answers are
//! compared with those of the dense model in which the removed units are zero.
//!
//! Both must agree, by what removal means. What makes a difference is found by halving, and stays, with a note. So a
//! rule that is wrong, or lacks a case, costs a removal and never an answer. The lengths are those of the probe.

use espalier_engine::{Keep, Network, Tensor};

use super::{
    Options, Plan,
    dependencies::{DependencyGraph, Kept},
    feeds,
    layers::{self, Branch},
    probe::Probe,
    surgery::Removed,
};
use crate::{PruneError, onnx::Model};

/// How notes on what stays end.
pub const HELD: &str = "without it the network would give other answers";

/// Of outputs that are numbers, the largest difference relative to the largest value. Sums in another order differ by
/// 1e-5; a number computed from another length differs by far more.
const LARGEST: f32 = 1e-3;
/// Of other outputs, the part of the elements that may differ: an index may flip between two values that are equal but
/// for rounding.
const FLIPPED: f64 = 0.01;

/// Takes out of the plan whatever would change the answers.
///
/// # Errors
/// A dense model that does not run, or that answers differently once it is normalised.
pub fn hold_what_differs(dense: &Model, plan: &mut Plan, options: &Options) -> Result<(), PruneError> {
    let expected = answers(dense, &plan.dependencies.probe, options)?;
    let normalised = answers(&plan.dependencies.model, &plan.dependencies.probe, options);
    if let Some(why) = difference(&expected, normalised) {
        return Err(PruneError::Mismatch { what: "the answers of the model, once its constants are folded,", why });
    }
    let mut left: Vec<usize> = (0..plan.choice.removed.len().max(plan.branches.len())).collect();
    left.retain(|index| plan.branches.get(*index).map_or_else(|| !plan.roots(*index).is_empty(), |branch| branch.2));
    while plan.differs(&left, options)? {
        let found = culprits(&left, &mut |part| plan.differs(part, options))?;
        found.iter().for_each(|index| plan.hold(*index));
        left.retain(|index| !found.contains(index));
    }
    Ok(())
}

/// The members of a set that differs, without which there is no difference among its halves. Where no half differs,
/// only all together do.
fn culprits(
    all: &[usize],
    differs: &mut impl FnMut(&[usize]) -> Result<bool, PruneError>,
) -> Result<Vec<usize>, PruneError> {
    let mut found = Vec::new();
    if all.len() > 1 {
        for half in [&all[..all.len() / 2], &all[all.len() / 2..]] {
            if differs(half)? {
                found.extend(culprits(half, differs)?);
            }
        }
    }
    Ok(if found.is_empty() { all.to_vec() } else { found })
}

impl Plan {
    /// Whether the answers change if only these groups or branches are removed.
    fn differs(&mut self, only: &[usize], options: &Options) -> Result<bool, PruneError> {
        if only.is_empty() {
            return Ok(false);
        }
        let roots: Removed = if self.branches.is_empty() {
            only.iter().flat_map(|group| self.roots(*group)).collect()
        } else {
            Removed::new()
        };
        let gone: Vec<Branch> = only.iter().filter_map(|index| Some(self.branches.get(*index)?.0.clone())).collect();
        let gone: Vec<&Branch> = gone.iter().collect();
        // One after the other: each is as large as the model.
        let masked = match gone.is_empty() {
            true => self.dependencies.masked(&roots)?,
            false => layers::masked(&self.dependencies, &gone),
        };
        let expected = answers(&Model::decode(&masked)?, &self.dependencies.probe, options)?;
        drop(masked);
        let pruned = match gone.is_empty() {
            true => self.dependencies.without(&roots)?,
            false => layers::without(&self.dependencies, &gone),
        };
        let found = answers(&Model::decode(&pruned)?, &self.dependencies.probe, options);
        Ok(difference(&expected, found).is_some())
    }

    /// Keeps a group or a branch, and notes it.
    fn hold(&mut self, index: usize) {
        if let Some((branch, _, gone)) = self.branches.get_mut(index) {
            *gone = false;
            self.choice.notes.push(format!("the branch that ends in `{}` stays: {HELD}", branch.node));
            return;
        }
        let roots = self.roots(index);
        self.removed.retain(|root| !roots.contains(root));
        self.choice.removed[index].iter_mut().for_each(|removed| *removed = false);
        let DependencyGraph { groups, model, kept, .. } = &mut self.dependencies;
        let group = &groups[self.indices[index]];
        self.choice.notes.push(format!("all {} units of `{}` stay: {HELD}", group.classes.len(), group.name));
        for (tensor, axis) in &group.axes {
            let tensor = model.graph().initializer[*tensor].name().to_owned();
            let (indices, op, node) = (group.classes.len(), String::new(), String::new());
            kept.push(Kept { tensor, axis: *axis, indices, op, node, why: HELD.to_owned() });
        }
    }
}

/// The outputs of a model for inputs of each of the probe's lengths, by name.
type Answers = Vec<(String, Tensor)>;

fn answers(model: &Model, probe: &Probe, options: &Options) -> Result<Answers, PruneError> {
    let network = Network::new(model)?;
    let mut answers = Vec::new();
    for sizes in probe.all_sizes() {
        let run = network.run(&feeds::feeds(model.graph(), &options.shapes, sizes)?, Keep::Outputs)?;
        let output = |id: &_| Some((network.name(*id).to_owned(), run.value(*id)?.clone()));
        answers.extend(network.outputs.iter().filter_map(output));
    }
    Ok(answers)
}

/// What is different about a model's answers; `None` where they are the same. A model that does not run is different.
fn difference(expected: &Answers, found: Result<Answers, PruneError>) -> Option<String> {
    match found {
        Err(error) => Some(error.to_string()),
        Ok(found) => expected
            .iter()
            .zip(&found)
            .find_map(|((name, a), (_, b))| differ(a, b).map(|why| format!("output `{name}` {why}"))),
    }
}

fn differ(a: &Tensor, b: &Tensor) -> Option<String> {
    if a.shape() != b.shape() {
        return Some(format!("came out as {:?}, not {:?}", b.shape(), a.shape()));
    }
    if let (Tensor::F32(a), Tensor::F32(b)) = (a, b) {
        let largest =
            a.data().iter().filter(|value| value.is_finite()).fold(0.0f32, |most, value| most.max(value.abs()));
        let off = |(a, b): (&f32, &f32)| {
            let same = a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= LARGEST * largest;
            (!same).then(|| format!("has {b:e}, not {a:e}"))
        };
        return a.data().iter().zip(b.data()).find_map(off);
    }
    let count = match (a, b) {
        (Tensor::I64(a), Tensor::I64(b)) => a.data().iter().zip(b.data()).filter(|(a, b)| a != b).count(),
        (Tensor::Bool(a), Tensor::Bool(b)) => a.data().iter().zip(b.data()).filter(|(a, b)| a != b).count(),
        _ => return Some(format!("came out as {}, not {}", b.kind(), a.kind())),
    };
    let len: usize = a.shape().iter().product();
    (count as f64 > FLIPPED * len as f64).then(|| format!("has {count} other values of {len}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, Recipe, Scope, Structure, Unit};

    #[test]
    fn what_differs_is_found_alone_or_together() {
        let found = |all: usize, differs: fn(&[usize]) -> bool| {
            culprits(&(0..all).collect::<Vec<_>>(), &mut |part| Ok(differs(part))).unwrap()
        };
        assert_eq!(found(9, |part| part.contains(&4) || part.contains(&7)), [4, 7]);
        assert_eq!(found(1, |_| true), [0]);
        // Two that differ only together, in different halves.
        assert_eq!(found(4, |part| part.contains(&0) && part.contains(&3)), [0, 1, 2, 3]);
        assert_eq!(found(4, |part| part.contains(&2) && part.contains(&3)), [2, 3]);
    }

    #[test]
    fn what_a_rule_gets_wrong_stays_and_is_noted() {
        let dense = Model::decode(&espalier_fixtures::fixture("transformer-script")).unwrap();
        let recipe = Recipe::new(Method::Magnitude, Scope::Local, Unit::Structure(Structure::Any), 0.5);
        let options = Options { verify: false, ..Options::default() };
        let mut plan = super::super::plan(dense.clone(), &recipe, None, &options).unwrap();
        let (_, planned) = plan.counts();
        // As if the targets of reshapes were not known to be constants: they are not changed.
        plan.dependencies.probe.infos.values_mut().for_each(|info| info.fixed = None);
        hold_what_differs(&dense, &mut plan, &options).unwrap();
        let (_, removed) = plan.counts();
        assert!(0 < removed && removed < planned, "{removed} of {planned}");
        assert!(plan.choice.notes.iter().all(|note| note.ends_with(HELD)), "{:?}", plan.choice.notes);
        let held = plan.dependencies.kept.iter().filter(|kept| kept.why == HELD);
        assert!(held.count() >= plan.choice.notes.len() && !plan.choice.notes.is_empty());
        let masked = Model::decode(&plan.masked().unwrap()).unwrap();
        let pruned = Model::decode(&plan.pruned().unwrap()).unwrap();
        let expected = answers(&masked, &plan.dependencies.probe, &options).unwrap();
        assert_eq!(difference(&expected, answers(&pruned, &plan.dependencies.probe, &options)), None);
    }
}
