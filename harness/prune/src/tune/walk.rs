//! One step of pruning and teaching, from one state of a model to the next; `iterate` and `until` are made of it.

use super::{
    Event, Plan, Pupil, Watch,
    course::{Course, Grade},
    learner::Learner,
    progress,
    random::Random,
    recalibrate::recalibrate,
    train::{End, Term},
};
use crate::{
    Bytes, Manifest, Mask, PruneError, Recipe, Samples, Structure, Unit, importance, onnx::Model, prunable::survey,
    remove, select, structure,
};

/// A model on its way.
#[derive(Clone, Debug)]
pub struct State {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrink, or nothing is.
    pub mask: Option<Mask>,
    /// Of all steps together, where tensors shrink.
    pub manifest: Option<Manifest>,
    /// What was asked for last.
    pub recipe: Option<Recipe>,
}

impl State {
    pub fn dense(model: &Bytes) -> State {
        State { bytes: model.clone(), mask: None, manifest: None, recipe: None }
    }

    /// Single weights, or units where tensors shrink.
    fn removed(&self) -> u64 {
        let units = self.manifest.as_ref().map(|manifest| manifest.removed_units);
        units.or_else(|| self.mask.as_ref().map(Mask::removed)).unwrap_or(0)
    }
}

/// One ratio of the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Of the dense model.
    pub ratio: f64,
    /// Single weights removed so far; units where tensors shrink.
    pub removed: u64,
    /// After pruning, and after teaching; `None` where there are too few samples to judge by.
    pub pruned: Option<Grade>,
    pub tuned: Option<Grade>,
}

/// Which step of how many. What is removed in the last one stays so.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub index: usize,
    pub of: usize,
    pub epochs: usize,
}

impl Step {
    fn is_last(self) -> bool {
        self.index + 1 == self.of
    }
}

/// What stays the same all the way.
pub struct Walk<'a> {
    plan: &'a Plan,
    course: Course,
    /// Of the dense model.
    pub dense: Option<Grade>,
    /// What importance is judged on, where the method looks at samples.
    judged: Samples,
}

impl<'a> Walk<'a> {
    /// # Errors
    /// A recipe that cannot be, samples that do not fit.
    pub fn new(
        model: &Bytes,
        plan: &'a Plan,
        samples: &Samples,
        validation: Option<&Samples>,
    ) -> Result<Walk<'a>, PruneError> {
        plan.recipe.check()?;
        if let (true, Unit::Structure(Structure::Layer)) = (plan.soft, plan.recipe.unit) {
            return Err(PruneError::NotYet { what: "whole layers that may come back".into() });
        }
        let dense = Learner::new(model)?;
        let course = Course::new(&dense, Some(&dense), samples, validation, &plan.options)?;
        let order = Random::new(plan.options.seed ^ 0x0bad_5eed).order(course.samples.len());
        let mut judged = course.samples.take(&order[..plan.judged.clamp(1, order.len())]);
        if judged.labels.is_none() {
            // What the dense model says is nearer the truth than what a pruned one does.
            let answers = dense.ask(&judged)?;
            judged.labels = (answers.width > 1).then(|| answers.classes());
        }
        let grade = course.exam.as_ref().map(|exam| exam.grade(&dense)).transpose()?;
        Ok(Walk { plan, course, dense: grade, judged })
    }

    /// Prunes `state` on to what `recipe` says of the dense model, then teaches it.
    ///
    /// # Errors
    /// Whatever importance and the engine refuse.
    pub fn advance(
        &self,
        state: &State,
        recipe: &Recipe,
        step: Step,
        watch: &mut Watch<'_>,
    ) -> Result<(State, Stage, End), PruneError> {
        // Softly pruned weights are taught like others.
        let kept = !self.plan.soft || step.is_last();
        let mut state = self.pruned(state, recipe, step, kept)?;
        let mut pupil = Pupil::new(&state.bytes)?;
        let (ratio, removed, grade) = (recipe.ratio, state.removed(), self.grade(&pupil)?);
        let mut stage = Stage { ratio, removed, pruned: grade, tuned: grade };
        (watch.tell)(Event::Pruned { step: step.index, steps: step.of, ratio, removed, grade });
        if step.epochs == 0 {
            return Ok((state, stage, End::Complete));
        }
        if kept {
            pupil.mask(&state.bytes, state.mask.as_ref())?;
        }
        let term = Term {
            course: &self.course,
            options: &self.plan.options,
            epochs: step.epochs,
            // Each step has an order of its own.
            seed: self.plan.options.seed.wrapping_add(step.index as u64),
            best: step.is_last(),
        };
        let trained = pupil.train(term, watch)?;
        stage.tuned = trained.grade;
        state.bytes = pupil.write(&state.bytes)?;
        Ok((state, stage, trained.end))
    }

    /// Removes again what came back while it was taught: for a soft pruning that ends here.
    ///
    /// # Errors
    /// Whatever the engine refuses.
    pub fn settle(&self, state: &mut State, stage: &mut Stage) -> Result<(), PruneError> {
        let Some(recipe) = state.recipe else { return Ok(()) };
        if let Unit::Structure(_) = recipe.unit {
            let last = Step { index: 0, of: 1, epochs: 0 };
            *state = self.pruned(state, &recipe, last, true)?;
        }
        let mut pupil = Pupil::new(&state.bytes)?;
        pupil.mask(&state.bytes, state.mask.as_ref())?;
        state.bytes = pupil.write(&state.bytes)?;
        (stage.removed, stage.tuned) = (state.removed(), self.grade(&pupil)?);
        Ok(())
    }

    /// # Errors
    /// A model that cannot be read.
    pub fn manifest(&self, dense: &Bytes, state: &State) -> Result<Manifest, PruneError> {
        match (&state.manifest, &state.mask, state.recipe) {
            (Some(manifest), _, _) => Ok(manifest.clone()),
            (None, Some(mask), Some(recipe)) => progress::of_mask(&state.bytes, &recipe, mask, &self.judged),
            _ => progress::of_nothing(dense, &self.plan.recipe),
        }
    }

    fn grade(&self, pupil: &Pupil) -> Result<Option<Grade>, PruneError> {
        self.course.exam.as_ref().map(|exam| exam.grade(&pupil.learner)).transpose()
    }

    fn pruned(&self, state: &State, recipe: &Recipe, step: Step, kept: bool) -> Result<State, PruneError> {
        let asked = Some(*recipe);
        if let Unit::Structure(_) = recipe.unit {
            let (bytes, manifest) =
                if kept { self.shrunk(state, recipe, step)? } else { (self.hollowed(state, recipe)?, None) };
            let bytes = if self.plan.recalibrate { recalibrate(&bytes, &self.judged)?.bytes } else { bytes };
            return Ok(State { bytes, mask: None, manifest, recipe: asked });
        }
        let model = Model::decode(&state.bytes)?;
        let survey = survey(&model)?;
        let samples = Some(&self.judged);
        let scores = importance::scores(&model, None, &survey, recipe.method, samples, recipe.batch, recipe.seed)?;
        let already = state.mask.as_ref().filter(|_| !self.plan.soft);
        let mask = select::mask(&scores, &survey, recipe.scope, recipe.unit, recipe.amount(), already)?;
        let bytes = remove::apply(&state.bytes, &survey, &mask)?;
        Ok(State { bytes, mask: Some(mask), manifest: None, recipe: asked })
    }

    /// Takes out as many units more as are missing to the recipe's share of the dense model's.
    fn shrunk(&self, state: &State, recipe: &Recipe, step: Step) -> Result<(Bytes, Option<Manifest>), PruneError> {
        let as_it_was = || Ok((state.bytes.clone(), state.manifest.clone()));
        let (all, gone) = state.manifest.as_ref().map_or((0, 0), |done| (done.units, done.removed_units));
        let more = recipe.removed(all).saturating_sub(gone);
        if all > 0 && more == 0 && recipe.threshold.is_none() {
            return as_it_was();
        }
        let ratio = if all == 0 { recipe.ratio } else { more as f64 / (all - gone) as f64 };
        let now = Recipe { ratio, ..*recipe };
        match structure::prune(&state.bytes, &now, Some(&self.judged), &self.plan.structure) {
            Ok(pruned) => {
                let manifest = progress::together(state.manifest.as_ref(), pruned.manifest, recipe);
                Ok((pruned.bytes, Some(manifest)))
            }
            // A small step of a small model may round to nothing; the last one may not.
            Err(PruneError::NothingPrunable { .. }) if !step.is_last() => as_it_was(),
            Err(error) => Err(error),
        }
    }

    /// The units' values set to zero, in tensors as large as they were.
    fn hollowed(&self, state: &State, recipe: &Recipe) -> Result<Bytes, PruneError> {
        let model = Model::decode(&state.bytes)?;
        let mut plan = structure::plan(model, recipe, Some(&self.judged), &self.plan.structure)?;
        plan.anatomy.masked(&plan.removed)
    }
}
