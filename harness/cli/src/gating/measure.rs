//! The sessions of a gate: first sessions on all devices, fresh ones that confirm regressions, every invocation into
//! the gate's file as it comes.
//!
//! Boards are measured in parallel, this host after them and alone. `espalier_gate` decides what is measured.

use std::time::Instant;

use anyhow::Result;
use espalier_bench::record::{Failure, ModelInfo};
use espalier_fleet::{
    cancel::Cancel,
    session::{DeviceWork, Runner},
};
use espalier_gate::{
    Comparison, Role, Verdict,
    file::{Entry, FORMAT, GateHeader, StoredSession},
    outcome::Planned,
    profile::{Profile, Terms},
    report::{BaselineFacts, Fault, GateDevice},
    session::{CasePlan, GateScript},
};

use super::results::Results;
use crate::{
    context::Context,
    progress::Progress,
    provenance,
    run_file::{self, RunFile},
    sessions::{CarriedOut, Sessions},
};

/// Sessions that must find a regression again. A candidate with another binary is also linked at two other places.
const CONFIRMATIONS: usize = 1;
const CONFIRMATIONS_OF_OTHER_BINARIES: usize = 2;

/// All that is known of a gate before it measures.
#[derive(Clone)]
pub struct GatePlan {
    pub baseline: BaselineFacts,
    pub profile: Profile,
    /// `None`: from the time.
    pub seed: Option<u64>,
    /// The candidate's.
    pub models: Vec<ModelInfo>,
    pub facts: Vec<GateDevice>,
    pub devices: Vec<DeviceGate>,
    /// Everything that must have a verdict in the end.
    pub planned: Vec<Planned>,
    /// Of sizes: they need no session.
    pub comparisons: Vec<Comparison>,
    pub faults: Vec<Fault>,
    pub notes: Vec<String>,
    /// Whether it becomes an entry of the history.
    pub history: bool,
}

/// One device's part of a gate.
#[derive(Clone)]
pub struct DeviceGate {
    pub work: DeviceWork,
    pub cases: Vec<CasePlan>,
    /// Where the runners differ: the standard deviation of the logarithm of the time between builds of the same code.
    pub other_binary: Option<f64>,
}

pub struct Measuring<'a> {
    pub context: &'a Context,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
    /// Devices at a time; `None` is all.
    pub jobs: Option<usize>,
    /// The candidate's runner linked anew, with its code elsewhere; `None` where it cannot be built.
    pub relink: &'a dyn Fn(&DeviceWork, u32) -> Option<Runner>,
}

impl Measuring<'_> {
    /// # Errors
    /// The gate's file cannot be written. What a device cannot measure is a fault among the results.
    pub fn run(&self, plan: GatePlan) -> Result<Results> {
        let (started, id) = run_file::now()?;
        let criteria = plan.devices.iter().flat_map(|device| &device.cases).flat_map(|case| &case.criteria);
        let header = GateHeader {
            format: FORMAT,
            started,
            provenance: provenance::of_this_run(self.context),
            baseline: plan.baseline,
            profile: plan.profile.name.to_owned(),
            seed: plan.seed.unwrap_or_else(|| seed(&id)),
            comparisons: criteria.filter(|of| of.shares_error_rate()).count(),
            models: plan.models,
            devices: plan.facts,
            planned: plan.planned,
            id,
        };
        let folder = self.context.root.join("reports/gates");
        let file = RunFile::begin(&folder, &header.id, &Entry::Gate(Box::new(header.clone())))?;
        let results = Results {
            header,
            comparisons: plan.comparisons,
            faults: plan.faults,
            notes: plan.notes,
            scripts: Vec::new(),
            path: file.path.clone(),
            cancelled: false,
            history: plan.history,
        };
        let mut gate = Gate { measuring: self, profile: plan.profile, file, results };
        let (boards, hosts): (Vec<DeviceGate>, Vec<DeviceGate>) =
            plan.devices.into_iter().partition(|device| device.work.device.is_board());
        for phase in [boards, hosts] {
            gate.phase(&phase)?;
        }
        let Gate { mut file, results, .. } = gate;
        results.store(&mut file)?;
        Ok(results)
    }
}

/// A gate while it is measured.
struct Gate<'a> {
    measuring: &'a Measuring<'a>,
    profile: Profile,
    file: RunFile,
    results: Results,
}

/// A regression, and the fresh sessions that confirm or deny it.
struct Pending {
    comparison: Comparison,
    others: Vec<Comparison>,
}

impl Gate<'_> {
    fn phase(&mut self, devices: &[DeviceGate]) -> Result<()> {
        let mut pending: Vec<Pending> = Vec::new();
        for done in self.sessions(devices.to_vec(), 0)? {
            for comparison in done.script.comparisons() {
                if comparison.needs_confirmation() {
                    pending.push(Pending { comparison, others: Vec::new() });
                } else {
                    self.results.comparisons.push(comparison);
                }
            }
            self.results.scripts.push((done.device, done.script));
        }
        for number in 1..=CONFIRMATIONS_OF_OTHER_BINARIES as u32 {
            let again: Vec<DeviceGate> =
                devices.iter().filter_map(|device| self.confirmation(device, &pending, number)).collect();
            if again.is_empty() || self.measuring.cancel.is_requested() {
                break;
            }
            for DeviceGate { work, cases, .. } in &again {
                let (name, count) = (&work.device.name, cases.len());
                self.measuring.progress.emit(&format!(
                    "{name}: {count} cases regressed; a fresh session is to confirm \
                                                       it"
                ));
            }
            for done in self.sessions(again, number)? {
                let comparisons = done.script.comparisons();
                for Pending { comparison, others } in &mut pending {
                    others.extend(comparisons.iter().find(|other| comparison.is_same(other)).cloned());
                }
            }
        }
        for Pending { mut comparison, others } in pending {
            comparison.confirm(&others);
            self.results.comparisons.push(comparison);
        }
        Ok(())
    }

    /// The regressed cases of a device, with only the regressed criteria, and the candidate's code elsewhere where the
    /// runners differ. `None` where nothing is left to confirm.
    fn confirmation(&self, device: &DeviceGate, pending: &[Pending], number: u32) -> Option<DeviceGate> {
        let is_open = |Pending { comparison, others }: &&Pending| {
            let denied = others.iter().any(|other| other.verdict != Verdict::Regressed);
            comparison.case.device == device.work.device.name
                && others.len() < self.confirmations(comparison, device.other_binary)
                && !denied
        };
        let open: Vec<&Comparison> = pending.iter().filter(is_open).map(|pending| &pending.comparison).collect();
        if open.is_empty() {
            return None;
        }
        let mut work = device.work.clone();
        let relinked = device.other_binary.and_then(|_| (self.measuring.relink)(&work, number)).map(|runner| {
            work.runners.push(runner);
            work.runners.len() - 1
        });
        let again = |case: &CasePlan| {
            let of_case = |comparison: &&&Comparison| comparison.case == case.case && comparison.role == case.role;
            let criteria: Vec<_> = open.iter().filter(of_case).map(|comparison| comparison.criterion).collect();
            let mut case = CasePlan { session: number, criteria, ..case.clone() };
            if let (Some(runner), Role::Gate) = (relinked, case.role) {
                case.arms[1].runner = runner;
            }
            (!case.criteria.is_empty()).then_some(case)
        };
        let cases = device.cases.iter().filter_map(again).collect();
        Some(DeviceGate { work, cases, other_binary: device.other_binary })
    }

    fn confirmations(&self, comparison: &Comparison, other_binary: Option<f64>) -> usize {
        let tolerance = self.profile.tolerance(comparison.criterion, other_binary);
        let upper = tolerance.map_or(0.0, |tolerance| tolerance.upper);
        match (other_binary, comparison.finding.effect()) {
            // The place of code cannot explain a larger effect.
            (Some(_), Some(effect)) if effect.ratio < 1.0 + upper => CONFIRMATIONS_OF_OTHER_BINARIES,
            _ => CONFIRMATIONS,
        }
    }

    /// A device that is lost in any of its sessions becomes a fault.
    fn sessions(&mut self, devices: Vec<DeviceGate>, number: u32) -> Result<Vec<CarriedOut<GateScript>>> {
        let header = &self.results.header;
        let mut phase = Vec::new();
        for DeviceGate { work, cases, other_binary } in devices {
            let device = work.device.name.clone();
            let terms = Terms { comparisons: header.comparisons, confirming: number > 0, other_binary };
            let seed = header.seed ^ u64::from(number) ^ seed(&device);
            let script = GateScript::new(self.profile, terms, seed, cases.clone());
            self.file.append(&Entry::Session(StoredSession { device, session: number, cases }))?;
            phase.push((work, script));
        }
        let Measuring { progress, cancel, jobs, .. } = *self.measuring;
        let sessions = Sessions { progress, cancel, jobs, start: Instant::now() };
        let file = &mut self.file;
        let done = sessions.carry_out(phase, &mut |record| file.append(&Entry::Record(Box::new(record.clone()))))?;
        for done in &done {
            self.results.cancelled |= done.ended.cancelled;
            if let Some(Failure { stage, message }) = done.script.cut_off().cloned() {
                self.results.faults.push(Fault { device: done.device.clone(), stage, message });
            }
        }
        Ok(done)
    }
}

/// FNV-1a: each run, and each of its devices, has orders of its own.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Every criterion of every case.
pub fn planned(cases: &[CasePlan]) -> Vec<Planned> {
    let of_case = |case: &CasePlan| {
        let (role, case, criteria) = (case.role, case.case.clone(), case.criteria.clone());
        criteria.into_iter().map(move |criterion| Planned { case: case.clone(), criterion, role })
    };
    cases.iter().flat_map(of_case).collect()
}
