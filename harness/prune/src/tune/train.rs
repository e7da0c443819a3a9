//! The training itself: epochs over a shuffled course, in place on a learner, keeping what was best in the exam.

use espalier_engine::{Array, Tensor, ValueId};

use super::{
    Event, Options, Watch,
    course::{Course, Grade},
    learner::{Learner, Slope},
    optimiser::{Optimiser, rate},
    parameters::Parameter,
    random::Random,
};
use crate::PruneError;

/// How a training ended; the learner holds the best of its states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trained {
    /// Of the state the learner is left in; `None` without an exam.
    pub grade: Option<Grade>,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs were gone through.
    Complete,
    Stopped,
    /// The loss was no number any more; what was best before that is kept.
    Diverged,
}

/// What one training is.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    pub course: &'a Course,
    pub options: &'a Options,
    pub epochs: usize,
    /// Of the order of samples.
    pub seed: u64,
    /// Whether the best state is kept, not the last: where it goes on, the last has learned most.
    pub best: bool,
}

/// `masks` are by parameter; what they say `true` of is +0 from the beginning to the end.
///
/// # Errors
/// Whatever the engine refuses.
pub fn train(
    learner: &mut Learner,
    parameters: &[Parameter],
    masks: &[Option<&[bool]>],
    term: Term<'_>,
    watch: &mut Watch<'_>,
) -> Result<Trained, PruneError> {
    let Term { course, options, epochs, seed, .. } = term;
    for (parameter, mask) in parameters.iter().zip(masks) {
        if let Some(mask) = mask {
            set_to_zero(values_mut(learner, parameter.id), mask);
        }
    }
    let wanted: Vec<ValueId> = parameters.iter().map(|parameter| parameter.id).collect();
    let lengths: Vec<usize> = parameters.iter().map(|parameter| values(learner, parameter.id).len()).collect();
    let mut optimiser = Optimiser::new(options.rule, &lengths);
    let mut random = Random::new(seed);
    let batch = options.batch.clamp(1, course.samples.len());
    let batches = course.samples.len().div_ceil(batch);
    let steps = epochs * batches;

    let mut best = State::of(learner, &wanted);
    let mut best_grade = course.exam.as_ref().map(|exam| exam.grade(learner)).transpose()?;
    let mut end = End::Complete;
    'epochs: for epoch in 0..epochs {
        let order = random.order(course.samples.len());
        let mut sum = 0.0;
        for (index, indices) in order.chunks(batch).enumerate() {
            if (watch.stop)() {
                end = End::Stopped;
                break 'epochs;
            }
            let teach = |indices: &[usize], answers: &[f32], width: usize| course.loss(indices, answers, width);
            let Slope { loss, mut gradients } = learner.gradients(&course.samples, indices, &wanted, &teach)?;
            if !loss.is_finite() || !clip(&mut gradients, options.clip) {
                end = End::Diverged;
                break 'epochs;
            }
            sum += loss * indices.len() as f64;
            optimiser.step();
            let rate = rate(options.rate, epoch * batches + index, steps, options.warm_up);
            for (index, (parameter, gradient)) in parameters.iter().zip(&gradients).enumerate() {
                if let Some(gradient) = gradient {
                    let values = values_mut(learner, parameter.id);
                    optimiser.update(index, values, gradient.data(), masks[index], rate, parameter.decays);
                }
            }
            (watch.tell)(Event::Batch { epoch, epochs, batch: index, batches, loss });
        }
        let grade = course.exam.as_ref().map(|exam| exam.grade(learner)).transpose()?;
        (watch.tell)(Event::Epoch { epoch, epochs, loss: sum / course.samples.len() as f64, grade });
        if !term.best || grade.is_none_or(|grade| grade.beats(best_grade)) {
            (best, best_grade) = (State::of(learner, &wanted), grade);
        }
    }
    best.restore(learner, &wanted);
    Ok(Trained { grade: best_grade, end })
}

/// The values of the parameters; cheap: they are copied when one moves on.
struct State(Vec<Tensor>);

impl State {
    fn of(learner: &Learner, parameters: &[ValueId]) -> State {
        let constant = |id: &ValueId| learner.network.constant(*id).expect("parameters are constants").clone();
        State(parameters.iter().map(constant).collect())
    }

    fn restore(self, learner: &mut Learner, parameters: &[ValueId]) {
        for (id, value) in parameters.iter().zip(self.0) {
            *learner.network.constant_mut(*id).expect("parameters are constants") = value;
        }
    }
}

pub fn values(learner: &Learner, parameter: ValueId) -> &[f32] {
    let constant = learner.network.constant(parameter).and_then(|constant| constant.f32().ok());
    constant.expect("parameters are float constants").data()
}

pub fn values_mut(learner: &mut Learner, parameter: ValueId) -> &mut [f32] {
    match learner.network.constant_mut(parameter) {
        Some(Tensor::F32(array)) => array.data_mut(),
        _ => unreachable!("parameters are float constants"),
    }
}

pub fn set_to_zero(values: &mut [f32], mask: &[bool]) {
    values.iter_mut().zip(mask).filter(|(_, masked)| **masked).for_each(|(value, _)| *value = 0.0);
}

/// Shortens all gradients together where they are longer than `longest`. `false` if one is no number.
fn clip(gradients: &mut [Option<Array<f32>>], longest: f32) -> bool {
    let squares = gradients.iter().flatten().flat_map(|gradient| gradient.data());
    let length = squares.map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > f64::from(longest) {
        let scale = (f64::from(longest) / length) as f32;
        for gradient in gradients.iter_mut().flatten() {
            gradient.data_mut().iter_mut().for_each(|value| *value *= scale);
        }
    }
    length.is_finite()
}
