//! What a network learns from, what it is held against, and which samples decide how good it is.
//!
//! The samples that decide are never learned from: given by the caller, or a share of the others, drawn from the seed. With labels the wanted
//! classes are those; without, the teacher's, and accuracy is the share of samples on which teacher and pupil agree. Where answers are no
//! classes, accuracy is the share of the wanted answers' variance that is met (R squared).

use super::{
    Distil, Options,
    learner::{Answers, Learner, check_labels},
    loss::{Loss, Target, loss},
    random::Random,
};
use crate::{PruneError, Samples};

/// How well a network does on some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grade {
    /// The share of samples whose class is the wanted one.
    pub accuracy: f64,
    /// Mean loss: cross-entropy with the wanted classes, or half the squared difference from wanted values.
    pub loss: f64,
}

impl Grade {
    /// Whether it beats an earlier one; of equals the later has learned more.
    pub fn beats(self, earlier: Option<Grade>) -> bool {
        earlier.is_none_or(|earlier| {
            self.accuracy > earlier.accuracy || self.accuracy == earlier.accuracy && self.loss <= earlier.loss
        })
    }
}

/// Samples that decide.
#[derive(Clone, Debug)]
pub struct Exam {
    samples: Samples,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Classes(Vec<usize>),
    Values(Answers),
}

impl Exam {
    /// `teacher` is asked where there are no labels.
    ///
    /// # Errors
    /// Samples that do not fit; no labels and no teacher.
    pub fn new(samples: Samples, teacher: Option<&Learner>, of_values: bool) -> Result<Exam, PruneError> {
        let wanted = match (&samples.labels, teacher) {
            (Some(labels), _) if !of_values => Wanted::Classes(labels.clone()),
            (_, Some(teacher)) => {
                let answers = teacher.ask(&samples)?;
                if is_of_values(of_values, &answers) {
                    Wanted::Values(answers)
                } else {
                    Wanted::Classes(answers.classes())
                }
            }
            (_, None) => return Err(neither()),
        };
        Ok(Exam { samples, wanted })
    }

    /// # Errors
    /// Samples that do not fit; classes the model does not have.
    pub fn grade(&self, learner: &Learner) -> Result<Grade, PruneError> {
        let answers = learner.ask(&self.samples)?;
        Ok(match &self.wanted {
            Wanted::Classes(classes) => grade_classes(&answers, classes)?,
            Wanted::Values(values) => grade_values(&answers, values)?,
        })
    }
}

/// # Errors
/// Classes the answers do not tell apart.
pub fn grade_classes(answers: &Answers, wanted: &[usize]) -> Result<Grade, PruneError> {
    check_labels(wanted, answers.width)?;
    let right = answers.classes().iter().zip(wanted).filter(|(class, wanted)| class == wanted).count();
    let Loss { sum, .. } = loss(&answers.rows, answers.width, Target::Labels(wanted));
    let count = wanted.len() as f64;
    Ok(Grade { accuracy: right as f64 / count, loss: sum / count })
}

fn grade_values(answers: &Answers, wanted: &Answers) -> Result<Grade, PruneError> {
    same_width(answers, wanted)?;
    let mean = wanted.rows.iter().map(|value| f64::from(*value)).sum::<f64>() / wanted.rows.len() as f64;
    let variance: f64 = wanted.rows.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    let pairs = answers.rows.iter().zip(&wanted.rows);
    let missed: f64 = pairs.map(|(answer, value)| (f64::from(*answer) - f64::from(*value)).powi(2)).sum();
    let accuracy = if missed == 0.0 { 1.0 } else { 1.0 - missed / variance };
    Ok(Grade { accuracy, loss: 0.5 * missed / wanted.rows.len() as f64 })
}

/// # Errors
/// A teacher of another kind.
fn same_width(answers: &Answers, wanted: &Answers) -> Result<(), PruneError> {
    if answers.width == wanted.width {
        return Ok(());
    }
    let why = format!("the teacher gives {} numbers a sample, the model {}", wanted.width, answers.width);
    Err(PruneError::Samples { why })
}

fn is_of_values(asked: bool, answers: &Answers) -> bool {
    asked || answers.width == 1
}

fn neither() -> PruneError {
    PruneError::Samples { why: "they have no labels; without, a teacher is needed: distil from the dense model".into() }
}

/// All a training needs beside the network.
#[derive(Clone, Debug)]
pub struct Course {
    pub samples: Samples,
    lesson: Lesson,
    /// `None` where there were too few samples to spare any.
    pub exam: Option<Exam>,
}

#[derive(Clone, Debug)]
enum Lesson {
    Labels,
    Teacher { answers: Answers, temperature: f32 },
    Both { answers: Answers, weight: f32, temperature: f32 },
    Values(Answers),
}

/// With fewer samples than this none are set aside.
const TOO_FEW: usize = 10;

impl Course {
    /// `pupil` says how many classes there are.
    ///
    /// # Errors
    /// Samples that do not fit the network; no labels where they are learned from; no teacher where it is.
    pub fn new(
        pupil: &Learner,
        teacher: Option<&Learner>,
        samples: &Samples,
        validation: Option<&Samples>,
        options: &Options,
    ) -> Result<Course, PruneError> {
        pupil.check(samples)?;
        let (samples, validation) = match validation {
            Some(validation) => {
                pupil.check(validation)?;
                (samples.clone(), Some(validation.clone()))
            }
            None => set_aside(samples, options),
        };
        let exam = validation
            .map(|validation| Exam::new(validation, teacher, options.distil == Distil::Values))
            .transpose()?;
        let asked = match (options.distil, teacher) {
            (Distil::Not, _) => None,
            (_, Some(teacher)) => Some(teacher.ask(&samples)?),
            (_, None) => return Err(neither()),
        };
        if options.distil.needs_labels() {
            let Some(labels) = &samples.labels else {
                return Err(neither());
            };
            check_labels(labels, pupil.ask(&samples.take(&[0]))?.width)?;
        }
        if let Some(answers) = &asked {
            same_width(&pupil.ask(&samples.take(&[0]))?, answers)?;
        }
        let lesson = match (options.distil, asked) {
            (Distil::Values, Some(answers)) => Lesson::Values(answers),
            (Distil::Free { .. }, Some(answers)) if answers.width == 1 => Lesson::Values(answers),
            (Distil::Free { temperature }, Some(answers)) => Lesson::Teacher { answers, temperature },
            (Distil::Labelled { weight, temperature }, Some(answers)) => Lesson::Both { answers, weight, temperature },
            (_, _) => Lesson::Labels,
        };
        Ok(Course { samples, lesson, exam })
    }

    /// The loss of `answers` to the samples at `indices`.
    pub fn loss(&self, indices: &[usize], answers: &[f32], width: usize) -> Loss {
        let labels: Vec<usize> = match &self.samples.labels {
            Some(labels) => indices.iter().map(|index| labels[*index]).collect(),
            None => Vec::new(),
        };
        match &self.lesson {
            Lesson::Labels => loss(answers, width, Target::Labels(&labels)),
            Lesson::Teacher { answers: teacher, temperature } => {
                let target = Target::Teacher { answers: &teacher.take(indices), temperature: *temperature };
                loss(answers, width, target)
            }
            Lesson::Both { answers: teacher, weight, temperature } => {
                let teacher = teacher.take(indices);
                let (weight, temperature) = (*weight, *temperature);
                loss(answers, width, Target::Both { labels: &labels, answers: &teacher, weight, temperature })
            }
            Lesson::Values(teacher) => loss(answers, width, Target::Values(&teacher.take(indices))),
        }
    }
}

/// Samples to learn from, and those that decide.
fn set_aside(samples: &Samples, options: &Options) -> (Samples, Option<Samples>) {
    let count = (options.validation * samples.len() as f64).round() as usize;
    if samples.len() < TOO_FEW || count == 0 || count >= samples.len() {
        return (samples.clone(), None);
    }
    let order = Random::new(options.seed ^ 0x5eed_e8a3).order(samples.len());
    let (aside, rest) = order.split_at(count);
    (samples.take(rest), Some(samples.take(aside)))
}
