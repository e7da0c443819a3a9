//! From the raw times of a device's invocations to its calibration: the warm-up, the length of an invocation, which
//! quantiles are judged, and how much times differ between builds. Times in, decisions out; `cargo xtask calibrate`
//! measures.
//!
//! Spreads are compared with three limits only (2, 4.5 and 7 %): 20 pairs cannot tell 1.1 from 1.2 %, and the shorter
//! invocation wins.

use std::collections::BTreeMap;

use espalier_stats::{
    Unfit, autocorrelation, mean, median, quantile_of_sorted, quantile_r8, sd, sorted, steady_from, variance_levels,
};

use super::{Fit, ModelCalibration};
use crate::Criterion;
use espalier_bench::plan::Effort;

/// Invocations for the warm-up: long enough to see 1 % of a median, and not shorter than two of its windows.
pub const WARM_UPS: usize = 20;
pub const WARM_UP_EFFORT: Effort = Effort { warmup: 0, iterations: 40, min_time_ms: 600 };
/// Blocks ABBA or BAAB of the same artifact in both arms: twice as many pairs.
pub const BLOCKS: usize = 10;
/// Lengths of the timed part of an invocation that are tried in turn, in ms.
pub const LENGTHS_MS: [u64; 3] = [200, 500, 1000];
/// Invocations of each build, there and back.
pub const LAYOUT_ROUNDS: usize = 8;
/// Builds from which on a spread can be estimated.
pub const LEAST_LAYOUTS: u32 = 3;

/// Pair SDs up to which a device is fit.
pub const RELEASE: f64 = 0.02;
pub const NIGHTLY: f64 = 0.045;
/// And up to which its tail is judged.
pub const TAIL: f64 = 0.07;

/// Inferences of an invocation, at least: for a median, and for a tail.
const LEAST: u32 = 30;
pub const LEAST_OF_A_TAIL: usize = super::TAIL_ITERATIONS as usize;
/// Warm-up where none can be estimated.
const USUAL_WARM_UP: u32 = 10;

#[derive(Clone, Debug, PartialEq)]
pub struct WarmUp {
    /// In inferences.
    pub warmup: u32,
    /// Invocations used, and those of them that never became steady.
    pub invocations: usize,
    pub never_steady: usize,
    /// Of one inference once it is warm, in ns.
    pub median_ns: f64,
}

/// The warm-up of invocations that were timed from their second inference on: 1.5 times the 95th percentile of the
/// inference from which they are steady, at least 1.
///
/// An invocation that becomes steady in its second half only, or never, shows a change of speed and not a warm-up: it
/// is left out and counted, and the warm-up is at most half of the shortest invocation. Where less than half of them
/// become steady the warm-up is 10.
///
/// # Errors
/// No invocation, or one without a time above zero.
pub fn warm_up<T: AsRef<[u64]>>(invocations: &[T]) -> Result<WarmUp, Unfit> {
    let times: Vec<Vec<f64>> = invocations.iter().map(|times| floats(times.as_ref())).collect();
    let halves = times.iter().map(|times| median(&times[times.len() / 2..])).collect::<Result<Vec<f64>, Unfit>>()?;
    let median_ns = median(&halves)?;
    if times.iter().flatten().any(|ns| *ns <= 0.0) {
        return Err(Unfit::NotPositive);
    }
    let steady: Vec<f64> = times
        .iter()
        .map(|times| (steady_from(times), times.len() / 2))
        .filter_map(|(from, half)| (from <= half).then_some(from as f64))
        .collect();
    let most = times.iter().map(|times| times.len() / 2).min().unwrap_or_default();
    let warmup = match quantile_r8(&steady, 0.95) {
        Ok(late) if 2 * steady.len() >= times.len() => ((1.5 * late).ceil() as u32).min(most as u32),
        _ => USUAL_WARM_UP,
    };
    let never_steady = times.len() - steady.len();
    Ok(WarmUp { warmup: warmup.max(1), invocations: times.len(), never_steady, median_ns })
}

impl WarmUp {
    /// The effort of an invocation of about so many ms. A fixed number of inferences, because the fastest of more is
    /// faster.
    pub fn effort(&self, length_ms: u64) -> Effort {
        let iterations = (length_ms as f64 * 1e6 / self.median_ns).ceil() as u32;
        Effort { warmup: self.warmup, iterations: iterations.max(LEAST), min_time_ms: 0 }
    }
}

/// An invocation's length, tried with pairs of the same artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Length {
    pub ms: u64,
    /// Inferences of an invocation; the median of them.
    pub iterations: u32,
    pub pairs: usize,
    /// Standard deviation of the difference of two neighbours' logarithms. The tail only where every invocation has 300
    /// values.
    pub pair_sd: BTreeMap<Criterion, f64>,
}

/// `pairs`: neighbours, the baseline's times first.
///
/// # Errors
/// Fewer than two pairs, an invocation without times, or a time of zero.
pub fn length<T: AsRef<[u64]>>(ms: u64, pairs: &[[T; 2]]) -> Result<Length, Unfit> {
    let sorted_pairs = pairs
        .iter()
        .map(|[a, b]| Ok([sorted(&floats(a.as_ref()))?, sorted(&floats(b.as_ref()))?]))
        .collect::<Result<Vec<[Vec<f64>; 2]>, Unfit>>()?;
    let counts: Vec<f64> = sorted_pairs.iter().flatten().map(|times| times.len() as f64).collect();
    let fewest = counts.iter().copied().fold(f64::INFINITY, f64::min);
    if fewest < 1.0 {
        return Err(Unfit::TooFew { needed: 1, given: 0 });
    }
    let mut pair_sd = BTreeMap::new();
    for criterion in Criterion::ALL {
        let Some(quantile) = criterion.quantile() else { continue };
        if quantile > 0.5 && fewest < LEAST_OF_A_TAIL as f64 {
            continue;
        }
        let logarithm = |times: &[f64]| quantile_of_sorted(times, quantile).ln();
        let differences: Vec<f64> = sorted_pairs.iter().map(|[a, b]| logarithm(b) - logarithm(a)).collect();
        // The logarithm of a time of zero is not finite: an error.
        pair_sd.insert(criterion, sd(&differences)?);
    }
    Ok(Length { ms, iterations: median(&counts)? as u32, pairs: pairs.len(), pair_sd })
}

impl Length {
    /// Whether longer invocations need not be tried.
    pub fn is_enough(&self) -> bool {
        self.is_within(Criterion::P50, RELEASE)
    }

    fn is_within(&self, criterion: Criterion, limit: f64) -> bool {
        self.pair_sd.get(&criterion).is_some_and(|sd| *sd <= limit)
    }
}

/// What is judged, and at which length.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub length: Length,
    pub judged: Criterion,
    pub tail: Option<Criterion>,
    pub fit: Fit,
}

/// The first of these rules that any length satisfies, at the shortest that does: the spread of the median within 2 %,
/// within 4.5 %, that of the fastest inference within 2 %, within 4.5 %. Else the median at the length where it spreads
/// least, and not fit. The tail is p95 where that is within 7 %.
///
/// The median comes first although the fastest inference varies less on nearly every board: it is what users notice,
/// and a candidate that is slower in half of its inferences changes it. The fastest is for machines that share their
/// processor, where the median jumps between speeds.
///
/// `None` without lengths.
pub fn choose(lengths: &[Length]) -> Option<Choice> {
    let rules = [
        (Criterion::P50, RELEASE, Fit::Release),
        (Criterion::P50, NIGHTLY, Fit::Nightly),
        (Criterion::Fastest, RELEASE, Fit::Release),
        (Criterion::Fastest, NIGHTLY, Fit::Nightly),
    ];
    let kept = rules.into_iter().find_map(|(criterion, limit, fit)| {
        let length = lengths.iter().find(|length| length.is_within(criterion, limit))?;
        Some((length, criterion, fit))
    });
    let spread = |length: &Length| length.pair_sd.get(&Criterion::P50).copied().unwrap_or(f64::INFINITY);
    let least = || lengths.iter().min_by(|one, other| spread(one).total_cmp(&spread(other)));
    let (length, judged, fit) = kept.or_else(|| Some((least()?, Criterion::P50, Fit::Unfit)))?;
    let tail = Some(Criterion::P95).filter(|tail| length.is_within(*tail, TAIL));
    Some(Choice { length: length.clone(), judged, tail, fit })
}

impl Choice {
    /// Inferences of an invocation. Twice as many as were tried where the fastest is judged: an invocation without any
    /// undisturbed moment is too rare to be seen in 20 pairs (1 of 200 at 1 s on a shared server) and spoils a session;
    /// in twice the time its probability is squared.
    pub fn iterations(&self) -> u32 {
        let factor = if self.judged == Criterion::Fastest { 2 } else { 1 };
        self.length.iterations.max(LEAST).saturating_mul(factor)
    }

    pub fn calibration(&self, warmup: u32) -> ModelCalibration {
        ModelCalibration {
            warmup,
            iterations: self.iterations(),
            min_time_ms: 0,
            judged: self.judged,
            tail: self.tail,
            pair_sd: self.length.pair_sd.clone(),
            fit: self.fit,
        }
    }
}

/// What more inferences in an invocation would gain (Kalibera and Jones 2013): for information, nothing is decided by
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    /// The best number for a given total time, with an invocation's start and warm-up included.
    pub best: u64,
    /// Beyond this many the error within an invocation is negligible beside the spread between them.
    pub enough: Option<u64>,
}

/// `invocations`: raw times in order, and the wall time in ms. `None` where invocations do not differ, or are too few.
pub fn worth<T: AsRef<[u64]>>(invocations: &[(T, u64)]) -> Option<Worth> {
    let logs = |times: &[u64]| times.iter().map(|ns| (*ns as f64).ln()).collect::<Vec<f64>>();
    let all: Vec<Vec<f64>> = invocations.iter().map(|(times, _)| logs(times.as_ref())).collect();
    let levels = variance_levels(&all).ok()?;
    let total = |times: &[u64]| times.iter().sum::<u64>() as f64;
    let timed: f64 = invocations.iter().map(|(times, _)| total(times.as_ref())).sum();
    let wall: f64 = invocations.iter().map(|(_, wall_ms)| *wall_ms as f64 * 1e6).sum();
    let inferences: usize = all.iter().map(Vec::len).sum();
    let overhead = (wall - timed).max(0.0) / all.len() as f64;
    let phi: Vec<f64> = all.iter().filter_map(|values| autocorrelation(values, 1)).collect();
    let enough = median(&phi).ok().and_then(|phi| levels.enough_iterations(phi));
    Some(Worth { best: levels.best_iterations(timed / inferences as f64, overhead)?, enough })
}

/// The logarithm of an invocation's quantile.
///
/// # Errors
/// No time, or one of zero.
pub fn statistic(times: &[u64], criterion: Criterion) -> Result<f64, Unfit> {
    let value = quantile_r8(&floats(times), criterion.quantile().ok_or(Unfit::NotFinite)?)?;
    if value > 0.0 { Ok(value.ln()) } else { Err(Unfit::NotPositive) }
}

/// Standard deviation of the logarithm of the time between builds of the same code, less the variation of one
/// invocation of a build, at least 0. `rounds`: one statistic of each build in each, builds in the same order.
///
/// Two-way analysis of variance without repetition (rounds, builds): T² = (MS_builds − MS_rest) / rounds. Differences
/// between rounds are removed.
///
/// # Errors
/// Fewer than two rounds or builds, rounds of different length, or a value that is not finite.
pub fn layout_sd(rounds: &[Vec<f64>]) -> Result<f64, Unfit> {
    let builds = rounds.first().map_or(0, Vec::len);
    if let Some(other) = rounds.iter().find(|round| round.len() != builds) {
        return Err(Unfit::NotPaired { base: builds, other: other.len() });
    }
    if rounds.len() < 2 || builds < 2 {
        return Err(Unfit::TooFew { needed: 2, given: rounds.len().min(builds) });
    }
    let round_means = rounds.iter().map(|round| mean(round)).collect::<Result<Vec<f64>, Unfit>>()?;
    let build_mean = |build: usize| {
        let centred = rounds.iter().zip(&round_means).map(|(round, mean)| round[build] - mean);
        centred.sum::<f64>() / rounds.len() as f64
    };
    let effects: Vec<f64> = (0..builds).map(build_mean).collect();
    let rest: f64 = rounds
        .iter()
        .zip(&round_means)
        .flat_map(|(round, mean)| round.iter().zip(&effects).map(move |(x, effect)| (x - mean - effect).powi(2)))
        .sum();
    let freedom = ((builds - 1) * (rounds.len() - 1)) as f64;
    let between = sd(&effects)?.powi(2) - rest / freedom / rounds.len() as f64;
    Ok(between.max(0.0).sqrt())
}

fn floats(times: &[u64]) -> Vec<f64> {
    times.iter().map(|ns| *ns as f64).collect()
}

#[cfg(test)]
mod tests;
