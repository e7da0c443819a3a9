//! Prune, validate, fine-tune, and again, until the ratio is reached.
//!
//! Importance is judged anew at every step, of the network as it was taught until then: that is what makes steps better than one shot. Masks
//! only grow, unless pruning is soft (He et al., 2018): then what is removed is set to zero but taught on like the rest, may grow back, and is
//! chosen anew at the next step; only the last step's choice is final.

use super::{
    Options, Watch,
    course::Grade,
    schedule::{Schedule, share},
    train::End,
    walk::{Stage, State, Walk},
};
use crate::{Bytes, Mask, PruneError, Recipe, Samples};

/// How to prune and teach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub recipe: Recipe,
    pub schedule: Schedule,
    pub steps: usize,
    /// Whether removed weights may come back between steps.
    pub soft: bool,
    /// How many samples importance is judged on at most.
    pub judged: usize,
    /// Its epochs are those of all steps together.
    pub options: Options,
}

impl Plan {
    /// With everything else at its default.
    pub fn new(recipe: Recipe) -> Plan {
        let options = Options::default();
        Plan { recipe, schedule: Schedule::Geometric, steps: 3, soft: false, judged: 320, options }
    }

    /// A threshold is no ratio that could be reached in steps.
    fn recipes(&self) -> Vec<Recipe> {
        if self.recipe.threshold.is_some() {
            return vec![self.recipe];
        }
        self.schedule.recipes(&self.recipe, self.steps)
    }
}

/// A model that was pruned and taught.
#[derive(Clone, Debug, PartialEq)]
pub struct Iterated {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrank, or nothing was removed.
    pub mask: Option<Mask>,
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
    let mut state = State { bytes: model.clone(), mask: None };
    let mut iterated = Iterated {
        bytes: Bytes::new(),
        mask: None,
        ratio: 0.0,
        dense: walk.dense,
        trail: Vec::new(),
        end: End::Complete,
    };
    for (step, (recipe, epochs)) in recipes.iter().zip(share(plan.options.epochs, steps)).enumerate() {
        if (watch.stop)() {
            iterated.end = End::Stopped;
            break;
        }
        let kept = !plan.soft || step + 1 == steps;
        let (next, stage, end) = walk.advance(&state, recipe, (step, steps), epochs, kept, watch)?;
        state = next;
        iterated.trail.push(stage);
        iterated.ratio = recipe.ratio;
        iterated.end = end;
        if end != End::Complete {
            break;
        }
    }
    if let (true, Some(last)) = (plan.soft && iterated.trail.len() < steps, iterated.trail.last_mut()) {
        walk.settle(&mut state, last)?;
    }
    Ok(Iterated { bytes: state.bytes, mask: state.mask, ..iterated })
}
