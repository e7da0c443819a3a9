//! Prune, validate, fine-tune, and again, until the ratio is reached.
//!
//! Importance is computed again at every step, from the network as fine-tuned so far: that makes steps better than one
//! shot. Masks only grow, unless pruning is soft (He et al., 2018): then removed weights are set to zero but fine-tuned
//! like the others, may grow back, and are selected again at the next step. Only the last step's selection is final.

use super::{
    Options, Schedule, Watch,
    data::Evaluation,
    schedule::{self, share},
    stepper::{Stage, State, Step, Stepper},
    student::End,
};
use crate::{Bytes, Manifest, Mask, PruneError, Recipe, Samples, structure};

/// How to prune and fine-tune.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub recipe: Recipe,
    pub schedule: Schedule,
    pub steps: usize,
    /// Whether removed weights may come back between steps.
    pub soft: bool,
    /// The most samples that importance is computed from.
    pub importance_samples: usize,
    /// Whether the statistics of BatchNormalization are estimated anew whenever tensors shrank.
    pub recalibrate: bool,
    /// For units that make tensors shrink.
    pub structure: structure::Options,
    /// Its epochs are those of all steps together.
    pub options: Options,
}

impl Plan {
    /// Everything else is at its default.
    pub fn new(recipe: Recipe) -> Plan {
        Plan {
            recipe,
            schedule: Schedule::Geometric,
            steps: 3,
            soft: false,
            importance_samples: 320,
            recalibrate: true,
            structure: structure::Options::default(),
            options: Options::default(),
        }
    }

    /// The recipe of each step. A threshold cannot be reached in steps.
    fn recipes(&self) -> Vec<Recipe> {
        if self.recipe.threshold.is_some() {
            return vec![self.recipe];
        }
        schedule::recipes(self.schedule, &self.recipe, self.steps)
    }
}

/// A model that was pruned and fine-tuned.
#[derive(Clone, Debug, PartialEq)]
pub struct Iterated {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrank, or nothing was removed.
    pub mask: Option<Mask>,
    pub manifest: Manifest,
    /// The ratio that was reached: less than requested where it was stopped before.
    pub ratio: f64,
    pub dense: Option<Evaluation>,
    pub stages: Vec<Stage>,
    pub end: End,
}

impl Iterated {
    /// A note for the reader, where the result is not what was requested.
    pub fn note(&self, requested: f64) -> Option<String> {
        let why = match self.end {
            End::Complete => return None,
            End::Stopped => "was stopped",
            End::Diverged => "ended when the loss was no number any more (a lower rate may help)",
        };
        let what = if self.ratio == requested { "the best so far" } else { "what was reached until then" };
        Some(format!("fine-tuning {why}; this is {what}, at ratio {:.4}", self.ratio))
    }
}

/// Prunes a model to the plan's ratio. Importance is computed from `samples`, and they are trained on; `validation`
/// decides which state is best, by default a share of `samples` that is not trained on. A plan that distils needs no
/// labels.
///
/// # Errors
/// A recipe that contradicts itself, samples that do not fit or lack labels, operators the engine cannot differentiate.
pub fn iterate(
    model: &Bytes,
    plan: &Plan,
    samples: &Samples,
    validation: Option<&Samples>,
    watch: &mut Watch<'_>,
) -> Result<Iterated, PruneError> {
    let stepper = Stepper::new(model, plan, samples, validation)?;
    let recipes = plan.recipes();
    let steps = recipes.len();
    let mut state = State::dense(model);
    let (mut stages, mut ratio, mut end) = (Vec::new(), 0.0, End::Complete);
    for (index, (recipe, epochs)) in recipes.iter().zip(share(plan.options.epochs, steps)).enumerate() {
        if (watch.stop)() {
            end = End::Stopped;
            break;
        }
        let (next, stage, how) = stepper.advance(&state, recipe, Step { index, of: steps, epochs }, watch)?;
        (state, ratio, end) = (next, recipe.ratio, how);
        stages.push(stage);
        if end != End::Complete {
            break;
        }
    }
    if let (true, Some(last)) = (plan.soft && stages.len() < steps, stages.last_mut()) {
        stepper.remove_again(&mut state, last)?;
    }
    let manifest = stepper.manifest(model, &state)?;
    Ok(Iterated { bytes: state.bytes, mask: state.mask, manifest, ratio, dense: stepper.dense, stages, end })
}
