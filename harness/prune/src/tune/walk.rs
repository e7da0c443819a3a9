//! One step of pruning and teaching, from one state of a model to the next; `iterate` and `until` are made of it.

use super::{
    Event, Options, Plan, Pupil, Watch,
    course::{Course, Grade},
    learner::Learner,
    random::Random,
    train::{End, Term},
};
use crate::{
    Bytes, Mask, PruneError, Recipe, Samples, Unit, importance, onnx::Model, prunable::survey, remove, select,
};

/// A model on its way.
#[derive(Clone, Debug)]
pub struct State {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrink, or nothing is.
    pub mask: Option<Mask>,
}

/// One ratio of the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Of the dense model.
    pub ratio: f64,
    /// Single weights removed so far.
    pub removed: u64,
    /// After pruning, and after teaching; `None` where there are too few samples to judge by.
    pub pruned: Option<Grade>,
    pub tuned: Option<Grade>,
}

/// What stays the same all the way.
pub struct Walk<'a> {
    pub course: Course,
    options: &'a Options,
    /// Of the dense model.
    pub dense: Option<Grade>,
    soft: bool,
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
        Ok(Walk { course, options: &plan.options, dense: grade, soft: plan.soft, judged })
    }

    /// Prunes `state` on to what `recipe` says of the dense model, then teaches it. `kept` says whether what is removed stays so while it is
    /// taught; else it may come back, and the next step decides anew.
    ///
    /// # Errors
    /// Whatever importance and the engine refuse.
    pub fn advance(
        &self,
        state: &State,
        recipe: &Recipe,
        (step, steps): (usize, usize),
        epochs: usize,
        kept: bool,
        watch: &mut Watch<'_>,
    ) -> Result<(State, Stage, End), PruneError> {
        let mut state = self.pruned(state, recipe)?;
        let mut pupil = Pupil::new(&state.bytes)?;
        let grade = self.course.exam.as_ref().map(|exam| exam.grade(&pupil.learner)).transpose()?;
        let removed = state.mask.as_ref().map_or(0, Mask::removed);
        let mut stage = Stage { ratio: recipe.ratio, removed, pruned: grade, tuned: grade };
        (watch.tell)(Event::Pruned { step, steps, ratio: recipe.ratio, removed, grade });
        if epochs == 0 {
            return Ok((state, stage, End::Complete));
        }
        if kept {
            pupil.mask(&state.bytes, state.mask.as_ref())?;
        }
        // Each step has an order of its own.
        let seed = self.options.seed.wrapping_add(step as u64);
        let term = Term { course: &self.course, options: self.options, epochs, seed, best: step + 1 == steps };
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
        let mut pupil = Pupil::new(&state.bytes)?;
        pupil.mask(&state.bytes, state.mask.as_ref())?;
        state.bytes = pupil.write(&state.bytes)?;
        stage.tuned = self.course.exam.as_ref().map(|exam| exam.grade(&pupil.learner)).transpose()?;
        Ok(())
    }

    fn pruned(&self, state: &State, recipe: &Recipe) -> Result<State, PruneError> {
        if let Unit::Structure(_) = recipe.unit {
            return Err(PruneError::NotYet { what: format!("{} in steps", recipe.unit) });
        }
        let model = Model::decode(&state.bytes)?;
        let survey = survey(&model)?;
        let samples = Some(&self.judged);
        let scores = importance::scores(&model, None, &survey, recipe.method, samples, recipe.batch, recipe.seed)?;
        let already = state.mask.as_ref().filter(|_| !self.soft);
        let mask = select::mask(&scores, &survey, recipe.scope, recipe.unit, recipe.amount(), already)?;
        Ok(State { bytes: remove::apply(&state.bytes, &survey, &mask)?, mask: Some(mask) })
    }
}
