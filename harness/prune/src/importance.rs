//! How much each single weight matters: one score a weight, never negative, never NaN. Weights with a higher score stay
//! longer.
//!
//! Magnitude and random need the weights alone; the other methods run the network.

use std::borrow::Cow;

use espalier_engine::Network;

use crate::{
    Method, PruneError, Samples, Scores,
    onnx::Model,
    prunable::{Survey, Weight},
    select::Importance,
    tensor::Values,
};

use batches::Batches;

mod activation;
mod batches;
mod gradient;
mod random;
mod synflow;

pub(crate) use synflow::Flow;

/// Scores of all weights of a survey by `method`. `batch` and `samples` are for methods that need samples, `seed` is
/// for those that draw.
///
/// # Errors
/// Weights or scores that are NaN, samples that are missing or do not fit, operators the engine does not know.
pub fn scores(
    model: &Model,
    survey: &Survey,
    method: Method,
    samples: Option<&Samples>,
    batch: usize,
    seed: u64,
) -> Result<Scores, PruneError> {
    let all: Vec<usize> = (0..survey.weights.len()).collect();
    match method {
        Method::Magnitude | Method::MagnitudeL2 => {
            let of = |tensor: &usize| Ok(magnitude(method, values(model, &survey.weights[*tensor])?));
            all.iter().map(of).collect::<Result<_, _>>().map(Scores)
        }
        Method::Random => Ok(Scores(all.iter().map(|tensor| random::scores(survey, *tensor, seed)).collect())),
        Method::Synflow => Flow::new(model, survey, samples)?.scores(None),
        Method::Gradient | Method::Taylor | Method::Activation => {
            let network = Network::new(model)?;
            let batches = Batches::new(model, &network, samples, batch)?;
            match method {
                Method::Activation => activation::scores(model, &network, survey, &batches),
                _ => gradient::scores(model, &network, survey, method, &batches),
            }
        }
    }
}

/// Scores that need nothing but the file, one tensor at a time; `None` for a method that needs more.
pub(crate) fn from_the_file<'a>(
    model: &'a Model,
    survey: &'a Survey,
    method: Method,
    seed: u64,
) -> Option<Box<Importance<'a>>> {
    match method {
        Method::Magnitude | Method::MagnitudeL2 => {
            Some(Box::new(move |tensor| Ok(Cow::Owned(magnitude(method, values(model, &survey.weights[tensor])?)))))
        }
        // A NaN is an error whatever the method.
        Method::Random => Some(Box::new(move |tensor| {
            values(model, &survey.weights[tensor])?;
            Ok(Cow::Owned(random::scores(survey, tensor, seed)))
        })),
        _ => None,
    }
}

fn magnitude(method: Method, weights: Cow<'_, [f32]>) -> Vec<f32> {
    let mut scores = weights.into_owned();
    match method {
        Method::MagnitudeL2 => scores.iter_mut().for_each(|score| *score *= *score),
        _ => scores.iter_mut().for_each(|score| *score = score.abs()),
    }
    scores
}

/// The values of a weight.
///
/// # Errors
/// [`PruneError::NotANumber`]: a NaN would sort last and so be the most important weight of all.
pub(crate) fn values<'a>(model: &'a Model, weight: &Weight) -> Result<Cow<'a, [f32]>, PruneError> {
    let values: Cow<'_, [f32]> = match Values::of(&weight.name, weight.place.tensor(model.graph()))? {
        Values::Raw(raw) => raw.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<_>>().into(),
        Values::Floats(floats) => Cow::Borrowed(floats),
    };
    match values.iter().position(|value| value.is_nan()) {
        Some(index) => Err(PruneError::NotANumber { tensor: weight.name.clone(), index: index as u64 }),
        None => Ok(values),
    }
}
