//! The largest ratio that keeps the accuracy.
//!
//! First up a ladder: each rung halves what is left, pruned and fine-tuned from the rung before, until one costs more
//! accuracy than the budget. Then the gap between the last rung that held and the first that did not is halved a few
//! times, always starting from the last model that held. This assumes that a larger ratio is never better; the stages
//! show every ratio that was tried. Accuracy is that of the validation samples, so the result is no finer than one of
//! them.

use super::{
    Plan, Watch,
    data::Evaluation,
    stepper::{Stage, State, Step, Stepper},
    student::End,
};
use crate::{Bytes, Manifest, Mask, PruneError, Recipe, Samples, Unit};

/// A search for the largest ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Its ratio is the largest to try; its epochs are those of each rung; its schedule is ignored.
    pub plan: Plan,
    /// How much accuracy may be lost: 0.01 is one point.
    pub max_drop: f64,
    /// How often the gap is halved, at most.
    pub halvings: usize,
}

impl Search {
    pub fn new(plan: Plan, max_drop: f64) -> Search {
        Search { plan, max_drop, halvings: 4 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// 0 where no ratio held: the model is then the dense one, to the byte.
    pub ratio: f64,
    pub bytes: Bytes,
    pub mask: Option<Mask>,
    pub manifest: Manifest,
    pub dense: Evaluation,
    /// In the order of trying, each with whether it held.
    pub stages: Vec<(Stage, bool)>,
    /// The ratio of a stopped search holds, but may not be the largest.
    pub end: End,
}

/// # Errors
/// As [`iterate`](super::iterate); too few samples to set some aside for validation; a budget that is NaN.
pub fn until(
    model: &Bytes,
    search: &Search,
    samples: &Samples,
    validation: Option<&Samples>,
    watch: &mut Watch<'_>,
) -> Result<SearchResult, PruneError> {
    let Search { plan, max_drop, halvings } = search;
    // A model that holds must hold as it is.
    let plan = &Plan { soft: false, ..plan.clone() };
    if max_drop.is_nan() {
        return Err(PruneError::Samples { why: "the accuracy that may be lost is not a number".into() });
    }
    let stepper = Stepper::new(model, plan, samples, validation)?;
    let Some(dense) = stepper.dense else {
        return Err(PruneError::Samples {
            why: "there are too few of them to set some aside for judging accuracy".into(),
        });
    };
    let mut state = SearchState {
        stepper: &stepper,
        plan,
        // Accuracies are quotients: a drop of just the budget must not fail for the last bit.
        least: dense.accuracy - max_drop - 1e-9,
        held: (0.0, State::dense(model)),
        stages: Vec::new(),
        end: End::Complete,
    };
    let mut failed = None;
    for recipe in ladder(&plan.recipe) {
        match state.holds(&recipe, watch)? {
            Some(true) => {}
            Some(false) => {
                failed = Some(recipe.ratio);
                break;
            }
            None => break,
        }
    }
    if let (Some(mut above), false) = (failed, matches!(plan.recipe.unit, Unit::NOfM { .. })) {
        for _ in 0..*halvings {
            let below = state.held.0;
            let ratio = 1.0 - ((1.0 - below) * (1.0 - above)).sqrt();
            match state.holds(&Recipe { ratio, ..plan.recipe }, watch)? {
                Some(true) => {}
                Some(false) => above = ratio,
                None => break,
            }
        }
    }
    let SearchState { held: (ratio, held), stages, end, .. } = state;
    let manifest = stepper.manifest(model, &held)?;
    Ok(SearchResult { ratio, bytes: held.bytes, mask: held.mask, manifest, dense, stages, end })
}

struct SearchState<'a> {
    stepper: &'a Stepper<'a>,
    plan: &'a Plan,
    least: f64,
    held: (f64, State),
    stages: Vec<(Stage, bool)>,
    end: End,
}

impl SearchState<'_> {
    /// Whether the recipe's ratio holds; if so, the next one starts from it. `None` where it was stopped before that
    /// was known.
    fn holds(&mut self, recipe: &Recipe, watch: &mut Watch<'_>) -> Result<Option<bool>, PruneError> {
        if (watch.stop)() {
            self.end = End::Stopped;
            return Ok(None);
        }
        let index = self.stages.len();
        let step = Step { index, of: index + 1, epochs: self.plan.options.epochs };
        let (state, stage, end) = self.stepper.advance(&self.held.1, recipe, step, watch)?;
        let holds = stage.tuned.is_some_and(|evaluation| evaluation.accuracy >= self.least);
        // A stopped one may hold already; if it does not, nothing is known. Divergence is a failure like others.
        let stopped = end == End::Stopped;
        if !stopped || holds {
            self.stages.push((stage, holds));
        }
        if holds {
            self.held = (recipe.ratio, state);
        }
        if stopped {
            self.end = End::Stopped;
        }
        Ok((!stopped).then_some(holds))
    }
}

/// The ratios to try, the recipe's own last. Where the unit fixes the ratio (`2:4`), one more of each group is removed
/// at every rung.
fn ladder(recipe: &Recipe) -> Vec<Recipe> {
    if let Unit::NOfM { keep, of } = recipe.unit {
        return (keep..of).rev().map(|kept| recipe.keeping(kept, of)).collect();
    }
    let halves = (1..).map(|rung| 1.0 - 0.5f64.powi(rung)).take_while(|ratio| *ratio < recipe.ratio);
    halves.chain([recipe.ratio]).map(|ratio| Recipe { ratio, threshold: None, ..*recipe }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs() {
        let ratios = |recipe: Recipe| ladder(&recipe).iter().map(|recipe| recipe.ratio).collect::<Vec<_>>();
        assert_eq!(ratios(Recipe::magnitude(0.9)), [0.5, 0.75, 0.875, 0.9]);
        assert_eq!(ratios(Recipe::magnitude(0.5)), [0.5]);
        let groups = Recipe { unit: "1:4".parse().unwrap(), ..Recipe::magnitude(0.75) };
        assert_eq!(ratios(groups), [0.25, 0.5, 0.75]);
    }
}
