//! A network that can be asked and taught: samples in, answers out, gradients back.
//!
//! An answer is the network's first output, one row a sample; where a softmax comes last, what goes into it (losses take logits). Batches are
//! cut into parts that do not depend on how many threads there are, and results are put together in the order of the parts: the same seed gives
//! the same bits on any number of cores. A graph with a fixed batch gets parts of just that size, the last one filled up with repeats.

use espalier_engine::{Array, Gradients, Keep, Network, Tensor, ValueId};

use super::loss::{Loss, classes};
use crate::{
    Bytes, PruneError, Samples,
    importance::before_softmax,
    onnx::{Model, ValueInfoProto, tensor_shape_proto::dimension, type_proto},
};

#[derive(Debug)]
pub struct Learner {
    pub network: Network,
    /// The value that answers are read from.
    answer: ValueId,
    /// Samples a run must have, where the file fixes it.
    fixed_batch: Option<usize>,
}

/// Answers to some samples: rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    pub rows: Vec<f32>,
    pub width: usize,
}

impl Answers {
    pub fn classes(&self) -> Vec<usize> {
        classes(&self.rows, self.width)
    }

    pub fn take(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|index| &self.rows[index * self.width..(index + 1) * self.width]).copied().collect()
    }
}

/// How wrong the answers to the samples at some indices are; rows of so many numbers.
pub type Teach<'a> = dyn Fn(&[usize], &[f32], usize) -> Loss + Sync + 'a;

/// Where a loss leads.
#[derive(Debug)]
pub struct Slope {
    /// Mean over the samples.
    pub loss: f64,
    /// By value that was wanted; one the answers do not depend on has none.
    pub gradients: Vec<Option<Array<f32>>>,
}

/// Samples in one run when nothing is learned: enough to keep the arithmetic busy, few enough for the cache.
const ASKED_AT_ONCE: usize = 64;
/// A part smaller than this is not worth a thread.
const SMALLEST_PART: usize = 4;
const PARTS: usize = 2;

impl Learner {
    /// # Errors
    /// What [`Network::new`] refuses, and a network without an output.
    pub fn new(model: &Bytes) -> Result<Learner, PruneError> {
        let model = Model::decode(model)?;
        let mut network = Network::new(&model)?;
        let Some(output) = network.outputs.first().copied() else {
            return Err(PruneError::Samples { why: "the model has no output to judge it by".into() });
        };
        let answer = before_softmax(&network, output);
        // Outputs nobody asks for are not kept, so that their memory is not either.
        network.outputs = vec![answer];
        let fixed = |input: &ValueInfoProto| {
            let is_fed = network.find(input.name()).is_some_and(|id| network.inputs.contains(&id));
            if is_fed { fixed_batch(input) } else { None }
        };
        let fixed_batch = model.graph().input.iter().find_map(fixed);
        Ok(Learner { network, answer, fixed_batch })
    }

    /// # Errors
    /// Samples that are none, or not one tensor for each input, or not as many of each, or not as many labels.
    pub fn check(&self, samples: &Samples) -> Result<(), PruneError> {
        let (given, wanted) = (samples.inputs.len(), self.network.inputs.len());
        let why = if given != wanted {
            format!("the model has {wanted} inputs, the samples {given}")
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
    pub fn ask(&self, samples: &Samples) -> Result<Answers, PruneError> {
        self.check(samples)?;
        let all: Vec<usize> = (0..samples.len()).collect();
        let size = self.fixed_batch.unwrap_or(ASKED_AT_ONCE.min(samples.len().div_ceil(PARTS)));
        let parts: Vec<Part> = all.chunks(size).map(|part| self.part(samples, part)).collect();
        let found = side_by_side(&parts, |part| {
            let run = self.network.run(&part.inputs, Keep::Outputs)?;
            let (rows, width) = self.rows(run.value(self.answer), part.inputs_len())?;
            Ok((rows[..part.len * width].to_vec(), width))
        })?;
        let width = found.first().map_or(0, |(_, width)| *width);
        Ok(Answers { rows: found.into_iter().flat_map(|(rows, _)| rows).collect(), width })
    }

    /// The mean loss over the samples at `batch`, and its gradient with respect to each of `wanted`; `teach` says how wrong
    /// answers are.
    ///
    /// # Errors
    /// Whatever the engine refuses; [`EngineError::NoGradient`](espalier_engine::EngineError::NoGradient).
    pub fn gradients(
        &self,
        samples: &Samples,
        batch: &[usize],
        wanted: &[ValueId],
        teach: &Teach<'_>,
    ) -> Result<Slope, PruneError> {
        let size = self.fixed_batch.unwrap_or(batch.len().div_ceil(PARTS).max(SMALLEST_PART));
        let parts: Vec<Part> = batch.chunks(size).map(|part| self.part(samples, part)).collect();
        let scale = 1.0 / batch.len() as f32;
        let found = side_by_side(&parts, |part| {
            let run = self.network.run(&part.inputs, Keep::All)?;
            let value = run.value(self.answer);
            let (rows, width) = self.rows(value, part.inputs_len())?;
            let real = part.len * width;
            let Loss { sum, gradient } = teach(part.indices, &rows[..real], width);
            let mut seed: Vec<f32> = gradient.iter().map(|gradient| gradient * scale).collect();
            // What was filled up teaches nothing.
            seed.resize(rows.len(), 0.0);
            let shape = value.expect("its rows were just read").shape().to_vec();
            let gradients = self.network.backward(&run, &[(self.answer, Array::new(shape, seed))], wanted)?;
            Ok((sum, gradients))
        })?;
        let sum: f64 = found.iter().map(|(sum, _)| sum).sum();
        let gradients = add_up(found.into_iter().map(|(_, gradients)| gradients), wanted);
        Ok(Slope { loss: sum / batch.len() as f64, gradients })
    }

    /// The inputs of runs that go through all samples once, `size` at a time. Where the file fixes the size, what does not fill a whole run is
    /// left out, lest repeats count twice; of fewer samples than one run takes, the first are repeated all the same.
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

    fn rows<'a>(&self, answer: Option<&'a Tensor>, samples: usize) -> Result<(&'a [f32], usize), PruneError> {
        let name = self.network.name(self.answer);
        let bad = |why: String| PruneError::Samples { why: format!("the model's output `{name}` {why}") };
        let answer = answer.ok_or_else(|| bad("was not computed".into()))?;
        let answer = answer.f32().map_err(|why| bad(format!("is no answer to learn from: {why}")))?;
        let width = answer.len() / samples.max(1);
        if answer.shape().first() != Some(&samples) || width == 0 {
            return Err(bad(format!("has shape {:?} for {samples} samples; one row each is needed", answer.shape())));
        }
        Ok((answer.data(), width))
    }
}

/// # Errors
/// [`PruneError::Samples`], naming the first class the model does not have.
pub fn check_labels(labels: &[usize], width: usize) -> Result<(), PruneError> {
    match labels.iter().find(|label| **label >= width) {
        Some(label) => {
            let why = format!("one has class {label}, the model tells {width} classes apart (from 0)");
            Err(PruneError::Samples { why })
        }
        None => Ok(()),
    }
}

/// What one run is given.
struct Part<'a> {
    inputs: Vec<Tensor>,
    /// How many samples are real.
    len: usize,
    indices: &'a [usize],
}

impl Part<'_> {
    fn inputs_len(&self) -> usize {
        self.inputs.first().map_or(self.len, |input| input.shape()[0])
    }
}

/// `work` on each part, on as many threads as there are cores; results in the order of the parts.
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

fn add_up(parts: impl Iterator<Item = Gradients>, wanted: &[ValueId]) -> Vec<Option<Array<f32>>> {
    let mut sums: Vec<Option<Array<f32>>> = vec![None; wanted.len()];
    for mut part in parts {
        for (sum, value) in sums.iter_mut().zip(wanted) {
            match (sum.as_mut(), part.take(*value)) {
                (Some(sum), Some(term)) => {
                    sum.data_mut().iter_mut().zip(term.data()).for_each(|(sum, term)| *sum += term);
                }
                (None, term) => *sum = term,
                (Some(_), None) => {}
            }
        }
    }
    sums
}

fn fixed_batch(input: &ValueInfoProto) -> Option<usize> {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return None;
    };
    match tensor.shape.as_ref()?.dim.first()?.value {
        // Some exporters write a free axis as 0 or -1. One beyond what memory could hold is no batch anybody runs.
        Some(dimension::Value::DimValue(len @ 1..65536)) => Some(len as usize),
        _ => None,
    }
}
