//! A gate as flags or a nightly run request it: resolved against the files, prepared, measured.

use std::{cell::RefCell, path::PathBuf};

use anyhow::Result;
use espalier_bench::{
    build_plan::Layout,
    record::{Case, FailureStage, ModelInfo},
};
use espalier_fleet::{cancel::Cancel, deploy::BlobFile, session::DeviceWork, store::Store};
use espalier_gate::{
    Criterion, Role,
    baseline::Baseline,
    outcome::Planned,
    profile::Profile,
    report::{BaselineFacts, Fault, GateDevice},
};
use espalier_inventory::Device;

use super::{
    arms::Arms,
    controls::{Controls, check_slow_down},
    measure::{GatePlan, Measuring, planned},
    results::{self, Results},
};
use crate::{
    baselines,
    context::Context,
    progress::Progress,
    runners::{self, Builds},
    selection::{Selected, Selection},
    variants,
};

pub struct Request {
    pub baseline: Option<String>,
    pub profile: Profile,
    pub selection: Selection,
    /// None: the models'.
    pub ratios: Vec<f64>,
    pub runner: Option<PathBuf>,
    /// None: as calibrated.
    pub criteria: Vec<Criterion>,
    pub emulated: bool,
    pub controls: Controls,
    pub slow_down: Option<f64>,
    pub seed: Option<u64>,
    pub jobs: Option<usize>,
    pub verbose: bool,
    /// Whether it becomes an entry of the history.
    pub history: bool,
}

/// A request resolved against the files.
struct Resolved {
    baseline: Baseline,
    selected: Selected,
    notes: Vec<String>,
}

impl Request {
    pub fn run(&self, context: &Context, progress: &Progress, cancel: &Cancel) -> Result<Results> {
        let builds = Builds { context, progress, cancel, verbose: self.verbose };
        let resolved = self.resolve(context)?;
        let plan = self.prepare(resolved, &builds)?;
        let notes = RefCell::new(Vec::new());
        let relink = |work: &DeviceWork, number: u32| {
            let device = &work.device.name;
            let relinked = match &self.runner {
                Some(_) => Err(format!("`{device}`: a given runner cannot be linked anew to confirm a regression")),
                None => builds.one(&work.target, Layout(number)).map_err(|error| {
                    format!("`{device}`: the candidate could not be linked anew to confirm a regression: {error:#}")
                }),
            };
            relinked.map_err(|note| notes.borrow_mut().push(note)).ok()
        };
        let measuring = Measuring { context, progress, cancel, jobs: self.jobs, relink: &relink };
        let mut results = measuring.run(plan)?;
        results.notes.extend(notes.take());
        Ok(results)
    }

    /// Finds every mistake that can be found before hours are spent.
    fn resolve(&self, context: &Context) -> Result<Resolved> {
        for percent in [self.slow_down, self.controls.positive].into_iter().flatten() {
            check_slow_down(percent)?;
        }
        results::read_waivers(context)?;
        let baseline = baselines::find(&context.root, self.baseline.as_deref())?;
        let (mut selected, notes) = self.selection.resolve_to_measure(context, self.emulated)?;
        if !self.ratios.is_empty() {
            selected.models.iter_mut().for_each(|model| model.recipe.ratios.clone_from(&self.ratios));
        }
        Ok(Resolved { baseline, selected, notes })
    }

    fn prepare(&self, resolved: Resolved, builds: &Builds) -> Result<GatePlan> {
        let Resolved { baseline, selected: Selected { inventory, devices, models }, mut notes } = resolved;
        let context = builds.context;
        let prepared = variants::prepare_all(context, &models, builds.progress)?;
        let (models, files): (Vec<ModelInfo>, Vec<Vec<BlobFile>>) =
            prepared.into_iter().map(|prepared| (prepared.info, prepared.files)).unzip();
        let missing = missing_variants(&baseline, &models);
        let all_requested = self.ratios.is_empty() && self.selection.model.is_empty();
        notes.extend(changed_recipes(&baseline, &models));
        if !all_requested {
            let note = |(model, ratio): &(String, f64)| format!("{model}@{ratio} of the baseline was not requested");
            notes.extend(missing.iter().map(note));
        }
        let targets = runners::targets(&inventory, devices.iter())?;
        let runners = builds.all(&targets, self.runner.as_deref())?;
        let arms = Arms {
            context,
            baseline: &baseline,
            store: &Store::find(&context.root)?,
            models: &models,
            files: &files.concat(),
            latencies: &self.criteria,
            slow_down_percent: self.slow_down,
            profile: self.profile,
            controls: &self.controls,
        };
        let mut plan = GatePlan {
            baseline: BaselineFacts::from(&baseline),
            profile: self.profile,
            seed: self.seed,
            models: models.clone(),
            facts: Vec::new(),
            devices: Vec::new(),
            planned: Vec::new(),
            comparisons: Vec::new(),
            faults: Vec::new(),
            notes,
            history: self.history,
        };
        for device in &devices {
            let target =
                targets.iter().find(|target| target.name == device.target).expect("every target was looked up");
            let mut facts = GateDevice {
                name: device.name.clone(),
                target: target.name.clone(),
                triple: target.triple.clone(),
                emulated: device.emulated,
                base_runner: baseline.runner(&target.name).map(|runner| runner.sha256.clone()),
                candidate_runner: None,
                other_binary: None,
            };
            match runners.of(device) {
                Ok(runner) => {
                    let prepared = arms.prepare(device, target, runner)?;
                    facts.candidate_runner = Some(runner.file.sha256.clone());
                    facts.other_binary = prepared.gate.other_binary;
                    plan.planned.extend(planned(&prepared.gate.cases));
                    plan.planned.extend(prepared.comparisons.iter().map(Planned::of));
                    plan.devices.push(prepared.gate);
                    plan.comparisons.extend(prepared.comparisons);
                    plan.notes.extend(prepared.notes);
                }
                Err(message) => {
                    let variants =
                        models.iter().flat_map(|model| model.variants.iter().map(move |of| (model, of.ratio)));
                    plan.planned
                        .extend(variants.map(|(model, ratio)| unmeasured(device, &model.name, ratio, Criterion::P50)));
                    let (device, message) = (device.name.clone(), message.to_owned());
                    plan.faults.push(Fault { device, stage: FailureStage::Build, message: message.into() });
                }
            }
            plan.facts.push(facts);
            if all_requested {
                let size = |(model, ratio): &(String, f64)| unmeasured(device, model, *ratio, Criterion::ModelSize);
                plan.planned.extend(missing.iter().map(size));
            }
        }
        Ok(plan)
    }
}

/// A comparison that is missing, whatever else passes: there is no runner, or no such variant of the candidate.
fn unmeasured(device: &Device, model: &str, ratio: f64, criterion: Criterion) -> Planned {
    Planned { case: Case::new(model, ratio, &device.name), criterion, role: Role::Gate }
}

/// Models and ratios that the baseline has and the candidate lacks.
fn missing_variants(baseline: &Baseline, models: &[ModelInfo]) -> Vec<(String, f64)> {
    let has = |name: &str, ratio: f64| {
        let mut variants = models.iter().filter(|model| model.name == name).flat_map(|model| &model.variants);
        variants.any(|variant| variant.ratio == ratio)
    };
    let all = baseline.models.iter().flat_map(|model| model.variants.iter().map(|of| (model.name.clone(), of.ratio)));
    all.filter(|(name, ratio)| !has(name, *ratio)).collect()
}

/// Eval sets and recipes that differ from the baseline's.
fn changed_recipes(baseline: &Baseline, models: &[ModelInfo]) -> Vec<String> {
    let mut notes = Vec::new();
    for base in &baseline.models {
        let Some(model) = models.iter().find(|model| model.name == base.name) else { continue };
        if base.inputs != model.inputs {
            let name = &base.name;
            notes.push(format!("the eval set of {name} is another than the baseline's: both arms score today's"));
        }
        if base.recipe != model.recipe {
            notes.push(format!("{} was pruned by {}, and is by {} now", base.name, base.recipe, model.recipe));
        }
    }
    notes
}
