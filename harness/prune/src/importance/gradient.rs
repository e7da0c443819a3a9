//! Mean over batches of `|g|` or `|w g|`, with `g` the gradient of the batch's mean loss.
//!
//! The loss is the cross-entropy of the network's first output, one row of logits a sample; where a softmax comes last,
//! of its input. Without labels the network's own predictions serve as labels. Where a row is a single number there are
//! no classes, and the number itself is differentiated. A batch is weighted by its samples. Halves of a batch run in
//! parallel; their gradients are added in a fixed order, so that the same samples give the same bits.

use espalier_engine::{Array, Gradients, Keep, Network, ValueId};

use super::{batches::Batches, values};
use crate::{Method, PruneError, Samples, Scores, onnx::Model, prunable::Survey};

pub fn scores(
    model: &Model,
    network: &Network,
    survey: &Survey,
    method: Method,
    batches: &Batches<'_>,
) -> Result<Scores, PruneError> {
    let Some(output) = network.outputs.first().copied() else {
        return Err(PruneError::Samples { why: "the model has no output to judge it by".into() });
    };
    let answer = before_softmax(network, output);
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
        let seed = seed(network, answer, run.value(answer), samples, of)?;
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
fn seed(
    network: &Network,
    answer: ValueId,
    value: Option<&espalier_engine::Tensor>,
    samples: &Samples,
    of: usize,
) -> Result<Array<f32>, PruneError> {
    let bad = |why: String| PruneError::Samples { why: format!("the model's output `{}` {why}", network.name(answer)) };
    let answers = value
        .ok_or_else(|| bad("was not computed".into()))?
        .f32()
        .map_err(|why| bad(format!("is no answer: {why}")))?;
    let rows = samples.len();
    let width = answers.len() / rows;
    if answers.shape().first() != Some(&rows) || width == 0 {
        return Err(bad(format!("has shape {:?} for {rows} samples; a row each is needed", answers.shape())));
    }
    let mut seed = Vec::with_capacity(answers.len());
    for (index, row) in answers.data().chunks_exact(width).enumerate() {
        if width == 1 {
            seed.push(1.0 / of as f32);
            continue;
        }
        let label = match &samples.labels {
            Some(labels) => labels[index],
            None => largest(row),
        };
        if label >= width {
            let why = format!("one has class {label}, the model tells {width} classes apart (from 0)");
            return Err(PruneError::Samples { why });
        }
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

fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, answer) in row.iter().enumerate() {
        if *answer > row[best] {
            best = class;
        }
    }
    best
}

/// The input of a final softmax, looking through nodes that only reshape; `output` itself where there is no softmax.
pub fn before_softmax(network: &Network, output: ValueId) -> ValueId {
    let mut value = output;
    while let Some(node) = network.nodes.iter().find(|node| node.outputs.contains(&Some(value))) {
        let Some(input) = node.inputs.first().copied().flatten() else { return output };
        match node.op_type.as_str() {
            "Softmax" | "LogSoftmax" => return input,
            "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Dropout" => value = input,
            _ => return output,
        }
    }
    output
}
