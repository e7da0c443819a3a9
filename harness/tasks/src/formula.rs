//! The formulas of metrics: rows of numbers, one a sample, in; a number out. A better model has a larger quality.

use serde::{Deserialize, Serialize};

/// A metric's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    pub name: String,
    pub value: f64,
    pub unit: Unit,
    pub smaller_is_better: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A fraction, shown in percent.
    Fraction,
    /// That of the right answers.
    Number,
}

/// What the rows of a [`crate::Scored`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// `[right, all]`.
    Accuracy,
    /// `[true yes, false yes, false no, right, all]`.
    F1,
    /// `[in both, in the right answer, in the answer]` of each class.
    Iou,
    /// Errors of each number, then the right numbers.
    R2,
    /// `[cosine]`.
    Cosine,
}

impl Formula {
    /// The number that a budget is about, at most 1; `None` without rows.
    pub fn quality<'a>(self, rows: impl Iterator<Item = &'a [f64]> + Clone) -> Option<f64> {
        rows.clone().next()?;
        let quality = match self {
            Formula::Accuracy => quotient(rows, 0, 1)?,
            Formula::F1 => f1(rows),
            Formula::Iou => mean_iou(rows)?,
            Formula::R2 => r2(rows),
            Formula::Cosine => quotient_by_count(rows, 0),
        };
        quality.is_finite().then_some(quality)
    }

    /// The quality first, then what else is usual.
    pub fn measures<'a>(self, rows: impl Iterator<Item = &'a [f64]> + Clone) -> Vec<Measure> {
        let Some(quality) = self.quality(rows.clone()) else { return Vec::new() };
        let fraction =
            |name: &str, value| Measure { name: name.into(), value, unit: Unit::Fraction, smaller_is_better: false };
        let number = |name: &str, value, smaller_is_better| Measure {
            name: name.into(),
            value,
            unit: Unit::Number,
            smaller_is_better,
        };
        match self {
            Formula::Accuracy => vec![fraction("accuracy", quality)],
            Formula::F1 => {
                let accuracy = quotient(rows, 3, 4).unwrap_or(0.0);
                vec![fraction("F1", quality), fraction("accuracy", accuracy)]
            }
            Formula::Iou => {
                let width = rows.clone().next().map_or(0, <[f64]>::len);
                let sums = sums(rows, width);
                let (both, all) = sums.chunks_exact(3).fold((0.0, 0.0), |(both, all), of| (both + of[0], all + of[1]));
                vec![fraction("mIoU", quality), fraction("accuracy", if all > 0.0 { both / all } else { 0.0 })]
            }
            Formula::R2 => {
                let (mae, rmse) = errors(rows);
                vec![number("R2", quality, false), number("MAE", mae, true), number("RMSE", rmse, true)]
            }
            Formula::Cosine => vec![number("cosine", quality, false)],
        }
    }
}

fn sums<'a>(rows: impl Iterator<Item = &'a [f64]>, width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums
}

fn quotient<'a>(rows: impl Iterator<Item = &'a [f64]>, part: usize, all: usize) -> Option<f64> {
    let (part, all) = rows.fold((0.0, 0.0), |sums, row| (sums.0 + row[part], sums.1 + row[all]));
    (all > 0.0).then(|| part / all)
}

fn quotient_by_count<'a>(rows: impl Iterator<Item = &'a [f64]>, column: usize) -> f64 {
    let (sum, count) = rows.fold((0.0, 0.0), |sums, row| (sums.0 + row[column], sums.1 + 1.0));
    sum / count
}

/// Over all labels of all samples: 2 TP / (2 TP + FP + FN) (van Rijsbergen, 1979; `f1_score(average="micro")` of
/// scikit-learn). 1 where nothing is to be found and nothing is.
fn f1<'a>(rows: impl Iterator<Item = &'a [f64]>) -> f64 {
    let sums = sums(rows, 5);
    let all = 2.0 * sums[0] + sums[1] + sums[2];
    if all == 0.0 { 1.0 } else { 2.0 * sums[0] / all }
}

/// Mean over classes that occur of |both| / |either|, over all samples together (Everingham et al., "The PASCAL Visual
/// Object Classes Challenge", 2010; `jaccard_score(average="macro")` of scikit-learn).
fn mean_iou<'a>(rows: impl Iterator<Item = &'a [f64]> + Clone) -> Option<f64> {
    let width = rows.clone().next()?.len();
    let sums = sums(rows, width);
    let either = |of: &[f64]| of[1] + of[2] - of[0];
    let occurring: Vec<f64> = sums.chunks_exact(3).filter(|of| either(of) > 0.0).map(|of| of[0] / either(of)).collect();
    (!occurring.is_empty()).then(|| occurring.iter().sum::<f64>() / occurring.len() as f64)
}

/// Mean over columns of 1 - SSE / SST, the share of variance that is explained (`r2_score` of scikit-learn). A column
/// that does not vary counts 1 where it is met exactly, else 0.
fn r2<'a>(rows: impl Iterator<Item = &'a [f64]> + Clone) -> f64 {
    let Some(width) = rows.clone().next().map(<[f64]>::len) else { return f64::NAN };
    let (columns, count) = (width / 2, rows.clone().count() as f64);
    let means: Vec<f64> = sums(rows.clone(), width).iter().map(|sum| sum / count).collect();
    let mut squares = vec![(0.0, 0.0); columns];
    for row in rows {
        for (column, (missed, total)) in squares.iter_mut().enumerate() {
            *missed += row[column].powi(2);
            *total += (row[columns + column] - means[columns + column]).powi(2);
        }
    }
    let explained = squares.iter().map(|(missed, total)| match (*missed == 0.0, *total == 0.0) {
        (true, _) => 1.0,
        (false, true) => 0.0,
        _ => 1.0 - missed / total,
    });
    explained.sum::<f64>() / columns as f64
}

/// Mean absolute error and the root of the mean squared error, over all numbers.
fn errors<'a>(rows: impl Iterator<Item = &'a [f64]>) -> (f64, f64) {
    let (mut absolute, mut squared, mut count) = (0.0, 0.0, 0.0);
    for row in rows {
        for error in &row[..row.len() / 2] {
            absolute += error.abs();
            squared += error.powi(2);
            count += 1.0;
        }
    }
    (absolute / count, (squared / count).sqrt())
}
