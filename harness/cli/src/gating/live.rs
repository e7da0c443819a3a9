//! The gate on devices: sessions of all of them, a second session for what failed, every invocation into the gate's file as it comes.
//!
//! Boards are judged in parallel, this host after them and alone. What comes in is decided elsewhere (`espalier_bench::gate`); here it is carried out.

use std::time::Instant;

use anyhow::Result;
use espalier_bench::record::Failure;
use espalier_fleet::{
    cancel::Cancel,
    session::{DeviceWork, Runner},
};
use espalier_gate::{
    Comparison, Role, Verdict,
    file::{Entry, StoredSession, is_same},
    profile::{Profile, Terms},
    report::Fault,
    session::{self, CellPlan, GateScript},
};

use super::file::GateFile;
use crate::{
    progress::Progress,
    sessions::{CarriedOut, Sessions},
};

/// Sessions that must find a regression again: a candidate whose code lies elsewhere is judged in two more places.
const CONFIRMATIONS: usize = 1;
const CONFIRMATIONS_OF_OTHER_BINARIES: usize = 2;

/// One device's part of a gate.
pub struct DeviceGate {
    pub work: DeviceWork,
    pub cells: Vec<CellPlan>,
    /// Where the runners differ: the standard deviation of the logarithm of the time between builds of the same code.
    pub other_binary: Option<f64>,
}

pub struct Judged {
    pub comparisons: Vec<Comparison>,
    /// First sessions, for the history and for exports.
    pub scripts: Vec<(String, GateScript)>,
    /// Devices whose session did not go to its end.
    pub lost: Vec<Fault>,
    pub cancelled: bool,
}

impl Judged {
    /// A device that was lost in any of its sessions is told.
    fn note_end(&mut self, done: &CarriedOut<GateScript>) {
        self.cancelled |= done.ended.cancelled;
        if let Some(Failure { stage, message }) = done.script.cut_off().cloned() {
            self.lost.push(Fault { device: done.device.clone(), stage, message });
        }
    }
}

pub struct Gate<'a> {
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
    pub jobs: Option<usize>,
    pub profile: Profile,
    /// Comparisons that share the error rate.
    pub cells: usize,
    pub seed: u64,
    /// The candidate's runner linked anew, with its code elsewhere; `None` where it cannot be built.
    pub relink: &'a dyn Fn(&DeviceWork, u32) -> Option<Runner>,
}

impl Gate<'_> {
    pub fn judge(&self, devices: Vec<DeviceGate>, file: &mut GateFile) -> Result<Judged> {
        let (boards, hosts): (Vec<DeviceGate>, Vec<DeviceGate>) =
            devices.into_iter().partition(|gate| gate.work.device.is_board());
        let mut judged = Judged { comparisons: Vec::new(), scripts: Vec::new(), lost: Vec::new(), cancelled: false };
        for phase in [boards, hosts] {
            self.phase(phase, file, &mut judged)?;
        }
        Ok(judged)
    }

    fn phase(&self, devices: Vec<DeviceGate>, file: &mut GateFile, judged: &mut Judged) -> Result<()> {
        let first = devices.iter().map(|gate| (gate.work.clone(), gate.cells.clone(), gate.other_binary)).collect();
        let mut pending: Vec<(String, Comparison, Vec<Comparison>)> = Vec::new();
        for done in self.sessions(first, 0, file)? {
            let mut comparisons = done.script.comparisons();
            judged.note_end(&done);
            comparisons.retain(|comparison| {
                let wanted = session::wants_confirmation(comparison);
                if wanted {
                    pending.push((done.device.clone(), comparison.clone(), Vec::new()));
                }
                !wanted
            });
            judged.comparisons.extend(comparisons);
            judged.scripts.push((done.device, done.script));
        }
        for number in 1..=CONFIRMATIONS_OF_OTHER_BINARIES as u32 {
            let mut again: Vec<(DeviceWork, Vec<CellPlan>, Option<f64>)> = Vec::new();
            for gate in &devices {
                let mine = |(device, comparison, others): &&(String, Comparison, Vec<Comparison>)| {
                    let wanted = match (gate.other_binary, session::effect(comparison)) {
                        // A large effect is beyond what the place of code can do.
                        (Some(_), Some(effect)) if effect.ratio < 1.0 + self.upper_margin(comparison, gate) => {
                            CONFIRMATIONS_OF_OTHER_BINARIES
                        }
                        _ => CONFIRMATIONS,
                    };
                    let denied = others.iter().any(|other| other.verdict != Verdict::Regressed);
                    *device == gate.work.device.name && others.len() < wanted && !denied
                };
                let failed: Vec<&Comparison> =
                    pending.iter().filter(mine).map(|(_, comparison, _)| comparison).collect();
                if !failed.is_empty() {
                    again.push(self.confirmation(gate, &failed, number));
                }
            }
            if again.is_empty() || self.cancel.is_requested() {
                break;
            }
            for (work, cells, _) in &again {
                let name = &work.device.name;
                self.progress.emit(&format!("{name}: {} cases failed; a fresh session is to confirm it", cells.len()));
            }
            for done in self.sessions(again, number, file)? {
                judged.note_end(&done);
                let found = done.script.comparisons();
                for (device, comparison, others) in &mut pending {
                    if *device == done.device {
                        others.extend(found.iter().find(|other| is_same(comparison, other)).cloned());
                    }
                }
            }
        }
        for (_, mut comparison, others) in pending {
            session::confirm(&mut comparison, &others);
            judged.comparisons.push(comparison);
        }
        Ok(())
    }

    fn upper_margin(&self, comparison: &Comparison, gate: &DeviceGate) -> f64 {
        let tolerance = self.profile.tolerance(comparison.criterion, gate.other_binary);
        tolerance.map_or(0.0, |tolerance| tolerance.upper)
    }

    /// The cases that failed, with only what failed of them, and the candidate's code elsewhere where the runners differ.
    fn confirmation(
        &self,
        gate: &DeviceGate,
        failed: &[&Comparison],
        number: u32,
    ) -> (DeviceWork, Vec<CellPlan>, Option<f64>) {
        let mut work = gate.work.clone();
        let relinked = gate.other_binary.and_then(|_| (self.relink)(&work, number)).map(|runner| {
            work.runners.push(runner);
            work.runners.len() - 1
        });
        let cell = |cell: &CellPlan| {
            let of_cell = |comparison: &&&Comparison| comparison.case == cell.case && comparison.role == cell.role;
            let criteria: Vec<_> = failed.iter().filter(of_cell).map(|comparison| comparison.criterion).collect();
            let mut cell = CellPlan { session: number, criteria, ..cell.clone() };
            if let (Some(runner), Role::Gate) = (relinked, cell.role) {
                cell.arms[1].runner = runner;
            }
            (!cell.criteria.is_empty()).then_some(cell)
        };
        (work, gate.cells.iter().filter_map(cell).collect(), gate.other_binary)
    }

    fn sessions(
        &self,
        devices: Vec<(DeviceWork, Vec<CellPlan>, Option<f64>)>,
        number: u32,
        file: &mut GateFile,
    ) -> Result<Vec<CarriedOut<GateScript>>> {
        let mut phase = Vec::new();
        for (work, cells, other_binary) in devices {
            let device = work.device.name.clone();
            file.append(&Entry::Session(StoredSession {
                device: device.clone(),
                session: number,
                cells: cells.clone(),
            }))?;
            let terms = Terms { cells: self.cells, confirming: number > 0, other_binary };
            let seed = self.seed ^ u64::from(number) ^ super::seed(&device);
            phase.push((work, GateScript::new(self.profile, terms, seed, cells)));
        }
        let sessions =
            Sessions { progress: self.progress, cancel: self.cancel, jobs: self.jobs, start: Instant::now() };
        sessions.carry_out(phase, &mut |record| file.append(&Entry::Record(Box::new(record.clone()))))
    }
}
