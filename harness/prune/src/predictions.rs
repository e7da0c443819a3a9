//! Predictions: rows of a network's first output, one a sample; where a softmax comes last, of its input, as losses
//! take logits.

use espalier_engine::{Array, Network, Tensor, ValueId};

use crate::PruneError;

/// The value that predictions are read from.
///
/// # Errors
/// A network without an output.
pub fn output(network: &Network) -> Result<ValueId, PruneError> {
    let output = network.outputs.first().copied();
    let output = output.ok_or_else(|| PruneError::Samples { why: "the model has no output to judge it by".into() })?;
    Ok(before_softmax(network, output))
}

/// The input of a final softmax, looking through nodes that only reshape; `output` itself where there is no softmax.
fn before_softmax(network: &Network, output: ValueId) -> ValueId {
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

/// The predictions that a run with so many samples computed, and the width of a row.
///
/// # Errors
/// A value that was not computed, is not of floats, or does not have a row for each sample.
pub fn rows<'a>(
    network: &Network,
    output: ValueId,
    value: Option<&'a Tensor>,
    samples: usize,
) -> Result<(&'a Array<f32>, usize), PruneError> {
    let bad = |why: String| PruneError::Samples { why: format!("the model's output `{}` {why}", network.name(output)) };
    let rows = value.ok_or_else(|| bad("was not computed".into()))?;
    let rows = rows.f32().map_err(|why| bad(format!("is no prediction: {why}")))?;
    let width = rows.len() / samples.max(1);
    if rows.shape().first() != Some(&samples) || width == 0 {
        return Err(bad(format!("has shape {:?} for {samples} samples; one row each is needed", rows.shape())));
    }
    Ok((rows, width))
}

/// # Errors
/// [`PruneError::Samples`] with the first class that the model does not have.
pub fn check_labels(labels: &[usize], width: usize) -> Result<(), PruneError> {
    match labels.iter().find(|label| **label >= width) {
        Some(label) => {
            let why = format!("one has class {label}, the model tells {width} classes apart (from 0)");
            Err(PruneError::Samples { why })
        }
        None => Ok(()),
    }
}

/// The class of a row: the largest prediction, the first of equals. A NaN is never the largest.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, prediction) in row.iter().enumerate() {
        if *prediction > row[best] || row[best].is_nan() {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_largest() {
        assert_eq!([[0.0, 2.0, 2.0], [f32::NAN, -1.0, -2.0]].map(|row| argmax(&row)), [1, 1]);
    }
}
