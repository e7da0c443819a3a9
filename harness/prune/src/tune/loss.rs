//! How wrong answers are, and in which direction: losses with their gradients.
//!
//! Answers are rows, one a sample, of one number a class (logits, that is: before any softmax). A loss is summed over rows and its gradient
//! too; the caller divides by the size of the whole batch, of which these rows may be a part. Sums are in f64: a class more or less must not
//! change the last digits that a finite difference looks at.

/// What answers are held against.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The class of each row: cross-entropy.
    Labels(&'a [usize]),
    /// The answers of a teacher: Kullback-Leibler divergence from its softmax at `temperature`, times the temperature squared, so that the size of
    /// gradients does not depend on it (Hinton, Vinyals and Dean, 2015).
    Teacher { answers: &'a [f32], temperature: f32 },
    /// `weight` of the teacher, the rest of the labels.
    Both { labels: &'a [usize], answers: &'a [f32], weight: f32, temperature: f32 },
    /// The numbers themselves, for answers that are no classes: half the squared difference, mean over the row.
    Values(&'a [f32]),
}

/// A loss summed over rows, and its gradient with respect to each answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub sum: f64,
    pub gradient: Vec<f32>,
}

/// `answers` are rows of `width`. Labels must be below `width`.
pub fn loss(answers: &[f32], width: usize, target: Target<'_>) -> Loss {
    let mut loss = Loss { sum: 0.0, gradient: vec![0.0; answers.len()] };
    let rows = answers.chunks_exact(width).zip(loss.gradient.chunks_exact_mut(width)).enumerate();
    for (row, (answers, gradient)) in rows {
        let of_row = |all: &'_ [f32]| all[row * width..(row + 1) * width].to_vec();
        loss.sum += match target {
            Target::Labels(labels) => cross_entropy(answers, labels[row], 1.0, gradient),
            Target::Teacher { answers: teacher, temperature } => {
                divergence(answers, &of_row(teacher), temperature, 1.0, gradient)
            }
            Target::Both { labels, answers: teacher, weight, temperature } => {
                divergence(answers, &of_row(teacher), temperature, weight, gradient)
                    + cross_entropy(answers, labels[row], 1.0 - weight, gradient)
            }
            Target::Values(values) => squares(answers, &of_row(values), gradient),
        };
    }
    loss
}

/// The class of each row: the largest answer, the first of equals. A NaN is never the largest.
pub fn classes(answers: &[f32], width: usize) -> Vec<usize> {
    let largest = |row: &[f32]| {
        let mut best = 0;
        for (class, answer) in row.iter().enumerate() {
            if *answer > row[best] || row[best].is_nan() {
                best = class;
            }
        }
        best
    };
    answers.chunks_exact(width).map(largest).collect()
}

fn cross_entropy(answers: &[f32], label: usize, weight: f32, gradient: &mut [f32]) -> f64 {
    let logarithms = log_softmax(answers, 1.0);
    for (class, (gradient, logarithm)) in gradient.iter_mut().zip(&logarithms).enumerate() {
        let wanted = if class == label { 1.0 } else { 0.0 };
        *gradient += weight * (logarithm.exp() - wanted) as f32;
    }
    -f64::from(weight) * logarithms[label]
}

fn divergence(answers: &[f32], teacher: &[f32], temperature: f32, weight: f32, gradient: &mut [f32]) -> f64 {
    let (student, teacher) = (log_softmax(answers, temperature), log_softmax(teacher, temperature));
    let mut sum = 0.0;
    for ((gradient, student), teacher) in gradient.iter_mut().zip(&student).zip(&teacher) {
        sum += teacher.exp() * (teacher - student);
        *gradient += weight * temperature * (student.exp() - teacher.exp()) as f32;
    }
    sum * f64::from(weight * temperature * temperature)
}

fn squares(answers: &[f32], values: &[f32], gradient: &mut [f32]) -> f64 {
    let width = answers.len() as f32;
    let mut sum = 0.0;
    for ((gradient, answer), value) in gradient.iter_mut().zip(answers).zip(values) {
        let difference = answer - value;
        *gradient = difference / width;
        sum += 0.5 * f64::from(difference * difference / width);
    }
    sum
}

/// Logarithms, so that a probability too small for a float still has one.
fn log_softmax(answers: &[f32], temperature: f32) -> Vec<f64> {
    let scaled: Vec<f64> = answers.iter().map(|answer| f64::from(*answer) / f64::from(temperature)).collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|answer| (answer - largest).exp()).sum();
    scaled.iter().map(|answer| answer - largest - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: [f32; 6] = [0.3, -1.2, 2.0, 0.1, 0.7, -0.4];
    const TEACHER: [f32; 6] = [1.0, -0.5, 1.5, -2.0, 0.2, 3.0];

    /// Central differences against the gradient, for each answer.
    #[track_caller]
    fn check(target: Target<'_>) {
        let gradient = loss(&ANSWERS, 3, target).gradient;
        for (index, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut answers = ANSWERS;
                answers[index] += by;
                (loss(&answers, 3, target).sum, answers[index])
            };
            let ((above, high), (below, low)) = (moved(1e-2), moved(-1e-2));
            let difference = (above - below) / f64::from(high - low);
            let close = (difference - f64::from(*gradient)).abs() < 1e-4;
            assert!(close, "answer {index}: gradient {gradient}, finite difference {difference}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        check(Target::Labels(&[2, 0]));
        check(Target::Teacher { answers: &TEACHER, temperature: 1.0 });
        check(Target::Teacher { answers: &TEACHER, temperature: 4.0 });
        check(Target::Both { labels: &[1, 2], answers: &TEACHER, weight: 0.3, temperature: 2.0 });
        check(Target::Values(&TEACHER));
    }

    #[test]
    fn known_values() {
        let even = loss(&[1.0, 1.0], 2, Target::Labels(&[0]));
        assert!((even.sum - 2f64.ln()).abs() < 1e-12);
        assert_eq!(even.gradient, [-0.5, 0.5]);
        let same = loss(&ANSWERS, 3, Target::Teacher { answers: &ANSWERS, temperature: 2.0 });
        assert_eq!((same.sum, same.gradient), (0.0, vec![0.0; 6]));
        // By hand: KL((0.5, 0.5) from (1/(1+e), e/(1+e))) = ln(1+e) - 0.5 - ln 2.
        let apart = loss(&[0.0, 1.0], 2, Target::Teacher { answers: &[0.0, 0.0], temperature: 1.0 });
        assert!((apart.sum - ((1.0 + 1f64.exp()).ln() - 0.5 - 2f64.ln())).abs() < 1e-7);
        let squares = loss(&[1.0, 3.0], 2, Target::Values(&[0.0, 1.0]));
        assert_eq!(squares, Loss { sum: 1.25, gradient: vec![0.5, 1.0] });
    }

    /// What is far too large for `exp` is still a number.
    #[test]
    fn large_answers_do_not_overflow() {
        let loss = loss(&[1e4, -1e4], 2, Target::Labels(&[1]));
        assert_eq!((loss.sum, loss.gradient), (2e4, vec![1.0, -1.0]));
    }

    #[test]
    fn classes_are_the_first_largest() {
        assert_eq!(classes(&[0.0, 2.0, 2.0, f32::NAN, -1.0, -2.0], 3), [1, 1]);
    }
}
