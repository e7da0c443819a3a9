//! How much each single weight matters: one score a weight, never negative, never NaN; the higher, the longer it stays.
//!
//! Magnitude and random need the weights alone. The others run the network: [`scores`] makes one of the model where none is given, and looks at
//! the weights as they are in the network where one is, so that a trainer can ask in between.

use std::borrow::Cow;

use espalier_engine::{Network, Tensor};

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

pub(crate) use gradient::before_softmax;
pub(crate) use random::splitmix;
pub(crate) use synflow::Flow;

/// Scores of all weights of a survey by `method`. `batch` and `samples` are for those that look at samples, `seed` for those that draw.
///
/// # Errors
/// Weights or scores that are not numbers, samples that are missing or do not fit, operators the engine does not know.
pub fn scores(
    model: &Model,
    network: Option<&Network>,
    survey: &Survey,
    method: Method,
    samples: Option<&Samples>,
    batch: usize,
    seed: u64,
) -> Result<Scores, PruneError> {
    let all: Vec<usize> = (0..survey.weights.len()).collect();
    match method {
        Method::Magnitude | Method::MagnitudeL2 => {
            let of = |tensor: &usize| Ok(magnitude(method, values(model, network, &survey.weights[*tensor])?));
            all.iter().map(of).collect::<Result<_, _>>().map(Scores)
        }
        Method::Random => Ok(Scores(all.iter().map(|tensor| random::scores(survey, *tensor, seed)).collect())),
        Method::Synflow => Flow::new(model, network, survey, samples)?.scores(None),
        Method::Gradient | Method::Taylor | Method::Activation => {
            let made = if network.is_none() { Some(Network::new(model)?) } else { None };
            let Some(network) = network.or(made.as_ref()) else { unreachable!("one was just made") };
            let batches = Batches::new(model, network, samples, batch)?;
            match method {
                Method::Activation => activation::scores(model, network, survey, &batches),
                _ => gradient::scores(model, network, survey, method, &batches),
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
        Method::Magnitude | Method::MagnitudeL2 => Some(Box::new(move |tensor| {
            Ok(Cow::Owned(magnitude(method, values(model, None, &survey.weights[tensor])?)))
        })),
        // Weights that are not numbers are an error whatever ranks them.
        Method::Random => Some(Box::new(move |tensor| {
            values(model, None, &survey.weights[tensor])?;
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

/// The present values of a weight: those of the network, where there is one.
///
/// # Errors
/// [`PruneError::NotANumber`]: a NaN would sort last and so be the most important weight of all.
pub(crate) fn values<'a>(
    model: &'a Model,
    network: Option<&'a Network>,
    weight: &Weight,
) -> Result<Cow<'a, [f32]>, PruneError> {
    let present = network.and_then(|network| network.constant(network.find(&weight.name)?));
    let values = match present {
        Some(Tensor::F32(array)) if array.len() as u64 == weight.count => Cow::Borrowed(array.data()),
        Some(tensor) => {
            let why = format!("`{}` has shape {:?}, not {:?}", weight.name, tensor.shape(), weight.shape);
            return Err(PruneError::Mismatch { what: "the network's weights", why });
        }
        None => match Values::of(&weight.name, weight.place.tensor(model.graph()))? {
            Values::Raw(raw) => raw.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<_>>().into(),
            Values::Floats(floats) => Cow::Borrowed(floats),
        },
    };
    match values.iter().position(|value| value.is_nan()) {
        Some(index) => Err(PruneError::NotANumber { tensor: weight.name.clone(), index: index as u64 }),
        None => Ok(values),
    }
}
