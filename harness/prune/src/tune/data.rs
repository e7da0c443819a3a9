//! What a network is trained on: samples, the teacher's predictions, and the samples that validate.
//!
//! Validation samples are never trained on: given by the caller, or a share of the others, drawn from the seed.
//! Expected classes are the labels; without labels, the dense model's predictions, and accuracy is the share of samples
//! on which both models agree. Where predictions are not classes, accuracy is the share of the expected variance that
//! is explained (R squared).

use super::{
    Distil, Options,
    loss::{Loss, Target, loss},
    trainable::{Predictions, TrainableModel},
};
use crate::{PruneError, Samples, onnx::random::SplitMix64, predictions::check_labels};

/// How well a network does on some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The share of samples whose class is the expected one.
    pub accuracy: f64,
    /// Mean loss: cross-entropy with the expected classes, or half the squared difference from expected values.
    pub loss: f64,
}

impl Evaluation {
    /// Whether it is better than an earlier one; of equals the later one, which was trained longer.
    pub fn beats(self, earlier: Option<Evaluation>) -> bool {
        earlier.is_none_or(|earlier| {
            self.accuracy > earlier.accuracy || self.accuracy == earlier.accuracy && self.loss <= earlier.loss
        })
    }
}

/// Samples that decide which state of a network is best.
#[derive(Clone, Debug)]
struct Validation {
    samples: Samples,
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Expected {
    Classes(Vec<usize>),
    Values(Predictions),
}

impl Validation {
    fn new(samples: Samples, dense: &TrainableModel) -> Result<Validation, PruneError> {
        let expected = match &samples.labels {
            Some(labels) => Expected::Classes(labels.clone()),
            None => match dense.predict(&samples)?.as_expected()? {
                values if values.width == 1 => Expected::Values(values),
                predictions => Expected::Classes(predictions.classes()),
            },
        };
        Ok(Validation { samples, expected })
    }

    fn evaluate(&self, network: &TrainableModel) -> Result<Evaluation, PruneError> {
        let predictions = network.predict(&self.samples)?;
        match &self.expected {
            Expected::Classes(classes) => evaluate_classes(&predictions, classes),
            Expected::Values(values) => Ok(evaluate_values(&predictions.rows, &values.rows)),
        }
    }
}

/// # Errors
/// Classes that the model does not have.
pub fn evaluate_classes(predictions: &Predictions, expected: &[usize]) -> Result<Evaluation, PruneError> {
    check_labels(expected, predictions.width)?;
    let answers = predictions.classes().into_iter().zip(predictions.are_numbers());
    let right = answers.zip(expected).filter(|((class, is_number), expected)| *is_number && class == *expected).count();
    let Loss { sum, .. } = loss(&predictions.rows, predictions.width, Target::Labels(expected));
    let count = expected.len() as f64;
    Ok(Evaluation { accuracy: right as f64 / count, loss: sum / count })
}

fn evaluate_values(predictions: &[f32], expected: &[f32]) -> Evaluation {
    let count = expected.len() as f64;
    let mean = expected.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance: f64 = expected.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    let pairs = predictions.iter().zip(expected);
    let missed: f64 = pairs.map(|(prediction, value)| (f64::from(*prediction) - f64::from(*value)).powi(2)).sum();
    let accuracy = if missed == 0.0 { 1.0 } else { 1.0 - missed / variance };
    Evaluation { accuracy, loss: 0.5 * missed / count }
}

/// All that training needs beside the network.
#[derive(Clone, Debug)]
pub struct TrainingData {
    pub samples: Samples,
    distil: Distil,
    /// The dense model's predictions for `samples`, where it is distilled.
    teacher: Option<Predictions>,
    /// `None` where there were too few samples to set some aside.
    validation: Option<Validation>,
}

/// With fewer samples than this none are set aside.
const TOO_FEW: usize = 10;

impl TrainingData {
    /// # Errors
    /// Samples that do not fit the network; no labels where they are needed.
    pub fn new(
        dense: &TrainableModel,
        samples: &Samples,
        validation: Option<&Samples>,
        options: &Options,
    ) -> Result<TrainingData, PruneError> {
        dense.check(samples)?;
        let (samples, validation) = match validation {
            Some(validation) => {
                dense.check(validation)?;
                (samples.clone(), Some(validation.clone()))
            }
            None => set_aside(samples, options),
        };
        let distil = options.distil;
        if distil.needs_labels() {
            let labels = samples.labels.as_ref().ok_or_else(|| PruneError::Samples {
                why: "they have no labels; without, a teacher is needed: distil from the dense model".into(),
            })?;
            check_labels(labels, dense.predict(&samples.take(&[0]))?.width)?;
        }
        let teacher = if distil == Distil::Not { None } else { Some(dense.predict(&samples)?.as_expected()?) };
        let validation = validation.map(|samples| Validation::new(samples, dense)).transpose()?;
        Ok(TrainingData { samples, distil, teacher, validation })
    }

    /// How well a network does on the validation samples; `None` where there are none.
    ///
    /// # Errors
    /// Whatever the engine refuses.
    pub fn validate(&self, network: &TrainableModel) -> Result<Option<Evaluation>, PruneError> {
        self.validation.as_ref().map(|validation| validation.evaluate(network)).transpose()
    }

    /// The loss of `predictions` for the samples at `indices`, rows of `width`.
    pub fn loss(&self, indices: &[usize], predictions: &[f32], width: usize) -> Loss {
        let labels = self.samples.labels.as_deref().unwrap_or_default();
        let labels: Vec<usize> = indices.iter().filter_map(|index| labels.get(*index).copied()).collect();
        let teacher = self.teacher.as_ref().map(|teacher| teacher.take(indices)).unwrap_or_default();
        let target = match self.distil {
            Distil::Not => Target::Labels(&labels),
            Distil::Labelled { weight, temperature } => {
                Target::Both { labels: &labels, teacher: &teacher, weight, temperature }
            }
            // One number is not a class.
            Distil::Free { .. } if width == 1 => Target::Values(&teacher),
            Distil::Free { temperature } => Target::Teacher { teacher: &teacher, temperature },
        };
        loss(predictions, width, target)
    }
}

/// Samples to train on, and those for validation.
fn set_aside(samples: &Samples, options: &Options) -> (Samples, Option<Samples>) {
    let count = (options.validation * samples.len() as f64).round() as usize;
    if samples.len() < TOO_FEW || count == 0 || count >= samples.len() {
        return (samples.clone(), None);
    }
    let order = SplitMix64::new(options.seed ^ 0x5eed_e8a3).order(samples.len());
    let (aside, rest) = order.split_at(count);
    (samples.take(rest), Some(samples.take(aside)))
}
