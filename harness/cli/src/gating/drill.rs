//! The gate tried on a device with known outcomes: the same files in both arms, and the second arm slowed by a known
//! amount. No baseline is needed; everything else works as in a gate, confirming sessions included.

use anyhow::{Context as _, Result};
use espalier_bench::{build_plan::Layout, record::Case};
use espalier_fleet::{cancel::Cancel, session::DeviceWork};
use espalier_gate::{
    Role,
    accuracy::Expected,
    calibration,
    profile::Profile,
    report::{BaselineFacts, GateDevice},
    session::{ArmPlan, CasePlan},
};

use super::{
    arms::read_calibration,
    controls::{Controls, check_slow_down},
    measure::{DeviceGate, GatePlan, Measuring, planned},
    results::Results,
};
use crate::{
    context::Context,
    progress::Progress,
    provenance, run_file,
    runners::{self, Builds},
    selection::Selection,
    variants,
};

pub struct Drill {
    pub profile: Profile,
    /// One device; the first model.
    pub selection: Selection,
    pub controls: Controls,
    pub emulated: bool,
    pub seed: u64,
    pub repeat: usize,
}

impl Drill {
    /// Measures `repeat` gates; `on_gate` gets the number and the results of each.
    pub fn run(
        &self,
        context: &Context,
        progress: &Progress,
        cancel: &Cancel,
        on_gate: &mut dyn FnMut(usize, &Results) -> Result<()>,
    ) -> Result<()> {
        self.controls.positive.map_or(Ok(()), check_slow_down)?;
        let builds = Builds { context, progress, cancel, verbose: false };
        let measuring = Measuring { context, progress, cancel, jobs: None, relink: &|_, _| None };
        let plan = self.prepare(&builds)?;
        for number in 0..self.repeat {
            if cancel.is_requested() {
                break;
            }
            let seed = Some(self.seed.wrapping_add(number as u64));
            let results = measuring.run(GatePlan { seed, ..plan.clone() })?;
            on_gate(number, &results)?;
        }
        Ok(())
    }

    fn prepare(&self, builds: &Builds) -> Result<GatePlan> {
        let context = builds.context;
        let (selected, _) = self.selection.resolve_to_measure(context, self.emulated)?;
        let device = selected.devices.first().context("a device is selected")?.clone();
        let mut model = selected.models.into_iter().next().context("a model is selected")?;
        model.recipe.ratios = vec![0.0];
        let prepared = variants::prepare_all(context, std::slice::from_ref(&model), builds.progress)?;
        let prepared = prepared.into_iter().next().context("one model was prepared")?;
        let targets = runners::targets(&selected.inventory, [&device].into_iter())?;
        let target = targets.into_iter().next().context("a device has a target")?;
        let runner = builds.one(&target, Layout::USUAL)?;
        let calibrated = read_calibration(context, &device.name)?;
        let judging = calibration::judging(calibrated.as_ref(), &device.name, &model.name, &self.profile);
        judging.note.iter().for_each(|note| builds.progress.emit(note));
        let variant = prepared.info.variants.first().context("the dense variant was prepared")?;
        let arm = ArmPlan { runner: 0, model: variant.sha256.clone(), slow_down_percent: None };
        let cases = self.controls.cases(&CasePlan {
            case: Case::new(&model.name, 0.0, &device.name),
            role: Role::Gate,
            session: 0,
            arms: [arm.clone(), arm],
            inputs: prepared.info.inputs.clone(),
            shapes: Vec::new(),
            expected: Expected::default(),
            max_accuracy_drop: None,
            effort: judging.effort,
            criteria: judging.latencies,
        });
        let sha256 = Some(runner.file.sha256.clone());
        let facts = GateDevice {
            name: device.name.clone(),
            target: target.name.clone(),
            triple: target.triple.clone(),
            emulated: device.emulated,
            base_runner: sha256.clone(),
            candidate_runner: sha256,
            other_binary: None,
        };
        let (accepted, _) = run_file::now()?;
        let provenance = provenance::of_this_run(context);
        let baseline = BaselineFacts {
            name: "itself".into(),
            accepted,
            by: provenance::person(),
            espalier: provenance.espalier,
            revision: provenance.revision,
        };
        let files = prepared.files;
        let work = DeviceWork { device, runners: vec![runner], target, files, owner: provenance::owner() };
        Ok(GatePlan {
            baseline,
            profile: self.profile,
            seed: None,
            models: vec![prepared.info],
            facts: vec![facts],
            planned: planned(&cases),
            devices: vec![DeviceGate { work, cases, other_binary: None }],
            comparisons: Vec::new(),
            faults: Vec::new(),
            notes: Vec::new(),
            history: false,
        })
    }
}
