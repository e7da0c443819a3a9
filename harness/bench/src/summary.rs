//! Summarises a run: one row for each planned case, measured or not. What is missing is `None`, never zero.
//!
//! Times are estimated from invocations, not from single inferences: p50 is the geometric mean of the invocations'
//! medians with Student's t interval, and the speed-up pairs invocations of the same round, which ran one after the
//! other. All intervals are at 95 %.

mod answers;
mod peers;

use std::collections::{BTreeMap, BTreeSet};

use espalier_protocol::{BoardState, LayerKernel, LayerTime, Macs, Mode, Predictions, Text, float};
use espalier_stats::{Interval, Unfit};
use serde::{Deserialize, Serialize};

pub use answers::{Score, answers};
pub use peers::{Against, SAME_OUTPUT};

use self::answers::agreement;
use crate::{
    engine::Engine,
    metric::{Bounds, Bytes, Estimate, Metric, Nanoseconds},
    record::{Case, DeviceInfo, FailureStage, Measurement, ModelInfo, Outcome, Run, VariantInfo},
};

pub const CONFIDENCE: f64 = 0.95;

/// With fewer values a p99 would be the maximum.
pub const P99_VALUES: usize = 100;

/// Standard deviation of the logarithms of the invocations' medians above which times are [`Trust::Noisy`].
pub const NOISY_LOG_SD: f64 = 0.045;

/// Share of the highest frequency below which a board under the `performance` governor is [`Trust::Throttled`].
pub const FULL_FREQUENCY: f64 = 0.95;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseSummary {
    pub case: Case,
    pub variant: VariantInfo,
    /// Removed over prunable units; `None` if the model has nothing to prune.
    #[serde(default, with = "float")]
    pub effective_ratio: Option<f64>,
    /// Prunable weights left.
    pub weights_kept: u64,
    pub file: Bytes,
    pub macs: Option<Macs>,
    /// Timing invocations requested.
    pub planned_invocations: u32,
    /// The median of each timing invocation, by round.
    pub invocation_medians: Vec<Nanoseconds>,
    /// Number of raw times in all of them.
    pub values: usize,
    /// Parsing and optimising; median over the timing invocations.
    pub load: Option<Nanoseconds>,
    /// First inference; median over the timing invocations.
    pub first: Option<Nanoseconds>,
    pub p50: Option<Estimate<Nanoseconds>>,
    /// Of all raw values; the interval allows for differences between invocations.
    pub p90: Option<Estimate<Nanoseconds>>,
    /// As `p90`; `None` below [`P99_VALUES`] values.
    pub p99: Option<Estimate<Nanoseconds>>,
    /// Time of the dense variant over this one's, same device and engine; `None` for the dense variant itself.
    pub speed_up: Option<Estimate<f64>>,
    /// Speed-up over the run's other engines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<Against>,
    /// The highest of the memory invocations, from the Linux kernel.
    pub peak_rss: Option<Bytes>,
    /// The same, from the runner's counting allocator.
    pub peak_allocated: Option<Bytes>,
    /// Against the eval set's labels, where an answer is right or wrong.
    pub accuracy: Option<Share>,
    /// Against the dense variant on the same device; `None` for the dense variant itself.
    pub change: Option<AccuracyChange>,
    /// Against the eval set's labels, where the task has another metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Against the dense variant on the same device; `None` for the dense variant itself.
    pub same_as_dense: Option<Agreement>,
    /// Against the same variant on the run's reference device; `None` for that device itself.
    pub same_as_reference: Option<Agreement>,
    /// Against the same variant by the default engine on the same device; `None` for that engine itself.
    #[serde(rename = "same_as_usual", default, skip_serializing_if = "Option::is_none")]
    pub same_as_espalier: Option<Agreement>,
    /// How many predictions are not finite numbers; `None` where all are, and in earlier exports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_finite: Option<NotFiniteCount>,
    /// As the engine reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<Text>,
    /// Each layer's kernel, from the first invocation that reported any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<LayerKernel>,
    /// Times by layer, with `--profile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<LayerTime>,
    /// `None` if there are no times.
    pub trust: Option<Trust>,
    /// Jobs that failed and did not succeed later.
    pub failures: Vec<CaseFailure>,
}

/// Samples of which some output value is not a finite number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFiniteCount {
    pub nan: u64,
    /// Infinite and without NaN, which a masked logit may well be.
    pub infinite: u64,
    pub total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub correct: u64,
    pub total: u64,
}

impl Share {
    /// 0 to 1.
    pub fn fraction(self) -> f64 {
        self.correct as f64 / self.total as f64
    }
}

/// How many samples changed between right and wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyChange {
    /// Dense right, this variant wrong.
    pub lost: u64,
    /// Dense wrong, this variant right.
    pub won: u64,
    pub total: u64,
    /// McNemar's exact two-sided test.
    #[serde(with = "float")]
    pub p_value: f64,
}

impl AccuracyChange {
    /// New minus old accuracy, as a fraction.
    pub fn fraction(self) -> f64 {
        (self.won as f64 - self.lost as f64) / self.total as f64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Samples with the same answer: the same class, or numbers that differ by rounding.
    pub equal: u64,
    pub total: u64,
    /// Largest absolute difference of two output values; `None` where outputs were not sent.
    #[serde(default, with = "float")]
    pub largest_difference: Option<f32>,
    /// Largest magnitude of the reference's outputs; `None` where outputs were not sent, and in earlier exports.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "float")]
    pub largest_value: Option<f32>,
}

/// How reliable a case's times are: the first that applies of `emulated`, `throttled`, `noisy`, `ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    Ok,
    /// The invocations' medians spread by more than [`NOISY_LOG_SD`], or there are fewer than two.
    Noisy,
    /// In some invocation the board reported throttling, or was below [`FULL_FREQUENCY`] of its highest frequency
    /// afterwards although its governor is `performance`.
    Throttled,
    /// The device is a program on the host.
    Emulated,
}

impl Trust {
    pub fn name(self) -> &'static str {
        match self {
            Trust::Ok => "ok",
            Trust::Noisy => "noisy",
            Trust::Throttled => "throttled",
            Trust::Emulated => "emulated",
        }
    }
}

/// Equal failures of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseFailure {
    pub mode: Mode,
    pub stage: FailureStage,
    /// As recorded.
    pub message: Text,
    pub count: usize,
}

/// By model, then device, then engine, then variant, in the header's order.
pub fn summarise(run: &Run) -> Vec<CaseSummary> {
    let mut summaries = Vec::new();
    for model in &run.header.models {
        for device in &run.header.devices {
            for engine in &run.header.engines {
                let case = |variant: &VariantInfo| Case {
                    engine: *engine,
                    ..Case::new(&model.name, variant.ratio, &device.name)
                };
                let rows =
                    model.variants.iter().map(|variant| summarise_case(run, model, device, variant, case(variant)));
                summaries.extend(rows);
            }
        }
    }
    summaries
}

impl CaseSummary {
    pub fn is_dense(&self) -> bool {
        self.case.ratio == 0.0
    }

    pub fn against(&self, engine: Engine) -> Option<&Against> {
        self.against.iter().find(|against| against.engine == engine)
    }

    /// Whether anything was measured.
    pub fn has_results(&self) -> bool {
        self.p50.is_some()
            || self.peak_rss.is_some()
            || self.accuracy.is_some()
            || self.score.is_some()
            || self.macs.is_some()
    }

    /// In the metric's own unit.
    pub fn value(&self, metric: Metric) -> Option<Estimate<f64>> {
        let bytes = |bytes: Option<Bytes>| bytes.map(|Bytes(bytes)| Estimate::exact(bytes as f64));
        let time = |time: Option<Nanoseconds>| time.map(|Nanoseconds(ns)| Estimate::exact(ns));
        let estimate = |time: Option<Estimate<Nanoseconds>>| time.map(|time| time.map(|Nanoseconds(ns)| ns));
        match metric {
            Metric::WeightsKept => Some(Estimate::exact(self.weights_kept as f64)),
            Metric::MacsExecuted => self.macs.map(|macs| Estimate::exact(macs.executed as f64)),
            Metric::MacsNonzero => self.macs.map(|macs| Estimate::exact(macs.nonzero as f64)),
            Metric::File => bytes(Some(self.file)),
            Metric::Packed => bytes(self.variant.packed.as_ref().map(|packed| Bytes(packed.lossless))),
            Metric::PackedCodebook => {
                bytes(self.variant.packed.as_ref().and_then(|packed| packed.bitmap_codebook).map(Bytes))
            }
            Metric::Load => time(self.load),
            Metric::First => time(self.first),
            Metric::P50 => estimate(self.p50),
            Metric::P90 => estimate(self.p90),
            Metric::P99 => estimate(self.p99),
            Metric::SpeedUp => self.speed_up,
            Metric::VsTract => self.against(Engine::Tract).and_then(|against| against.dense),
            Metric::VsOnnxruntime => self.against(Engine::Onnxruntime).and_then(|against| against.dense),
            Metric::PeakRss => bytes(self.peak_rss),
            Metric::PeakAllocated => bytes(self.peak_allocated),
            Metric::Accuracy => self.accuracy.map(|accuracy| Estimate::exact(accuracy.fraction())),
        }
    }
}

fn summarise_case(run: &Run, model: &ModelInfo, device: &DeviceInfo, variant: &VariantInfo, case: Case) -> CaseSummary {
    let dense = (variant.ratio != 0.0).then(|| Case { ratio: 0.0, ..case.clone() });
    // The reference device runs the default engine; other engines are compared with that one on the device itself.
    let reference = run.header.reference_device.clone().filter(|reference| *reference != device.name);
    let reference = reference.filter(|_| case.engine.is_default());
    let reference = reference.map(|device| Case { device, ..case.clone() });

    let times = Times::of(run, &case);
    let medians: Vec<f64> = times.rounds.values().map(|invocation| invocation.median).collect();
    let predictions = predictions(run, &case);
    let dense_predictions = dense.as_ref().and_then(|dense| self::predictions(run, dense));
    let reference_predictions = reference.as_ref().and_then(|reference| self::predictions(run, reference));
    let judged = predictions.map(|own| answers::judged(model, dense_predictions, own, dense.is_none()));
    let judged = judged.unwrap_or_default();
    let memory = |bytes: fn(&espalier_protocol::Memory) -> u64| {
        let memories = run.measured(&case, Mode::Memory).filter_map(|(_, measurement)| measurement.memory.as_ref());
        memories.map(bytes).max().map(Bytes)
    };

    CaseSummary {
        effective_ratio: effective_ratio(variant),
        weights_kept: variant.prunable.saturating_sub(variant.removed),
        file: Bytes(variant.bytes),
        macs: run.measured(&case, Mode::Score).find_map(|(_, measurement)| measurement.loaded.macs),
        planned_invocations: run.header.protocol.runs,
        values: times.len(),
        load: times.median_of(|invocation| Some(invocation.load)),
        first: times.median_of(|invocation| invocation.first),
        p50: times.p50(&medians),
        p90: times.quantile(0.9),
        p99: times.quantile(0.99).filter(|_| times.len() >= P99_VALUES),
        speed_up: dense.as_ref().and_then(|dense| speed_up(&Times::of(run, dense), &times)),
        peak_rss: memory(|memory| memory.peak_rss),
        // A process that has read a model has allocated memory: 0 means "not counted".
        peak_allocated: memory(|memory| memory.peak_allocated).filter(|bytes| bytes.0 > 0),
        accuracy: judged.accuracy,
        change: judged.change,
        score: judged.score,
        same_as_dense: dense_predictions.zip(predictions).and_then(|(dense, new)| agreement(model, dense, new)),
        same_as_reference: reference_predictions
            .zip(predictions)
            .and_then(|(reference, new)| agreement(model, reference, new)),
        against: peers::against(run, &case, &times),
        same_as_espalier: peers::same_as_espalier(run, model, &case),
        not_finite: predictions.and_then(not_finite),
        engine_version: of_case(run, &case).next().map(|measurement| measurement.hello.engine.clone()),
        kernels: first_filled(of_case(run, &case).map(|measurement| &measurement.kernels)),
        profile: first_filled(of_case(run, &case).map(|measurement| &measurement.profile)),
        trust: trust(run, &case, device, &medians),
        failures: failures(run, &case, judged.failure.as_deref()),
        invocation_medians: medians.into_iter().map(Nanoseconds).collect(),
        variant: variant.clone(),
        case: case.clone(),
    }
}

/// Counted in units; older runs have weights only.
fn effective_ratio(variant: &VariantInfo) -> Option<f64> {
    let (all, removed) = variant.units.zip(variant.removed_units).unwrap_or((variant.prunable, variant.removed));
    (all > 0).then(|| removed as f64 / all as f64)
}

/// The timing invocations of a case that measured anything, by round.
struct Times {
    rounds: BTreeMap<u32, Invocation>,
}

struct Invocation {
    raw: Vec<f64>,
    median: f64,
    load: f64,
    first: Option<f64>,
}

impl Times {
    fn of(run: &Run, case: &Case) -> Times {
        // Of a round that was measured twice the later one counts.
        let measured = run.measured(case, Mode::Time);
        Times { rounds: measured.filter_map(|(record, raw)| Some((record.round, invocation(raw)?))).collect() }
    }

    fn len(&self) -> usize {
        self.rounds.values().map(|invocation| invocation.raw.len()).sum()
    }

    fn median_of(&self, number: impl Fn(&Invocation) -> Option<f64>) -> Option<Nanoseconds> {
        let numbers: Vec<f64> = self.rounds.values().filter_map(number).collect();
        espalier_stats::median(&numbers).ok().map(Nanoseconds)
    }

    fn p50(&self, medians: &[f64]) -> Option<Estimate<Nanoseconds>> {
        let interval = espalier_stats::geometric_mean_interval(medians, CONFIDENCE);
        estimate(interval, || espalier_stats::geometric_mean(medians)).map(|time| time.map(Nanoseconds))
    }

    fn quantile(&self, q: f64) -> Option<Estimate<Nanoseconds>> {
        let streams: Vec<&[f64]> = self.rounds.values().map(|invocation| invocation.raw.as_slice()).collect();
        let (value, interval) = espalier_stats::clustered_quantile(&streams, q, CONFIDENCE).ok()?;
        Some(Estimate { value, bounds: interval.map(bounds) }.map(Nanoseconds))
    }
}

fn invocation(measurement: &Measurement) -> Option<Invocation> {
    let raw: Vec<f64> = measurement.timed_ns.iter().map(|ns| *ns as f64).collect();
    // A median of 0 ns means that the clock did not tick: no time was measured.
    let median = espalier_stats::median(&raw).ok().filter(|median| *median > 0.0)?;
    let load = measurement.loaded.parse_ns as f64 + measurement.loaded.optimise_ns as f64;
    Some(Invocation { raw, median, load, first: measurement.first_ns.map(|ns| ns as f64) })
}

/// Over the rounds that both have.
fn speed_up(dense: &Times, variant: &Times) -> Option<Estimate<f64>> {
    let paired = variant.rounds.iter().filter_map(|(round, new)| Some((dense.rounds.get(round)?.median, new.median)));
    let (dense, new): (Vec<f64>, Vec<f64>) = paired.unzip();
    let ratio = || Ok(espalier_stats::geometric_mean(&dense)? / espalier_stats::geometric_mean(&new)?);
    estimate(espalier_stats::paired_ratio(&dense, &new, CONFIDENCE), ratio)
}

/// A single invocation has a value, but no interval.
fn estimate(interval: Result<Interval, Unfit>, value: impl FnOnce() -> Result<f64, Unfit>) -> Option<Estimate<f64>> {
    match interval {
        Ok(interval) => Some(Estimate { value: interval.estimate, bounds: Some(bounds(interval)) }),
        Err(Unfit::TooFew { .. }) => value().ok().map(Estimate::exact),
        Err(_) => None,
    }
}

fn bounds(interval: Interval) -> Bounds<f64> {
    Bounds { low: interval.low, high: interval.high }
}

/// Those of the first scoring invocation.
fn predictions<'a>(run: &'a Run, case: &'a Case) -> Option<&'a Predictions> {
    let scored = run.measured(case, Mode::Score);
    let predictions = scored.filter_map(|(record, scored)| Some((record.round, scored.predictions.as_ref()?)));
    let (_, first) = predictions.min_by_key(|(round, _)| *round)?;
    (!first.values.is_empty()).then_some(first)
}

fn not_finite(predictions: &Predictions) -> Option<NotFiniteCount> {
    let samples = predictions.not_finite();
    let (nan, infinite) = (samples.nan.len() as u64, samples.infinite.len() as u64);
    (nan + infinite > 0).then_some(NotFiniteCount { nan, infinite, total: predictions.values.len() as u64 })
}

fn trust(run: &Run, case: &Case, device: &DeviceInfo, medians: &[f64]) -> Option<Trust> {
    if medians.is_empty() {
        return None;
    }
    let throttled = of_case(run, case).any(|Measurement { before, after, .. }| {
        before.throttled == Some(true) || after.throttled == Some(true) || runs_slow(after)
    });
    let quiet = espalier_stats::log_sd(medians).is_ok_and(|sd| sd <= NOISY_LOG_SD);
    Some(match () {
        () if device.emulated => Trust::Emulated,
        () if throttled => Trust::Throttled,
        () if !quiet => Trust::Noisy,
        () => Trust::Ok,
    })
}

/// Below [`FULL_FREQUENCY`] under the governor that promises the highest.
pub fn runs_slow(state: &BoardState) -> bool {
    match (state.governor.as_deref(), state.frequency_khz, state.max_frequency_khz) {
        (Some("performance"), Some(now), Some(max)) => (now as f64) < FULL_FREQUENCY * max as f64,
        _ => false,
    }
}

/// All measurements of a case, in the order of modes.
fn of_case<'a>(run: &'a Run, case: &'a Case) -> impl Iterator<Item = &'a Measurement> {
    Mode::ALL.into_iter().flat_map(|mode| run.measured(case, mode)).map(|(_, measurement)| measurement)
}

fn first_filled<'a, T: Clone + 'a>(mut lists: impl Iterator<Item = &'a Vec<T>>) -> Vec<T> {
    lists.find(|list| !list.is_empty()).cloned().unwrap_or_default()
}

fn failures(run: &Run, case: &Case, not_graded: Option<&str>) -> Vec<CaseFailure> {
    let of_case = run.records.iter().filter(|record| record.case == *case);
    let measured: BTreeSet<(Mode, u32)> = of_case
        .clone()
        .filter(|record| matches!(record.outcome, Outcome::Measured(_)))
        .map(|record| (record.mode, record.round))
        .collect();
    let mut failures: Vec<CaseFailure> = Vec::new();
    let mut add = |mode: Mode, stage: FailureStage, message: &Text| {
        let known =
            failures.iter_mut().find(|known| (known.mode, known.stage) == (mode, stage) && known.message == *message);
        match known {
            Some(known) => known.count += 1,
            None => failures.push(CaseFailure { mode, stage, message: message.clone(), count: 1 }),
        }
    };
    for record in of_case {
        if let Outcome::Failed(failure) = &record.outcome
            && !measured.contains(&(record.mode, record.round))
        {
            add(record.mode, failure.stage, &failure.message);
        }
    }
    if let Some(message) = not_graded {
        add(Mode::Score, FailureStage::Run, &message.into());
    }
    failures
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{export, fixture, markdown, record::Record, table};

    /// Of the fixture's `local` device.
    fn local(run: &Run, ratio: f64) -> CaseSummary {
        let mut summaries = summarise(run).into_iter();
        summaries.find(|summary| summary.case.device == "local" && summary.case.ratio == ratio).unwrap()
    }

    fn outcome(run: &mut Run, ratio: f64, mode: Mode, change: impl Fn(&mut Record)) {
        let of_case =
            |record: &&mut Record| record.case.device == "local" && record.case.ratio == ratio && record.mode == mode;
        run.records.iter_mut().filter(of_case).for_each(change);
    }

    fn measurement(record: &mut Record) -> &mut Measurement {
        match &mut record.outcome {
            Outcome::Measured(measurement) => measurement,
            Outcome::Failed(failure) => panic!("{failure:?}"),
        }
    }

    #[track_caller]
    fn near(got: f64, expected: f64, relative: f64) {
        assert!((got / expected - 1.0).abs() < relative, "{got} is not {expected}");
    }

    #[test]
    fn the_truth_comes_out() {
        let half = local(&fixture::run(), 0.5);
        let p50 = half.p50.unwrap();
        near(p50.value.0, 0.80e6, 1e-5);
        let bounds = p50.bounds.unwrap();
        // t(4) · sd / √5 of the logs −0.003, 0.023, −0.019, 0.009, −0.010.
        near(bounds.high.0 / p50.value.0, f64::exp(2.776_445 * 0.016_432 / 5f64.sqrt()), 1e-4);
        let speed_up = half.speed_up.unwrap();
        near(speed_up.value, 1.25, 1e-5);
        let bounds = speed_up.bounds.unwrap();
        assert!(bounds.low > 1.24 && bounds.high < 1.26, "drift shared by a round must cancel: {bounds:?}");
        assert_eq!((half.invocation_medians.len(), half.values), (5, 605));
        near(half.load.unwrap().0, 12.5e6, 1e-9);
        near(half.first.unwrap().0, 3.0 * 0.8e6 * f64::exp(-0.003), 1e-5);
        near(half.p90.unwrap().value.0, 0.8e6 * 1.083, 0.01);
        assert_eq!(half.peak_rss, Some(Bytes(9_437_184 + 65_536)));
        assert_eq!(half.accuracy, Some(Share { correct: 194, total: 200 }));
        let change = half.change.unwrap();
        assert_eq!((change.lost, change.won, change.total), (3, 1, 200));
        near(change.fraction(), -0.01, 1e-12);
        near(change.p_value, 0.625, 1e-9);
        assert_eq!(half.same_as_dense.unwrap().equal, 196);
        assert_eq!(half.trust, Some(Trust::Ok));
    }

    #[test]
    fn what_failed_is_a_row_without_numbers() {
        let run = fixture::run();
        let failed = local(&run, 0.9);
        assert_eq!((failed.p50, failed.speed_up, failed.load, failed.trust), (None, None, None, None));
        assert_eq!(failed.accuracy.map(|accuracy| accuracy.correct), Some(180));
        assert_eq!((failed.failures.len(), failed.failures[0].count), (1, 5));
        assert_eq!(summarise(&Run { records: vec![], ..run }).len(), 6);
    }

    #[test]
    fn a_failure_that_succeeds_later_does_not_count() {
        let mut run = fixture::run();
        let mut again =
            run.records.iter().find(|record| record.case.ratio == 0.9 && record.mode == Mode::Time).unwrap().clone();
        again.outcome = fixture::timed("local", 2, again.round);
        run.records.push(again);
        let summary = local(&run, 0.9);
        assert_eq!((summary.failures[0].count, summary.invocation_medians.len()), (4, 1));
        assert_eq!(summary.trust, Some(Trust::Noisy), "one invocation cannot show its spread");
        let p50 = summary.p50.unwrap();
        assert!(p50.bounds.is_none() && summary.speed_up.unwrap().bounds.is_none());
    }

    #[test]
    fn doubt_is_marked() {
        let run = |change: fn(&mut BoardState)| {
            let mut run = fixture::run();
            outcome(&mut run, 0.5, Mode::Time, |record| change(&mut measurement(record).after));
            local(&run, 0.5).trust
        };
        assert_eq!(run(|state| state.throttled = Some(true)), Some(Trust::Throttled));
        assert_eq!(run(|state| state.frequency_khz = Some(2_840_000)), Some(Trust::Throttled));
        assert_eq!(run(|state| state.frequency_khz = Some(2_860_000)), Some(Trust::Ok));
        let powersave = |state: &mut BoardState| {
            state.frequency_khz = Some(800_000);
            state.governor = Some("powersave".into());
        };
        assert_eq!(run(powersave), Some(Trust::Ok));
        let mut noisy = fixture::run();
        outcome(&mut noisy, 0.5, Mode::Time, |record| {
            let factor = if record.round == 0 { 13 } else { 10 };
            measurement(record).timed_ns.iter_mut().for_each(|ns| *ns = *ns * factor / 10);
        });
        assert_eq!(local(&noisy, 0.5).trust, Some(Trust::Noisy));
        let emulated = summarise(&noisy).into_iter().filter(|summary| summary.case.device != "local");
        assert!(emulated.into_iter().all(|summary| summary.trust == Some(Trust::Emulated)));
    }

    #[test]
    fn a_part_of_the_samples_has_no_accuracy() {
        let mut run = fixture::run();
        outcome(&mut run, 0.5, Mode::Score, |record| {
            measurement(record).predictions.as_mut().unwrap().classes.truncate(3);
        });
        let summary = local(&run, 0.5);
        assert_eq!((summary.accuracy, summary.change, summary.same_as_dense), (None, None, None));
        assert_eq!(summary.failures[0].message, "3 predictions for 200 samples");
    }

    #[test]
    fn the_reference_device_is_compared_with() {
        let summaries = summarise(&fixture::run());
        assert!(summaries[..3].iter().all(|summary| summary.same_as_reference.is_none()));
        for summary in &summaries[3..] {
            let expected =
                Agreement { equal: 200, total: 200, largest_difference: Some(f32::EPSILON), largest_value: Some(1.0) };
            assert_eq!(summary.same_as_reference, Some(expected));
        }
    }

    #[test]
    fn few_values_have_no_p99_and_nan_is_no_agreement() {
        let mut run = fixture::run();
        outcome(&mut run, 0.5, Mode::Time, |record| measurement(record).timed_ns.truncate(19));
        let summary = local(&run, 0.5);
        assert!(summary.values == 95 && summary.p99.is_none() && summary.p90.is_some());
        assert_eq!(answers::difference(f32::NAN, 1.0), f32::INFINITY);
        assert_eq!(answers::difference(f32::NAN, f32::NAN), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever part of a run is there: nothing panics, and what has no record has no number.
        #[test]
        fn missing_is_never_zero(kept in proptest::collection::vec(any::<bool>(), 42), narrow in 0usize..200) {
            let mut run = fixture::run();
            assert_eq!(run.records.len(), kept.len());
            let mut keep = kept.iter();
            run.records.retain(|_| *keep.next().unwrap());
            let summaries = summarise(&run);
            prop_assert_eq!(summaries.len(), 6);
            for summary in &summaries {
                let has = |mode: Mode| run.measured(&summary.case, mode).next().is_some();
                let times = [Metric::Load, Metric::First, Metric::P50, Metric::P90];
                for metric in times {
                    prop_assert_eq!(summary.value(metric).is_some(), has(Mode::Time), "{:?}", metric);
                }
                prop_assert_eq!(summary.peak_rss.is_some(), has(Mode::Memory));
                prop_assert_eq!(summary.accuracy.is_some(), has(Mode::Score));
                for metric in Metric::ALL {
                    prop_assert!(summary.value(metric).is_none_or(|estimate| estimate.value > 0.0), "{metric:?}");
                }
            }
            table::render(&run, &summaries, table::Look { width: narrow, colour: true });
            markdown::render(&run, &summaries);
            let (csv, json) = (export::csv::render(&summaries), export::json::render(&run, &summaries));
            prop_assert_eq!(csv.lines().count(), 7);
            prop_assert!(json.contains("espalier-summary"));
            export::bencher::render(&summaries);
            export::action::render(&summaries);
            export::hyperfine::render(&summaries);
        }
    }
}
