//! The gate tried on a device with what is known beforehand: the same files in both arms, and the second arm slowed by a known amount. No baseline is
//! needed; everything else goes the way of a real gate, sessions that confirm included.

use anyhow::{Context as _, Result};
use espalier_bench::record::Case;
use espalier_fleet::{cancel::Cancel, session::DeviceWork};
use espalier_gate::{
    Role, calibration,
    file::{FORMAT, GateHeader},
    profile::Profile,
    report::{BaselineFacts, GateDevice},
    session::{ArmPlan, CellPlan},
};

use super::{Controls, DeviceGate, Gate, Results, compare::read_calibration, file::GateFile};
use crate::{
    context::{Context, usage},
    progress::Progress,
    provenance, run_file,
    runners::{self, Builds},
    selection::Selection,
    ssh_feature, variants,
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
    /// Each of `repeat` gates by itself; `hear` gets what came of it.
    pub fn carry_out(
        &self,
        context: &Context,
        progress: &Progress,
        cancel: &Cancel,
        hear: &mut dyn FnMut(usize, &Results) -> Result<()>,
    ) -> Result<()> {
        self.controls.positive.map_or(Ok(()), super::check_slow_down)?;
        let selected = self.selection.resolve(context)?;
        let device = selected.devices.first().context("a device is selected")?.clone();
        if device.emulated && !self.emulated {
            let name = &device.name;
            return Err(usage(format!(
                "`{name}` is emulated: its times say nothing; `--emulated` judges it all the same"
            )));
        }
        ssh_feature::ensure(context, [&device])?;
        let mut model = selected.models.into_iter().next().context("a model is selected")?;
        model.recipe.ratios = vec![0.0];
        let prepared = variants::prepare_all(context, std::slice::from_ref(&model), progress)?;
        let prepared = prepared.into_iter().next().context("one model was prepared")?;
        let targets = runners::targets(&selected.inventory, [&device].into_iter())?;
        let target = targets.into_iter().next().context("a device has a target")?;
        let builds = Builds { context, progress, cancel, verbose: false };
        let runner = builds.one(&target, espalier_bench::build_plan::Layout::USUAL)?;
        let calibrated = read_calibration(context, &device.name)?;
        let judging = calibration::judging(calibrated.as_ref(), &device.name, &model.name, &self.profile);
        judging.note.iter().for_each(|note| progress.emit(note));
        let variant = prepared.info.variants.first().context("the dense variant is there")?;
        let arm = ArmPlan { runner: 0, model: variant.sha256.clone(), slow_down_percent: None };
        let like = CellPlan {
            case: Case::new(&model.name, 0.0, &device.name),
            role: Role::Gate,
            session: 0,
            arms: [arm.clone(), arm],
            inputs: prepared.info.inputs.clone(),
            shapes: Vec::new(),
            labels: None,
            max_accuracy_drop: None,
            effort: judging.effort,
            criteria: judging.latencies,
        };
        let cells = self.controls.cells(&like);
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
        let work =
            DeviceWork { device, runners: vec![runner], target, files: prepared.files, owner: provenance::owner() };
        for number in 0..self.repeat {
            if cancel.is_requested() {
                break;
            }
            let (started, id) = run_file::now()?;
            let provenance = provenance::of_this_run(context);
            let header = GateHeader {
                format: FORMAT,
                id,
                started: started.clone(),
                baseline: BaselineFacts {
                    name: "itself".into(),
                    accepted: started,
                    by: provenance::person(),
                    espalier: provenance.espalier.clone(),
                    revision: provenance.revision.clone(),
                },
                provenance,
                profile: self.profile.name.into(),
                seed: self.seed.wrapping_add(number as u64),
                cells: 1,
                models: vec![prepared.info.clone()],
                devices: vec![facts.clone()],
                planned: super::planned_of(&cells),
            };
            let mut file = GateFile::create(&context.root, &header)?;
            let gate = Gate {
                progress,
                cancel,
                jobs: None,
                profile: self.profile,
                cells: 1,
                seed: header.seed,
                relink: &|_, _| None,
            };
            let judged = gate
                .judge(vec![DeviceGate { work: work.clone(), cells: cells.clone(), other_binary: None }], &mut file)?;
            let results = Results {
                header,
                comparisons: judged.comparisons,
                faults: judged.lost,
                notes: Vec::new(),
                scripts: judged.scripts,
                path: file.path.clone(),
                cancelled: judged.cancelled,
                history: false,
            };
            results.store(&mut file)?;
            hear(number, &results)?;
        }
        Ok(())
    }
}
