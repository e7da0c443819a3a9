//! The gate: whether a candidate is worse than its baseline, case by case, in three words: pass, regressed, inconclusive.
//!
//! Both arms run interleaved in one session; the unit is the process invocation, never the single inference. A verdict is a function of what was
//! measured, so that it can be given again from the stored invocations. What was not measured is inconclusive: nothing here turns silence into a
//! pass.

pub mod accuracy;
pub mod baseline;
pub mod calibration;
pub mod controls;
pub mod date;
pub mod family;
pub mod file;
#[cfg(test)]
mod fixture;
pub mod history;
pub mod json;
pub mod judge;
pub mod junit;
pub mod memory;
pub mod outcome;
pub mod profile;
pub mod render;
pub mod replay;
pub mod report;
pub mod session;
pub mod simulate;
pub mod size;
#[cfg(test)]
mod tests;
pub mod validity;
pub mod waivers;
mod words;

use serde::{Deserialize, Serialize};

use espalier_bench::record::Case;
pub use espalier_bench::record::{Arm, Role};

/// What is judged of a case, each with a test of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The fastest inference of an invocation: what a board does that nobody else keeps busy. For machines whose processor is shared with others, where
    /// the median jumps between two speeds (Chen and Revels 2016, "Robust benchmarking in noisy environments").
    Fastest,
    /// Quantiles of the latency of single inferences.
    P50,
    P95,
    P99,
    /// The kernel's high-water mark of a memory invocation.
    PeakRss,
    /// The most bytes allocated at once, by the runner's own count: exact.
    PeakAllocated,
    /// Bytes of the artifact.
    RunnerSize,
    /// Bytes of the variant's file.
    ModelSize,
    Accuracy,
}

impl Criterion {
    pub const ALL: [Criterion; 9] = [
        Criterion::Fastest,
        Criterion::P50,
        Criterion::P95,
        Criterion::P99,
        Criterion::PeakRss,
        Criterion::PeakAllocated,
        Criterion::RunnerSize,
        Criterion::ModelSize,
        Criterion::Accuracy,
    ];

    /// In lower case with dashes, as files and exports have it.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Fastest => "fastest",
            Criterion::P50 => "p50",
            Criterion::P95 => "p95",
            Criterion::P99 => "p99",
            Criterion::PeakRss => "peak-rss",
            Criterion::PeakAllocated => "peak-allocated",
            Criterion::RunnerSize => "runner-size",
            Criterion::ModelSize => "model-size",
            Criterion::Accuracy => "accuracy",
        }
    }

    /// Whether its verdict can be wrong by chance, so that the error rate of a run is shared with it. Bytes are counted.
    pub fn shares_error_rate(self) -> bool {
        self.quantile().is_some() || self == Criterion::Accuracy
    }

    /// The quantile of the invocation's times that is compared; `None` for what is no latency.
    pub fn quantile(self) -> Option<f64> {
        match self {
            Criterion::Fastest => Some(0.0),
            Criterion::P50 => Some(0.5),
            Criterion::P95 => Some(0.95),
            Criterion::P99 => Some(0.99),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proved not worse than the profile's upper margin.
    Pass,
    /// Proved worse than the profile's lower margin, and confirmed where a confirmation was asked for.
    Regressed,
    /// Neither, or nothing was measured.
    Inconclusive,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Regressed => "regressed",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

/// A ratio of times, candidate over baseline, with the limits the test used: `low` one-sided at the level of a FAIL, `high` at that of a PASS.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    /// Pairs of neighbouring invocations that went in, and the blocks they came from.
    pub pairs: usize,
    pub blocks: usize,
    /// Standard deviation of one pair's difference of logarithms.
    pub pair_sd: f64,
    /// Standard error of the ratio's logarithm, as the test took it.
    pub se: f64,
    /// Smallest slow-down that would have failed in 95 of 100 sessions like this one, as a fraction; `None` with fewer than two pairs.
    pub mde: Option<f64>,
}

/// The numbers behind a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Finding {
    /// Of a latency.
    Effect(Effect),
    /// Of a peak of memory over several invocations an arm, in bytes.
    Peaks { base: Vec<u64>, candidate: Vec<u64> },
    /// Of a size, in bytes.
    Sizes { base: u64, candidate: u64 },
    /// Of an accuracy: `lost` base right and candidate wrong, `won` the reverse.
    Accuracy { lost: u64, won: u64, total: u64, p_value: f64, drop: f64, drop_high: f64, same_outputs: bool },
    /// Nothing was measured.
    Nothing,
}

/// One criterion of one case, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub case: Case,
    pub criterion: Criterion,
    pub role: Role,
    pub verdict: Verdict,
    pub finding: Finding,
    /// In words, e.g. `proved slower by more than 0.5 %`.
    pub reason: String,
    /// What a reader should know of the session, e.g. `drift z=4.1`; never the reason for a verdict.
    pub tags: Vec<String>,
    /// How the second session went, where the first one found a regression.
    pub confirmation: Option<Confirmation>,
    /// A regression or an inconclusive case that somebody answers for.
    pub waived: Option<Waived>,
}

/// The second, fresh session after a FAIL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmation {
    pub confirmed: bool,
    pub finding: Finding,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waived {
    pub reason: String,
    /// Last day on which it holds, `2026-12-31`.
    pub until: String,
}
