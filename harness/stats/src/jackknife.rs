//! How far a number that is made of all samples together (R2, F1, mean IoU) is off, by leaving out groups of samples:
//! the delete-a-group jackknife (Shao and Wu, "A General Theory for Jackknife Variance Estimation", 1989; Efron and
//! Tibshirani, "An Introduction to the Bootstrap", 1993, section 11). For the difference of two models on the same
//! samples it is paired, since both leave out the same.

use crate::{student::t_quantile, unfit::Unfit};

/// A drop of a metric, in the metric's own unit; above zero if the new answers are worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricDrop {
    pub observed: f64,
    pub standard_error: f64,
    /// Degrees of freedom of the error.
    pub freedom: usize,
}

impl MetricDrop {
    /// The drop is smaller than this with `confidence` in (0, 1), one-sided.
    pub fn upper(self, confidence: f64) -> f64 {
        self.observed + t_quantile(confidence, self.freedom) * self.standard_error
    }

    /// The limits between which the drop is with `confidence`.
    pub fn interval(self, confidence: f64) -> (f64, f64) {
        let half = t_quantile(0.5 + confidence / 2.0, self.freedom) * self.standard_error;
        (self.observed - half, self.observed + half)
    }

    /// How often a drop as large would be seen if there were none, one-sided.
    pub fn p_value(self) -> f64 {
        crate::student::t_p_value(self.observed, self.standard_error, self.freedom, 0.0)
    }
}

/// The most groups: more would make the error no surer.
const GROUPS: usize = 50;

/// `drop_of` gives the drop over those samples of which its argument is true; sample `i` is in group `i` modulo the
/// number of groups. As if two more samples had changed, one for the worse and one for the better, 2 / (n + 2)² is
/// added to the squared error: without this no change at all would claim an error of zero (as Bonett and Price, 2012,
/// have it for shares).
///
/// # Errors
/// Fewer than two samples; a drop that is not known or not finite.
pub fn metric_drop(
    samples: usize,
    drop_of: impl Fn(&dyn Fn(usize) -> bool) -> Option<f64>,
) -> Result<MetricDrop, Unfit> {
    if samples < 2 {
        return Err(Unfit::TooFew { needed: 2, given: samples });
    }
    let finite = |drop: Option<f64>| drop.filter(|drop| drop.is_finite()).ok_or(Unfit::NotFinite);
    let groups = samples.min(GROUPS);
    let observed = finite(drop_of(&|_| true))?;
    let without = |group: usize| finite(drop_of(&|sample: usize| sample % groups != group));
    let without: Vec<f64> = (0..groups).map(without).collect::<Result<_, _>>()?;
    let mean = without.iter().sum::<f64>() / groups as f64;
    let squares: f64 = without.iter().map(|drop| (drop - mean).powi(2)).sum();
    let floor = 2.0 / (samples as f64 + 2.0).powi(2);
    let standard_error = (squares * (groups - 1) as f64 / groups as f64 + floor).sqrt();
    Ok(MetricDrop { observed, standard_error, freedom: groups - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a mean the jackknife's error is s / √n.
    #[test]
    fn of_a_mean_it_is_the_standard_error() {
        let drops = [0.3, -0.1, 0.0, 0.2, 0.6, -0.4, 0.1];
        let mean = |keep: &dyn Fn(usize) -> bool| {
            let kept: Vec<f64> = (0..drops.len()).filter(|index| keep(*index)).map(|index| drops[index]).collect();
            Some(kept.iter().sum::<f64>() / kept.len() as f64)
        };
        let drop = metric_drop(drops.len(), mean).unwrap();
        let usual = crate::sd(&drops).unwrap() / 7f64.sqrt();
        let floor = 2.0 / 81.0;
        assert!((drop.standard_error - (usual * usual + floor).sqrt()).abs() < 1e-12, "{drop:?}");
        assert!((drop.observed - 0.1).abs() < 1e-12 && drop.freedom == 6);
        let (low, high) = drop.interval(0.95);
        assert!(low < 0.1 && high > drop.upper(0.95));
    }

    #[test]
    fn no_change_at_all_is_no_certainty() {
        let upper = |samples: usize| metric_drop(samples, |_| Some(0.0)).unwrap().upper(0.95);
        assert!(upper(100) > 0.01 && upper(1000) < 0.01, "{} {}", upper(100), upper(1000));
        assert!(metric_drop(1, |_| Some(0.0)).is_err() && metric_drop(9, |_| None).is_err());
        assert!(metric_drop(9, |_| Some(f64::NAN)).is_err());
    }
}
