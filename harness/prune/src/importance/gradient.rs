//! Mean over batches of `|g|` or `|w g|`, with `g` the gradient of the batch's mean loss.
//!
//! The loss is the cross-entropy of the network's first output, one row of logits a sample; where a softmax comes last,
//! of its input. Without labels the network's own predictions serve as labels. Where a row is a single number there are
//! no classes, and the number itself is differentiated. A batch is weighted by its samples. Halves of a batch run in
//! parallel; their gradients are added in a fixed order, so that the same samples give the same bits.

use espalier_engine::{Array, Gradients, Keep, Network, ValueId};

use super::{batches::Batches, values};
use crate::{
    Method, PruneError, Samples, Scores,
    onnx::Model,
    predictions::{self, argmax, check_labels},
    prunable::Survey,
};

pub fn scores(
    model: &Model,
    network: &Network,
    survey: &Survey,
    method: Method,
    batches: &Batches<'_>,
) -> Result<Scores, PruneError> {
    let answer = predictions::output(network)?;
    let required: Vec<ValueId> = survey.weights.iter().filter_map(|weight| network.find(&weight.name)).collect();
    let mut means: Vec<Vec<f32>> = survey.weights.iter().map(|weight| vec![0.0; weight.count as usize]).collect();
    for batch in 0..batches.count() {
        let samples = batches.batch(batch);
        let share = samples.len() as f32 / batches.samples() as f32;
        let halves = gradients(network, &samples, batches.may_be_split(), answer, &required)?;
        for (mean, weight) in means.iter_mut().zip(&survey.weights) {
            let Some(id) = network.find(&weight.name) else { continue };
            let found: Vec<&[f32]> = halves.iter().filter_map(|half| Some(half.of(id)?.data())).collect();
            for (index, mean) in mean.iter_mut().enumerate() {
                *mean += share * found.iter().map(|half| half[index]).sum::<f32>().abs();
            }
        }
    }
    if method == Method::Taylor {
        for (mean, weight) in means.iter_mut().zip(&survey.weights) {
            let present = values(model, weight)?;
            mean.iter_mut().zip(present.iter()).for_each(|(mean, weight)| *mean *= weight.abs());
        }
    }
    Ok(Scores(means))
}

/// The gradient of a batch's mean loss, in parts that have to be added.
fn gradients(
    network: &Network,
    samples: &Samples,
    split: bool,
    answer: ValueId,
    required: &[ValueId],
) -> Result<Vec<Gradients>, PruneError> {
    let part = |samples: &Samples, of: usize| {
        let run = network.run(&samples.inputs, Keep::All)?;
        let (answers, width) = predictions::rows(network, answer, run.value(answer), samples.len())?;
        let seed = seed(answers, width, samples.labels.as_deref(), of)?;
        Ok::<_, PruneError>(network.backward(&run, &[(answer, seed)], required)?)
    };
    let all: Vec<usize> = (0..samples.len()).collect();
    if !split || all.len() < 2 {
        return Ok(vec![part(samples, all.len())?]);
    }
    let (first, second) = all.split_at(all.len().div_ceil(2));
    let (first, second) = (samples.take(first), samples.take(second));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| part(&second, all.len()));
        let mine = part(&first, all.len());
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(vec![mine?, other?])
    })
}

/// The gradient of the loss with respect to the predictions, divided by the size `of` the whole batch.
fn seed(answers: &Array<f32>, width: usize, labels: Option<&[usize]>, of: usize) -> Result<Array<f32>, PruneError> {
    if width == 1 {
        return Ok(Array::filled(answers.shape(), 1.0 / of as f32));
    }
    check_labels(labels.unwrap_or_default(), width)?;
    let mut seed = Vec::with_capacity(answers.len());
    for (index, row) in answers.data().chunks_exact(width).enumerate() {
        let label = labels.map_or_else(|| argmax(row), |labels| labels[index]);
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = row.iter().map(|answer| f64::from(answer - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (class, power) in powers.iter().enumerate() {
            // For the label itself `1 - p` would round to 0 where the network is sure: the sum of the others is exact.
            let others =
                || powers.iter().enumerate().filter(|(class, _)| *class != label).map(|(_, power)| power).sum::<f64>();
            let gradient = if class == label { -others() / sum } else { power / sum };
            seed.push((gradient / of as f64) as f32);
        }
    }
    Ok(Array::new(answers.shape(), seed))
}
