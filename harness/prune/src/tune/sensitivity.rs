//! What each tensor bears: pruned alone, at several ratios, without fine-tuning, everything else as it was.

use super::{
    Event, Watch,
    course::{Grade, grade_classes},
    learner::Learner,
    train::{set_to_zero, values_mut},
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
    /// Of the dense model. Without labels it is what the variants are held against, and its accuracy 1.
    pub dense: Grade,
    /// By tensor in the order of the file, then by ratio as asked for.
    pub rows: Vec<Row>,
    /// It was stopped: the rows are the first of what there would have been.
    pub stopped: bool,
}

/// One tensor pruned to one ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub tensor: String,
    pub weights: u64,
    pub ratio: f64,
    pub removed: u64,
    pub grade: Grade,
    /// The share of samples on which it says what the dense model says.
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
    let mut learner = Learner::new(model)?;
    let answers = learner.ask(samples)?;
    let says = answers.classes();
    let wanted = samples.labels.as_ref().unwrap_or(&says);
    let mut scan = Scan { dense: grade_classes(&answers, wanted)?, rows: Vec::new(), stopped: false };
    let of = survey.weights.len() * ratios.len();
    for (weight, scores) in survey.weights.iter().zip(&scores.0) {
        let id = learner.network.find(&weight.name).expect("a weight is a value of the network");
        let whole = learner.network.constant(id).expect("a weight is a constant").clone();
        for ratio in ratios {
            if (watch.stop)() {
                scan.stopped = true;
                return Ok(scan);
            }
            let removed = (ratio * weight.count as f64).round() as u64;
            let mut cut = Cut::smallest(removed, |visit| scores.iter().for_each(|score| visit(key(*score))))
                .ok_or_else(|| PruneError::Samples { why: "the scores are those of another model".into() })?;
            let mask: Vec<bool> = scores.iter().map(|score| cut.removes(key(*score))).collect();
            set_to_zero(values_mut(&mut learner, id), &mask);
            let answers = learner.ask(samples)?;
            *learner.network.constant_mut(id).expect("a weight is a constant") = whole.clone();
            let same = answers.classes().iter().zip(&says).filter(|(now, before)| now == before).count();
            scan.rows.push(Row {
                tensor: weight.name.clone(),
                weights: weight.count,
                ratio: *ratio,
                removed,
                grade: grade_classes(&answers, wanted)?,
                agreement: same as f64 / says.len() as f64,
            });
            (watch.tell)(Event::Judged { done: scan.rows.len(), of });
        }
    }
    Ok(scan)
}
