//! How parameters move along their gradients: Adam with decoupled weight decay (Kingma and Ba, 2015; Loshchilov and
//! Hutter, 2019); and how fast, over the course of a training.

use std::f64::consts::PI;

const MEAN: f32 = 0.9;
const SQUARE: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Adam's running means, by parameter.
#[derive(Clone, Debug)]
pub struct Optimiser {
    /// The share of itself that a weight loses in a step, divided by the rate; biases and the like do not decay.
    decay: f32,
    steps: i32,
    means: Vec<Vec<f32>>,
    squares: Vec<Vec<f32>>,
}

impl Optimiser {
    /// `lengths` are those of the parameters that [`Optimiser::update`] will be given, by their index.
    pub fn new(decay: f32, lengths: &[usize]) -> Optimiser {
        let zeros: Vec<Vec<f32>> = lengths.iter().map(|len| vec![0.0; *len]).collect();
        Optimiser { decay, steps: 0, means: zeros.clone(), squares: zeros }
    }

    /// Begins a step; then [`Optimiser::update`] is called once for each parameter.
    pub fn step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// Moves one parameter. Where `masked` is `true` it is +0 afterwards, whatever its gradient.
    pub fn update(
        &mut self,
        parameter: usize,
        values: &mut [f32],
        gradient: &[f32],
        masked: Option<&[bool]>,
        rate: f32,
        decays: bool,
    ) {
        let decay = if decays { rate * self.decay } else { 0.0 };
        let (mean_scale, square_scale) = (1.0 - MEAN.powi(self.steps), 1.0 - SQUARE.powi(self.steps));
        let state = self.means[parameter].iter_mut().zip(&mut self.squares[parameter]);
        for ((value, gradient), (mean, square)) in values.iter_mut().zip(gradient).zip(state) {
            *mean = MEAN * *mean + (1.0 - MEAN) * gradient;
            *square = SQUARE * *square + (1.0 - SQUARE) * gradient * gradient;
            let step = (*mean / mean_scale) / ((*square / square_scale).sqrt() + EPSILON);
            *value -= rate * step + decay * *value;
        }
        for (value, _) in values.iter_mut().zip(masked.unwrap_or_default()).filter(|(_, masked)| **masked) {
            *value = 0.0;
        }
    }
}

/// The rate of step `step` of `steps`, from 0: a rise over the share `warm_up` of them, then half a cosine down to 0.
pub fn rate(peak: f32, step: usize, steps: usize, warm_up: f32) -> f32 {
    let rise = f64::from(warm_up) * steps as f64;
    let step = step as f64;
    if step < rise {
        return (f64::from(peak) * (step + 1.0) / (rise + 1.0)) as f32;
    }
    let along = (step - rise) / (steps as f64 - rise).max(1.0);
    (f64::from(peak) * 0.5 * (1.0 + (PI * along).cos())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(decay: f32, gradients: &[f32], expected: &[f32]) {
        let mut optimiser = Optimiser::new(decay, &[1]);
        let mut values = [1.0];
        for (gradient, expected) in gradients.iter().zip(expected) {
            optimiser.step();
            optimiser.update(0, &mut values, &[*gradient], None, 0.1, true);
            assert!((values[0] - expected).abs() < 1e-6, "{} is not {expected}", values[0]);
        }
    }

    /// By hand. The first step of Adam is the rate itself, against the gradient's sign; the second has mean (0.9 * 0.1
    /// * 2 - 0.1) / 0.19 and square (0.999 * 0.001 * 4 + 0.001) / 0.001999: 0.42105 / 1.58095.
    #[test]
    fn adam_as_by_hand() {
        check(0.0, &[2.0, -1.0], &[0.9, 0.873_367]);
        check(0.5, &[2.0], &[0.85]);
    }

    #[test]
    fn what_is_masked_is_zero_to_the_bit() {
        let mut optimiser = Optimiser::new(0.1, &[3]);
        let mut values = [-0.0, 0.5, -0.25];
        for _ in 0..3 {
            optimiser.step();
            optimiser.update(0, &mut values, &[1.0, 1.0, -1.0], Some(&[true, false, true]), 0.1, true);
        }
        assert_eq!([values[0].to_bits(), values[2].to_bits()], [0, 0]);
        assert!(values[1] < 0.3);
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f32> = (0..100).map(|step| rate(1.0, step, 100, 0.1)).collect();
        assert!(rates[..10].is_sorted() && rates[0] > 0.0 && rates[0] < 0.2);
        assert!(rates[10..].is_sorted_by(|a, b| a >= b) && rates[10] == 1.0 && rates[99] < 0.01);
        assert_eq!(rate(0.5, 0, 1, 0.0), 0.5);
        assert!((rate(1.0, 50, 100, 0.0) - 0.5).abs() < 1e-6);
    }
}
