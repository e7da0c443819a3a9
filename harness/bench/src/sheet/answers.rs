//! The columns that say how good a model's answers are, by its task, and the note on its accuracy budget.

use espalier_tasks::{Kind, Measure, Unit};

use super::{Column, cells, interval, peers};
use crate::{
    record::{ModelInfo, Run},
    summary::CaseSummary,
};

/// The task in words, with what it was found from; none for a run of an earlier release.
pub(super) fn fact(model: &ModelInfo) -> Option<String> {
    let task = model.task.as_ref()?;
    let samples = model.samples.map(|samples| format!(" on {samples} samples")).unwrap_or_default();
    Some(format!("task {}{samples} (from {})", task.describe(), task.from))
}

pub(super) fn columns(model: &ModelInfo, cases: &[&CaseSummary]) -> Vec<Column> {
    let kind = model.task().kind;
    let is_right_or_wrong = cases.iter().all(|case| case.score.is_none());
    let is_judged = kind != Kind::Difference && model.truth().is_some();
    match () {
        () if is_judged && is_right_or_wrong => right_or_wrong(cases),
        () if !is_right_or_wrong => scores(cases),
        () if kind == Kind::Classes => vec![same("same class", cases)],
        () if kind.is_decided() => vec![same("same answer", cases)],
        () => vec![difference(cases)],
    }
}

fn right_or_wrong(cases: &[&CaseSummary]) -> Vec<Column> {
    let percent = |case: &CaseSummary| Some(format!("{:.2}", case.accuracy?.fraction() * 100.0));
    let change = |case: &CaseSummary| {
        let change = case.change?;
        Some(format!("{:+.2} ({}/{})", change.fraction() * 100.0, change.lost, change.won))
    };
    let column = Column::new("vs dense", "pp (−/+)", 5, cells(cases, change));
    vec![
        Column::new("accuracy", "%", 3, cells(cases, percent)),
        Column { legend: "(−/+): samples lost and won", ..column },
    ]
}

/// The metric that budgets are about, how it changed, then the others.
fn scores(cases: &[&CaseSummary]) -> Vec<Column> {
    let known = cases.iter().find_map(|case| Some(case.score.as_ref()?.measures.clone())).unwrap_or_default();
    let Some(first) = known.first() else { return Vec::new() };
    let mut columns: Vec<Column> = known
        .iter()
        .enumerate()
        .map(|(index, measure)| {
            let text = |case: &CaseSummary| Some(number(case.score.as_ref()?.measures.get(index)?));
            let rank = if index == 0 { 3 } else { 10 };
            Column::new(heading(&measure.name), unit_of(measure), rank, cells(cases, text))
        })
        .collect();
    let factor = if first.unit == Unit::Fraction { 100.0 } else { 1.0 };
    let change = |case: &CaseSummary| {
        let drop = case.score.as_ref()?.drop?.map(|drop| 0.0 - drop * factor);
        let bounds = drop.bounds.map(|of| crate::metric::Bounds { low: of.high, high: of.low });
        let decimals = if first.unit == Unit::Fraction { 2 } else { 4 };
        Some(interval(drop.value, bounds, |value| format!("{value:+.decimals$}")))
    };
    let unit = if first.unit == Unit::Fraction { "pp [95 %]".to_owned() } else { format!("{} [95 %]", first.name) };
    columns.insert(1, Column::new("vs dense", unit, 5, cells(cases, change)));
    columns
}

fn number(measure: &Measure) -> String {
    match measure.unit {
        Unit::Fraction => format!("{:.2}", measure.value * 100.0),
        Unit::Number => format!("{:.4}", measure.value),
    }
}

fn unit_of(measure: &Measure) -> &'static str {
    match (measure.unit, measure.smaller_is_better) {
        (Unit::Fraction, _) => "%",
        (Unit::Number, true) => "as y",
        (Unit::Number, false) => "of 1",
    }
}

/// Headings are known beforehand; a metric of a later release is a score.
fn heading(name: &str) -> &'static str {
    let known = ["accuracy", "F1", "mIoU", "R2", "MAE", "RMSE", "cosine"];
    known.into_iter().find(|known| *known == name).unwrap_or("score")
}

fn same(name: &'static str, cases: &[&CaseSummary]) -> Column {
    let same = |case: &CaseSummary| case.same_as_dense.map(|same| format!("{}/{}", same.equal, same.total));
    Column::new(name, "as dense", 5, cells(cases, same))
}

/// Without knowing what an answer means: how far it is from the dense variant's.
fn difference(cases: &[&CaseSummary]) -> Column {
    let difference = |case: &CaseSummary| {
        let same = case.same_as_dense?;
        let (largest, relative) = (same.largest_difference?, same.relative_difference()?);
        Some(format!("{largest:.1e} ({:.1} %)", relative * 100.0))
    };
    let column = Column::new("difference", "as output (of the largest)", 5, cells(cases, difference));
    Column { legend: "difference: the largest of an output value from dense", ..column }
}

/// The largest ratio that loses no more than the budget. What is not known, or only within its error, is not within it.
pub(super) fn budget(run: &Run, model: &ModelInfo, cases: &[&CaseSummary]) -> Option<String> {
    let allowed = model.max_accuracy_drop?;
    // Fractions of a count: a difference below a thousandth of a sample is rounding.
    let drop = |case: &CaseSummary| match (&case.change, &case.score) {
        (Some(change), _) => Some((-change.fraction(), 1e-3 / change.total as f64)),
        (None, Some(score)) => Some((score.drop?.value, 1e-9)),
        (None, None) => None,
    };
    let judged = peers::judged(run, cases);
    let scored: Vec<_> = judged.iter().filter_map(|case| Some((case.case.ratio, drop(case)?))).collect();
    if scored.is_empty() {
        return None;
    }
    let (points, unit, factor) = match judged.iter().find_map(|case| case.score.as_ref()?.measures.first()) {
        Some(measure) if measure.unit == Unit::Number => (allowed, format!("of {}", measure.name), 1.0),
        Some(measure) => (allowed * 100.0, format!("pp of {}", measure.name), 100.0),
        None => (allowed * 100.0, "pp".to_owned(), 100.0),
    };
    let within = scored.iter().filter(|(_, (drop, rounding))| *drop <= allowed + rounding);
    Some(match within.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((ratio, (drop, _))) => format!(
            "largest ratio within the accuracy budget (at most {points} {unit} lost): {ratio} ({:+.2} {unit})",
            0.0 - drop * factor
        ),
        None => format!("no pruned variant is within the accuracy budget (at most {points} {unit} lost)"),
    })
}
