//! One step of pruning and fine-tuning, from one state of a model to the next; `iterate` and `until` consist of them.

use super::{
    Event, Plan, Watch,
    data::{Evaluation, TrainingData},
    progress,
    recalibrate::recalibrate,
    student::{End, Student, Training},
    trainable::TrainableModel,
};
use crate::{
    Bytes, Manifest, Mask, PruneError, Recipe, Samples, Structure, Unit, importance,
    onnx::{Model, random::SplitMix64},
    prunable::survey,
    remove, select, structure,
};

/// A model between steps.
#[derive(Clone, Debug)]
pub struct State {
    pub bytes: Bytes,
    /// What is removed of the dense model; `None` where tensors shrink, or nothing is.
    pub mask: Option<Mask>,
    /// Of all steps together, where tensors shrink.
    pub manifest: Option<Manifest>,
    /// Of the last step.
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

/// How one step went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Of the dense model.
    pub ratio: f64,
    /// Single weights removed so far; units where tensors shrink.
    pub removed: u64,
    /// After pruning, and after fine-tuning; `None` without validation samples.
    pub pruned: Option<Evaluation>,
    pub tuned: Option<Evaluation>,
}

/// Which step of how many.
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

/// What all steps share.
pub struct Stepper<'a> {
    plan: &'a Plan,
    data: TrainingData,
    /// Of the dense model.
    pub dense: Option<Evaluation>,
    /// The samples that importance is computed from.
    importance_samples: Samples,
}

impl<'a> Stepper<'a> {
    /// # Errors
    /// A recipe that contradicts itself, samples that do not fit.
    pub fn new(
        model: &Bytes,
        plan: &'a Plan,
        samples: &Samples,
        validation: Option<&Samples>,
    ) -> Result<Stepper<'a>, PruneError> {
        plan.recipe.check()?;
        if let (true, Unit::Structure(Structure::Layer)) = (plan.soft, plan.recipe.unit) {
            return Err(PruneError::NotYet { what: "whole layers that may come back".into() });
        }
        let dense = TrainableModel::new(model)?;
        let data = TrainingData::new(&dense, samples, validation, &plan.options)?;
        let order = SplitMix64::new(plan.options.seed ^ 0x0bad_5eed).order(data.samples.len());
        let count = plan.importance_samples.clamp(1, order.len());
        let mut importance_samples = data.samples.take(&order[..count]);
        if importance_samples.labels.is_none() {
            // The dense model's predictions are nearer the truth than those of a pruned one.
            let predictions = dense.predict(&importance_samples)?.as_expected()?;
            importance_samples.labels = (predictions.width > 1).then(|| predictions.classes());
        }
        let evaluation = data.validate(&dense)?;
        Ok(Stepper { plan, data, dense: evaluation, importance_samples })
    }

    /// Prunes `state` further, to the share of the dense model that `recipe` names, then fine-tunes it.
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
        // Softly pruned weights are fine-tuned like others.
        let kept = !self.plan.soft || step.is_last();
        let mut state = self.pruned(state, recipe, step, kept)?;
        let mut student = Student::new(&state.bytes)?;
        let (ratio, removed, evaluation) = (recipe.ratio, state.removed(), self.data.validate(&student.model)?);
        let mut stage = Stage { ratio, removed, pruned: evaluation, tuned: evaluation };
        (watch.on_event)(Event::Pruned { step: step.index, steps: step.of, ratio, removed, evaluation });
        if step.epochs == 0 {
            return Ok((state, stage, End::Complete));
        }
        if let (true, Some(mask)) = (kept, &state.mask) {
            student.mask(&state.bytes, mask)?;
        }
        let training = Training {
            data: &self.data,
            options: &self.plan.options,
            epochs: step.epochs,
            // Each step shuffles in its own order.
            seed: self.plan.options.seed.wrapping_add(step.index as u64),
            best: step.is_last(),
        };
        let trained = student.train(training, watch)?;
        stage.tuned = trained.evaluation;
        state.bytes = student.write(&state.bytes)?;
        Ok((state, stage, trained.end))
    }

    /// Removes what came back in fine-tuning: for a soft pruning that ends before its last step.
    ///
    /// # Errors
    /// Whatever the engine refuses.
    pub fn remove_again(&self, state: &mut State, stage: &mut Stage) -> Result<(), PruneError> {
        let Some(recipe) = state.recipe else { return Ok(()) };
        if let Unit::Structure(_) = recipe.unit {
            let last = Step { index: 0, of: 1, epochs: 0 };
            *state = self.pruned(state, &recipe, last, true)?;
        }
        let mut student = Student::new(&state.bytes)?;
        if let Some(mask) = &state.mask {
            student.mask(&state.bytes, mask)?;
        }
        state.bytes = student.write(&state.bytes)?;
        (stage.removed, stage.tuned) = (state.removed(), self.data.validate(&student.model)?);
        Ok(())
    }

    /// # Errors
    /// A model that cannot be read.
    pub fn manifest(&self, dense: &Bytes, state: &State) -> Result<Manifest, PruneError> {
        match (&state.manifest, &state.mask, state.recipe) {
            (Some(manifest), _, _) => Ok(manifest.clone()),
            (None, Some(mask), Some(recipe)) => {
                progress::of_mask(&state.bytes, &recipe, mask, &self.importance_samples)
            }
            _ => progress::of_dense(dense, &self.plan.recipe),
        }
    }

    fn pruned(&self, state: &State, recipe: &Recipe, step: Step, kept: bool) -> Result<State, PruneError> {
        if let Unit::Structure(_) = recipe.unit {
            let (bytes, manifest) =
                if kept { self.shrunk(state, recipe, step)? } else { (self.zeroed(state, recipe)?, None) };
            let bytes =
                if self.plan.recalibrate { recalibrate(&bytes, &self.importance_samples)?.bytes } else { bytes };
            return Ok(State { bytes, mask: None, manifest, recipe: Some(*recipe) });
        }
        let model = Model::decode(&state.bytes)?;
        let survey = survey(&model)?;
        let samples = Some(&self.importance_samples);
        let scores = importance::scores(&model, &survey, recipe.method, samples, recipe.batch, recipe.seed)?;
        let already = state.mask.as_ref().filter(|_| !self.plan.soft);
        let mask = select::mask(&scores, &survey, recipe.scope, recipe.unit, recipe.amount(), already)?;
        let bytes = remove::apply(&state.bytes, &survey, &mask)?;
        Ok(State { bytes, mask: Some(mask), manifest: None, recipe: Some(*recipe) })
    }

    /// Removes as many more units as the recipe's share of the dense model's units requires.
    fn shrunk(&self, state: &State, recipe: &Recipe, step: Step) -> Result<(Bytes, Option<Manifest>), PruneError> {
        let unchanged = || Ok((state.bytes.clone(), state.manifest.clone()));
        let (all, gone) = state.manifest.as_ref().map_or((0, 0), |done| (done.units, done.removed_units));
        let more = recipe.removed(all).saturating_sub(gone);
        if all > 0 && more == 0 && recipe.threshold.is_none() {
            return unchanged();
        }
        let ratio = if all == 0 { recipe.ratio } else { more as f64 / (all - gone) as f64 };
        let now = Recipe { ratio, ..*recipe };
        match structure::prune(&state.bytes, &now, Some(&self.importance_samples), &self.plan.structure) {
            Ok(pruned) => {
                let manifest = progress::merged(state.manifest.as_ref(), pruned.manifest, recipe);
                Ok((pruned.bytes, Some(manifest)))
            }
            // A small step of a small model may round to 0 units; the last one may not.
            Err(PruneError::NothingPrunable { .. }) if !step.is_last() => unchanged(),
            Err(error) => Err(error),
        }
    }

    /// The units' values set to zero, in tensors of their old size.
    fn zeroed(&self, state: &State, recipe: &Recipe) -> Result<Bytes, PruneError> {
        let model = Model::decode(&state.bytes)?;
        let mut plan = structure::plan(model, recipe, Some(&self.importance_samples), &self.plan.structure)?;
        plan.dependencies.masked(&plan.removed)
    }
}
