//! Fine-tuning a pruned network, and pruning in steps with fine-tuning in between.
//!
//! ```text
//! dense ─► iterate: (prune ─► validate ─► fine-tune) for each ratio of the schedule ─► the best at the final ratio
//!          until: the same, for the largest ratio that keeps the accuracy
//!          sensitivity: the accuracy with each tensor pruned alone, without fine-tuning
//! ```
//! Bytes and samples in, bytes out. The caller gets each [`Event`] and may stop at any batch ([`Watch`]). The same seed
//! gives the same bits, however many cores there are. Fine-tuning needs labels, or the dense model as a teacher
//! ([`Distil::Free`]), which is as good in most cases: then any samples of the right kind will do.

mod data;
mod iterate;
mod loss;
mod optimiser;
pub(crate) mod parameters;
mod progress;
mod recalibrate;
mod schedule;
mod sensitivity;
mod stepper;
mod student;
mod trainable;
mod until;

pub use data::Evaluation;
pub use espalier_recipe::Schedule;
pub use iterate::{Iterated, Plan, iterate};
pub use recalibrate::{Recalibrated, recalibrate};
pub use sensitivity::{Row, Scan, sensitivity};
pub use stepper::Stage;
pub use student::End;
pub use trainable::{Predictions, TrainableModel};
pub use until::{HeldOut, Search, SearchResult, until, until_held_out};

/// What fine-tuning learns from. The teacher is the dense model; its predictions are softened by a temperature (Hinton,
/// Vinyals and Dean, 2015).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distil {
    /// The labels alone.
    Not,
    /// `weight` of the teacher's predictions, the rest of the labels.
    Labelled { weight: f32, temperature: f32 },
    /// The teacher's predictions alone; labels, where there are any, only validate.
    Free { temperature: f32 },
}

impl Distil {
    pub fn needs_labels(self) -> bool {
        matches!(self, Distil::Not | Distil::Labelled { .. })
    }
}

/// How to fine-tune. The defaults did well on all demonstration models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub epochs: usize,
    /// Samples of one gradient step.
    pub batch: usize,
    /// The highest learning rate.
    pub rate: f32,
    /// The share of steps over which the rate rises to it.
    pub warm_up: f32,
    /// Weight decay: the share of itself that a weight loses in a step, divided by the rate.
    pub decay: f32,
    /// The largest norm of all gradients together.
    pub clip: f32,
    pub distil: Distil,
    pub seed: u64,
    /// The share of samples that validate, where none are given for that.
    pub validation: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            epochs: 20,
            batch: 32,
            rate: 2e-3,
            warm_up: 0.05,
            decay: 1e-4,
            clip: 5.0,
            distil: Distil::Not,
            seed: 20,
            validation: 0.1,
        }
    }
}

/// What just happened. Indices are from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A step of a schedule: `removed` weights (units, where tensors shrink) are removed; fine-tuning has not begun.
    Pruned {
        step: usize,
        steps: usize,
        ratio: f64,
        removed: u64,
        evaluation: Option<Evaluation>,
    },
    Batch {
        epoch: usize,
        epochs: usize,
        batch: usize,
        batches: usize,
        loss: f64,
    },
    /// `loss` is the mean over the epoch's batches, `evaluation` that of the validation samples.
    Epoch {
        epoch: usize,
        epochs: usize,
        loss: f64,
        evaluation: Option<Evaluation>,
    },
    /// One of the variants of a scan was evaluated.
    Evaluated {
        done: usize,
        of: usize,
    },
}

/// Whoever waits for the result.
pub struct Watch<'a> {
    pub on_event: &'a mut dyn FnMut(Event),
    /// Called before every batch; after `true` the best result so far is returned.
    pub stop: &'a dyn Fn() -> bool,
}
