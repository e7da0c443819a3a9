//! Baseline and candidate made ready: which runner and which variants run in which arm on which device.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use espalier_bench::{
    exit::ExitStatus,
    record::{Case, ModelInfo, VariantInfo},
};
use espalier_fleet::{
    deploy::BlobFile,
    elf,
    session::{DeviceWork, Runner},
    store::Store,
};
use espalier_gate::{
    Comparison, Criterion, Finding, Role, Verdict,
    baseline::{Baseline, BaselineRunner},
    calibration::{self, Calibration},
    profile::Profile,
    session::{ArmPlan, CellPlan},
    size,
};
use espalier_inventory::{Device, Target};

use super::live::DeviceGate;
use crate::{
    context::{Context, Exit, usage},
    provenance,
};

/// The candidate, prepared.
pub struct Candidate<'a> {
    pub models: &'a [ModelInfo],
    pub files: &'a [BlobFile],
}

/// One device's comparison, and what is known of it without measuring.
pub struct Prepared {
    pub gate: DeviceGate,
    /// Of sizes.
    pub comparisons: Vec<Comparison>,
    pub notes: Vec<String>,
}

pub struct Comparing<'a> {
    pub context: &'a Context,
    pub baseline: &'a Baseline,
    pub store: &'a Store,
    /// Latencies that are judged whatever the calibration says; none: as calibrated.
    pub latencies: &'a [Criterion],
    /// A drill: the candidate made slower.
    pub slow_down_percent: Option<f64>,
    pub profile: Profile,
    pub controls: &'a Controls,
}

/// Comparisons whose outcome is known beforehand.
#[derive(Clone, Debug, Default)]
pub struct Controls {
    pub negative: bool,
    /// By so many per cent.
    pub positive: Option<f64>,
    /// The devices the positive one is for; `None`: all.
    pub devices: Option<Vec<String>>,
}

impl Comparing<'_> {
    /// # Errors
    /// The baseline is from another device type, or one of its files is not in the store.
    pub fn device(&self, device: &Device, target: &Target, runner: &Runner, candidate: &Candidate) -> Result<Prepared> {
        let known = self.baseline.check_device(&target.name, &target.triple);
        let known = known.map_err(|error| usage(format!("device `{}`: {error}", device.name)))?;
        let base_runner = self.stored_runner(known)?;
        let is_other = base_runner.file.sha256 != runner.file.sha256;
        let calibration = read_calibration(self.context, &device.name)?;
        let layout_sd = calibration.as_ref().and_then(|calibration| calibration.layout_sd);
        let other_binary = is_other.then(|| layout_sd.unwrap_or(calibration::LAYOUT_SD));
        let mut notes = Vec::new();
        let mut files: BTreeMap<String, BlobFile> = BTreeMap::new();
        let (mut cells, mut comparisons) = (Vec::new(), Vec::new());
        for model in candidate.models {
            let mut judging = calibration::judging(calibration.as_ref(), &device.name, &model.name, &self.profile);
            if !self.latencies.is_empty() {
                judging.latencies = self.latencies.to_vec();
            }
            // A tail of few values is their largest by another name.
            if judging.latencies.iter().any(|of| matches!(of, Criterion::P95 | Criterion::P99)) {
                judging.effort.iterations = judging.effort.iterations.max(calibration::TAIL_ITERATIONS);
            }
            notes.extend(judging.note);
            for variant in &model.variants {
                let case = Case::new(&model.name, variant.ratio, &device.name);
                let Some(base) = self.baseline.variant(&model.name, variant.ratio) else {
                    comparisons.push(not_in_baseline(case, &self.baseline.name));
                    continue;
                };
                let mut criteria = judging.latencies.clone();
                criteria.extend([Criterion::PeakRss, Criterion::PeakAllocated, Criterion::Accuracy]);
                let stored = self.stored(base, &format!("{} at ratio {}", model.name, variant.ratio))?;
                files.insert(stored.sha256.clone(), stored);
                let arm =
                    |runner: usize, model: &str| ArmPlan { runner, model: model.to_owned(), slow_down_percent: None };
                let mut arms = [arm(0, &base.sha256), arm(usize::from(is_other), &variant.sha256)];
                arms[1].slow_down_percent = self.slow_down_percent;
                let cell = CellPlan {
                    case: case.clone(),
                    role: Role::Gate,
                    session: 0,
                    arms,
                    inputs: model.inputs.clone(),
                    shapes: Vec::new(),
                    labels: model.labels.clone(),
                    max_accuracy_drop: model.max_accuracy_drop,
                    effort: judging.effort,
                    criteria,
                };
                if cells.is_empty() {
                    cells.extend(self.controls.cells(&cell));
                }
                cells.push(cell);
                comparisons.push(sized(case, Criterion::ModelSize, base.bytes, variant.bytes));
            }
        }
        // Once a device: the artifact is the same for all its cases.
        if let Some(case) = cells.first().map(|first: &CellPlan| first.case.clone()) {
            comparisons.push(sized(case, Criterion::RunnerSize, base_runner.file.bytes, runner.file.bytes));
        }
        files.extend(candidate.files.iter().map(|file| (file.sha256.clone(), file.clone())));
        let mut runners = vec![base_runner];
        if is_other {
            runners.push(runner.clone());
        }
        let work = DeviceWork {
            device: device.clone(),
            runners,
            target: target.clone(),
            files: files.into_values().collect(),
            owner: provenance::owner(),
        };
        let gate = DeviceGate { work, cells, other_binary };
        Ok(Prepared { gate, comparisons, notes })
    }

    fn stored_runner(&self, known: &BaselineRunner) -> Result<Runner> {
        let what = format!("the runner for {}", known.target);
        let file = self.file(&known.sha256, &what, true)?;
        let content = std::fs::read(&file.path).with_context(|| format!("cannot read `{}`", file.path.display()))?;
        Ok(Runner { file, elf: elf::read(&content).ok(), interpreter: Vec::new(), builder: known.builder.clone() })
    }

    fn stored(&self, variant: &VariantInfo, what: &str) -> Result<BlobFile> {
        self.file(&variant.sha256, what, false)
    }

    fn file(&self, sha256: &str, what: &str, executable: bool) -> Result<BlobFile> {
        let blob = self.store.get(sha256).map_err(|error| {
            let message = format!("baseline `{}`, {what}: {error:#}", self.baseline.name);
            // Nothing can be compared without it.
            anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message })
        })?;
        Ok(BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable })
    }
}

impl Controls {
    /// Made of the first case: the same files, so that nothing has to be brought for them. The candidate's program is in both arms of the slowed one,
    /// because a baseline's may be too old to know how.
    pub fn cells(&self, like: &CellPlan) -> Vec<CellPlan> {
        let only_latency = |role: Role, arms: [ArmPlan; 2]| CellPlan {
            role,
            arms,
            criteria: like.criteria.iter().copied().filter(|of| of.quantile().is_some()).take(1).collect(),
            ..like.clone()
        };
        let plain = |arm: &ArmPlan| ArmPlan { slow_down_percent: None, ..arm.clone() };
        let negative = self.negative.then(|| {
            let base = plain(&like.arms[0]);
            only_latency(Role::NegativeControl, [base.clone(), base])
        });
        let device = &like.case.device;
        let is_asked = self.devices.as_ref().is_none_or(|devices| devices.contains(device));
        let positive = self.positive.filter(|_| is_asked).map(|percent| {
            let candidate = plain(&like.arms[1]);
            let slow = ArmPlan { slow_down_percent: Some(percent), ..candidate.clone() };
            only_latency(Role::PositiveControl, [candidate, slow])
        });
        negative.into_iter().chain(positive).collect()
    }
}

/// What is known of a device, where it was calibrated.
pub fn read_calibration(context: &Context, device: &str) -> Result<Option<Calibration>> {
    let name = calibration_file(device);
    match std::fs::read_to_string(context.root.join(&name)) {
        Ok(text) => Calibration::parse(&text, &name).map(Some).map_err(usage),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{name}`")),
    }
}

/// From the repository's root.
pub fn calibration_file(device: &str) -> String {
    format!("devices/calibration/{device}.toml")
}

fn sized(case: Case, criterion: Criterion, base: u64, candidate: u64) -> Comparison {
    let (verdict, finding, reason) = size::judge_sizes(base, candidate, size::BUDGET);
    comparison(case, criterion, verdict, finding, reason)
}

fn not_in_baseline(case: Case, baseline: &str) -> Comparison {
    let reason = format!("it is not in baseline `{baseline}`: nothing to compare with");
    comparison(case, Criterion::ModelSize, Verdict::Inconclusive, Finding::Nothing, reason)
}

fn comparison(case: Case, criterion: Criterion, verdict: Verdict, finding: Finding, reason: String) -> Comparison {
    Comparison {
        case,
        criterion,
        role: Role::Gate,
        verdict,
        finding,
        reason,
        tags: Vec::new(),
        confirmation: None,
        waived: None,
    }
}
