//! A network that predicts and gives gradients of a loss: samples in, predictions or gradients out.
//!
//! Batches are cut into parts that do not depend on the number of threads, and results are joined in the order of the
//! parts: the same seed gives the same bits on any number of cores. A graph with a fixed batch gets parts of just that
//! size; the last one is filled up with repeats.

use espalier_engine::{Array, Gradients, Keep, Network, Tensor, ValueId};

use super::loss::Loss;
use crate::{
    Bytes, PruneError, Samples,
    onnx::{Axis, Model, ValueInfoProto},
    predictions::{self, argmax, rows},
};

#[derive(Debug)]
pub struct TrainableModel {
    pub network: Network,
    /// The value that predictions are read from.
    output: ValueId,
    /// Samples a run must have, where the file fixes it.
    fixed_batch: Option<usize>,
}

/// Predictions for some samples: rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    pub rows: Vec<f32>,
    pub width: usize,
}

impl Predictions {
    pub fn classes(&self) -> Vec<usize> {
        self.rows.chunks_exact(self.width).map(argmax).collect()
    }

    /// For each row whether it has no NaN: a row with one answers nothing, and is never right.
    pub fn are_numbers(&self) -> Vec<bool> {
        self.rows.chunks_exact(self.width).map(|row| !row.iter().any(|value| value.is_nan())).collect()
    }

    /// Predictions that others are compared with or learn from.
    ///
    /// # Errors
    /// One of them is NaN.
    pub fn as_expected(self) -> Result<Predictions, PruneError> {
        let numbers = self.are_numbers();
        let Some(first) = numbers.iter().position(|is_number| !is_number) else { return Ok(self) };
        let (wrong, count) = (numbers.iter().filter(|is_number| !**is_number).count(), numbers.len());
        let why = format!(
            "the dense model answers NaN for {wrong} of {count} of them, the first of these sample {first}; leave \
             these out, there is nothing to compare or to learn"
        );
        Err(PruneError::Samples { why })
    }

    /// The rows at `indices`.
    pub fn take(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|index| &self.rows[index * self.width..(index + 1) * self.width]).copied().collect()
    }
}

/// The loss of predictions for the samples at some indices; predictions are rows of the given width.
pub type LossFn<'a> = dyn Fn(&[usize], &[f32], usize) -> Loss + Sync + 'a;

#[derive(Debug)]
pub struct LossGradients {
    /// Mean over the samples.
    pub loss: f64,
    /// By required value; `None` for one that predictions do not depend on.
    pub gradients: Vec<Option<Array<f32>>>,
}

/// Samples in one run without gradients: enough to keep the arithmetic busy, few enough for the cache.
const PREDICTED_AT_ONCE: usize = 64;
/// A part smaller than this is not worth a thread.
const SMALLEST_PART: usize = 4;
const PARTS: usize = 2;

impl TrainableModel {
    /// # Errors
    /// What [`Network::new`] refuses, and a network without an output.
    pub fn new(model: &Bytes) -> Result<TrainableModel, PruneError> {
        let model = Model::decode(model)?;
        let mut network = Network::new(&model)?;
        let output = predictions::output(&network)?;
        // Other outputs are not needed, and neither is their memory.
        network.outputs = vec![output];
        let fixed_batch = model.graph().fed().find_map(fixed_batch);
        Ok(TrainableModel { network, output, fixed_batch })
    }

    /// The values of a float constant.
    ///
    /// # Panics
    /// For any other value.
    pub fn parameter(&self, id: ValueId) -> &[f32] {
        let constant = self.network.constant(id).and_then(|constant| constant.f32().ok());
        constant.expect("parameters are float constants").data()
    }

    /// # Panics
    /// As [`TrainableModel::parameter`].
    pub fn parameter_mut(&mut self, id: ValueId) -> &mut [f32] {
        match self.network.constant_mut(id) {
            Some(Tensor::F32(array)) => array.data_mut(),
            _ => unreachable!("parameters are float constants"),
        }
    }

    pub fn set_to_zero(&mut self, id: ValueId, mask: &[bool]) {
        let values = self.parameter_mut(id).iter_mut().zip(mask);
        values.filter(|(_, masked)| **masked).for_each(|(value, _)| *value = 0.0);
    }

    /// # Errors
    /// Samples that are none, or not one tensor for each input, or not as many of each, or not as many labels.
    pub fn check(&self, samples: &Samples) -> Result<(), PruneError> {
        let (given, required) = (samples.inputs.len(), self.network.inputs.len());
        let why = if given != required {
            format!("the model has {required} inputs, the samples {given}")
        } else if samples.is_empty() {
            "there are none".to_owned()
        } else if samples.inputs.iter().any(|input| input.shape().first() != Some(&samples.len())) {
            let lens: Vec<String> = samples.inputs.iter().map(|input| format!("{:?}", input.shape())).collect();
            format!("their shapes {} do not agree on how many there are (first axis)", lens.join(", "))
        } else if samples.labels.as_ref().is_some_and(|labels| labels.len() != samples.len()) {
            format!("{} samples have {} labels", samples.len(), samples.labels.as_ref().map_or(0, Vec::len))
        } else {
            return Ok(());
        };
        Err(PruneError::Samples { why })
    }

    /// # Errors
    /// Samples that do not fit, and whatever the engine refuses.
    pub fn predict(&self, samples: &Samples) -> Result<Predictions, PruneError> {
        self.check(samples)?;
        let all: Vec<usize> = (0..samples.len()).collect();
        let size = self.fixed_batch.unwrap_or(PREDICTED_AT_ONCE.min(samples.len().div_ceil(PARTS)));
        let parts: Vec<Part> = all.chunks(size).map(|part| self.part(samples, part)).collect();
        let found = side_by_side(&parts, |part| {
            let run = self.network.run(&part.inputs, Keep::Outputs)?;
            let (rows, width) = rows(&self.network, self.output, run.value(self.output), part.inputs_len())?;
            Ok((rows.data()[..part.len * width].to_vec(), width))
        })?;
        let width = found.first().map_or(0, |(_, width)| *width);
        Ok(Predictions { rows: found.into_iter().flat_map(|(rows, _)| rows).collect(), width })
    }

    /// The mean loss over the samples at `batch`, and its gradient with respect to each of `required`.
    ///
    /// # Errors
    /// Whatever the engine refuses; [`EngineError::NoGradient`](espalier_engine::EngineError::NoGradient).
    pub fn gradients(
        &self,
        samples: &Samples,
        batch: &[usize],
        required: &[ValueId],
        loss_of: &LossFn<'_>,
    ) -> Result<LossGradients, PruneError> {
        let size = self.fixed_batch.unwrap_or(batch.len().div_ceil(PARTS).max(SMALLEST_PART));
        let parts: Vec<Part> = batch.chunks(size).map(|part| self.part(samples, part)).collect();
        let scale = 1.0 / batch.len() as f32;
        let found = side_by_side(&parts, |part| {
            let run = self.network.run(&part.inputs, Keep::All)?;
            let (rows, width) = rows(&self.network, self.output, run.value(self.output), part.inputs_len())?;
            let Loss { sum, gradient } = loss_of(part.indices, &rows.data()[..part.len * width], width);
            let mut seed: Vec<f32> = gradient.iter().map(|gradient| gradient * scale).collect();
            // Repeats have no gradient.
            seed.resize(rows.len(), 0.0);
            let seed = Array::new(rows.shape(), seed);
            let gradients = self.network.backward(&run, &[(self.output, seed)], required)?;
            Ok((sum, gradients))
        })?;
        let sum: f64 = found.iter().map(|(sum, _)| sum).sum();
        let gradients = add_up(found.into_iter().map(|(_, gradients)| gradients), required);
        Ok(LossGradients { loss: sum / batch.len() as f64, gradients })
    }

    /// The inputs of runs that go through all samples once, `size` at a time. Where the file fixes the size, samples
    /// that do not fill a run are left out, so that none counts twice; of fewer samples than one run takes, the first
    /// is repeated all the same.
    ///
    /// # Errors
    /// Samples that do not fit.
    pub fn batches(&self, samples: &Samples, size: usize) -> Result<Vec<Vec<Tensor>>, PruneError> {
        self.check(samples)?;
        let all: Vec<usize> = (0..samples.len()).collect();
        let size = self.fixed_batch.unwrap_or(size);
        let whole = if self.fixed_batch.is_some() { (all.len() / size).max(1) } else { usize::MAX };
        Ok(all.chunks(size).take(whole).map(|indices| self.part(samples, indices).inputs).collect())
    }

    fn part<'a>(&self, samples: &Samples, indices: &'a [usize]) -> Part<'a> {
        let mut filled = indices.to_vec();
        if let Some(fixed) = self.fixed_batch {
            filled.resize(fixed, indices[0]);
        }
        Part { inputs: samples.take(&filled).inputs, len: indices.len(), indices }
    }
}

/// The input of one run.
struct Part<'a> {
    inputs: Vec<Tensor>,
    /// How many samples are not repeats.
    len: usize,
    indices: &'a [usize],
}

impl Part<'_> {
    fn inputs_len(&self) -> usize {
        self.inputs.first().map_or(self.len, |input| input.shape()[0])
    }
}

/// `work` on each part, on as many threads as there are cores; results are in the order of the parts.
fn side_by_side<P: Sync, R: Send>(
    parts: &[P],
    work: impl Fn(&P) -> Result<R, PruneError> + Sync,
) -> Result<Vec<R>, PruneError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
    if threads < 2 {
        return parts.iter().map(work).collect();
    }
    let mine = |thread: usize| parts.iter().skip(thread).step_by(threads).map(&work).collect::<Vec<_>>();
    let mut by_thread: Vec<std::vec::IntoIter<Result<R, PruneError>>> = std::thread::scope(|scope| {
        let mine = &mine;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || mine(thread))).collect();
        let first = mine(0);
        let rest = others.into_iter().map(|other| match other.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        [first].into_iter().chain(rest).map(Vec::into_iter).collect()
    });
    (0..parts.len()).map(|part| by_thread[part % threads].next().expect("each thread did its parts")).collect()
}

fn add_up(parts: impl Iterator<Item = Gradients>, required: &[ValueId]) -> Vec<Option<Array<f32>>> {
    let mut sums: Vec<Option<Array<f32>>> = vec![None; required.len()];
    for mut part in parts {
        for (sum, value) in sums.iter_mut().zip(required) {
            match (sum.as_mut(), part.take(*value)) {
                (Some(sum), Some(training)) => {
                    sum.data_mut().iter_mut().zip(training.data()).for_each(|(sum, training)| *sum += training);
                }
                (None, training) => *sum = training,
                (Some(_), None) => {}
            }
        }
    }
    sums
}

/// The length of an input's first axis, where the file fixes it. One beyond what memory could hold is not a batch.
fn fixed_batch(input: &ValueInfoProto) -> Option<usize> {
    input.axes()?.first().and_then(Axis::fixed).filter(|len| *len < 65536)
}
