//! Which invocations a device carries out, and in what order.
//!
//! Scores come first (they show within seconds that a variant does not run), then memory, times and, where requested,
//! profiles. Times are interleaved: every round runs each variant once by each engine, alternately forwards and
//! backwards, so that a drift of the board affects all alike. With `--resume` jobs already measured are left out; the
//! rest keep their order.

use std::collections::{HashSet, VecDeque};

use espalier_protocol::{Job, Mode, OutputRequest};
use serde::{Deserialize, Serialize};

use crate::{
    engine::Engine,
    record::{
        Case, Failure, FailureStage, MeasuringProtocol, ModelInfo, Outcome, Record, RunHeader, Trial, VariantInfo,
    },
};
use espalier_inventory::Device;
use espalier_tasks::{Kind, Task};

/// One planned invocation. Files are named by content; their paths on the board are known after the push.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedJob {
    pub case: Case,
    pub mode: Mode,
    pub round: u32,
    /// Index among the device's programs.
    pub runner: usize,
    /// SHA-256 of the variant's ONNX file.
    pub model: String,
    /// SHA-256 of the prepared inputs.
    pub inputs: Option<String>,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
    pub effort: Effort,
    /// Bytes added to the environment, so that the stack begins elsewhere; `None` leaves the environment alone.
    pub padding: Option<usize>,
    /// A busy-wait after each timed inference, in percent of it: a drill for the gate.
    pub slow_down_percent: Option<f64>,
    /// Activations up to this magnitude count as zero.
    pub skip_below: Option<f64>,
    /// The ratio to run, where the model is a pack of several.
    pub ratio: Option<f64>,
    /// What its task asks a `score` job for.
    pub request: Option<OutputRequest>,
    /// Its position in a comparison, where it is part of one.
    pub trial: Option<Trial>,
}

/// What a board is asked for; `None`: the class of the first output, as every runner sends it.
pub fn request(task: &Task) -> Option<OutputRequest> {
    let argmax = task.axis.filter(|_| matches!(task.kind, Kind::Tokens | Kind::Segments));
    let usual = task.kind == Kind::Classes && task.top == 1 && task.output == 0;
    (!usual).then_some(OutputRequest { output: task.output, argmax })
}

/// How much one timing invocation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// Untimed inferences after the first.
    pub warmup: u32,
    /// Timed inferences, at least.
    pub iterations: u32,
    /// Timed milliseconds, at least.
    pub min_time_ms: u64,
}

impl From<&MeasuringProtocol> for Effort {
    fn from(protocol: &MeasuringProtocol) -> Effort {
        let MeasuringProtocol { warmup, iterations, min_time_ms, .. } = *protocol;
        Effort { warmup, iterations, min_time_ms }
    }
}

/// What a session does, one job after the other: each may depend on how those before ended.
pub trait Script: Send {
    /// The next job, or `None` when all are done. `last` is the record of the job before, `None` at the start.
    fn next(&mut self, last: Option<&Record>) -> Option<PlannedJob>;

    /// The device was lost during the current job: no further job is carried out.
    fn lost(&mut self, failure: &Failure);

    /// The number of jobs, as far as it is known.
    fn length(&self) -> u64;

    /// Whether any job is timed, so that nothing else may run at the same time.
    fn is_timed(&self) -> bool;
}

/// A list of jobs in its order, without those of variants that an engine has refused to run.
#[derive(Clone, Debug, Default)]
pub struct JobList {
    jobs: VecDeque<PlannedJob>,
    skip_list: HashSet<(String, u64, Engine)>,
    current: Option<(String, u64, Engine)>,
}

impl JobList {
    pub fn new(jobs: Vec<PlannedJob>) -> JobList {
        JobList { jobs: jobs.into(), ..JobList::default() }
    }
}

impl Script for JobList {
    fn next(&mut self, last: Option<&Record>) -> Option<PlannedJob> {
        let refused = |record: &Record| match &record.outcome {
            Outcome::Failed(Failure { stage, .. }) => *stage == FailureStage::Runner,
            Outcome::Measured(_) => false,
        };
        if last.is_some_and(refused) {
            self.skip_list.extend(self.current.take());
        }
        while let Some(job) = self.jobs.pop_front() {
            let variant = (job.model.clone(), job.case.ratio.to_bits(), job.case.engine);
            if !self.skip_list.contains(&variant) {
                self.current = Some(variant);
                return Some(job);
            }
        }
        None
    }

    fn lost(&mut self, _: &Failure) {}

    fn length(&self) -> u64 {
        self.jobs.len() as u64
    }

    fn is_timed(&self) -> bool {
        self.jobs.iter().any(|job| job.mode == Mode::Time)
    }
}

/// What a run measures, whatever the device.
#[derive(Clone, Copy, Debug)]
pub struct RunSpec<'a> {
    pub models: &'a [ModelInfo],
    pub engines: &'a [Engine],
    /// Shapes of synthetic inputs, as `NAME=1x128`.
    pub shapes: &'a [String],
    /// For [`Engine::Skipping`].
    pub skip_below: Option<f64>,
    /// Whether a model's variants are one pack.
    pub nested: bool,
    pub protocol: &'a MeasuringProtocol,
}

impl<'a> RunSpec<'a> {
    pub fn of(header: &'a RunHeader) -> RunSpec<'a> {
        let RunHeader { models, engines, shapes, skip_below, nested, protocol, .. } = header;
        RunSpec { models, engines, shapes, skip_below: *skip_below, nested: *nested, protocol }
    }

    /// The jobs of one device that are not `done`.
    pub fn jobs(&self, device: &Device, done: &[Record]) -> Vec<PlannedJob> {
        let measured: HashSet<(&str, u64, Engine, Mode, u32)> = done
            .iter()
            .filter(|record| record.case.device == device.name && matches!(record.outcome, Outcome::Measured(_)))
            .map(|record| (&record.case, record.mode, record.round))
            .map(|(case, mode, round)| (case.model.as_str(), case.ratio.to_bits(), case.engine, mode, round))
            .collect();
        let variants = self.models.iter().flat_map(|model| model.variants.iter().map(move |variant| (model, variant)));
        let all: Vec<(&ModelInfo, &VariantInfo, Engine)> = variants
            .flat_map(|(model, variant)| self.engines.iter().map(move |engine| (model, variant, *engine)))
            .collect();
        let mut jobs = Vec::new();
        for mode in [Mode::Score, Mode::Memory, Mode::Time, Mode::Profile] {
            for round in 0..self.protocol.rounds(mode) {
                let mut order = all.clone();
                if round % 2 == 1 {
                    order.reverse();
                }
                order.retain(|(model, variant, engine)| {
                    !measured.contains(&(model.name.as_str(), variant.ratio.to_bits(), *engine, mode, round))
                });
                let job =
                    |(model, variant, engine)| PlannedJob { mode, round, ..self.job(device, model, variant, engine) };
                jobs.extend(order.into_iter().map(job));
            }
        }
        jobs
    }

    /// The job of one case; mode and round are the caller's.
    fn job(&self, device: &Device, model: &ModelInfo, variant: &VariantInfo, engine: Engine) -> PlannedJob {
        let unpacked = variant.unpacked.as_ref().filter(|_| !engine.reads_packs());
        PlannedJob {
            case: Case { engine, ..Case::new(&model.name, variant.ratio, &device.name) },
            mode: Mode::Score,
            round: 0,
            runner: if engine.is_in_runner() { RUNNER } else { PEER },
            model: unpacked.unwrap_or(&variant.sha256).clone(),
            inputs: model.inputs.clone(),
            shapes: if model.inputs.is_none() { self.shapes.to_vec() } else { Vec::new() },
            effort: Effort::from(self.protocol),
            padding: None,
            slow_down_percent: None,
            skip_below: self.skip_below.filter(|_| engine == Engine::Skipping),
            ratio: (self.nested && engine.reads_packs()).then_some(variant.ratio),
            request: request(&model.task()),
            trial: None,
        }
    }
}

/// The indices of the runner and of onnxruntime's program among a device's programs.
const RUNNER: usize = 0;
const PEER: usize = 1;

/// The runner's flags for a job; `path` maps a file's SHA-256 to its path on the board.
pub fn runner_job(job: &PlannedJob, device: &Device, path: impl Fn(&str) -> String) -> Job {
    let Effort { warmup, iterations, min_time_ms } = job.effort;
    Job {
        inputs: job.inputs.as_deref().map(&path),
        shapes: job.shapes.clone(),
        warmup,
        iterations,
        min_time_ms,
        cpus: device.conditions.cpus.clone(),
        slow_down_percent: job.slow_down_percent,
        skip_below: job.skip_below,
        ratios: job.ratio.into_iter().collect(),
        request: job.request.filter(|_| job.mode == Mode::Score),
        engine: match job.case.engine {
            Engine::Tract => espalier_protocol::Engine::Tract,
            // onnxruntime's program has no such flag.
            Engine::Espalier | Engine::Skipping | Engine::Onnxruntime => espalier_protocol::Engine::Espalier,
        },
        threads: device.threads,
        cache: device.kernels.clone().filter(|_| job.case.engine != Engine::Onnxruntime),
        ..Job::new(job.mode, path(&job.model))
    }
}

/// The command line on the device: the device's prefix, the program (or an interpreter and its file), and the flags.
pub fn runner_argv(device: &Device, program: &[String], job: &Job) -> Vec<String> {
    device.runner.iter().chain(program).cloned().chain(job.to_args()).collect()
}

/// The same command, which uses stored choices of kernels as they are. Without this a runner measures those again that
/// are in doubt, and two processes of one session may choose differently.
pub fn keeping_choices(argv: Vec<String>) -> Vec<String> {
    ["env".to_owned(), "ESPALIER_CHOICES=keep".to_owned()].into_iter().chain(argv).collect()
}

/// The most bytes of padding: a page. The command then still fits into the 9000 bytes that dropbear accepts.
pub const MOST_PADDING: usize = 4096;

/// The same command with an environment variable of so many bytes (at most [`MOST_PADDING`]).
///
/// The environment lies above the stack, so its size moves the stack; that alone can change times by several percent
/// (Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009). With random padding
/// each invocation gets another position, and the effect averages out. 0 bytes also go through `env`, so that every
/// invocation is started in the same way.
pub fn padded_argv(argv: Vec<String>, bytes: usize) -> Vec<String> {
    let padding = format!("ESPALIER_PAD={}", "x".repeat(bytes.min(MOST_PADDING)));
    ["env".to_owned(), padding].into_iter().chain(argv).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Failure, FailureStage};
    use espalier_inventory::{Conditions, Timeouts, Transport};

    fn device() -> Device {
        Device {
            name: "pi4".into(),
            target: "aarch64-gnu".into(),
            description: None,
            transport: Transport::Local,
            workdir: "/tmp/espalier".into(),
            runner: vec!["nice".into()],
            emulated: false,
            in_all: true,
            threads: 1,
            kernels: None,
            conditions: Conditions { cpus: vec![3], ..Conditions::default() },
            timeouts: Timeouts::default(),
        }
    }

    fn model() -> ModelInfo {
        let variant = |ratio: f64| VariantInfo {
            ratio,
            sha256: format!("sha-{ratio}"),
            bytes: 1,
            prunable: 10,
            removed: (ratio * 10.0) as u64,
            parameters: 10,
            zeros: 0,
            ..VariantInfo::default()
        };
        ModelInfo {
            name: "m".into(),
            source: "digits-cnn/dense.onnx".into(),
            eval: None,
            recipe: String::new(),
            labels: None,
            truth: None,
            task: None,
            samples: None,
            inputs: Some("sha-x".into()),
            variants: vec![variant(0.0), variant(0.5), variant(0.9)],
            max_accuracy_drop: None,
        }
    }

    const PROTOCOL: MeasuringProtocol =
        MeasuringProtocol { runs: 2, warmup: 1, iterations: 5, min_time_ms: 0, profile: false };

    fn jobs(engines: &[Engine], protocol: &MeasuringProtocol, done: &[Record]) -> Vec<PlannedJob> {
        let (models, nested) = (&[model()], false);
        RunSpec { models, engines, shapes: &[], skip_below: Some(0.01), nested, protocol }.jobs(&device(), done)
    }

    const DEFAULT: &[Engine] = &[Engine::Espalier];

    fn order(jobs: &[PlannedJob]) -> Vec<String> {
        jobs.iter().map(|job| format!("{} {} {}", job.mode.name(), job.round, job.case.ratio)).collect()
    }

    #[test]
    fn scores_then_memory_then_rounds_there_and_back() {
        let expected = [
            "score 0 0",
            "score 0 0.5",
            "score 0 0.9",
            "memory 0 0",
            "memory 0 0.5",
            "memory 0 0.9",
            "time 0 0",
            "time 0 0.5",
            "time 0 0.9",
            "time 1 0.9",
            "time 1 0.5",
            "time 1 0",
        ];
        assert_eq!(order(&jobs(DEFAULT, &PROTOCOL, &[])), expected);
    }

    #[test]
    fn engines_take_turns_variant_by_variant() {
        let engines = [Engine::Onnxruntime, Engine::Tract, Engine::Espalier];
        let protocol = MeasuringProtocol { runs: 2, profile: true, ..PROTOCOL };
        let all = jobs(&engines, &protocol, &[]);
        let of = |mode: Mode, round: u32| -> Vec<String> {
            let in_round = all.iter().filter(|job| (job.mode, job.round) == (mode, round));
            in_round.map(|job| format!("{} {}", job.case.ratio, job.case.engine.name())).collect()
        };
        let forth = of(Mode::Time, 0);
        let expected = ["0 onnxruntime", "0 tract", "0 espalier", "0.5 onnxruntime", "0.5 tract", "0.5 espalier"];
        assert_eq!(forth[..6], expected);
        assert_eq!(of(Mode::Time, 1), forth.iter().rev().cloned().collect::<Vec<_>>());
        assert_eq!((of(Mode::Profile, 0), all.len()), (forth, 9 * 5));
    }

    /// A record of one engine does not count for another.
    #[test]
    fn an_engine_has_its_own_jobs_flags_and_files() {
        let mut model = model();
        model.variants[1].unpacked = Some("sha-onnx".into());
        let engines = [Engine::Espalier, Engine::Tract, Engine::Onnxruntime, Engine::Skipping];
        let (models, skip_below, protocol) = (&[model], Some(0.01), &PROTOCOL);
        let spec = RunSpec { models, engines: &engines, shapes: &[], skip_below, nested: false, protocol };
        let all = spec.jobs(&device(), &[]);
        let half: Vec<&PlannedJob> =
            all.iter().filter(|job| job.case.ratio == 0.5 && job.mode == Mode::Score).collect();
        assert_eq!(half.iter().map(|job| job.runner).collect::<Vec<_>>(), [0, 0, 1, 0]);
        let models: Vec<&str> = half.iter().map(|job| &*job.model).collect();
        assert_eq!(models, ["sha-0.5", "sha-0.5", "sha-onnx", "sha-0.5"]);
        let device = Device { threads: 2, ..device() };
        let flags = |job: &PlannedJob| runner_job(job, &device, str::to_owned).to_args().join(" ");
        assert!(flags(half[1]).ends_with(" --cpus 3 --engine tract --threads 2"), "{}", flags(half[1]));
        assert!([0, 2, 3].into_iter().all(|index| !flags(half[index]).contains("--engine")));
        assert_eq!(
            [0, 1, 2, 3].map(|index| flags(half[index]).contains("--skip-below 0.01")),
            [false, false, false, true]
        );

        let done = [Record {
            case: half[2].case.clone(),
            mode: Mode::Score,
            round: 0,
            sequence: 0,
            start_ms: 0,
            wall_ms: 0,
            trial: None,
            outcome: crate::record::tests_support::measured(),
        }];
        let left = spec.jobs(&device, &done);
        let nested = RunSpec { nested: true, ..spec }.jobs(&device, &[]);
        let scores = nested.iter().filter(|job| job.case.ratio == 0.5 && job.mode == Mode::Score);
        let ratios: Vec<bool> = scores.map(|job| flags(job).contains("--ratio 0.5")).collect();
        assert_eq!(ratios, [true, true, false, true]);
        assert_eq!(left.len(), all.len() - 1);
        assert!(left.contains(half[0]) && left.contains(half[1]) && !left.contains(half[2]));
    }

    #[test]
    fn only_what_was_measured_is_left_out_on_resume() {
        let all = jobs(DEFAULT, &PROTOCOL, &[]);
        let record = |job: &PlannedJob, outcome: Outcome| Record {
            case: job.case.clone(),
            mode: job.mode,
            round: job.round,
            sequence: 0,
            start_ms: 0,
            wall_ms: 0,
            trial: None,
            outcome,
        };
        let failed = Outcome::Failed(Failure { stage: FailureStage::Run, message: "gone".into() });
        let mut measured = record(&all[1], failed.clone());
        measured.outcome = crate::record::tests_support::measured();
        let done = [record(&all[0], failed), measured];
        let mut expected = order(&all);
        expected.remove(1);
        assert_eq!(order(&jobs(DEFAULT, &PROTOCOL, &done)), expected);
    }

    #[test]
    fn a_variant_that_does_not_run_is_left_out_from_then_on() {
        let all = jobs(DEFAULT, &PROTOCOL, &[]);
        let mut script = JobList::new(all.clone());
        assert_eq!((script.length(), script.is_timed()), (12, true));
        let mut carried_out = Vec::new();
        let mut last = None;
        while let Some(job) = script.next(last.as_ref()) {
            let stage = match job.case.ratio {
                0.5 => FailureStage::Runner,
                _ => FailureStage::Run,
            };
            let failed = Outcome::Failed(Failure { stage, message: "gone".into() });
            let (case, mode, round) = (job.case.clone(), job.mode, job.round);
            last =
                Some(Record { case, mode, round, sequence: 0, start_ms: 0, wall_ms: 0, trial: None, outcome: failed });
            carried_out.push(job);
        }
        let mut expected = order(&all);
        let first = expected.remove(1);
        expected.retain(|job| !job.ends_with(" 0.5"));
        expected.insert(1, first);
        assert_eq!(order(&carried_out), expected);
    }

    #[test]
    fn the_command_line_that_runs() {
        let job = &jobs(DEFAULT, &PROTOCOL, &[])[0];
        let job = runner_job(job, &device(), |sha| format!("/b/{sha}"));
        assert_eq!(
            runner_argv(&device(), &["/b/run".to_owned()], &job).join(" "),
            "nice /b/run score --model /b/sha-0 --inputs /b/sha-x --warmup 1 --iterations 5 --min-time-ms 0 --cpus 3"
        );
    }

    #[test]
    fn padding_goes_before_the_devices_own_prefix() {
        let job = &jobs(DEFAULT, &PROTOCOL, &[])[0];
        let job = runner_job(job, &device(), |sha| format!("/b/{sha}"));
        let argv = runner_argv(&device(), &["/b/run".to_owned()], &job);
        let padded = padded_argv(argv.clone(), 3);
        assert_eq!(padded[..4], ["env", "ESPALIER_PAD=xxx", "nice", "/b/run"]);
        assert_eq!(padded[2..], argv);
        for (bytes, expected) in [(0, 0), (4096, 4096), (4097, 4096)] {
            assert_eq!(padded_argv(argv.clone(), bytes)[1].len(), "ESPALIER_PAD=".len() + expected);
        }
    }
}
