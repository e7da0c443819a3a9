//! Where the level of a series changed for good: E-divisive means in windows, judged by t tests, as in Apache Otava.
//!
//! In: values in the order of time, on a scale where differences count (log ratios). Out: the points that hold, and
//! those that nearly did. Splitting finds candidates with a lenient test; merging removes the weakest until the rest is
//! sound. [`ChangePoints::otava`] gives Otava's own indexes; [`ChangePoints::nightly`] differs in some fields.
//!
//! Sources: Matteson and James, A nonparametric approach for multiple change point analysis of multivariate data (JASA
//! 2014), for the statistic; Fleming et al., Hunter: using change point detection to hunt for performance regressions
//! (ICPE 2023), for windows, t tests and merging.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::interval::{Interval, t_interval};
use crate::quantile::median;
use crate::unfit::{Unfit, check};

/// How to look for change points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoints {
    /// Values a window holds; windows overlap by half.
    pub window: usize,
    /// The largest p-value of a point that holds. Candidates may have ten times that.
    pub p_max: f64,
    /// A point holds if the levels beside it differ by more than this, in the units of the series. (Otava: relative to
    /// the mean, which is meaningless for logarithms.)
    pub min_magnitude: f64,
    /// The fewest values between two points, or between a point and an end. (Otava: 1.)
    pub min_segment: usize,
    /// Winsorise before testing: a value further than four median absolute deviations from the median of the segment to
    /// split is moved to that distance. (Otava does not, and is most often wrong about single outliers.) Both sides
    /// together are that segment: the spread of three values is not known, and winsorising each side by itself doubled
    /// the false alarms where this halves them, at the same power.
    pub winsorise: bool,
    /// After a point is removed, judge both its neighbours anew. (Otava 0.8 judges the next and the next but one, so
    /// that the one before keeps the p-value of a segment that is gone.)
    pub both_neighbours: bool,
}

/// Between the values `index - 1` and `index`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoint {
    /// Of the first value at the new level.
    pub index: usize,
    pub before: Level,
    pub after: Level,
    /// Of the two-sided t test of the levels, as if the place had been known beforehand.
    pub p_value: f64,
    /// A candidate that merging removed: drawn hollow, never reported.
    pub weak: bool,
}

impl ChangePoint {
    /// Level after minus level before.
    pub fn change(&self) -> f64 {
        self.after.mean - self.before.mean
    }
}

/// A stretch without a change point, `start..end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub start: usize,
    pub end: usize,
    /// Of the segment's values, winsorised where [`ChangePoints::winsorise`] is set.
    pub mean: f64,
    /// At 95 %, around `mean` and as wide as the values before winsorising make it; `None` for a single value.
    pub interval: Option<Interval>,
}

impl ChangePoints {
    /// Exactly what Apache Otava 0.8 does, except for magnitudes.
    pub fn otava() -> ChangePoints {
        ChangePoints {
            window: 50,
            p_max: 0.001,
            min_magnitude: 0.0,
            min_segment: 1,
            winsorise: false,
            both_neighbours: false,
        }
    }

    /// For the history of a nightly gate, on logarithms; `min_magnitude` as [`ChangePoints::min_magnitude`].
    pub fn nightly(min_magnitude: f64) -> ChangePoints {
        ChangePoints { min_magnitude, min_segment: 3, winsorise: true, both_neighbours: true, ..ChangePoints::otava() }
    }

    /// All points in order, weak ones among them.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn detect(&self, series: &[f64]) -> Result<Vec<ChangePoint>, Unfit> {
        self.detect_beside(series, &[])
    }

    /// The same where some points are known (`known`: indexes of first values at a new level): no segment crosses one,
    /// and merging never removes one. A known point moves to a detected one nearer than `min_segment`, so that knowing
    /// it changes neither it nor the others; otherwise to the nearest candidate within that distance, otherwise it
    /// stays where it is. Known points at the ends are ignored.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn detect_beside(&self, series: &[f64], known: &[usize]) -> Result<Vec<ChangePoint>, Unfit> {
        check(series, 0)?;
        let candidates = self.split(series);
        let (mut firm, mut weak) = self.merge(series, &candidates, &[]);
        let nearest = |indexes: &[usize], index: usize| {
            let near = indexes.iter().copied().filter(|other| other.abs_diff(index) < self.min_segment);
            near.min_by_key(|other| other.abs_diff(index))
        };
        let inside = known.iter().copied().filter(|&index| index > 0 && index < series.len());
        let known: Vec<usize> = inside
            .map(|index| nearest(&firm, index).or_else(|| nearest(&candidates, index)).unwrap_or(index))
            .collect();
        if known.iter().any(|index| !firm.contains(index)) {
            (firm, weak) = self.merge(series, &candidates, &known);
        }
        let all = firm.iter().map(|&index| (index, false)).chain(weak.into_iter().map(|index| (index, true)));
        let mut found: Vec<ChangePoint> = all.map(|(index, weak)| self.describe(series, &firm, index, weak)).collect();
        found.sort_by_key(|point| point.index);
        Ok(found)
    }

    /// Candidates of all windows. A window begins half a window after the one before, or at its last candidate.
    fn split(&self, series: &[f64]) -> Vec<usize> {
        let window = self.window.max(2);
        let mut found = Vec::new();
        let mut start = 0;
        while start < series.len() {
            let end = series.len().min(start + window);
            let inside = self.split_window(&series[start..end]);
            let last = inside.last().map_or(0, |index| start + index);
            found.extend(inside.into_iter().map(|index| start + index));
            start = last.max(start + window / 2);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Splits where the two sides differ most, then the pieces, until the best split that is left is not significant.
    fn split_window(&self, values: &[f64]) -> Vec<usize> {
        let distances = Distances::within(values);
        let mut bounds = vec![0, values.len()];
        let mut candidates = vec![distances.best_split(0, values.len(), self.min_segment)];
        loop {
            // The first of equals, as everywhere.
            let mut best: Option<(usize, usize, f64)> = None;
            for (piece, candidate) in candidates.iter().enumerate() {
                if let Some((index, q)) = *candidate
                    && best.is_none_or(|(_, _, most)| q > most)
                {
                    best = Some((piece, index, q));
                }
            }
            let Some((piece, index, _)) = best else { break };
            let (low, high) = (bounds[piece], bounds[piece + 1]);
            if self.compare(values, [low, index, high]).p_value > self.lenient() {
                break;
            }
            bounds.insert(piece + 1, index);
            candidates[piece] = distances.best_split(low, index, self.min_segment);
            candidates.insert(piece + 1, distances.best_split(index, high, self.min_segment));
        }
        bounds[1..bounds.len() - 1].to_vec()
    }

    /// The level of significance for candidates, as Otava has it.
    fn lenient(&self) -> f64 {
        match self.p_max {
            p if p < 0.05 => 10.0 * p,
            p if p < 0.5 => 2.0 * p,
            p => p,
        }
    }

    /// Removes points, the least significant first, then the smallest, until all that are left hold. Returns both.
    fn merge(&self, series: &[f64], candidates: &[usize], known: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let mut indexes = [candidates, known].concat();
        indexes.sort_unstable();
        indexes.dedup();
        let point = |index: usize| Point { index, known: known.contains(&index), p_value: 1.0, magnitude: 0.0 };
        let mut points: Vec<Point> = indexes.into_iter().map(point).collect();
        for at in 0..points.len() {
            self.judge(series, &mut points, at);
        }
        let mut removed = Vec::new();
        while let Some(weakest) = self.weakest(series.len(), &points) {
            removed.push(points.remove(weakest).index);
            let stale = match self.both_neighbours {
                true => [weakest.checked_sub(1), Some(weakest)],
                false => [Some(weakest), Some(weakest + 1)],
            };
            for at in stale.into_iter().flatten() {
                if at < points.len() {
                    self.judge(series, &mut points, at);
                }
            }
        }
        (points.into_iter().map(|point| point.index).collect(), removed)
    }

    fn weakest(&self, length: usize, points: &[Point]) -> Option<usize> {
        let sides = |at: usize| {
            let (low, high) = around(points, at, length);
            (points[at].index - low).min(high - points[at].index)
        };
        // Two windows may place the same change at neighbouring indexes: one of such a pair is removed first.
        let crowded = first_most(points, |at| (sides(at) < self.min_segment).then_some(points[at].p_value));
        if crowded.is_some() {
            return crowded;
        }
        let least_significant = first_most(points, |at| Some(points[at].p_value))?;
        if points[least_significant].p_value >= self.p_max {
            return Some(least_significant);
        }
        let smallest = first_most(points, |at| Some(-points[at].magnitude))?;
        (points[smallest].magnitude <= self.min_magnitude).then_some(smallest)
    }

    fn judge(&self, series: &[f64], points: &mut [Point], at: usize) {
        let (low, high) = around(points, at, series.len());
        let index = points[at].index;
        let compared = self.compare(series, [low, index, high]);
        points[at].p_value = compared.p_value;
        points[at].magnitude = compared.magnitude;
    }

    /// Student's t test of `low..index` against `index..high`, two-sided, equal variances. As in Otava the standard
    /// deviations divide by n, not n − 1, which is slightly too confident with few values.
    fn compare(&self, series: &[f64], [low, index, high]: [usize; 3]) -> Compared {
        let magnitude = (self.middle(&series[index..high]) - self.middle(&series[low..index])).abs();
        let (left, right) = match self.tamed(&series[low..high]) {
            Some(both) => (both[..index - low].to_vec(), both[index - low..].to_vec()),
            None => (self.level_values(&series[low..index]), self.level_values(&series[index..high])),
        };
        let (mean_left, variance_left) = moments(&left);
        let (mean_right, variance_right) = moments(&right);
        let (n_left, n_right) = (left.len() as f64, right.len() as f64);
        let freedom = n_left + n_right - 2.0;
        let difference = (mean_right - mean_left).abs();
        if freedom < 1.0 {
            return Compared { p_value: 1.0, magnitude };
        }
        let pooled = ((n_left - 1.0) * variance_left + (n_right - 1.0) * variance_right) / freedom;
        let t = difference / (pooled * (1.0 / n_left + 1.0 / n_right)).sqrt();
        let p_value = match StudentsT::new(0.0, 1.0, freedom) {
            Ok(student) if t.is_finite() => 2.0 * student.sf(t),
            // No spread on either side: certain, or no difference.
            _ if t == f64::INFINITY => 0.0,
            _ => 1.0,
        };
        Compared { p_value, magnitude }
    }

    /// The mean, of winsorised values where that is set.
    fn middle(&self, values: &[f64]) -> f64 {
        moments(&self.level_values(values)).0
    }

    /// Winsorised; where more than half of the values are equal, that value is the level and the others are outliers.
    fn level_values(&self, values: &[f64]) -> Vec<f64> {
        match median(values) {
            Ok(middle) if self.winsorise => self.tamed(values).unwrap_or_else(|| vec![middle; values.len()]),
            _ => values.to_vec(),
        }
    }

    /// Winsorised, or as they are where that is not set. `None` where more than half of the values are equal, as sizes
    /// are: all would become that value, and the few others may be a new level.
    fn tamed(&self, values: &[f64]) -> Option<Vec<f64>> {
        if !self.winsorise {
            return Some(values.to_vec());
        }
        let middle = median(values).ok()?;
        let deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
        let reach = 4.0 * median(&deviations).ok()?;
        (reach > 0.0).then(|| values.iter().map(|value| value.clamp(middle - reach, middle + reach)).collect())
    }

    /// With the segments as they are in the end: `firm` has their bounds.
    fn describe(&self, series: &[f64], firm: &[usize], index: usize, weak: bool) -> ChangePoint {
        let low = firm.iter().rev().find(|&&other| other < index).copied().unwrap_or(0);
        let high = firm.iter().find(|&&other| other > index).copied().unwrap_or(series.len());
        ChangePoint {
            index,
            before: self.level(series, low, index),
            after: self.level(series, index, high),
            p_value: self.compare(series, [low, index, high]).p_value,
            weak,
        }
    }

    fn level(&self, series: &[f64], start: usize, end: usize) -> Level {
        let values = &series[start..end];
        let mean = self.middle(values);
        // As wide as the values are, not as wide as they were made.
        let interval = t_interval(values, 0.95).ok().map(|raw| raw.map(|limit| limit - raw.estimate + mean));
        Level { start, end, mean, interval }
    }
}

struct Point {
    index: usize,
    known: bool,
    p_value: f64,
    magnitude: f64,
}

struct Compared {
    p_value: f64,
    magnitude: f64,
}

/// Where the segments beside a point begin and end.
fn around(points: &[Point], at: usize, length: usize) -> (usize, usize) {
    let low = at.checked_sub(1).map_or(0, |before| points[before].index);
    (low, points.get(at + 1).map_or(length, |after| after.index))
}

/// The first point with the largest value, of those that have one and may be removed.
fn first_most(points: &[Point], value: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    let mut most: Option<(usize, f64)> = None;
    for at in (0..points.len()).filter(|&at| !points[at].known) {
        if let Some(value) = value(at)
            && most.is_none_or(|(_, largest)| value > largest)
        {
            most = Some((at, value));
        }
    }
    most.map(|(at, _)| at)
}

/// Mean and variance (dividing by n); `values` has at least one.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n)
}

/// Sums of the distances between all pairs of values in `a..b`, for every a and b: the statistic needs these.
struct Distances {
    length: usize,
    sums: Vec<f64>,
}

impl Distances {
    fn within(values: &[f64]) -> Distances {
        let length = values.len();
        let mut distances = Distances { length, sums: vec![0.0; (length + 1) * (length + 1)] };
        for b in 1..=length {
            let mut to_last = 0.0;
            for a in (0..b - 1).rev() {
                to_last += (values[a] - values[b - 1]).abs();
                distances.sums[a * (length + 1) + b] = distances.sum(a, b - 1) + to_last;
            }
        }
        distances
    }

    fn sum(&self, a: usize, b: usize) -> f64 {
        self.sums[a * (self.length + 1) + b]
    }

    /// Where in `low..high` the values before differ most from the values up to any κ behind, and the statistic there:
    /// Q(τ, κ) = mn/(m + n) · (2 mean|x − y| − mean|x − x′| − mean|y − y′|) with n values before τ and m from τ to κ.
    fn best_split(&self, low: usize, high: usize, least: usize) -> Option<(usize, f64)> {
        let least = least.max(1);
        let mut best: Option<(usize, f64)> = None;
        for tau in low + least..high {
            let before = self.sum(low, tau);
            let n = (tau - low) as f64;
            for kappa in tau + least..=high {
                let after = self.sum(tau, kappa);
                let between = self.sum(low, kappa) - before - after;
                let m = (kappa - tau) as f64;
                let mut q = 2.0 * between / (m + n);
                if n > 1.0 {
                    q -= 2.0 * m / (m + n) / (n - 1.0) * before;
                }
                if m > 1.0 {
                    q -= 2.0 * n / (m + n) / (m - 1.0) * after;
                }
                if best.is_none_or(|(_, most)| q > most) {
                    best = Some((tau, q));
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests;
