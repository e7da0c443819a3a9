//! Answers compared with what is right: a row of numbers for each sample, of which [`Formula`] makes a metric. Any
//! part of the samples can be judged alone, as an interval needs it.

use crate::{Kind, Measure, Scale, Task, Truth, find::is_one_hot, formula::Formula};

/// The answers of some samples.
#[derive(Clone, Debug)]
pub enum Answers<'a> {
    /// A class each; `None` for an answer that is no number.
    Classes(Vec<Option<u32>>),
    /// Values each; classes of positions where the board has reduced them.
    Values(&'a [Vec<f32>]),
}

impl Answers<'_> {
    pub fn len(&self) -> usize {
        match self {
            Answers::Classes(classes) => classes.len(),
            Answers::Values(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    formula: Formula,
    width: usize,
    rows: Vec<f64>,
}

impl Scored {
    /// `dense`: the dense model's answers to the same samples, which are right where nothing else is and the task is
    /// [`Kind::Embedding`].
    ///
    /// # Errors
    /// Why answers cannot be judged: they are not one each, are of another size, are no numbers.
    pub fn new(
        task: &Task,
        truth: Option<&Truth>,
        answers: Answers<'_>,
        dense: Option<Answers<'_>>,
    ) -> Result<Scored, String> {
        let samples = truth.map_or(answers.len(), Truth::samples);
        if answers.len() != samples || answers.is_empty() {
            return Err(format!("{} predictions for {samples} samples", answers.len()));
        }
        let right = |index: usize| truth.map(|truth| truth.of_sample(index));
        let mut rows = Rows::default();
        for index in 0..samples {
            match (&answers, right(index)) {
                (Answers::Classes(classes), Some(right)) => {
                    let one_hot = truth.is_some_and(is_one_hot);
                    let class = classes[index].map(f64::from);
                    rows.push(&[f64::from(class == Some(class_of(right, one_hot))), 1.0]);
                }
                (Answers::Values(values), Some(right)) => {
                    let one_hot = truth.is_some_and(is_one_hot);
                    row(task, index, &values[index], right, one_hot, &mut rows)?;
                }
                (Answers::Values(values), None) if task.kind == Kind::Embedding => {
                    let Some(Answers::Values(dense)) = dense.as_ref().filter(|dense| dense.len() == samples) else {
                        return Err("there are no vectors of the dense model to compare with".to_owned());
                    };
                    let right: Vec<f64> = dense[index].iter().map(|value| f64::from(*value)).collect();
                    rows.push(&[cosine(index, &values[index], &right)?]);
                }
                _ => return Err("there are no labels".to_owned()),
            }
        }
        let formula = match task.kind {
            Kind::Classes | Kind::Label | Kind::Binary | Kind::Tokens => Formula::Accuracy,
            Kind::MultiLabel => Formula::F1,
            Kind::Segments => Formula::Iou,
            Kind::Regression => Formula::R2,
            Kind::Embedding => Formula::Cosine,
            Kind::Difference => return Err("the task is not known: nothing says which answers are right".to_owned()),
        };
        let (width, rows) = rows.even();
        Ok(Scored { formula, width, rows })
    }

    pub fn samples(&self) -> usize {
        self.rows.len() / self.width
    }

    /// The number that a budget is about; a better model has a larger one.
    pub fn quality(&self) -> Option<f64> {
        self.formula.quality(self.rows.chunks_exact(self.width))
    }

    /// That of a part of the samples.
    pub fn quality_of(&self, keep: impl Fn(usize) -> bool + Clone) -> Option<f64> {
        let rows = self.rows.chunks_exact(self.width).enumerate();
        self.formula.quality(rows.filter(move |(index, _)| keep(*index)).map(|(_, row)| row))
    }

    pub fn measures(&self) -> Vec<Measure> {
        self.formula.measures(self.rows.chunks_exact(self.width))
    }

    /// Whether each sample is right, where an answer is one class.
    pub fn right(&self) -> Option<Vec<bool>> {
        let rows = || self.rows.chunks_exact(self.width);
        let is_one = self.formula == Formula::Accuracy && rows().all(|row| row[1] == 1.0);
        is_one.then(|| rows().map(|row| row[0] == 1.0).collect())
    }

    /// Right answers and all, where an answer is made of classes.
    pub fn counts(&self) -> Option<(u64, u64)> {
        let sum = |column: usize| self.rows.chunks_exact(self.width).map(|row| row[column]).sum::<f64>() as u64;
        (self.formula == Formula::Accuracy).then(|| (sum(0), sum(1)))
    }
}

/// Rows of numbers; shorter ones are filled up with zeros in the end.
#[derive(Default)]
struct Rows(Vec<Vec<f64>>);

impl Rows {
    fn push(&mut self, row: &[f64]) {
        self.0.push(row.to_vec());
    }

    fn even(self) -> (usize, Vec<f64>) {
        let width = self.0.iter().map(Vec::len).max().unwrap_or(1);
        let filled = |mut row: Vec<f64>| {
            row.resize(width, 0.0);
            row
        };
        (width, self.0.into_iter().flat_map(filled).collect())
    }
}

fn class_of(right: &[f64], one_hot: bool) -> f64 {
    if one_hot { right.iter().position(|value| *value == 1.0).unwrap_or(0) as f64 } else { right[0] }
}

fn row(task: &Task, index: usize, values: &[f32], right: &[f64], one_hot: bool, rows: &mut Rows) -> Result<(), String> {
    let counted = match task.kind {
        Kind::Classes => None,
        _ => Some(right.len()),
    };
    if let Some(counted) = counted.filter(|counted| *counted != values.len()) {
        let given = values.len();
        return Err(format!("sample {index} has {given} answers where `y` has {counted}"));
    }
    let ignored = |value: f64| task.ignore.is_some_and(|ignore| value == ignore as f64);
    let pairs = values.iter().map(|value| f64::from(*value)).zip(right.iter().copied());
    match task.kind {
        Kind::Classes => {
            let class = class_of(right, one_hot) as usize;
            rows.push(&[f64::from(is_among(values, class, task.top)), 1.0]);
        }
        Kind::Label | Kind::Tokens => {
            let counted = pairs.filter(|(_, right)| !ignored(*right));
            let (right, all) =
                counted.fold((0.0, 0.0), |sums, (value, right)| (sums.0 + f64::from(value == right), sums.1 + 1.0));
            rows.push(&[right, all]);
        }
        Kind::Binary => {
            let scale = task.scale.unwrap_or(Scale::Logit);
            let right = pairs.filter(|(value, right)| says_yes(*value, scale) == Some(*right > 0.0)).count();
            rows.push(&[right as f64, 1.0]);
        }
        Kind::MultiLabel => {
            let scale = task.scale.unwrap_or(Scale::Logit);
            let mut row = [0.0; 5];
            for (value, right) in pairs {
                let yes = right > 0.0;
                // No number is never right.
                let said = says_yes(value, scale).unwrap_or(!yes);
                let column = match (yes, said) {
                    (true, true) => Some(0),
                    (false, true) => Some(1),
                    (true, false) => Some(2),
                    (false, false) => None,
                };
                column.into_iter().for_each(|column| row[column] += 1.0);
                row[3] += f64::from(yes == said);
                row[4] += 1.0;
            }
            rows.push(&row);
        }
        Kind::Segments => {
            let mut row = vec![0.0; 3 * task.classes.unwrap_or(0).min(1 << 16) as usize];
            for (value, right) in pairs.filter(|(_, right)| !ignored(*right)) {
                let (value, right) = (value as usize, right as usize);
                let needed = 3 * (value.max(right) + 1);
                if row.len() < needed {
                    row.resize(needed, 0.0);
                }
                row[3 * right + 1] += 1.0;
                row[3 * value + 2] += 1.0;
                row[3 * right] += f64::from(value == right);
            }
            rows.push(&row);
        }
        Kind::Regression => {
            let mut row: Vec<f64> = pairs.clone().map(|(value, right)| value - right).collect();
            if row.iter().any(|error| !error.is_finite()) {
                return Err(not_finite(index));
            }
            row.extend(right);
            rows.push(&row);
        }
        Kind::Embedding => rows.push(&[cosine(index, values, right)?]),
        Kind::Difference => {}
    }
    Ok(())
}

fn not_finite(index: usize) -> String {
    format!("the answer to sample {index} is not a finite number")
}

/// `None` for what is no number.
fn says_yes(value: f64, scale: Scale) -> Option<bool> {
    (!value.is_nan()).then_some(value > scale.threshold())
}

/// Whether a class is among the `top` of the largest values; of equal ones the first count. NaN is never large.
fn is_among(values: &[f32], class: usize, top: u32) -> bool {
    let Some(own) = values.get(class).filter(|own| !own.is_nan()) else {
        return false;
    };
    let before =
        values.iter().enumerate().filter(|(index, value)| *value > own || *value == own && *index < class).count();
    before < top as usize
}

/// Salton and McGill, "Introduction to Modern Information Retrieval" (1983). A vector of zeros has no direction: 0.
fn cosine(index: usize, values: &[f32], right: &[f64]) -> Result<f64, String> {
    if values.len() != right.len() {
        return Err(format!("sample {index} has {} numbers where {} are right", values.len(), right.len()));
    }
    let (mut product, mut own, mut other) = (0.0, 0.0, 0.0);
    for (value, right) in values.iter().map(|value| f64::from(*value)).zip(right) {
        product += value * right;
        own += value * value;
        other += right * right;
    }
    if !(product.is_finite() && own.is_finite()) {
        return Err(not_finite(index));
    }
    let lengths = own.sqrt() * other.sqrt();
    Ok(if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) } else { 0.0 })
}

/// The largest difference of two numbers, relative to the largest of a whole model's, that another order of additions
/// explains; and one that is nothing whatever the numbers are.
const SAME: f32 = 1e-3;
const NOTHING: f32 = 1e-6;

/// By sample, whether two models answer the same: the same classes, or numbers that differ by rounding. `None` where
/// there are not as many answers of each.
pub fn same_answers(task: &Task, one: Answers<'_>, other: Answers<'_>) -> Option<Vec<bool>> {
    match (one, other) {
        (Answers::Classes(one), Answers::Classes(other)) if one.len() == other.len() => {
            Some(one.iter().zip(&other).map(|(one, other)| one == other).collect())
        }
        (Answers::Values(one), Answers::Values(other)) if one.len() == other.len() => {
            let largest =
                one.iter().flatten().filter(|value| value.is_finite()).fold(0f32, |most, value| most.max(value.abs()));
            let same = |(one, other): (&Vec<f32>, &Vec<f32>)| same_answer(task, one, other, largest);
            Some(one.iter().zip(other).map(same).collect())
        }
        _ => None,
    }
}

fn same_answer(task: &Task, one: &[f32], other: &[f32], largest: f32) -> bool {
    let decided = |value: f32| says_yes(f64::from(value), task.scale.unwrap_or(Scale::Logit));
    let each = |same: &dyn Fn(f32, f32) -> bool| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(*one, *other))
    };
    match task.kind {
        Kind::Classes => largest_of(one) == largest_of(other),
        Kind::Binary | Kind::MultiLabel => each(&|one, other| decided(one) == decided(other)),
        Kind::Label | Kind::Tokens | Kind::Segments => each(&|one, other| one == other),
        Kind::Regression | Kind::Embedding | Kind::Difference => each(&|one, other| {
            one == other || one.is_nan() && other.is_nan() || (one - other).abs() <= (SAME * largest).max(NOTHING)
        }),
    }
}

/// The index of the largest value, the first of equal ones. NaN is never the largest.
fn largest_of(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] || values[best].is_nan() {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests;
