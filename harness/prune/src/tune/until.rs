//! The largest ratio that keeps the accuracy.
//!
//! First up a ladder: each rung halves what is left, pruned and fine-tuned from the rung before, until one costs more
//! accuracy than the budget. Then the gap between the last rung that held and the first that did not is halved a few
//! times, always starting from the last model that held. This assumes that a larger ratio is never better; the stages
//! show every ratio that was tried.
//!
//! Whether a ratio holds is best judged on samples that no model was trained on ([`HeldOut`]): the upper limit of the
//! drop, not the drop that was seen, must be within the budget. Otherwise it is the accuracy on the validation samples,
//! and the result is no finer than one of them.

use super::{
    Plan, Watch,
    data::Evaluation,
    stepper::{Stage, State, Step, Stepper},
    student::End,
    trainable::TrainableModel,
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

/// Samples that neither the dense model nor its variants were trained on.
#[derive(Clone, Copy, Debug)]
pub struct HeldOut<'a> {
    /// With labels; without, the dense model's classes are expected.
    pub samples: &'a Samples,
    /// Of the limit of the drop, one-sided, at each ratio that is tried.
    pub confidence: f64,
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
    until_held_out(model, search, samples, validation, None, watch)
}

/// As [`until`], with a bound on held-out samples where there are some and predictions are classes.
///
/// # Errors
/// As [`until`]; too few held-out samples to show a drop as small as the budget, whatever the answers.
pub fn until_held_out(
    model: &Bytes,
    search: &Search,
    samples: &Samples,
    validation: Option<&Samples>,
    held_out: Option<HeldOut<'_>>,
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
    let judge = held_out.map(|held_out| Judge::new(model, held_out, *max_drop)).transpose()?.flatten();
    let mut state = SearchState {
        judge,
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

/// The dense model's answers to held-out samples, and how many of them may get worse.
struct Judge<'a> {
    samples: &'a Samples,
    expected: Vec<usize>,
    right: Vec<bool>,
    confidence: f64,
    max_drop: f64,
}

impl<'a> Judge<'a> {
    /// `None` where predictions are no classes.
    fn new(model: &Bytes, held_out: HeldOut<'a>, max_drop: f64) -> Result<Option<Judge<'a>>, PruneError> {
        let HeldOut { samples, confidence } = held_out;
        let predictions = TrainableModel::new(model)?.predict(samples)?;
        if predictions.width == 1 {
            return Ok(None);
        }
        let classes = predictions.classes();
        let expected = samples.labels.clone().unwrap_or_else(|| classes.clone());
        let right = classes.iter().zip(&expected).map(|(class, expected)| class == expected).collect();
        let judge = Judge { samples, expected, right, confidence, max_drop };
        let count = samples.len();
        if judge.limit(0, 0) > max_drop {
            let enough = (1..32).map(|power| 1u64 << power).find(|enough| limit(0, 0, *enough, confidence) <= max_drop);
            let enough = enough.map_or_else(String::new, |enough| format!(", about {enough} can"));
            let (points, percent) = (100.0 * max_drop, 100.0 * confidence);
            let why = format!(
                "{count} held-out samples cannot show with {percent} % confidence that at most {points:.2} pp are \
                 lost{enough}: allow a larger drop, or name more samples with `--eval`"
            );
            return Err(PruneError::Samples { why });
        }
        Ok(Some(judge))
    }

    /// The upper limit of the drop.
    fn limit(&self, lost: u64, won: u64) -> f64 {
        limit(lost, won, self.samples.len() as u64, self.confidence)
    }

    fn holds(&self, bytes: &Bytes) -> Result<bool, PruneError> {
        let classes = TrainableModel::new(bytes)?.predict(self.samples)?.classes();
        let (mut lost, mut won) = (0, 0);
        for ((class, expected), was_right) in classes.iter().zip(&self.expected).zip(&self.right) {
            let is_right = class == expected;
            lost += u64::from(*was_right && !is_right);
            won += u64::from(!*was_right && is_right);
        }
        Ok(self.limit(lost, won) <= self.max_drop)
    }
}

/// Of a drop, as a fraction. Without samples anything is possible.
fn limit(lost: u64, won: u64, count: u64, confidence: f64) -> f64 {
    espalier_stats::paired_drop(lost, won, count).map_or(1.0, |drop| drop.upper(confidence))
}

struct SearchState<'a> {
    judge: Option<Judge<'a>>,
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
        let holds = match &self.judge {
            Some(judge) => judge.holds(&state.bytes)?,
            None => stage.tuned.is_some_and(|evaluation| evaluation.accuracy >= self.least),
        };
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

    /// Upper limits as of `espalier-stats`: 4 lost of 497 are 0.8 pp, and up to 1.7 pp.
    #[test]
    fn what_was_seen_is_not_what_is_bounded() {
        assert!(limit(0, 0, 497, 0.95) < 0.005 && limit(4, 0, 497, 0.95) > 0.01);
        assert!(limit(0, 0, 130, 0.95) > 0.01, "too few samples show nothing");
        assert!(limit(40, 0, 10_000, 0.95) < 0.01);
        assert_eq!(limit(0, 0, 0, 0.95), 1.0);
    }

    #[test]
    fn rungs() {
        let ratios = |recipe: Recipe| ladder(&recipe).iter().map(|recipe| recipe.ratio).collect::<Vec<_>>();
        assert_eq!(ratios(Recipe::magnitude(0.9)), [0.5, 0.75, 0.875, 0.9]);
        assert_eq!(ratios(Recipe::magnitude(0.5)), [0.5]);
        let groups = Recipe { unit: "1:4".parse().unwrap(), ..Recipe::magnitude(0.75) };
        assert_eq!(ratios(groups), [0.25, 0.5, 0.75]);
    }
}
