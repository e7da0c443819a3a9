//! A network being fine-tuned: epochs over shuffled samples, in place, keeping the state that validates best.

use std::collections::HashMap;

use espalier_engine::{Array, Tensor, ValueId};

use super::{
    Event, Options, Watch,
    data::{Evaluation, TrainingData},
    optimiser::{Optimiser, rate},
    parameters::{Parameter, parameters},
    trainable::{LossGradients, TrainableModel},
};
use crate::{
    Bytes, Mask, PruneError,
    onnx::{Model, random::SplitMix64},
    prunable::survey,
    remove,
};

/// How a fine-tuning ended; the student holds the best of its states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trained {
    /// Of the state the student is left in; `None` without validation samples.
    pub evaluation: Option<Evaluation>,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs were run.
    Complete,
    Stopped,
    /// The loss became NaN or infinite; the best state before that is kept.
    Diverged,
}

/// One fine-tuning.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    pub data: &'a TrainingData,
    pub options: &'a Options,
    pub epochs: usize,
    /// Of the order of samples.
    pub seed: u64,
    /// Whether the best state is kept, not the last. Where more steps follow, the last one was trained longest.
    pub best: bool,
}

/// A network with its parameters, and the masks that keep pruned weights at zero.
pub struct Student {
    pub model: TrainableModel,
    parameters: Vec<Parameter>,
    /// By parameter; `true` for a weight that is +0 from the beginning of training to its end.
    masks: Vec<Option<Vec<bool>>>,
}

impl Student {
    pub fn new(model: &Bytes) -> Result<Student, PruneError> {
        let student = TrainableModel::new(model)?;
        let parameters = parameters(&Model::decode(model)?, &student.network);
        let masks = vec![None; parameters.len()];
        Ok(Student { model: student, parameters, masks })
    }

    /// Sets what `mask` removes to zero, and keeps it there. `mask` is one of `model`.
    pub fn mask(&mut self, model: &Bytes, mask: &Mask) -> Result<(), PruneError> {
        let survey = survey(&Model::decode(model)?)?;
        for (weight, mask) in survey.weights.iter().zip(&mask.0) {
            let id = self.model.network.find(&weight.name).expect("the network has every constant");
            self.model.set_to_zero(id, mask);
            if let Some(index) = self.parameters.iter().position(|parameter| parameter.id == id) {
                self.masks[index] = Some(mask.clone());
            }
        }
        Ok(())
    }

    /// # Errors
    /// Whatever the engine refuses; a model without float32 parameters.
    pub fn train(&mut self, training: Training<'_>, watch: &mut Watch<'_>) -> Result<Trained, PruneError> {
        let Training { data, options, epochs, seed, .. } = training;
        if self.parameters.is_empty() && epochs > 0 {
            return Err(PruneError::NothingPrunable { why: "nor fine-tuned: it has no float32 weights".into() });
        }
        let required: Vec<ValueId> = self.parameters.iter().map(|parameter| parameter.id).collect();
        let lengths: Vec<usize> = required.iter().map(|id| self.model.parameter(*id).len()).collect();
        let mut optimiser = Optimiser::new(options.decay, &lengths);
        let mut random = SplitMix64::new(seed);
        let batch = options.batch.clamp(1, data.samples.len());
        let batches = data.samples.len().div_ceil(batch);
        let steps = epochs * batches;

        let mut best = self.state();
        let mut evaluation_of_best = data.validate(&self.model)?;
        let mut end = End::Complete;
        'epochs: for epoch in 0..epochs {
            let order = random.order(data.samples.len());
            let mut sum = 0.0;
            for (index, indices) in order.chunks(batch).enumerate() {
                if (watch.stop)() {
                    end = End::Stopped;
                    break 'epochs;
                }
                let loss =
                    |indices: &[usize], predictions: &[f32], width: usize| data.loss(indices, predictions, width);
                let LossGradients { loss, mut gradients } =
                    self.model.gradients(&data.samples, indices, &required, &loss)?;
                if !loss.is_finite() || !clip(&mut gradients, options.clip) {
                    end = End::Diverged;
                    break 'epochs;
                }
                sum += loss * indices.len() as f64;
                let rate = rate(options.rate, epoch * batches + index, steps, options.warm_up);
                self.step(&mut optimiser, &gradients, rate);
                (watch.on_event)(Event::Batch { epoch, epochs, batch: index, batches, loss });
            }
            let evaluation = data.validate(&self.model)?;
            (watch.on_event)(Event::Epoch { epoch, epochs, loss: sum / data.samples.len() as f64, evaluation });
            if !training.best || evaluation.is_none_or(|evaluation| evaluation.beats(evaluation_of_best)) {
                (best, evaluation_of_best) = (self.state(), evaluation);
            }
        }
        for (id, value) in required.iter().zip(best) {
            *self.model.network.constant_mut(*id).expect("parameters are constants") = value;
        }
        Ok(Trained { evaluation: evaluation_of_best, end })
    }

    fn step(&mut self, optimiser: &mut Optimiser, gradients: &[Option<Array<f32>>], rate: f32) {
        optimiser.step();
        for (index, (parameter, gradient)) in self.parameters.iter().zip(gradients).enumerate() {
            if let Some(gradient) = gradient {
                let values = self.model.parameter_mut(parameter.id);
                let mask = self.masks[index].as_deref();
                optimiser.update(index, values, gradient.data(), mask, rate, parameter.decays);
            }
        }
    }

    /// The values of the parameters; cheap, as they are copied when they change.
    fn state(&self) -> Vec<Tensor> {
        let constant = |parameter: &Parameter| self.model.network.constant(parameter.id).cloned();
        self.parameters.iter().map(|parameter| constant(parameter).expect("parameters are constants")).collect()
    }

    /// `model` with the student's parameters.
    pub fn write(&self, model: &Bytes) -> Result<Bytes, PruneError> {
        let values = self.parameters.iter().map(|parameter| {
            let values = self.model.parameter(parameter.id).to_vec();
            (parameter.name.clone(), values)
        });
        remove::write(model, &values.collect::<HashMap<_, _>>())
    }
}

/// Scales all gradients together so that they are at most `longest`. `false` if one is NaN or infinite.
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
