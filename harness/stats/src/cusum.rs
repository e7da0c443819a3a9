//! Slow creep that no single value shows: one-sided cumulative sums (Page 1954), one for each direction.
//!
//! In: standardised deviations from the target, one per history entry. Out: both sums after every entry, and since when
//! they grow. S = max(0, S + z − k), and S ≥ h is an alarm. With k = ½ and h = 5 an undisturbed series of independent
//! N(0, 1) runs about 930 entries to a false alarm in one direction.

/// k and h, in standard deviations of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cusum {
    /// Half the shift that is found soonest.
    pub allowance: f64,
    pub limit: f64,
}

impl Default for Cusum {
    fn default() -> Cusum {
        Cusum { allowance: 0.5, limit: 5.0 }
    }
}

/// The sums after a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CusumStep {
    pub up: f64,
    pub down: f64,
    /// Index of the first value after the sum was last zero: where a shift, if there is one, probably began.
    pub up_since: usize,
    pub down_since: usize,
}

impl Cusum {
    /// One step a value. Sums go on growing after an alarm. A NaN counts as no deviation.
    pub fn run(&self, deviations: &[f64]) -> Vec<CusumStep> {
        let mut step = CusumStep::default();
        let steps = deviations.iter().enumerate().map(|(index, &z)| {
            let z = if z.is_nan() { 0.0 } else { z };
            step.up = (step.up + z - self.allowance).max(0.0);
            step.down = (step.down - z - self.allowance).max(0.0);
            if step.up == 0.0 {
                step.up_since = index + 1;
            }
            if step.down == 0.0 {
                step.down_since = index + 1;
            }
            step
        });
        steps.collect()
    }

    pub fn is_alarm(&self, sum: f64) -> bool {
        sum >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::normal;

    /// Mean entries to an alarm, upwards and downwards, over `entries` entries whose mean is shifted that way. After an
    /// alarm it begins anew.
    fn run_lengths(shift: f64, entries: usize) -> [f64; 2] {
        let cusum = Cusum::default();
        let noise = normal(7, entries);
        [1.0, -1.0].map(|sign| {
            let series: Vec<f64> = noise.iter().map(|z| z + sign * shift).collect();
            let (mut start, mut alarms, mut ahead) = (0, 0, 64);
            while start + ahead <= entries {
                let steps = cusum.run(&series[start..start + ahead]);
                let sum = |step: &CusumStep| if sign > 0.0 { step.up } else { step.down };
                match steps.iter().position(|step| cusum.is_alarm(sum(step))) {
                    Some(index) => (start, alarms, ahead) = (start + index + 1, alarms + 1, 64),
                    None => ahead *= 4,
                }
            }
            start as f64 / f64::from(alarms)
        })
    }

    /// Siegmund's approximation of the mean run length (Sequential Analysis, 1985), for a mean of `shift`.
    fn siegmund(shift: f64) -> f64 {
        let delta = shift - 0.5;
        let b = 5.0 + 1.166;
        if delta == 0.0 { b * b } else { ((-2.0 * delta * b).exp() + 2.0 * delta * b - 1.0) / (2.0 * delta * delta) }
    }

    /// Undisturbed 930.9 (Brook and Evans' Markov chain; twice the 465 of Montgomery's table for both directions
    /// together); with a shift the table of Lucas and Crosier (1982) for k = ½, h = 5.
    #[test]
    fn run_lengths_are_the_published_ones() {
        for (shift, expected, entries, tolerance) in [
            (0.0, 930.9, 300_000, 0.08),
            (0.5, 38.0, 40_000, 0.05),
            (1.0, 10.4, 20_000, 0.03),
            (2.0, 4.01, 10_000, 0.03),
        ] {
            let [up, down] = run_lengths(shift, entries);
            let got: f64 = (up + down) / 2.0;
            assert!((got / expected - 1.0).abs() < tolerance, "shift {shift}: {up} and {down}, not {expected}");
            assert!((up / down - 1.0).abs() < 3.0 * tolerance, "shift {shift}: {up} and {down}");
            assert!((siegmund(shift) / expected - 1.0).abs() < 0.035, "shift {shift}: {}", siegmund(shift));
        }
    }

    #[test]
    fn by_hand() {
        let steps = Cusum::default().run(&[-1.0, 2.0, 2.5, 3.0, f64::NAN, -9.0]);
        assert_eq!(steps.iter().map(|step| step.up).collect::<Vec<f64>>(), [0.0, 1.5, 3.5, 6.0, 5.5, 0.0]);
        assert_eq!(steps.iter().map(|step| step.down).collect::<Vec<f64>>(), [0.5, 0.0, 0.0, 0.0, 0.0, 8.5]);
        assert_eq!((steps[3].up_since, steps[5].down_since), (1, 5));
        assert!(Cusum::default().is_alarm(steps[3].up) && !Cusum::default().is_alarm(steps[2].up));
    }

    proptest! {
        #[test]
        fn directions_are_mirror_images(deviations in proptest::collection::vec(-8.0..8.0f64, 0..200)) {
            let mirrored: Vec<f64> = deviations.iter().map(|z| -z).collect();
            let (there, back) = (Cusum::default().run(&deviations), Cusum::default().run(&mirrored));
            for (there, back) in there.iter().zip(&back) {
                prop_assert_eq!((there.up, there.up_since), (back.down, back.down_since));
                prop_assert!(there.up >= 0.0 && there.down >= 0.0);
            }
        }
    }
}
