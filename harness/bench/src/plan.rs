//! Which invocations a device carries out, and in what order.
//!
//! Scores come first (a variant that does not run is found out in seconds), then memory, then times. Times are interleaved: every round runs each
//! variant once, forwards and backwards in turn, so that a drift of the board hits all alike. With `--resume` what was already measured is left out;
//! what is left keeps its order.

use std::collections::HashSet;

use espalier_protocol::{Job, Mode};

use crate::{
    inventory::Device,
    record::{Case, MeasuringProtocol, ModelInfo, Outcome, Record, VariantInfo},
};

/// One invocation to come. The files are named by content; where they are on the board is known after the push.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedJob {
    pub case: Case,
    pub mode: Mode,
    pub round: u32,
    /// SHA-256 of the variant's ONNX file.
    pub model: String,
    /// SHA-256 of the prepared inputs.
    pub inputs: Option<String>,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
}

/// Every job of one device.
pub fn jobs(
    device: &Device,
    models: &[ModelInfo],
    shapes: &[String],
    protocol: &MeasuringProtocol,
    done: &[Record],
) -> Vec<PlannedJob> {
    let measured: HashSet<(&str, u64, Mode, u32)> = done
        .iter()
        .filter(|record| record.case.device == device.name && matches!(record.outcome, Outcome::Measured(_)))
        .map(|record| (record.case.model.as_str(), record.case.ratio.to_bits(), record.mode, record.round))
        .collect();
    let variants: Vec<(&ModelInfo, &VariantInfo)> =
        models.iter().flat_map(|model| model.variants.iter().map(move |variant| (model, variant))).collect();
    let mut jobs = Vec::new();
    for mode in [Mode::Score, Mode::Memory, Mode::Time] {
        for round in 0..protocol.rounds(mode) {
            let mut order = variants.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            let fresh = order.into_iter().filter(|(model, variant)| {
                !measured.contains(&(model.name.as_str(), variant.ratio.to_bits(), mode, round))
            });
            jobs.extend(fresh.map(|(model, variant)| PlannedJob {
                case: Case { model: model.name.clone(), ratio: variant.ratio, device: device.name.clone() },
                mode,
                round,
                model: variant.sha256.clone(),
                inputs: model.inputs.clone(),
                shapes: if model.inputs.is_none() { shapes.to_vec() } else { Vec::new() },
            }));
        }
    }
    jobs
}

/// The runner's flags for a job, with the paths its files have on the board.
pub fn runner_job(
    job: &PlannedJob,
    device: &Device,
    protocol: &MeasuringProtocol,
    path: impl Fn(&str) -> String,
) -> Job {
    Job {
        mode: job.mode,
        model: path(&job.model),
        inputs: job.inputs.as_deref().map(path),
        shapes: job.shapes.clone(),
        warmup: protocol.warmup,
        iterations: protocol.iterations,
        min_time_ms: protocol.min_time_ms,
        cpus: device.conditions.cpus.clone(),
    }
}

/// The words to run on the device: its prefix, the runner, the flags.
pub fn runner_words(device: &Device, runner: &str, job: &Job) -> Vec<String> {
    device.runner.iter().cloned().chain([runner.to_owned()]).chain(job.to_args()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::{Conditions, Timeouts, Transport},
        record::{Failure, FailureStage},
    };

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
        };
        ModelInfo {
            name: "m".into(),
            source: "digits-cnn/dense.onnx".into(),
            eval: None,
            recipe: String::new(),
            labels: None,
            inputs: Some("sha-x".into()),
            variants: vec![variant(0.0), variant(0.5), variant(0.9)],
            max_accuracy_drop: None,
        }
    }

    const PROTOCOL: MeasuringProtocol = MeasuringProtocol { runs: 2, warmup: 1, iterations: 5, min_time_ms: 0 };

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
        assert_eq!(order(&jobs(&device(), &[model()], &[], &PROTOCOL, &[])), expected);
    }

    #[test]
    fn only_what_was_measured_is_left_out_on_resume() {
        let all = jobs(&device(), &[model()], &[], &PROTOCOL, &[]);
        let record = |job: &PlannedJob, outcome: Outcome| Record {
            case: job.case.clone(),
            mode: job.mode,
            round: job.round,
            sequence: 0,
            start_ms: 0,
            wall_ms: 0,
            outcome,
        };
        let failed = Outcome::Failed(Failure { stage: FailureStage::Run, message: "gone".into() });
        let mut measured = record(&all[1], failed.clone());
        measured.outcome = crate::record::tests_support::measured();
        let done = [record(&all[0], failed), measured];
        let mut expected = order(&all);
        expected.remove(1);
        assert_eq!(order(&jobs(&device(), &[model()], &[], &PROTOCOL, &done)), expected);
    }

    #[test]
    fn the_words_that_run() {
        let job = &jobs(&device(), &[model()], &[], &PROTOCOL, &[])[0];
        let job = runner_job(job, &device(), &PROTOCOL, |sha| format!("/b/{sha}"));
        assert_eq!(
            runner_words(&device(), "/b/run", &job).join(" "),
            "nice /b/run score --model /b/sha-0 --inputs /b/sha-x --warmup 1 --iterations 5 --min-time-ms 0 --cpus 3"
        );
    }
}
