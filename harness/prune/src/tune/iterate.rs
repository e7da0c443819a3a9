//! Prune, validate, fine-tune, and again, until the ratio is reached.
//!
//! Importance is judged anew at every step, of the network as it was taught until then: that is what makes steps better than one shot. Masks
//! only grow, unless pruning is soft (He et al., 2018): then what is removed is set to zero but taught on like the rest, may grow back, and is
//! chosen anew at the next step; only the last step's choice is final.

use super::{
    Options, Schedule, Watch,
    course::Grade,
    schedule::{self, share},
    train::End,
    walk::{Stage, State, Step, Walk},
};
use crate::{Bytes, Manifest, Mask, PruneError, Recipe, Samples, structure};

/// How to prune and teach.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub recipe: Recipe,
    pub schedule: Schedule,
    pub steps: usize,
    /// Whether removed weights may come back between steps.
    pub soft: bool,
    /// How many samples importance is judged on at most.
    pub judged: usize,
    /// Whether the statistics of BatchNormalization are estimated anew whenever tensors shrank.
    pub recalibrate: bool,
    /// For units that make tensors shrink.
    pub structure: structure::Options,
    /// Its epochs are those of all steps together.
    pub options: Options,
}

impl Plan {
    /// With everything else at its default.
    pub fn new(recipe: Recipe) -> Plan {
        Plan {
            recipe,
            schedule: Schedule::Geometric,
            steps: 3,
            soft: false,
            judged: 320,
            recalibrate: true,
            structure: structure::Options::default(),
            options: Options::default(),
        }
    }

    /// A threshold is no ratio that could be reached in steps.
    fn recipes(&self) -> Vec<Recipe> {
        if self.recipe.threshold.is_some() {
            return vec![self.recipe];
        }
        schedule::recipes(self.schedule, &self.recipe, self.steps)
    }
}

/// A model that was pruned and taught.
#[derive(Clone, Debug, PartialEq)]
pub struct Iterated {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrank, or nothing was removed.
    pub mask: Option<Mask>,
    pub manifest: Manifest,
    /// The ratio that was reached: less than asked for where it was stopped before.
    pub ratio: f64,
    pub dense: Option<Grade>,
    pub trail: Vec<Stage>,
    pub end: End,
}

impl Iterated {
    /// What the reader of a table must know, if anything.
    pub fn note(&self, asked: f64) -> Option<String> {
        let why = match self.end {
            End::Complete => return None,
            End::Stopped => "was stopped",
            End::Diverged => "ended when the loss was no number any more (a lower rate may help)",
        };
        let what = if self.ratio == asked { "the best so far" } else { "what was reached until then" };
        Some(format!("fine-tuning {why}; this is {what}, at ratio {:.4}", self.ratio))
    }
}

/// Prunes a model to the plan's ratio. `samples` are taught with and importance is judged on them, `validation` decides which state was best;
/// without it a share of the samples that is not taught does. Samples without labels do if the plan distils.
///
/// # Errors
/// A recipe that cannot be, samples that do not fit or lack labels, operators the engine cannot differentiate.
pub fn iterate(
    model: &Bytes,
    plan: &Plan,
    samples: &Samples,
    validation: Option<&Samples>,
    watch: &mut Watch<'_>,
) -> Result<Iterated, PruneError> {
    let walk = Walk::new(model, plan, samples, validation)?;
    let recipes = plan.recipes();
    let steps = recipes.len();
    let mut state = State::dense(model);
    let (mut trail, mut ratio, mut end) = (Vec::new(), 0.0, End::Complete);
    for (index, (recipe, epochs)) in recipes.iter().zip(share(plan.options.epochs, steps)).enumerate() {
        if (watch.stop)() {
            end = End::Stopped;
            break;
        }
        let (next, stage, how) = walk.advance(&state, recipe, Step { index, of: steps, epochs }, watch)?;
        (state, ratio, end) = (next, recipe.ratio, how);
        trail.push(stage);
        if end != End::Complete {
            break;
        }
    }
    if let (true, Some(last)) = (plan.soft && trail.len() < steps, trail.last_mut()) {
        walk.settle(&mut state, last)?;
    }
    let manifest = walk.manifest(model, &state)?;
    Ok(Iterated { bytes: state.bytes, mask: state.mask, manifest, ratio, dense: walk.dense, trail, end })
}
