//! The gate: is a candidate worse than its baseline? One verdict a criterion of a case: pass, regressed or
//! inconclusive.
//!
//! Both arms run interleaved in one session. The unit is the process invocation, never the single inference. A verdict
//! is a function of the stored invocations, so it can be given again from them. What was not measured is inconclusive:
//! missing data never passes.

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
mod lines;
pub mod memory;
pub mod outcome;
pub mod profile;
pub mod random;
pub mod render;
pub mod replay;
pub mod report;
pub mod session;
pub mod simulate;
pub mod size;
mod tables;
#[cfg(test)]
mod tests;
mod text;
pub mod validity;
pub mod waivers;

use espalier_protocol::float;
use serde::{Deserialize, Serialize};

use espalier_bench::record::Case;
pub use espalier_bench::record::{Arm, Role};
use espalier_tasks::Unit;

/// What is judged of a case, each with a test of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The fastest inference of an invocation: the time of a board that runs nothing else. For machines that share
    /// their processor, where the median jumps between two speeds (Chen and Revels 2016, "Robust benchmarking in noisy
    /// environments").
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

    pub fn named(name: &str) -> Option<Criterion> {
        Criterion::ALL.into_iter().find(|criterion| criterion.name() == name)
    }

    /// Whether its verdict can be wrong by chance; such comparisons share the error rate of a run. Bytes are counted.
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
    /// Proved worse than the profile's lower margin, and confirmed where a confirmation was required.
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

/// A ratio of times, candidate over baseline, with the one-sided limits of the test: "regressed" is decided by `low`,
/// "pass" by `high`, each at its own level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    #[serde(with = "float")]
    pub ratio: f64,
    #[serde(with = "float")]
    pub low: f64,
    #[serde(with = "float")]
    pub high: f64,
    /// Pairs of neighbouring invocations that were used, and the blocks they came from.
    pub pairs: usize,
    pub blocks: usize,
    /// Standard deviation of one pair's difference of logarithms.
    #[serde(with = "float")]
    pub pair_sd: f64,
    /// Standard error of the ratio's logarithm, as the test took it.
    #[serde(with = "float")]
    pub se: f64,
    /// Smallest slow-down that would be found in 95 of 100 sessions like this one, as a fraction; `None` with fewer
    /// than two pairs.
    #[serde(default, with = "float")]
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
    Accuracy {
        lost: u64,
        won: u64,
        total: u64,
        #[serde(with = "float")]
        p_value: f64,
        #[serde(with = "float")]
        drop: f64,
        #[serde(with = "float")]
        drop_high: f64,
        same_outputs: bool,
    },
    /// Of another metric: a larger one is better, and so is a smaller drop.
    Score {
        metric: String,
        unit: Unit,
        #[serde(with = "float")]
        base: f64,
        #[serde(with = "float")]
        candidate: f64,
        #[serde(with = "float")]
        p_value: f64,
        #[serde(with = "float")]
        drop: f64,
        #[serde(with = "float")]
        drop_high: f64,
    },
    /// Nothing was measured.
    Nothing,
}

impl Finding {
    /// Of a latency.
    pub fn effect(&self) -> Option<&Effect> {
        match self {
            Finding::Effect(effect) => Some(effect),
            _ => None,
        }
    }
}

/// What the test of one criterion says: the verdict, the numbers behind it, and the reason as text.
pub type Judged = (Verdict, Finding, String);

/// One criterion of one case, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub case: Case,
    pub criterion: Criterion,
    pub role: Role,
    pub verdict: Verdict,
    pub finding: Finding,
    /// As text, e.g. `proved slower by more than 0.5 %`.
    pub reason: String,
    /// What a reader should know of the session, e.g. `drift z=4.1`; never the reason for a verdict.
    pub tags: Vec<String>,
    /// How the second session went, where the first one found a regression.
    pub confirmation: Option<Confirmation>,
    /// A waiver for a regression or an inconclusive comparison.
    pub waived: Option<Waived>,
}

impl Comparison {
    /// Without tags, confirmation or waiver.
    pub fn new(case: Case, criterion: Criterion, role: Role, judged: Judged) -> Comparison {
        let (verdict, finding, reason) = judged;
        Comparison {
            case,
            criterion,
            role,
            verdict,
            finding,
            reason,
            tags: Vec::new(),
            confirmation: None,
            waived: None,
        }
    }

    pub fn is_of(&self, case: &Case, criterion: Criterion, role: Role) -> bool {
        self.case == *case && self.criterion == criterion && self.role == role
    }

    /// The same criterion of the same case in the same role.
    pub fn is_same(&self, other: &Comparison) -> bool {
        self.is_of(&other.case, other.criterion, other.role)
    }

    /// Whether a regression must be confirmed by a fresh session: one of a sampled criterion, and a runner that failed.
    /// What was counted needs no confirmation.
    pub fn needs_confirmation(&self) -> bool {
        let sampled = self.criterion.quantile().is_some() || self.criterion == Criterion::PeakRss;
        self.verdict == Verdict::Regressed && (sampled || self.finding == Finding::Nothing)
    }

    /// Takes in the confirming sessions. The regression stands if there is at least one and all found it too; the last
    /// one's numbers are shown beside the first's.
    pub fn confirm(&mut self, others: &[Comparison]) {
        let denied = others.iter().find(|other| other.verdict != Verdict::Regressed);
        let (confirmed, finding, reason) = match denied.or(others.last()) {
            Some(other) => (denied.is_none(), other.finding.clone(), other.reason.clone()),
            None => (false, Finding::Nothing, "the second session was not carried out".to_owned()),
        };
        if !confirmed {
            self.verdict = Verdict::Inconclusive;
            self.reason = format!("{}, but a second session did not confirm it: {reason}", self.reason);
        }
        self.confirmation = Some(Confirmation { confirmed, finding, reason });
    }
}

/// The second, fresh session after a regression.
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
