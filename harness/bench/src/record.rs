//! What is stored of a run: a header, then one record a job in the order they ended, with raw nanoseconds. Tables,
//! exports and verdicts are functions of them, so that a better statistic can be applied to old runs.

use std::{collections::HashSet, fmt};

use espalier_protocol::{
    BoardState, Hello, LayerKernel, LayerTime, Loaded, Memory, Mode, Predictions, Switched, Text, float,
};
use espalier_tasks::{Task, Truth};
use serde::{Deserialize, Serialize};

use crate::engine::{self, Engine};

/// Raised when a stored field changes its meaning.
pub const FORMAT: u32 = 1;

/// One line of a run's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    Header(Box<RunHeader>),
    Record(Box<Record>),
}

/// Everything needed to read the records without the machine they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    pub format: u32,
    /// Also the file's name: the start in UTC with the fraction of the second, e.g. `20261123T191500Z-3f9a`.
    pub id: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub provenance: Provenance,
    /// What `--resume` has to repeat: invocations a variant, warm-up, iterations, minimum time.
    pub protocol: MeasuringProtocol,
    /// Shapes of synthetic inputs, as `NAME=1x128`.
    pub shapes: Vec<String>,
    /// In the order requested.
    pub models: Vec<ModelInfo>,
    /// In the order requested.
    pub devices: Vec<DeviceInfo>,
    /// In the order requested.
    #[serde(default = "engine::default_engines", skip_serializing_if = "engine::are_default")]
    pub engines: Vec<Engine>,
    /// Activations up to this magnitude count as zero where the engine is [`Engine::Skipping`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "float")]
    pub skip_below: Option<f64>,
    /// Whether each model's variants were one pack of several ratios.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nested: bool,
    /// The unit of pruning, where it was requested in place of the models' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The programs of engines that are not the runner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerInfo>,
    /// The device that the others' predictions are compared with: this host.
    pub reference_device: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub espalier: String,
    /// Commit of the repository, followed by `+` where the tree had changes.
    pub revision: Option<String>,
    pub host: String,
    /// The command as typed.
    pub command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuringProtocol {
    /// Timing invocations a variant.
    pub runs: u32,
    pub warmup: u32,
    pub iterations: u32,
    pub min_time_ms: u64,
    /// Whether each variant's layers were timed as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profile: bool,
}

impl MeasuringProtocol {
    pub const DEFAULT: MeasuringProtocol =
        MeasuringProtocol { runs: 10, warmup: 10, iterations: 50, min_time_ms: 200, profile: false };

    /// Invocations of a variant in this mode.
    pub fn rounds(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Time => self.runs,
            Mode::Memory | Mode::Score => 1,
            Mode::Profile => u32::from(self.profile),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub name: String,
    /// The dense ONNX file and the eval set, as paths from the repository's root or absolute.
    pub source: String,
    pub eval: Option<String>,
    /// As text, e.g. `magnitude, global, weight`.
    pub recipe: String,
    /// The eval set's labels, where they are one whole number a sample.
    pub labels: Option<Vec<i64>>,
    /// The right answers, where they are anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Truth>,
    /// What its answers mean. Runs of earlier releases took the largest value of the first output for the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// How many samples the eval set has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// SHA-256 of the prepared inputs, where there is an eval set.
    pub inputs: Option<String>,
    pub variants: Vec<VariantInfo>,
    /// Accuracy a variant may lose against dense, as a fraction, where the model has such a budget.
    #[serde(default, with = "float")]
    pub max_accuracy_drop: Option<f64>,
}

impl ModelInfo {
    pub fn task(&self) -> Task {
        self.task.clone().unwrap_or_else(Task::classes_of_first)
    }

    pub fn truth(&self) -> Option<Truth> {
        self.truth.clone().or_else(|| self.labels.as_deref().map(Truth::of_labels))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VariantInfo {
    /// As requested; 0 is the dense variant.
    #[serde(with = "float")]
    pub ratio: f64,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    pub bytes: u64,
    /// Weights that may be pruned, and those that were.
    pub prunable: u64,
    pub removed: u64,
    /// All float parameters of the model, pruned ones included.
    pub parameters: u64,
    /// Prunable weights that are zero, pruned or not.
    pub zeros: u64,
    /// Units that may be removed and those that were: what `ratio` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_units: Option<u64>,
    /// All parameters of the file, where tensors shrank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_left: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<PackedInfo>,
    /// SHA-256 of the ONNX file in the pack, where the variant is a pack and an engine of the run reads no packs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<String>,
}

/// Sizes of a variant's file as a pack, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedInfo {
    /// Each tensor in its smallest lossless form.
    pub lossless: u64,
    /// Bitmap and a codebook of 32 values; `None` where the weights do not fit one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap_codebook: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub name: String,
    pub target: String,
    pub triple: String,
    /// The board is a program on this host: its times say nothing about a real one.
    pub emulated: bool,
    /// Threads an inference may use.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub threads: u32,
    pub runner: Option<RunnerInfo>,
}

/// The artifact that ran on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerInfo {
    pub sha256: String,
    pub bytes: u64,
    /// `cargo`, `zigbuild` or `cross`, and the compiler.
    pub builder: String,
}

/// The program of an engine that is not the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    pub engine: Engine,
    /// Of Espalier's program around the engine, all its files together.
    pub sha256: String,
    /// What it ran with, e.g. `onnxruntime 1.32.0, numpy 2.4.0, Python 3.11.2`.
    pub versions: String,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// A variant on a device, run by an engine: the identity of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub model: String,
    #[serde(with = "float")]
    pub ratio: f64,
    pub device: String,
    #[serde(default, skip_serializing_if = "Engine::is_default")]
    pub engine: Engine,
}

impl Case {
    /// A case of the default engine.
    pub fn new(model: impl Into<String>, ratio: f64, device: impl Into<String>) -> Case {
        Case { model: model.into(), ratio, device: device.into(), engine: Engine::default() }
    }

    /// Without the device: `digits-cnn@0.5`, `digits-cnn@0.5 by tract`.
    pub fn variant(&self) -> String {
        let by = if self.engine.is_default() { String::new() } else { format!(" by {}", self.engine.name()) };
        format!("{}@{}{by}", self.model, self.ratio)
    }

    /// Reads what [`fmt::Display`] writes: `digits-cnn@0.5 on pi4`, or `digits-cnn@0.5 on pi4 by tract`.
    ///
    /// # Errors
    /// Shows an example of a case.
    pub fn parse(text: &str) -> Result<Case, String> {
        let parts = || {
            let (variant, place) = text.rsplit_once(" on ")?;
            let (device, engine) = match place.split_once(" by ") {
                Some((device, engine)) => (device, Engine::parse(engine).ok()?),
                None => (place, Engine::default()),
            };
            let (model, ratio) = variant.rsplit_once('@')?;
            let ratio: f64 = ratio.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))?;
            let named = !model.is_empty() && !device.is_empty();
            // Minus zero is zero.
            named.then(|| Case { engine, ..Case::new(model, ratio + 0.0, device) })
        };
        parts().ok_or_else(|| format!("`{}` is not a case such as `digits-cnn@0.5 on pi4`", text.escape_debug()))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} on {}", self.model, self.ratio, self.device)?;
        if self.engine.is_default() { Ok(()) } else { write!(f, " by {}", self.engine.name()) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub case: Case,
    pub mode: Mode,
    /// Index among the invocations of this mode: 0 up to `runs`.
    pub round: u32,
    /// Position among the device's jobs in the order of execution. Like `start_ms` it restarts with `--resume`.
    pub sequence: u32,
    /// Milliseconds from the start of the run to the start of the invocation, and its wall time on the host.
    pub start_ms: u64,
    pub wall_ms: u64,
    /// Its position in a comparison, where it is part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    pub outcome: Outcome,
}

/// A side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arm {
    /// The baseline.
    A,
    /// The candidate.
    B,
}

/// Why a comparison was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Baseline against candidate: its verdict counts.
    Gate,
    /// The baseline against itself: anything but "not regressed" is an alarm.
    NegativeControl,
    /// The candidate against itself, slowed down by a known amount: anything but "regressed" is an alarm.
    PositiveControl,
}

/// The position of an invocation in a comparison of two arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trial {
    pub role: Role,
    pub arm: Arm,
    /// 0 for the first session of the case, 1 for the one that confirms it, and so on.
    pub session: u32,
    /// Blocks of four count from 0 in a session; a repeated block has a new number. 0 for invocations outside blocks.
    pub block: u32,
    /// 0 to 3 in the block.
    pub position: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Box<Measurement>),
    Failed(Failure),
}

/// What one invocation reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub hello: Hello,
    pub loaded: Loaded,
    pub first_ns: Option<u64>,
    /// Of the first inference's outputs ([`espalier_protocol::line::digest`]).
    #[serde(default)]
    pub first_digest: Option<Text>,
    /// The raw times of a `time` job, in order.
    pub timed_ns: Vec<u64>,
    pub memory: Option<Memory>,
    /// All predictions of a `score` job.
    pub predictions: Option<Predictions>,
    /// The kernel chosen for each layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<LayerKernel>,
    /// Of `profile` jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<LayerTime>,
    /// Changes of the ratio while times were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switched: Vec<Switched>,
    pub before: BoardState,
    pub after: BoardState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub stage: FailureStage,
    pub message: Text,
}

/// Where a job failed. A device's fault has other consequences than a job's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureStage {
    /// The runner for this device could not be built or does not fit it.
    Build,
    /// No connection, authentication refused, or a changed host key.
    Connect,
    /// The board could not be prepared, or files could not be copied onto it.
    Push,
    /// The board stopped answering, or violated the protocol.
    Run,
    /// The runner reported that it cannot do the job.
    Runner,
}

impl FailureStage {
    pub fn name(self) -> &'static str {
        match self {
            FailureStage::Build => "build",
            FailureStage::Connect => "connect",
            FailureStage::Push => "push",
            FailureStage::Run => "run",
            FailureStage::Runner => "runner",
        }
    }

    /// Whether the device is at fault: exit code 5 instead of 1.
    pub fn is_device(self) -> bool {
        matches!(self, FailureStage::Connect | FailureStage::Push | FailureStage::Run)
    }
}

/// A run read from its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub header: RunHeader,
    pub records: Vec<Record>,
}

impl Run {
    /// Reads a run's file. A last line that was cut off is dropped; any other unreadable line is an error.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> Result<Run, String> {
        let mut header = None;
        let mut records = Vec::new();
        let last = text.lines().count();
        for (index, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(Entry::Header(read)) if index == 0 => header = Some(*read),
                Ok(Entry::Header(_)) => return Err(format!("line {}: a second header", index + 1)),
                Ok(Entry::Record(record)) => records.push(*record),
                Err(_) if index + 1 == last && index > 0 && !text.ends_with('\n') => {}
                Err(error) => return Err(format!("line {}: {error}", index + 1)),
            }
        }
        let header = header.ok_or("it has no header line: not a run's file")?;
        let records = latest(records);
        if header.format != FORMAT {
            return Err(format!("it has format {}, this espalier reads {FORMAT}", header.format));
        }
        Ok(Run { header, records })
    }

    /// The measurements of one mode of a case, in the order of rounds.
    pub fn measured<'a>(&'a self, case: &'a Case, mode: Mode) -> impl Iterator<Item = (&'a Record, &'a Measurement)> {
        self.records.iter().filter(move |record| record.case == *case && record.mode == mode).filter_map(|record| {
            match &record.outcome {
                Outcome::Measured(measurement) => Some((record, &**measurement)),
                Outcome::Failed(_) => None,
            }
        })
    }

    /// How the planned jobs ended. The reference device counts only where it was requested as well.
    pub fn tally(&self) -> Tally {
        let requested = |name: &str| self.header.devices.iter().any(|device| device.name == name);
        let ended = |measured: bool| {
            let records = self.records.iter().filter(|record| requested(&record.case.device));
            records.filter(|record| matches!(record.outcome, Outcome::Measured(_)) == measured).count() as u64
        };
        let variants: usize = self.header.models.iter().map(|model| model.variants.len()).sum();
        let rounds: u32 = Mode::ALL.iter().map(|mode| self.header.protocol.rounds(*mode)).sum();
        let cases = variants * self.header.devices.len() * self.header.engines.len();
        let planned = cases as u64 * u64::from(rounds);
        let (measured, failed) = (ended(true), ended(false));
        Tally { measured, failed, missing: planned.saturating_sub(measured + failed) }
    }
}

/// Numbers of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub measured: u64,
    pub failed: u64,
    /// Planned and not started.
    pub missing: u64,
}

/// A job that `--resume` repeated counts once, with its last outcome.
fn latest(records: Vec<Record>) -> Vec<Record> {
    let identity = |record: &Record| {
        let Case { model, ratio, device, engine } = &record.case;
        (model.clone(), ratio.to_bits(), device.clone(), *engine, record.mode, record.round, record.trial)
    };
    let mut seen = HashSet::new();
    let mut kept: Vec<Record> = records.into_iter().rev().filter(|record| seen.insert(identity(record))).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    /// The least that counts as measured.
    pub fn measured() -> Outcome {
        Outcome::Measured(Box::new(Measurement {
            hello: Hello {
                protocol: espalier_protocol::VERSION,
                runner: "0.1.0".into(),
                arch: "aarch64".into(),
                pid: 1,
                engine: "tract".into(),
                cpu_features: vec![],
            },
            loaded: Loaded { parse_ns: 1, optimise_ns: 1, inputs: vec![], outputs: vec![], macs: None, ratios: vec![] },
            first_ns: None,
            first_digest: None,
            timed_ns: vec![],
            memory: None,
            predictions: None,
            kernels: vec![],
            profile: vec![],
            switched: vec![],
            before: BoardState::default(),
            after: BoardState::default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_run_comes_back_from_its_file() {
        let run = fixture::run();
        assert_eq!(Run::parse(&fixture::lines(&run)).unwrap(), run);
    }

    #[test]
    fn a_file_of_an_earlier_release_is_read() {
        let run = fixture::run();
        let new = [r#","first_digest":null"#, r#","busy_ms":null"#, r#","own_cpu_ms":null"#];
        let text = new.iter().fold(fixture::lines(&run), |text, field| {
            assert!(text.contains(field), "{field}");
            text.replace(field, "")
        });
        assert_eq!(Run::parse(&text).unwrap(), run);
    }

    /// Wherever the host lost power after the header: every complete line is read.
    #[test]
    fn a_cut_off_last_line_is_dropped() {
        let mut run = fixture::run();
        run.records.drain(..run.records.len() - 2);
        let text = fixture::lines(&run);
        let complete = |end: usize| text[..end].matches('\n').count() - 1;
        for end in text.find('\n').unwrap() + 1..text.len() {
            let read = Run::parse(&text[..end]).unwrap();
            // The last line may lack only its line break.
            let extra = usize::from(text.as_bytes()[end] == b'\n');
            assert_eq!(read.records, run.records[..complete(end) + extra], "cut at {end}");
        }
    }

    #[test]
    fn a_repeated_job_counts_with_its_last_outcome() {
        let run = fixture::run();
        let mut again = run.clone();
        let mut failed = run.records[3].clone();
        failed.outcome = Outcome::Failed(Failure { stage: FailureStage::Run, message: "gone".into() });
        again.records.insert(0, failed);
        assert_eq!(Run::parse(&fixture::lines(&again)).unwrap(), run);
    }

    #[test]
    fn what_was_planned_and_not_started_is_missing() {
        let mut run = fixture::run();
        let before = run.tally();
        let record = run.records.iter().position(|record| matches!(record.outcome, Outcome::Measured(_))).unwrap();
        run.records.remove(record);
        let after = run.tally();
        assert_eq!(
            (after.measured, after.failed, after.missing),
            (before.measured - 1, before.failed, before.missing + 1)
        );
    }

    #[test]
    fn a_case_is_read_as_it_is_written() {
        for text in ["digits-cnn@0.5 on pi4", "m@0 on local", "a@b@0.955 on d-on.e"] {
            assert_eq!(Case::parse(text).unwrap().to_string(), text);
        }
        let case = Case::new("m", 0.1 + 0.2, "d");
        assert_eq!(Case::parse(&case.to_string()), Ok(case));
        for text in ["", "m on d", "m@0.5", "m@half on d", "m@NaN on d", "m@1.5 on d", "@0.5 on d", "m@0.5 on "] {
            assert!(Case::parse(text).unwrap_err().contains("is not a case such as"), "{text}");
        }
    }

    #[test]
    fn a_broken_line_elsewhere_is_named() {
        let text = fixture::lines(&fixture::run());
        let error = Run::parse(&text.replacen("\"kind\":\"record\"", "\"kind\":\"rec", 1)).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
        assert_eq!(Run::parse("").unwrap_err(), "it has no header line: not a run's file");
        let newer = text.replacen("\"format\":1", "\"format\":99", 1);
        assert_eq!(Run::parse(&newer).unwrap_err(), "it has format 99, this espalier reads 1");
    }
}
