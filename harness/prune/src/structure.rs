//! Structured pruning: whole channels, neurons, heads, hidden units or residual branches are cut out, so that tensors
//! shrink.
//!
//! ```text
//! model ─► normalise ─► probe (shapes, by a run) ─► rules (what depends on what) ─► axis classes, channel groups
//!       ─► rank ─► surgery ─► bytes + report
//! ```
//! The smallest thing that can be removed is one index of one axis of one value. The pruned model computes what the
//! dense model computes with all removed units set to zero: [`DependencyGraph::masked`] gives that model, and tests
//! compare the two.

mod activity;
mod dependencies;
mod feeds;
mod graph;
mod layers;
mod lengths;
mod movement;
mod normalise;
mod probe;
mod rank;
mod report;
mod reshape;
mod rules;
mod slices;
mod surgery;
mod units;
mod verify;
mod weights;

use std::collections::{HashMap, HashSet};

pub use dependencies::{AxisClass, ChannelGroup, DependencyGraph, Kept};
pub use layers::Branch;
pub use report::{BranchReport, GroupReport, Report};
pub use surgery::Removed;

use crate::{
    Bytes, Macs, Manifest, Method, PruneError, Pruned, PrunedTensor, Reason, Recipe, Samples, Structure, Unit,
    Untouched, importance, macs,
    onnx::Model,
    prunable::{Survey, survey},
    tensor::Values,
};
use rank::{Choice, Limits};

/// Options of structured pruning beside a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Kept counts are rounded up to multiples of it (4 or 8, as SIMD registers are); 1 for no rounding.
    pub round_to: usize,
    /// The fraction of each group that stays; one unit stays in any case.
    pub keep_at_least: f64,
    /// Shapes of inputs, where the file does not give what a run needs.
    pub shapes: HashMap<String, Vec<usize>>,
    /// Whether the pruned model is run and compared with the dense one with zeros; what makes a difference stays.
    pub verify: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { round_to: 1, keep_at_least: 0.0, shapes: HashMap::new(), verify: true }
    }
}

/// Which units of a model will be removed.
pub struct Plan {
    pub dependencies: DependencyGraph,
    /// The roots of the removed classes.
    pub removed: Removed,
    pub branches: Vec<(Branch, f64, bool)>,
    choice: Choice,
    /// The groups that the recipe's unit selects, by index.
    indices: Vec<usize>,
}

/// Cuts out exactly `round(ratio * n)` of the `n` units that [`Unit::Structure`] selects.
///
/// # Errors
/// See [`PruneError`]: an operator the engine does not know is named; shapes come from a run.
pub fn prune(
    model: &Bytes,
    recipe: &Recipe,
    samples: Option<&Samples>,
    options: &Options,
) -> Result<Pruned, PruneError> {
    recipe.check()?;
    let dense = Model::decode(model)?;
    let before = survey(&dense)?;
    if recipe.amount().is_nothing() {
        let tensors =
            before.weights.iter().map(|weight| whole(weight.name.clone(), weight.shape.clone(), weight.count));
        let (tensors, report) = (tensors.collect(), report_of_nothing(&before, options));
        let macs = counted((&dense, &before), (&dense, &before), samples)?;
        let manifest = Manifest { macs, ..manifest(recipe, &before, tensors, report, (0, 0), samples) };
        return Ok(Pruned { bytes: model.clone(), manifest });
    }
    let mut plan = plan(dense.clone(), recipe, samples, options)?;
    let counts = plan.counts();
    if counts.1 == 0 {
        return Err(PruneError::NothingPrunable { why: plan.why_nothing(recipe.unit) });
    }
    let bytes = plan.pruned()?;
    let pruned = Model::decode(&bytes)?;
    let after = survey(&pruned)?;
    let normalised = survey(&plan.dependencies.model)?;
    let tensors = tensors(&normalised, &after);
    let report = plan.report(&before, &after, options);
    let macs = counted((&dense, &before), (&pruned, &after), samples)?;
    Ok(Pruned { bytes, manifest: Manifest { macs, ..manifest(recipe, &before, tensors, report, counts, samples) } })
}

/// Multiply-accumulates before and after; `None` where shapes are unknown.
fn counted(
    before: (&Model, &Survey),
    after: (&Model, &Survey),
    samples: Option<&Samples>,
) -> Result<Option<Macs>, PruneError> {
    let of = |(model, survey): (&Model, &Survey)| -> Result<Option<(u64, u64)>, PruneError> {
        let mut zeros = Vec::new();
        for weight in &survey.weights {
            zeros.push(Values::of(&weight.name, weight.place.tensor(model.graph()))?.zeros());
        }
        Ok(macs::uses(model, survey, samples).map(|uses| macs::total(survey, &uses, zeros.into_iter())))
    };
    let (Some((dense, dense_nonzero)), Some((pruned, pruned_nonzero))) = (of(before)?, of(after)?) else {
        return Ok(None);
    };
    Ok(Some(Macs { dense, dense_nonzero, pruned, pruned_nonzero }))
}

/// What could be cut out of a model, for `inspect`: nothing is removed.
///
/// # Errors
/// As [`prune`].
pub fn inspect(model: &Bytes, options: &Options) -> Result<Report, PruneError> {
    let dense = Model::decode(model)?;
    let before = survey(&dense)?;
    let dependencies = DependencyGraph::of(dense, &options.shapes)?;
    let branches = layers::branches(&dependencies).into_iter().map(|branch| (branch, 0.0, false)).collect();
    let removed = dependencies.groups.iter().map(|group| vec![false; group.classes.len()]).collect();
    let indices = (0..dependencies.groups.len()).collect();
    let choice = Choice { removed, notes: Vec::new() };
    let plan = Plan { dependencies, removed: Removed::new(), branches, choice, indices };
    Ok(plan.report(&before, &before, options))
}

/// # Errors
/// As [`prune`].
pub fn plan(model: Model, recipe: &Recipe, samples: Option<&Samples>, options: &Options) -> Result<Plan, PruneError> {
    let Unit::Structure(structure) = recipe.unit else {
        return Err(PruneError::NotYet { what: format!("{} as a structure", recipe.unit) });
    };
    let dense = model.clone();
    let dependencies = DependencyGraph::of(model, &options.shapes)?;
    let mut plan = match structure {
        Structure::Layer => plan_layers(dependencies, recipe, samples)?,
        _ => plan_units(dependencies, structure, recipe, samples, options)?,
    };
    if options.verify {
        verify::hold_what_differs(&dense, &mut plan, options)?;
    }
    Ok(plan)
}

fn plan_units(
    mut dependencies: DependencyGraph,
    structure: Structure,
    recipe: &Recipe,
    samples: Option<&Samples>,
    options: &Options,
) -> Result<Plan, PruneError> {
    let indices: Vec<usize> = (0..dependencies.groups.len())
        .filter(|group| structure == Structure::Any || dependencies.groups[*group].kind == structure)
        .collect();
    let groups: Vec<ChannelGroup> = indices.iter().map(|group| dependencies.groups[*group].clone()).collect();
    let importance = if recipe.method == Method::Activation {
        activity::importance(&mut dependencies, &groups, samples, recipe.batch)?
    } else {
        let (tensors, scores) = scores(&dependencies, recipe, samples)?;
        rank::importance(&groups, &tensors, &scores)
    };
    let limits = Limits { round_to: options.round_to, keep_at_least: options.keep_at_least };
    let choice = rank::choose(&groups, &importance, recipe.scope, recipe.amount(), &limits)?;
    let mut plan = Plan { dependencies, removed: Removed::new(), branches: Vec::new(), choice, indices };
    plan.removed = (0..plan.indices.len()).flat_map(|group| plan.roots(group)).collect();
    Ok(plan)
}

type Scored = (Vec<(usize, Vec<usize>)>, crate::Scores);

/// Scores of the normalised model's weights, with the initialiser and shape of each.
fn scores(dependencies: &DependencyGraph, recipe: &Recipe, samples: Option<&Samples>) -> Result<Scored, PruneError> {
    let survey = survey(&dependencies.model)?;
    let constants = graph::initializers(dependencies.model.graph());
    let tensors = survey.weights.iter().filter_map(|weight| {
        let shape = weight.shape.iter().map(|len| *len as usize).collect();
        Some((*constants.get(weight.name.as_str())?, shape))
    });
    let tensors: Vec<(usize, Vec<usize>)> = tensors.collect();
    let scores = importance::scores(&dependencies.model, &survey, recipe.method, samples, recipe.batch, recipe.seed)?;
    Ok((tensors, scores))
}

/// The importance of a branch is the norm of what it adds, relative to what that is added to (for `activation`), or the
/// sum of the scores of its weights.
fn plan_layers(dependencies: DependencyGraph, recipe: &Recipe, samples: Option<&Samples>) -> Result<Plan, PruneError> {
    let branches = layers::branches(&dependencies);
    let importance: Vec<f64> = match (recipe.method, samples) {
        (Method::Activation, Some(samples)) => layers::strength(&dependencies.model, &branches, samples, recipe.batch)?,
        _ => {
            let (tensors, scores) = scores(&dependencies, recipe, samples)?;
            let graph = dependencies.model.graph();
            let sums: HashMap<&str, f64> = tensors
                .iter()
                .map(|(tensor, _)| graph.initializer[*tensor].name())
                .zip(scores.0.iter().map(|scores| scores.iter().map(|score| f64::from(*score)).sum()))
                .collect();
            let of = |branch: &Branch| branch.constants.iter().filter_map(|name| sums.get(name.as_str())).sum();
            branches.iter().map(of).collect()
        }
    };
    let mut order: Vec<usize> = (0..branches.len()).collect();
    order.sort_by(|a, b| importance[*a].total_cmp(&importance[*b]));
    let sorted: Vec<f64> = order.iter().map(|branch| importance[*branch]).collect();
    let gone: HashSet<usize> = order.into_iter().take(recipe.amount().count(&sorted)).collect();
    let ranked = branches.into_iter().zip(importance).enumerate();
    let branches = ranked.map(|(index, (branch, importance))| (branch, importance, gone.contains(&index))).collect();
    let choice = Choice { removed: Vec::new(), notes: Vec::new() };
    Ok(Plan { dependencies, removed: Removed::new(), branches, choice, indices: Vec::new() })
}

impl Plan {
    /// The roots of the classes that are removed of the `group`-th selected group.
    fn roots(&self, group: usize) -> Removed {
        let classes = &self.dependencies.groups[self.indices[group]].classes;
        let goes = self.choice.removed[group].iter();
        classes.iter().zip(goes).filter(|(_, goes)| **goes).map(|(class, _)| class.root).collect()
    }

    /// The model without what is removed.
    ///
    /// # Errors
    /// Broken constants.
    pub fn pruned(&mut self) -> Result<Bytes, PruneError> {
        if self.branches.is_empty() {
            return self.dependencies.without(&self.removed);
        }
        Ok(layers::without(&self.dependencies, &self.gone()))
    }

    /// The dense model with all removed units set to zero, in its old size: what the pruned one must agree with.
    ///
    /// # Errors
    /// Broken constants.
    pub fn masked(&mut self) -> Result<Bytes, PruneError> {
        if self.branches.is_empty() {
            return self.dependencies.masked(&self.removed);
        }
        Ok(layers::masked(&self.dependencies, &self.gone()))
    }

    /// The removed branches.
    fn gone(&self) -> Vec<&Branch> {
        self.branches.iter().filter(|(_, _, gone)| *gone).map(|(branch, _, _)| branch).collect()
    }

    /// How many units there are, and how many of them are removed.
    fn counts(&self) -> (u64, u64) {
        if !self.branches.is_empty() {
            return (self.branches.len() as u64, self.gone().len() as u64);
        }
        let all: usize = self.choice.removed.iter().map(Vec::len).sum();
        (all as u64, self.removed.len() as u64)
    }

    fn why_nothing(&self, unit: Unit) -> String {
        let (all, _) = self.counts();
        if let Some(held) = self.choice.notes.iter().find(|note| note.ends_with(verify::HELD)) {
            return held.clone();
        }
        if all > 0 {
            return format!("of its {all} units ({unit}) less than one would go, or none may");
        }
        let unknown: Vec<&str> = self.dependencies.unknown.keys().map(String::as_str).collect();
        let why = match (unknown.as_slice(), self.dependencies.kept.first()) {
            ([_, ..], _) => format!("; no rule says how {} shrink", unknown.join(", ")),
            ([], Some(Kept { tensor, axis, why, .. })) => format!("; axis {axis} of `{tensor}`, for one, stays: {why}"),
            ([], None) => String::new(),
        };
        format!("it has no {unit} to take out{why}")
    }

    fn report(&self, before: &Survey, after: &Survey, options: &Options) -> Report {
        let groups = self.indices.iter().zip(&self.choice.removed).map(|(group, removed)| {
            let count = removed.iter().filter(|removed| **removed).count();
            report::group(&self.dependencies, &self.dependencies.groups[*group], count)
        });
        let graph = self.dependencies.model.graph();
        let constants = graph::initializers(graph);
        let size = |name: &String| {
            constants.get(name.as_str()).map_or(0, |tensor| graph.initializer[*tensor].dims.iter().product::<i64>())
        };
        let branches = self.branches.iter().map(|(branch, importance, removed)| BranchReport {
            node: branch.node.clone(),
            parameters: branch.constants.iter().map(size).sum::<i64>() as u64,
            importance: *importance,
            removed: *removed,
        });
        Report {
            groups: groups.collect(),
            branches: branches.collect(),
            parameters: before.parameters(),
            parameters_left: after.parameters(),
            round_to: options.round_to,
            keep_at_least: options.keep_at_least,
            kept: self.dependencies.kept.clone(),
            unknown: self.dependencies.unknown.clone(),
            notes: self.choice.notes.clone(),
            changes: report::CHANGES.to_owned(),
        }
    }
}

fn report_of_nothing(before: &Survey, options: &Options) -> Report {
    Report {
        parameters: before.parameters(),
        parameters_left: before.parameters(),
        round_to: options.round_to,
        keep_at_least: options.keep_at_least,
        changes: "none".to_owned(),
        ..Report::default()
    }
}

fn whole(name: String, shape: Vec<u64>, weights: u64) -> PrunedTensor {
    PrunedTensor { name, shape, weights, removed: 0, zeros: 0, units: 0, removed_units: 0 }
}

/// The weights of the normalised model, and how much of each is removed.
fn tensors(before: &Survey, after: &Survey) -> Vec<PrunedTensor> {
    let left: HashMap<&str, u64> = after.weights.iter().map(|weight| (weight.name.as_str(), weight.count)).collect();
    let tensor = |weight: &crate::prunable::Weight| {
        let left = left.get(weight.name.as_str()).copied().unwrap_or(0);
        let removed = weight.count.saturating_sub(left);
        PrunedTensor { removed, ..whole(weight.name.clone(), weight.shape.clone(), weight.count) }
    };
    before.weights.iter().map(tensor).collect()
}

fn manifest(
    recipe: &Recipe,
    before: &Survey,
    tensors: Vec<PrunedTensor>,
    report: Report,
    units: (u64, u64),
    samples: Option<&Samples>,
) -> Manifest {
    // Biases and normalisations shrink with their channels.
    let stays = |tensor: &&Untouched| !matches!(tensor.reason, Reason::Bias | Reason::Normalisation | Reason::Scalar);
    let untouched = before.untouched.iter().filter(stays).cloned().collect();
    Manifest { structure: Some(report), ..Manifest::new(recipe, before, tensors, untouched, units, samples) }
}
