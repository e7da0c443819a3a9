//! How good the answers of a case are, by the model's task, and whether they are those of another case.

use espalier_protocol::Predictions;
use espalier_stats::metric_drop;
use espalier_tasks::{Answers, Kind, Measure, Scored, same_answers};
use serde::{Deserialize, Serialize};

use super::{AccuracyChange, Agreement, CONFIDENCE, Share};
use crate::{
    metric::{Bounds, Estimate},
    record::ModelInfo,
};

/// By a metric that is not a share of right samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The one that budgets are about first. It is larger for a better model.
    pub measures: Vec<Measure>,
    /// How much smaller it is than the dense variant's on the same device; `None` for the dense variant itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Estimate<f64>>,
}

/// What the labels say of a case.
#[derive(Default)]
pub(super) struct Judged {
    pub accuracy: Option<Share>,
    pub change: Option<AccuracyChange>,
    pub score: Option<Score>,
    /// Why there are labels, and no number.
    pub failure: Option<String>,
}

/// The answers as the task takes them.
pub fn answers(predictions: &Predictions) -> Answers<'_> {
    if predictions.classes.is_empty() {
        Answers::Values(&predictions.values)
    } else {
        // NaN answers nothing, so it is never right.
        let nan = predictions.not_finite().nan;
        let class = |(index, class): (u64, &u32)| (!nan.contains(&index)).then_some(*class);
        Answers::Classes((predictions.start..).zip(&predictions.classes).map(class).collect())
    }
}

/// `dense`: of the dense variant, `None` for that one itself.
pub(super) fn judged(model: &ModelInfo, dense: Option<&Predictions>, own: &Predictions, is_dense: bool) -> Judged {
    let (task, truth) = (model.task(), model.truth());
    let is_compared = task.kind == Kind::Embedding && truth.is_none();
    if task.kind == Kind::Difference || truth.is_none() && !is_compared {
        return Judged::default();
    }
    let reference = if is_dense { Some(own) } else { dense }.map(answers);
    let score = |predictions: &Predictions| Scored::new(&task, truth.as_ref(), answers(predictions), reference.clone());
    let own = match score(own) {
        Ok(own) => own,
        // Nothing can be compared with: that is said at the dense variant.
        Err(_) if is_compared && reference.is_none() => return Judged::default(),
        Err(why) => return Judged { failure: Some(why), ..Judged::default() },
    };
    let dense = dense.and_then(|dense| score(dense).ok());
    match (own.right(), own.quality()) {
        (Some(right), _) => Judged {
            accuracy: Some(share(&right)),
            change: dense.and_then(|dense| change(&dense.right()?, &right)),
            ..Judged::default()
        },
        (None, Some(_)) => {
            let drop = dense.and_then(|dense| drop(&dense, &own));
            Judged { score: Some(Score { measures: own.measures(), drop }), ..Judged::default() }
        }
        (None, None) => Judged { failure: Some("its metric is no number".to_owned()), ..Judged::default() },
    }
}

fn share(right: &[bool]) -> Share {
    Share { correct: right.iter().filter(|right| **right).count() as u64, total: right.len() as u64 }
}

fn change(dense: &[bool], new: &[bool]) -> Option<AccuracyChange> {
    let count = |was: bool| dense.iter().zip(new).filter(|(dense, new)| **dense == was && **new != was).count() as u64;
    let (lost, won) = (count(true), count(false));
    let p_value = espalier_stats::mcnemar_two_sided(lost, won);
    (dense.len() == new.len()).then_some(AccuracyChange { lost, won, total: new.len() as u64, p_value })
}

fn drop(dense: &Scored, new: &Scored) -> Option<Estimate<f64>> {
    let of = |keep: &dyn Fn(usize) -> bool| Some(dense.quality_of(keep)? - new.quality_of(keep)?);
    let observed = of(&|_| true)?;
    let bounds = metric_drop(new.samples(), of).ok().map(|drop| {
        let (low, high) = drop.interval(CONFIDENCE);
        Bounds { low, high }
    });
    Some(Estimate { value: observed, bounds: bounds.filter(|bounds| bounds.low.is_finite()) })
}

pub(super) fn agreement(model: &ModelInfo, base: &Predictions, new: &Predictions) -> Option<Agreement> {
    let same = same_answers(&model.task(), answers(base), answers(new))?;
    let equal = same.iter().filter(|same| **same).count() as u64;
    let lengths = |predictions: &Predictions| predictions.values.iter().map(Vec::len).collect::<Vec<usize>>();
    let comparable = lengths(base) == lengths(new) && base.values.iter().any(|values| !values.is_empty());
    let pairs = base.values.iter().flatten().zip(new.values.iter().flatten());
    let largest_difference = comparable.then(|| pairs.map(|(base, new)| difference(*base, *new)).fold(0.0, f32::max));
    let largest =
        |values: &Predictions| values.values.iter().flatten().fold(0.0, |most: f32, value| most.max(value.abs()));
    let largest_value = comparable.then(|| largest(base));
    Some(Agreement { equal, total: same.len() as u64, largest_difference, largest_value })
}

/// Infinite where exactly one is NaN, which `max` would ignore.
pub(super) fn difference(base: f32, new: f32) -> f32 {
    if base == new || (base.is_nan() && new.is_nan()) {
        return 0.0;
    }
    let difference = (base - new).abs();
    if difference.is_nan() { f32::INFINITY } else { difference }
}
