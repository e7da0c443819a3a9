//! Baseline and candidate made ready: which runner and which variants run in which arm on which device.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use espalier_bench::{
    exit::ExitStatus,
    record::{Case, ModelInfo},
};
use espalier_fleet::{
    blob,
    cache::Cache,
    deploy::BlobFile,
    elf,
    session::{DeviceWork, Runner},
    store::Store,
};
use espalier_gate::{
    Comparison, Criterion, Finding, Role, Verdict,
    accuracy::Expected,
    baseline::{Baseline, BaselineRunner},
    calibration::{self, Calibration, Judging},
    profile::Profile,
    session::{ArmPlan, CasePlan},
    size,
};
use espalier_inventory::{Device, Target};

use super::{controls::Controls, measure::DeviceGate};
use crate::{
    context::{Context, Exit, usage},
    provenance,
};

/// What all devices of a gate compare.
pub struct Arms<'a> {
    pub context: &'a Context,
    pub baseline: &'a Baseline,
    pub store: &'a Store,
    /// The candidate's variants and their files.
    pub models: &'a [ModelInfo],
    pub files: &'a [BlobFile],
    /// Latencies that are judged whatever the calibration says; none: as calibrated.
    pub latencies: &'a [Criterion],
    /// A drill: the candidate made slower.
    pub slow_down_percent: Option<f64>,
    pub profile: Profile,
    pub controls: &'a Controls,
}

/// One device's part, and what is known of it without measuring.
pub struct PreparedDevice {
    pub gate: DeviceGate,
    /// Of sizes.
    pub comparisons: Vec<Comparison>,
    pub notes: Vec<String>,
}

impl Arms<'_> {
    /// # Errors
    /// The baseline is from another device type, or one of its files is not in the store.
    pub fn prepare(&self, device: &Device, target: &Target, runner: &Runner) -> Result<PreparedDevice> {
        let stored = self.baseline.check_device(&target.name, &target.triple);
        let stored = stored.map_err(|error| usage(format!("device `{}`: {error}", device.name)))?;
        let base_runner = self.stored_runner(stored)?;
        let is_other = base_runner.file.sha256 != runner.file.sha256;
        let calibration = read_calibration(self.context, &device.name)?;
        let layout_sd = calibration.as_ref().and_then(|calibration| calibration.layout_sd);
        let mut notes = Vec::new();
        let mut files: BTreeMap<String, BlobFile> = BTreeMap::new();
        let (mut cases, mut comparisons) = (Vec::new(), Vec::new());
        for model in self.models {
            let judging = self.judging(calibration.as_ref(), device, model);
            notes.extend(judging.note);
            let mut criteria = judging.latencies;
            criteria.extend([Criterion::PeakRss, Criterion::PeakAllocated, Criterion::Accuracy]);
            for variant in &model.variants {
                let case = Case::new(&model.name, variant.ratio, &device.name);
                let Some(base) = self.baseline.variant(&model.name, variant.ratio) else {
                    comparisons.push(not_in_baseline(case, &self.baseline.name));
                    continue;
                };
                let file =
                    self.stored_file(&base.sha256, &format!("{} at ratio {}", model.name, variant.ratio), false)?;
                files.insert(file.sha256.clone(), file);
                let base_arm = ArmPlan { runner: 0, model: base.sha256.clone(), slow_down_percent: None };
                let candidate = ArmPlan {
                    runner: usize::from(is_other),
                    model: variant.sha256.clone(),
                    slow_down_percent: self.slow_down_percent,
                };
                let plan = CasePlan {
                    case: case.clone(),
                    role: Role::Gate,
                    session: 0,
                    arms: [base_arm, candidate],
                    inputs: model.inputs.clone(),
                    shapes: Vec::new(),
                    expected: Expected::of(model),
                    max_accuracy_drop: model.max_accuracy_drop,
                    effort: judging.effort,
                    criteria: criteria.clone(),
                };
                if cases.is_empty() {
                    cases.extend(self.controls.cases(&plan));
                }
                cases.push(plan);
                comparisons.push(sized(case, Criterion::ModelSize, base.bytes, variant.bytes));
            }
        }
        // Once a device: the artifact is the same for all its cases.
        if let Some(case) = cases.first().map(|first| first.case.clone()) {
            comparisons.push(sized(case, Criterion::RunnerSize, base_runner.file.bytes, runner.file.bytes));
        }
        files.extend(self.files.iter().map(|file| (file.sha256.clone(), file.clone())));
        let work = DeviceWork {
            device: device.clone(),
            runners: [base_runner].into_iter().chain(is_other.then(|| runner.clone())).collect(),
            target: target.clone(),
            files: files.into_values().collect(),
            owner: provenance::owner(),
        };
        let other_binary = is_other.then(|| layout_sd.unwrap_or(calibration::LAYOUT_SD));
        Ok(PreparedDevice { gate: DeviceGate { work, cases, other_binary }, comparisons, notes })
    }

    fn judging(&self, calibration: Option<&Calibration>, device: &Device, model: &ModelInfo) -> Judging {
        let mut judging = calibration::judging(calibration, &device.name, &model.name, &self.profile);
        if !self.latencies.is_empty() {
            judging.latencies = self.latencies.to_vec();
        }
        // With few values a tail's quantile is just the largest of them.
        if judging.latencies.iter().any(|of| matches!(of, Criterion::P95 | Criterion::P99)) {
            judging.effort.iterations = judging.effort.iterations.max(calibration::TAIL_ITERATIONS);
        }
        judging
    }

    fn stored_runner(&self, stored: &BaselineRunner) -> Result<Runner> {
        let file = self.stored_file(&stored.sha256, &format!("the runner for {}", stored.target), true)?;
        let content = std::fs::read(&file.path).with_context(|| format!("cannot read `{}`", file.path.display()))?;
        // A runner stores choices of kernels beside the cache's blobs: from the store, each process would choose anew.
        let blob = blob::put_program(&Cache::open()?, &content)?;
        let file = BlobFile { path: blob.path, ..file };
        Ok(Runner { file, elf: elf::read(&content).ok(), interpreter: Vec::new(), builder: stored.builder.clone() })
    }

    fn stored_file(&self, sha256: &str, what: &str, executable: bool) -> Result<BlobFile> {
        let blob = self.store.get(sha256).map_err(|error| {
            let message = format!("baseline `{}`, {what}: {error:#}", self.baseline.name);
            // Nothing can be compared without it.
            anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message })
        })?;
        Ok(BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable })
    }
}

/// A device's calibration; `None` where it was not calibrated.
pub fn read_calibration(context: &Context, device: &str) -> Result<Option<Calibration>> {
    let source = context.source(&calibration_file(device))?;
    source.map(|source| Calibration::parse(&source.text, &source.path)).transpose().map_err(usage)
}

/// From the repository's root.
pub fn calibration_file(device: &str) -> String {
    format!("devices/calibration/{device}.toml")
}

fn sized(case: Case, criterion: Criterion, base: u64, candidate: u64) -> Comparison {
    Comparison::new(case, criterion, Role::Gate, size::judge_sizes(base, candidate, size::BUDGET))
}

fn not_in_baseline(case: Case, baseline: &str) -> Comparison {
    let reason = format!("it is not in baseline `{baseline}`: nothing to compare with");
    let judged = (Verdict::Inconclusive, Finding::Nothing, reason);
    Comparison::new(case, Criterion::ModelSize, Role::Gate, judged)
}
