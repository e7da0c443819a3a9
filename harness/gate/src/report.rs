//! Everything a report of a gate shows, as data: what was compared with what, on what terms, and the verdicts. The
//! terminal, the comment on a pull request, JUnit, JSON and the exit status are functions of it alone.

use espalier_protocol::{Text, float};
use serde::{Deserialize, Serialize};

use crate::{
    Comparison, Criterion, Role,
    baseline::Baseline,
    outcome::{self, GateOutcome, Planned},
};
use espalier_bench::record::{Case, FailureStage, Provenance};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub baseline: BaselineFacts,
    /// Of the candidate and of the command.
    pub candidate: Provenance,
    /// RFC 3339, UTC.
    pub started: String,
    pub profile: ProfileFacts,
    /// Requested, whether anything was measured there or not.
    pub devices: Vec<GateDevice>,
    pub planned: Vec<Planned>,
    pub comparisons: Vec<Comparison>,
    /// Of those comparisons that are of times.
    pub latencies: Vec<Latency>,
    /// How long the first session's invocations of a case took.
    #[serde(default)]
    pub took: Vec<Took>,
    pub faults: Vec<Fault>,
    /// Of the gate as a whole, e.g. waivers that ended; sentences without a full stop.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineFacts {
    pub name: String,
    /// RFC 3339, UTC.
    pub accepted: String,
    pub by: String,
    pub espalier: String,
    pub revision: Option<String>,
}

impl From<&Baseline> for BaselineFacts {
    fn from(baseline: &Baseline) -> BaselineFacts {
        let Baseline { name, accepted, by, espalier, revision, .. } = baseline.clone();
        BaselineFacts { name, accepted, by, espalier, revision }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileFacts {
    pub name: String,
    /// Of each criterion of time that is judged.
    pub margins: Vec<MarginFacts>,
}

/// Slow-downs as fractions: 0.03 is three per cent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarginFacts {
    pub criterion: Criterion,
    /// Proved worse than this: regressed.
    #[serde(with = "float")]
    pub lower: f64,
    /// Proved not worse than this: pass.
    #[serde(with = "float")]
    pub upper: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateDevice {
    pub name: String,
    pub target: String,
    pub triple: String,
    /// A board that is a program on this host: its times say nothing about a real one.
    pub emulated: bool,
    /// SHA-256 of the program of each arm; equal where only models changed.
    pub base_runner: Option<String>,
    pub candidate_runner: Option<String>,
    /// Where they differ: the standard deviation of the logarithm of the time between builds of the same code.
    #[serde(default, with = "float")]
    pub other_binary: Option<f64>,
}

/// The absolute times of a comparison: of each arm, the geometric mean over its invocations of the compared quantile,
/// in ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub case: Case,
    pub criterion: Criterion,
    pub role: Role,
    #[serde(with = "float")]
    pub base_ns: f64,
    #[serde(with = "float")]
    pub candidate_ns: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Took {
    pub case: Case,
    pub role: Role,
    pub ms: u64,
}

/// Why a device measured less than was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub device: String,
    pub stage: FailureStage,
    pub message: Text,
}

impl Report {
    pub fn outcome(&self) -> GateOutcome {
        let mut lost: Vec<String> = Vec::new();
        for fault in self.faults.iter().filter(|fault| fault.stage.is_device()) {
            if !lost.contains(&fault.device) {
                lost.push(fault.device.clone());
            }
        }
        outcome::outcome(&self.comparisons, &self.planned, &lost)
    }

    pub fn latency(&self, comparison: &Comparison) -> Option<&Latency> {
        self.latencies.iter().find(|latency| comparison.is_of(&latency.case, latency.criterion, latency.role))
    }

    /// All devices that are named anywhere, those requested first.
    pub fn device_names(&self) -> Vec<&str> {
        let requested = self.devices.iter().map(|device| &*device.name);
        let compared = self.comparisons.iter().map(|comparison| &*comparison.case.device);
        let planned = self.planned.iter().map(|planned| &*planned.case.device);
        let failed = self.faults.iter().map(|fault| &*fault.device);
        let mut names: Vec<&str> = Vec::new();
        for name in requested.chain(compared).chain(planned).chain(failed) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;
    use crate::{Confirmation, Effect, Finding, Verdict, Waived};

    pub fn comparison(case: &str, criterion: Criterion, verdict: Verdict, finding: Finding) -> Comparison {
        Comparison::new(Case::parse(case).unwrap(), criterion, Role::Gate, (verdict, finding, String::new()))
    }

    pub fn effect(ratio: f64, low: f64, high: f64) -> Effect {
        Effect { ratio, low, high, pairs: 24, blocks: 12, pair_sd: 0.021, se: 0.0043, mde: Some(0.026) }
    }

    /// One of everything: on `pi4` a confirmed regression, a pass, sizes, memory, an accuracy, a waived regression and
    /// a control; on `jetson` an inconclusive case and one that was planned and is missing; `visionfive2` is lost.
    pub fn report() -> Report {
        use Criterion::*;
        use Verdict::*;
        let latency =
            |case: &str, verdict: Verdict, effect: Effect| comparison(case, P50, verdict, Finding::Effect(effect));
        let second = effect(1.031, 1.012, 1.05);
        let comparisons = vec![
            Comparison {
                reason: "proved slower by more than 0.5 %".into(),
                tags: vec!["drift z=4.1".into()],
                confirmation: Some(Confirmation {
                    confirmed: true,
                    finding: Finding::Effect(second),
                    reason: "proved slower by more than 0.5 %".into(),
                }),
                ..latency("digits-cnn@0.5 on pi4", Regressed, effect(1.034, 1.019, 1.049))
            },
            Comparison {
                reason: "proved slower by less than 3 %".into(),
                ..latency(
                    "digits-cnn@0 on pi4",
                    Pass,
                    Effect { pair_sd: 0.004, se: 0.000_816_5, ..effect(1.0004, 0.9979, 1.0029) },
                )
            },
            Comparison {
                reason: "12.0 KiB larger, 0.5 % are allowed".into(),
                waived: Some(Waived { reason: "labels | inside <b>".into(), until: "2026-12-31".into() }),
                ..comparison(
                    "digits-cnn@0.5 on pi4",
                    RunnerSize,
                    Regressed,
                    Finding::Sizes { base: 1_048_576, candidate: 1_060_864 },
                )
            },
            comparison("digits-cnn@0.5 on pi4", ModelSize, Pass, Finding::Sizes { base: 215_040, candidate: 215_040 }),
            comparison(
                "digits-cnn@0.5 on pi4",
                PeakRss,
                Pass,
                Finding::Peaks {
                    base: vec![9_437_184; 4],
                    candidate: vec![9_400_320, 9_437_184, 9_437_184, 9_502_720],
                },
            ),
            comparison(
                "digits-cnn@0.5 on pi4",
                Accuracy,
                Pass,
                Finding::Accuracy {
                    lost: 3,
                    won: 1,
                    total: 1000,
                    p_value: 0.3125,
                    drop: 0.002,
                    drop_high: 0.0055,
                    same_outputs: false,
                },
            ),
            Comparison {
                role: Role::NegativeControl,
                ..latency("digits-cnn@0 on pi4", Pass, effect(0.999, 0.99, 1.008))
            },
            Comparison {
                reason: "nothing proved after 32 blocks \u{1b}[2J".into(),
                ..latency("digits-cnn@0.5 on jetson", Inconclusive, Effect { mde: None, ..effect(1.12, 0.9, 1.4) })
            },
        ];
        let mut planned: Vec<Planned> = comparisons.iter().map(Planned::of).collect();
        let gone = Case::parse("digits-cnn@0.5 on jetson").unwrap();
        planned.push(Planned { case: gone, criterion: P99, role: Role::Gate });
        let device = |name: &str, candidate: &str| GateDevice {
            name: name.into(),
            target: "aarch64-gnu".into(),
            triple: "aarch64-unknown-linux-gnu".into(),
            emulated: name == "jetson",
            base_runner: Some("1a2b3c4d".repeat(8)),
            candidate_runner: Some(candidate.repeat(8)),
            other_binary: None,
        };
        Report {
            baseline: BaselineFacts {
                name: "release-1.4".into(),
                accepted: "2026-11-20T09:00:00Z".into(),
                by: "jo@workbench".into(),
                espalier: "0.1.0".into(),
                revision: Some("7c7533f".into()),
            },
            candidate: Provenance {
                espalier: "0.1.0".into(),
                revision: Some("05f99f9+".into()),
                host: "workbench".into(),
                command: vec!["cargo".into(), "xtask".into(), "gate".into()],
            },
            started: "2026-11-23T19:15:00Z".into(),
            profile: ProfileFacts {
                name: "nightly".into(),
                margins: vec![
                    MarginFacts { criterion: P50, lower: 0.005, upper: 0.03 },
                    MarginFacts { criterion: P99, lower: 0.05, upper: 0.15 },
                ],
            },
            devices: vec![device("pi4", "1a2b3c4d"), device("jetson", "5e6f7a8b")],
            planned,
            comparisons,
            latencies: vec![Latency {
                case: Case::parse("digits-cnn@0.5 on pi4").unwrap(),
                criterion: P50,
                role: Role::Gate,
                base_ns: 1_000_000.0,
                candidate_ns: 1_034_000.0,
            }],
            took: vec![Took { case: Case::parse("digits-cnn@0.5 on pi4").unwrap(), role: Role::Gate, ms: 61_500 }],
            faults: vec![Fault {
                device: "visionfive2".into(),
                stage: FailureStage::Connect,
                message: "connection refused | <b> @root".into(),
            }],
            notes: vec!["waiver for digits-mlp@0 on pi4 ended on 2026-11-22: renew it or take it out".into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_bench::exit::ExitStatus;

    #[test]
    fn a_build_that_failed_is_no_lost_device() {
        let mut report = tests_support::report();
        report.comparisons.remove(0);
        report.planned.remove(0);
        assert_eq!(report.outcome().status, ExitStatus::Device);
        report.faults[0].stage = FailureStage::Build;
        assert_eq!(report.outcome().status, ExitStatus::Inconclusive);
    }

    #[test]
    fn every_device_has_a_name_once() {
        assert_eq!(tests_support::report().device_names(), ["pi4", "jetson", "visionfive2"]);
    }
}
