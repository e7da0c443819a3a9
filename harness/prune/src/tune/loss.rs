//! Losses with their gradients.
//!
//! Predictions are rows, one a sample, of one number a class: logits, before any softmax. A loss is summed over rows,
//! and so is its gradient; the caller divides by the size of the whole batch, of which these rows may be a part. Sums
//! are in f64: one class more must not change the last digits, which finite differences look at.

/// What predictions are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The class of each row: cross-entropy.
    Labels(&'a [usize]),
    /// The predictions of a teacher: Kullback-Leibler divergence from its softmax at `temperature`, times the
    /// temperature squared, so that the size of gradients does not depend on it (Hinton, Vinyals and Dean, 2015).
    Teacher { teacher: &'a [f32], temperature: f32 },
    /// `weight` of the teacher, the rest of the labels.
    Both { labels: &'a [usize], teacher: &'a [f32], weight: f32, temperature: f32 },
    /// Numbers, for predictions that are not classes: half the squared difference, mean over the row.
    Values(&'a [f32]),
}

/// A loss summed over rows, and its gradient with respect to each prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub sum: f64,
    pub gradient: Vec<f32>,
}

/// `predictions` are rows of `width`. Labels must be below `width`.
pub fn loss(predictions: &[f32], width: usize, target: Target<'_>) -> Loss {
    let mut loss = Loss { sum: 0.0, gradient: vec![0.0; predictions.len()] };
    let rows = predictions.chunks_exact(width).zip(loss.gradient.chunks_exact_mut(width)).enumerate();
    for (row, (predictions, gradient)) in rows {
        let span = row * width..(row + 1) * width;
        loss.sum += match target {
            Target::Labels(labels) => cross_entropy(predictions, labels[row], 1.0, gradient),
            Target::Teacher { teacher, temperature } => {
                divergence(predictions, &teacher[span], temperature, 1.0, gradient)
            }
            Target::Both { labels, teacher, weight, temperature } => {
                divergence(predictions, &teacher[span], temperature, weight, gradient)
                    + cross_entropy(predictions, labels[row], 1.0 - weight, gradient)
            }
            Target::Values(values) => squares(predictions, &values[span], gradient),
        };
    }
    loss
}

fn cross_entropy(predictions: &[f32], label: usize, weight: f32, gradient: &mut [f32]) -> f64 {
    let logarithms = log_softmax(predictions, 1.0);
    for (class, (gradient, logarithm)) in gradient.iter_mut().zip(&logarithms).enumerate() {
        let expected = if class == label { 1.0 } else { 0.0 };
        *gradient += weight * (logarithm.exp() - expected) as f32;
    }
    -f64::from(weight) * logarithms[label]
}

fn divergence(predictions: &[f32], teacher: &[f32], temperature: f32, weight: f32, gradient: &mut [f32]) -> f64 {
    let (student, teacher) = (log_softmax(predictions, temperature), log_softmax(teacher, temperature));
    let mut sum = 0.0;
    for ((gradient, student), teacher) in gradient.iter_mut().zip(&student).zip(&teacher) {
        sum += teacher.exp() * (teacher - student);
        *gradient += weight * temperature * (student.exp() - teacher.exp()) as f32;
    }
    sum * f64::from(weight * temperature * temperature)
}

fn squares(predictions: &[f32], values: &[f32], gradient: &mut [f32]) -> f64 {
    let width = predictions.len() as f32;
    let mut sum = 0.0;
    for ((gradient, prediction), value) in gradient.iter_mut().zip(predictions).zip(values) {
        let difference = prediction - value;
        *gradient = difference / width;
        sum += 0.5 * f64::from(difference * difference / width);
    }
    sum
}

/// Logarithms, so that a probability too small for a float still has one.
fn log_softmax(predictions: &[f32], temperature: f32) -> Vec<f64> {
    let scaled: Vec<f64> =
        predictions.iter().map(|prediction| f64::from(*prediction) / f64::from(temperature)).collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|prediction| (prediction - largest).exp()).sum();
    scaled.iter().map(|prediction| prediction - largest - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREDICTIONS: [f32; 6] = [0.3, -1.2, 2.0, 0.1, 0.7, -0.4];
    const TEACHER: [f32; 6] = [1.0, -0.5, 1.5, -2.0, 0.2, 3.0];

    /// Central differences against the gradient, for each prediction.
    #[track_caller]
    fn check(target: Target<'_>) {
        let gradient = loss(&PREDICTIONS, 3, target).gradient;
        for (index, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut predictions = PREDICTIONS;
                predictions[index] += by;
                (loss(&predictions, 3, target).sum, predictions[index])
            };
            let ((above, high), (below, low)) = (moved(1e-2), moved(-1e-2));
            let difference = (above - below) / f64::from(high - low);
            let close = (difference - f64::from(*gradient)).abs() < 1e-4;
            assert!(close, "prediction {index}: gradient {gradient}, finite difference {difference}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        check(Target::Labels(&[2, 0]));
        check(Target::Teacher { teacher: &TEACHER, temperature: 1.0 });
        check(Target::Teacher { teacher: &TEACHER, temperature: 4.0 });
        check(Target::Both { labels: &[1, 2], teacher: &TEACHER, weight: 0.3, temperature: 2.0 });
        check(Target::Values(&TEACHER));
    }

    #[test]
    fn known_values() {
        let even = loss(&[1.0, 1.0], 2, Target::Labels(&[0]));
        assert!((even.sum - 2f64.ln()).abs() < 1e-12);
        assert_eq!(even.gradient, [-0.5, 0.5]);
        let same = loss(&PREDICTIONS, 3, Target::Teacher { teacher: &PREDICTIONS, temperature: 2.0 });
        assert_eq!((same.sum, same.gradient), (0.0, vec![0.0; 6]));
        // By hand: KL((0.5, 0.5) from (1/(1+e), e/(1+e))) = ln(1+e) - 0.5 - ln 2.
        let apart = loss(&[0.0, 1.0], 2, Target::Teacher { teacher: &[0.0, 0.0], temperature: 1.0 });
        assert!((apart.sum - ((1.0 + 1f64.exp()).ln() - 0.5 - 2f64.ln())).abs() < 1e-7);
        let squares = loss(&[1.0, 3.0], 2, Target::Values(&[0.0, 1.0]));
        assert_eq!(squares, Loss { sum: 1.25, gradient: vec![0.5, 1.0] });
    }

    /// What is far too large for `exp` is still a number.
    #[test]
    fn large_predictions_do_not_overflow() {
        let loss = loss(&[1e4, -1e4], 2, Target::Labels(&[1]));
        assert_eq!((loss.sum, loss.gradient), (2e4, vec![1.0, -1.0]));
    }
}
