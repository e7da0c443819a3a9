//! A gate on devices: is a candidate worse than its baseline?
//!
//! The candidate is what is here now: its runner is built, its variants are pruned. The baseline comes out of the store by hash. What is compared and
//! what comes of it is decided in `espalier_bench::gate`.

mod compare;
mod drill;
mod file;
mod live;
mod replay;
mod results;

use std::{cell::RefCell, path::PathBuf};

use anyhow::Result;
use clap::{Args, builder::PossibleValuesParser};
use espalier_bench::{
    build_plan::Layout,
    record::{Case, FailureStage, ModelInfo},
};
use espalier_fleet::{cancel::Cancel, session::DeviceWork, store::Store};
use espalier_gate::{
    Criterion, Role,
    baseline::Baseline,
    file::{FORMAT, GateHeader},
    outcome::Planned,
    profile::Profile,
    report::{BaselineFacts, Fault, GateDevice},
    session::CellPlan,
};
use espalier_inventory::{Device, Target};
use espalier_protocol::Job;

use self::{
    compare::{Candidate, Comparing, Prepared},
    file::GateFile,
};
pub use self::{
    compare::{Controls, calibration_file, read_calibration},
    drill::Drill,
    live::{DeviceGate, Gate},
    replay::replay,
    results::{Exports, Results, judge_again, read_controls, today},
};
use crate::{
    baselines,
    context::{Context, usage},
    progress::Progress,
    provenance, run_file,
    runners::{self, Builds},
    selection::{Selected, Selection},
    ssh_feature, variants,
};

/// How strictly to judge.
#[derive(Args, Clone)]
pub struct Strictness {
    /// nightly, release, or coarse for pull requests
    #[arg(long, default_value = "nightly", value_parser = PossibleValuesParser::new(Profile::ALL.map(|profile| profile.name)))]
    pub profile: String,
}

impl Strictness {
    /// # Errors
    /// An unknown name, which clap has refused already.
    pub fn profile(&self) -> Result<Profile> {
        Profile::named(&self.profile).ok_or_else(|| usage(format!("`{}` is no profile", self.profile)))
    }
}

/// A gate on devices, as flags or a nightly run ask for it.
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
    /// Whether it is one of the history's nights.
    pub history: bool,
}

impl Request {
    pub fn carry_out(self, context: &Context, progress: &Progress, cancel: &Cancel) -> Result<Results> {
        for percent in [self.slow_down, self.controls.positive].into_iter().flatten() {
            check_slow_down(percent)?;
        }
        // Before hours are spent: mistakes in it would be found at the end.
        results::read_waivers(context)?;
        let baseline = baselines::find(&context.root, self.baseline.as_deref())?;
        let Selected { inventory, mut devices, mut models } = self.selection.resolve(context)?;
        let mut notes = Vec::new();
        if !self.emulated {
            let (emulated, real): (Vec<Device>, Vec<Device>) = devices.into_iter().partition(|device| device.emulated);
            if let Some(device) = emulated.first().filter(|_| !self.selection.all_devices) {
                let name = &device.name;
                return Err(usage(format!(
                    "`{name}` is emulated: its times say nothing; `--emulated` judges it all the same"
                )));
            }
            notes.extend(emulated.iter().map(|device| format!("`{}` is emulated and was left out", device.name)));
            devices = real;
        }
        if !self.ratios.is_empty() {
            models.iter_mut().for_each(|model| model.recipe.ratios.clone_from(&self.ratios));
        }
        ssh_feature::ensure(context, &devices)?;

        let (mut infos, mut files) = (Vec::new(), Vec::new());
        for prepared in variants::prepare_all(context, &models, progress)? {
            infos.push(prepared.info);
            files.extend(prepared.files);
        }
        let all_asked_for = self.ratios.is_empty() && self.selection.model.is_empty();
        let gone = left_out(&baseline, &infos);
        notes.extend(other_recipes(&baseline, &infos));
        if !all_asked_for {
            notes
                .extend(gone.iter().map(|(model, ratio)| format!("{model}@{ratio} of the baseline was not asked for")));
        }
        let targets = runners::targets(&inventory, devices.iter())?;
        let builds = Builds { context, progress, cancel, verbose: self.verbose };
        let runners = builds.all(&targets, self.runner.as_deref())?;
        let store = Store::find(&context.root)?;
        let comparing = Comparing {
            context,
            baseline: &baseline,
            store: &store,
            latencies: &self.criteria,
            profile: self.profile,
            slow_down_percent: self.slow_down,
            controls: &self.controls,
        };
        let candidate = Candidate { models: &infos, files: &files };
        let (mut prepared, mut faults, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        let mut unbuilt: Vec<Planned> = Vec::new();
        for device in &devices {
            let target =
                targets.iter().find(|target| target.name == device.target).expect("every target was looked up");
            let runner = runners.of(device);
            facts.push(device_facts(device, target, &baseline, runner.ok().map(|runner| &*runner.file.sha256)));
            match runner {
                Ok(runner) => prepared.push(comparing.device(device, target, runner, &candidate)?),
                Err(message) => {
                    unbuilt.extend(cases_of(device, &infos));
                    faults.push(Fault {
                        device: device.name.clone(),
                        stage: FailureStage::Build,
                        message: message.into(),
                    });
                }
            }
        }
        notes.extend(prepared.iter().flat_map(|prepared| prepared.notes.clone()));
        let mut planned = planned(&prepared);
        planned.extend(unbuilt);
        if all_asked_for {
            let missing = |device: &Device| {
                gone.iter().map(|(model, ratio)| planned_size(device, model, *ratio)).collect::<Vec<Planned>>()
            };
            planned.extend(devices.iter().flat_map(missing));
        }
        let cells = prepared.iter().flat_map(|prepared| &prepared.gate.cells);
        let cells = cells.flat_map(|cell| &cell.criteria).filter(|of| of.shares_error_rate()).count();
        let (started, id) = run_file::now()?;
        let seed = self.seed.unwrap_or_else(|| seed(&id));
        let other_binary = |name: &str| prepared.iter().find(|of| of.gate.work.device.name == name)?.gate.other_binary;
        let devices =
            facts.into_iter().map(|facts| GateDevice { other_binary: other_binary(&facts.name), ..facts }).collect();
        let header = GateHeader {
            format: FORMAT,
            id,
            started,
            provenance: provenance::of_this_run(context),
            baseline: BaselineFacts::from(&baseline),
            profile: self.profile.name.to_owned(),
            seed,
            cells,
            models: infos.clone(),
            devices,
            planned,
        };
        let mut file = GateFile::create(&context.root, &header)?;
        let mut comparisons = Vec::new();
        let mut gates: Vec<DeviceGate> = Vec::new();
        for Prepared { gate, comparisons: sizes, .. } in prepared {
            comparisons.extend(sizes);
            gates.push(gate);
        }
        let told = RefCell::new(Vec::new());
        let relink = |work: &DeviceWork, number: u32| {
            if self.runner.is_some() {
                let device = &work.device.name;
                told.borrow_mut()
                    .push(format!("`{device}`: a runner that is given cannot be linked anew to confirm a failure"));
                return None;
            }
            match builds.one(&work.target, Layout(number)) {
                Ok(runner) => Some(runner),
                Err(error) => {
                    let device = &work.device.name;
                    told.borrow_mut().push(format!(
                        "`{device}`: the candidate could not be linked anew to confirm a failure: {error:#}"
                    ));
                    None
                }
            }
        };
        let gate = Gate { progress, cancel, jobs: self.jobs, profile: self.profile, cells, seed, relink: &relink };
        let judged = gate.judge(gates, &mut file)?;
        comparisons.extend(judged.comparisons);
        faults.extend(judged.lost);
        notes.extend(told.take());
        let (scripts, path, cancelled) = (judged.scripts, file.path.clone(), judged.cancelled);
        let results = Results { header, comparisons, faults, notes, scripts, path, cancelled, history: self.history };
        results.store(&mut file)?;
        Ok(results)
    }
}

/// What the baseline has and the candidate has not: a model, and a ratio.
fn left_out(baseline: &Baseline, models: &[ModelInfo]) -> Vec<(String, f64)> {
    let has = |name: &str, ratio: f64| {
        let mut mine = models.iter().filter(|model| model.name == name).flat_map(|model| &model.variants);
        mine.any(|variant| variant.ratio == ratio)
    };
    let known =
        baseline.models.iter().flat_map(|model| model.variants.iter().map(|variant| (&model.name, variant.ratio)));
    known.filter(|(name, ratio)| !has(name, *ratio)).map(|(name, ratio)| (name.clone(), ratio)).collect()
}

/// Eval sets and ways of pruning that are others now.
fn other_recipes(baseline: &Baseline, models: &[ModelInfo]) -> Vec<String> {
    let mut notes = Vec::new();
    for known in &baseline.models {
        let Some(model) = models.iter().find(|model| model.name == known.name) else { continue };
        if known.inputs != model.inputs {
            notes.push(format!(
                "the eval set of {} is another than the baseline's: both arms score today's",
                known.name
            ));
        }
        if known.recipe != model.recipe {
            notes.push(format!("{} was pruned by {}, and is by {} now", known.name, known.recipe, model.recipe));
        }
    }
    notes
}

/// # Errors
/// No runner can do that.
pub fn check_slow_down(percent: f64) -> Result<()> {
    if percent > 0.0 && percent <= Job::MOST_SLOW_DOWN {
        return Ok(());
    }
    Err(usage(format!("a slow-down of {percent} %: more than 0 and at most {} are possible", Job::MOST_SLOW_DOWN)))
}

fn device_facts(device: &Device, target: &Target, baseline: &Baseline, candidate: Option<&str>) -> GateDevice {
    GateDevice {
        name: device.name.clone(),
        target: target.name.clone(),
        triple: target.triple.clone(),
        emulated: device.emulated,
        base_runner: baseline.runner(&target.name).map(|runner| runner.sha256.clone()),
        candidate_runner: candidate.map(str::to_owned),
        other_binary: None,
    }
}

/// Everything that must have a verdict in the end.
fn planned(prepared: &[Prepared]) -> Vec<Planned> {
    let measured = prepared.iter().flat_map(|prepared| planned_of(&prepared.gate.cells));
    let known = prepared.iter().flat_map(|prepared| &prepared.comparisons).map(|made| Planned {
        case: made.case.clone(),
        criterion: made.criterion,
        role: made.role,
    });
    measured.chain(known).collect()
}

/// The cases of a device for which there is no runner: they are missing, whatever else passes.
fn cases_of(device: &Device, models: &[ModelInfo]) -> Vec<Planned> {
    let cases = models.iter().flat_map(|model| model.variants.iter().map(|variant| (&model.name, variant.ratio)));
    cases.map(|(model, ratio)| Planned { criterion: Criterion::P50, ..planned_size(device, model, ratio) }).collect()
}

fn planned_size(device: &Device, model: &str, ratio: f64) -> Planned {
    let case = Case::new(model, ratio, &device.name);
    Planned { case, criterion: Criterion::ModelSize, role: Role::Gate }
}

/// Every criterion of every case.
fn planned_of(cells: &[CellPlan]) -> Vec<Planned> {
    let of_cell = |cell: &CellPlan| {
        let planned =
            |criterion: &Criterion| Planned { case: cell.case.clone(), criterion: *criterion, role: cell.role };
        cell.criteria.iter().map(planned).collect::<Vec<Planned>>()
    };
    cells.iter().flat_map(of_cell).collect()
}

/// FNV-1a: each run, and each of its devices, has orders of its own.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
