//! The sensitivity of each tensor: the accuracy with that tensor pruned alone, at several ratios, without fine-tuning.

use super::{
    Event, Watch,
    data::{Evaluation, evaluate_classes},
    trainable::TrainableModel,
};
use crate::{
    Bytes, PruneError, Samples, Scores,
    onnx::Model,
    prunable::survey,
    select::cut::{Cut, key},
};

/// A scan of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Of the dense model. Without labels its predictions are the expected ones, and its accuracy is 1.
    pub dense: Evaluation,
    /// By tensor in the order of the file, then by ratio in the order given.
    pub rows: Vec<Row>,
    /// The scan was stopped, and rows are missing at the end.
    pub stopped: bool,
}

/// One tensor pruned to one ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub tensor: String,
    pub weights: u64,
    pub ratio: f64,
    pub removed: u64,
    pub evaluation: Evaluation,
    /// The share of samples for which it predicts the dense model's class.
    pub agreement: f64,
}

/// Prunes each tensor of [`survey`] alone, the weights of smallest score first.
///
/// # Errors
/// A ratio outside [0, 1), samples that do not fit, and whatever the engine refuses.
pub fn sensitivity(
    model: &Bytes,
    scores: &Scores,
    ratios: &[f64],
    samples: &Samples,
    watch: &mut Watch<'_>,
) -> Result<Scan, PruneError> {
    if let Some(ratio) = ratios.iter().find(|ratio| !(0.0..1.0).contains(*ratio)) {
        return Err(PruneError::Ratio { ratio: *ratio });
    }
    let survey = survey(&Model::decode(model)?)?;
    let mut network = TrainableModel::new(model)?;
    let predictions = network.predict(samples)?.as_expected()?;
    let dense_classes = predictions.classes();
    let expected = samples.labels.as_ref().unwrap_or(&dense_classes);
    let mut scan = Scan { dense: evaluate_classes(&predictions, expected)?, rows: Vec::new(), stopped: false };
    let of = survey.weights.len() * ratios.len();
    for (weight, scores) in survey.weights.iter().zip(&scores.0) {
        let id = network.network.find(&weight.name).expect("a weight is a value of the network");
        let whole = network.network.constant(id).expect("a weight is a constant").clone();
        for ratio in ratios {
            if (watch.stop)() {
                scan.stopped = true;
                return Ok(scan);
            }
            let removed = (ratio * weight.count as f64).round() as u64;
            let mut cut = Cut::smallest(removed, |visit| scores.iter().for_each(|score| visit(key(*score))))
                .ok_or_else(|| PruneError::Samples { why: "the scores are those of another model".into() })?;
            let mask: Vec<bool> = scores.iter().map(|score| cut.removes(key(*score))).collect();
            network.set_to_zero(id, &mask);
            let predictions = network.predict(samples)?;
            *network.network.constant_mut(id).expect("a weight is a constant") = whole.clone();
            let same = predictions.classes().iter().zip(&dense_classes).filter(|(now, before)| now == before).count();
            scan.rows.push(Row {
                tensor: weight.name.clone(),
                weights: weight.count,
                ratio: *ratio,
                removed,
                evaluation: evaluate_classes(&predictions, expected)?,
                agreement: same as f64 / dense_classes.len() as f64,
            });
            (watch.on_event)(Event::Evaluated { done: scan.rows.len(), of });
        }
    }
    Ok(scan)
}
