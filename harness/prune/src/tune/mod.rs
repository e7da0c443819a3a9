//! Teaching a pruned network what it lost, and pruning in steps with teaching in between.
//!
//! ```text
//! dense ─► iterate: (prune ─► validate ─► fine-tune) for each ratio of the schedule ─► the best at the final ratio
//!          until: the same, for the largest ratio that keeps the accuracy        sensitivity: what each tensor bears, untaught
//! ```
//! Bytes and samples in, bytes out; whoever calls is told how it goes ([`Event`]) and may stop it at any batch ([`Watch`]). The same seed gives
//! the same bits, however many cores there are. Teaching needs labels or, as well in most cases, only the dense model as a teacher
//! ([`Distil::Free`]): then any samples of the right kind will do.

pub mod loss;
pub mod optimiser;
pub mod schedule;

mod course;
mod iterate;
mod learner;
mod parameters;
mod progress;
mod random;
mod recalibrate;
mod sensitivity;
mod train;
mod until;
mod walk;

use std::collections::HashMap;

pub use course::{Course, Exam, Grade};
pub use espalier_recipe::Schedule;
pub use iterate::{Iterated, Plan, iterate};
pub use learner::{Answers, Learner};
pub use optimiser::Rule;
pub use recalibrate::{Recalibrated, recalibrate};
pub use sensitivity::{Row, Scan, sensitivity};
pub use train::End;
pub use until::{Found, Search, until};
pub use walk::Stage;

use crate::{Bytes, Mask, PruneError, Samples, onnx::Model, prunable::survey, remove};
use parameters::{Parameter, parameters};
use train::{Term, Trained};

/// What is learned from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distil {
    /// The labels alone.
    Not,
    /// `weight` of the teacher's softened answers, the rest of the labels.
    Labelled { weight: f32, temperature: f32 },
    /// The teacher's softened answers alone; labels, where there are any, only judge.
    Free { temperature: f32 },
    /// The teacher's answers as numbers, for models that do not tell classes apart.
    Values,
}

impl Distil {
    pub fn needs_labels(self) -> bool {
        matches!(self, Distil::Not | Distil::Labelled { .. })
    }

    pub fn needs_teacher(self) -> bool {
        self != Distil::Not
    }
}

/// How to teach. The defaults are those that did well on all of the demonstration models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub epochs: usize,
    /// Samples from which one step is made.
    pub batch: usize,
    /// The highest learning rate.
    pub rate: f32,
    /// The share of steps over which the rate rises to it.
    pub warm_up: f32,
    pub rule: Rule,
    /// The longest all gradients together may be.
    pub clip: f32,
    pub distil: Distil,
    pub seed: u64,
    /// The share of samples that are not learned from but decide which state was best, where no others are given for that.
    pub validation: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            epochs: 20,
            batch: 32,
            rate: 2e-3,
            warm_up: 0.05,
            rule: Rule::Adam { decay: 1e-4 },
            clip: 5.0,
            distil: Distil::Not,
            seed: 20,
            validation: 0.1,
        }
    }
}

/// What happened just now. Indices are from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A step of a schedule: `removed` weights are gone (units, where tensors shrink), nothing is taught yet.
    Pruned {
        step: usize,
        steps: usize,
        ratio: f64,
        removed: u64,
        grade: Option<Grade>,
    },
    Batch {
        epoch: usize,
        epochs: usize,
        batch: usize,
        batches: usize,
        loss: f64,
    },
    /// `loss` is the mean over the epoch's batches; the grade that of the samples that decide.
    Epoch {
        epoch: usize,
        epochs: usize,
        loss: f64,
        grade: Option<Grade>,
    },
    /// One of the variants of a scan or a search was judged.
    Judged {
        done: usize,
        of: usize,
    },
}

/// Whoever waits for it.
pub struct Watch<'a> {
    pub tell: &'a mut dyn FnMut(Event),
    /// Asked before every batch; after a `true` the best so far is returned.
    pub stop: &'a dyn Fn() -> bool,
}

/// What [`fine_tune`] makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    pub bytes: Bytes,
    /// Before and after, by the samples that decide; `None` where there are none.
    pub before: Option<Grade>,
    pub after: Option<Grade>,
    pub end: End,
}

/// Teaches a model. Weights that `mask` removes are zero, before as after; the rest of the file stays as it is, to the byte.
///
/// `teacher` is the dense model, where something is learned from it; `validation` are samples that decide which epoch was best (by default
/// a share of `samples`).
///
/// # Errors
/// Samples that do not fit or have no labels where they are needed; operators the engine cannot differentiate; a model with nothing to teach.
pub fn fine_tune(
    model: &Bytes,
    mask: Option<&Mask>,
    teacher: Option<&Bytes>,
    samples: &Samples,
    validation: Option<&Samples>,
    options: &Options,
    watch: &mut Watch<'_>,
) -> Result<Tuned, PruneError> {
    let mut pupil = Pupil::new(model)?;
    let teacher = teacher.map(Learner::new).transpose()?;
    let course = Course::new(&pupil.learner, teacher.as_ref(), samples, validation, options)?;
    pupil.mask(model, mask)?;
    let before = course.exam.as_ref().map(|exam| exam.grade(&pupil.learner)).transpose()?;
    let term = Term { course: &course, options, epochs: options.epochs, seed: options.seed, best: true };
    let trained = pupil.train(term, watch)?;
    Ok(Tuned { bytes: pupil.write(model)?, before, after: trained.grade, end: trained.end })
}

/// A mask of the weights that are zero, so that a pruned model stays pruned while it is taught.
///
/// # Errors
/// Those of [`survey`].
pub fn zeros(model: &Bytes) -> Result<Mask, PruneError> {
    let model = Model::decode(model)?;
    let mut zeros = Vec::new();
    for weight in &survey(&model)?.weights {
        let mut zero = Vec::new();
        crate::tensor::Values::of(&weight.name, weight.place.tensor(model.graph()))?
            .for_each(|value| zero.push(value == 0.0));
        zeros.push(zero);
    }
    Ok(Mask(zeros))
}

/// A learner with its parameters and their masks.
struct Pupil {
    learner: Learner,
    parameters: Vec<Parameter>,
    masks: Vec<Option<Vec<bool>>>,
}

impl Pupil {
    fn new(model: &Bytes) -> Result<Pupil, PruneError> {
        let learner = Learner::new(model)?;
        let parameters = parameters(&Model::decode(model)?, &learner.network);
        let masks = vec![None; parameters.len()];
        Ok(Pupil { learner, parameters, masks })
    }

    /// Sets what `mask` removes to zero, and keeps it there.
    fn mask(&mut self, model: &Bytes, mask: Option<&Mask>) -> Result<(), PruneError> {
        self.masks.fill(None);
        let Some(mask) = mask else { return Ok(()) };
        let survey = survey(&Model::decode(model)?)?;
        let misfit = |why: &str| PruneError::Samples { why: format!("the mask is of another model: {why}") };
        if survey.weights.len() != mask.0.len() {
            return Err(misfit("it has other tensors"));
        }
        for (weight, mask) in survey.weights.iter().zip(&mask.0) {
            if mask.len() as u64 != weight.count {
                return Err(misfit(&format!("`{}` has {} weights, not {}", weight.name, weight.count, mask.len())));
            }
            let id = self.learner.network.find(&weight.name).ok_or_else(|| misfit("a tensor is missing"))?;
            train::set_to_zero(train::values_mut(&mut self.learner, id), mask);
            let index = self.parameters.iter().position(|parameter| parameter.id == id);
            self.masks[index.ok_or_else(|| misfit("a weight is nothing to teach"))?] = Some(mask.clone());
        }
        Ok(())
    }

    fn train(&mut self, term: Term<'_>, watch: &mut Watch<'_>) -> Result<Trained, PruneError> {
        if self.parameters.is_empty() && term.epochs > 0 {
            return Err(PruneError::NothingPrunable { why: "nor taught: it has no float32 weights".into() });
        }
        let masks: Vec<Option<&[bool]>> = self.masks.iter().map(Option::as_deref).collect();
        train::train(&mut self.learner, &self.parameters, &masks, term, watch)
    }

    fn write(&self, model: &Bytes) -> Result<Bytes, PruneError> {
        let values = self.parameters.iter().map(|parameter| {
            let values = train::values(&self.learner, parameter.id).to_vec();
            (parameter.name.clone(), values)
        });
        remove::write(model, &values.collect::<HashMap<_, _>>())
    }
}
