//! The largest ratio that keeps the accuracy.
//!
//! Up a ladder whose every rung halves what is left, each rung pruned and taught from the one before, until one costs more than the budget;
//! then the gap between the last rung that held and the first that did not is halved a few times, always starting from what held. It is taken
//! for granted that more is never better; the trail shows every ratio that was tried. Accuracy is that of the samples that decide, so the
//! answer is no finer than one of them.

use super::{
    Plan, Watch,
    course::Grade,
    train::End,
    walk::{Stage, State, Step, Walk},
};
use crate::{Bytes, Manifest, Mask, PruneError, Recipe, Samples, Unit};

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Its ratio is the largest to try; its epochs are those of each rung; it does not look at the schedule.
    pub plan: Plan,
    /// How much accuracy may be lost: 0.01 is one point.
    pub max_drop: f64,
    /// How often a gap is halved, at most.
    pub halvings: usize,
}

impl Search {
    pub fn new(plan: Plan, max_drop: f64) -> Search {
        Search { plan, max_drop, halvings: 4 }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// 0 where no ratio held: the model is the dense one then, to the byte.
    pub ratio: f64,
    pub bytes: Bytes,
    pub mask: Option<Mask>,
    pub manifest: Manifest,
    pub dense: Grade,
    /// In the order in which they were tried, each with whether it held.
    pub trail: Vec<(Stage, bool)>,
    /// A search that was stopped has found a ratio that holds, maybe not the largest.
    pub end: End,
}

/// # Errors
/// As [`iterate`](super::iterate); too few samples to judge accuracy by; a budget that is no number.
pub fn until(
    model: &Bytes,
    search: &Search,
    samples: &Samples,
    validation: Option<&Samples>,
    watch: &mut Watch<'_>,
) -> Result<Found, PruneError> {
    let Search { plan, max_drop, halvings } = search;
    // What holds must hold as it is.
    let plan = &Plan { soft: false, ..plan.clone() };
    if max_drop.is_nan() {
        return Err(PruneError::Samples { why: "the accuracy that may be lost is not a number".into() });
    }
    let walk = Walk::new(model, plan, samples, validation)?;
    let Some(dense) = walk.dense else {
        return Err(PruneError::Samples {
            why: "there are too few of them to set some aside for judging accuracy".into(),
        });
    };
    let mut climb = Climb {
        walk: &walk,
        plan,
        // Accuracies are quotients: a drop of just the budget must not fail for the last bit.
        least: dense.accuracy - max_drop - 1e-9,
        held: (0.0, State::dense(model)),
        trail: Vec::new(),
        end: End::Complete,
    };
    let mut failed = None;
    for recipe in ladder(&plan.recipe) {
        match climb.holds(&recipe, watch)? {
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
            let below = climb.held.0;
            let ratio = 1.0 - ((1.0 - below) * (1.0 - above)).sqrt();
            match climb.holds(&Recipe { ratio, ..plan.recipe }, watch)? {
                Some(true) => {}
                Some(false) => above = ratio,
                None => break,
            }
        }
    }
    let Climb { held: (ratio, state), trail, end, .. } = climb;
    let manifest = walk.manifest(model, &state)?;
    Ok(Found { ratio, bytes: state.bytes, mask: state.mask, manifest, dense, trail, end })
}

struct Climb<'a> {
    walk: &'a Walk<'a>,
    plan: &'a Plan,
    least: f64,
    held: (f64, State),
    trail: Vec<(Stage, bool)>,
    end: End,
}

impl Climb<'_> {
    /// Whether the recipe's ratio holds; if so, it is where the next one starts from. `None`: it was stopped before that was known.
    fn holds(&mut self, recipe: &Recipe, watch: &mut Watch<'_>) -> Result<Option<bool>, PruneError> {
        if (watch.stop)() {
            self.end = End::Stopped;
            return Ok(None);
        }
        let index = self.trail.len();
        let step = Step { index, of: index + 1, epochs: self.plan.options.epochs };
        let (state, stage, end) = self.walk.advance(&self.held.1, recipe, step, watch)?;
        let holds = stage.tuned.is_some_and(|grade| grade.accuracy >= self.least);
        // One that was stopped on the way may hold already; that it does not says nothing. Divergence is a failure like others.
        if end == End::Stopped {
            self.end = End::Stopped;
        }
        if end != End::Stopped || holds {
            self.trail.push((stage, holds));
        }
        if holds {
            self.held = (recipe.ratio, state);
        }
        Ok(if end == End::Stopped { None } else { Some(holds) })
    }
}

/// The ratios to climb, the recipe's own last. Where the unit says the ratio (`2:4`), one more of each group goes at every rung.
fn ladder(recipe: &Recipe) -> Vec<Recipe> {
    if let Unit::NOfM { keep, of } = recipe.unit {
        let at = |kept: u32| Recipe {
            unit: Unit::NOfM { keep: kept, of },
            ratio: 1.0 - f64::from(kept) / f64::from(of),
            ..*recipe
        };
        return (keep..of).rev().map(at).collect();
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
