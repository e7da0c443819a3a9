//! What is stored of a gate: who was compared with whom, every session's cases, every invocation, and the verdicts as they were given.
//!
//! Verdicts can be given again from the invocations ([`GateRun::judge_again`]); those that were given are stored all the same, because they are what
//! happened: somebody was stopped by them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Comparison, Role,
    outcome::Planned,
    profile::{Profile, Terms},
    report::{BaselineFacts, Fault, GateDevice},
    session::{self, CellPlan, GateScript},
};
use espalier_bench::{
    plan::Script,
    record::{Failure, ModelInfo, Outcome, Provenance, Record},
};

/// Raised when a stored field changes its meaning.
pub const FORMAT: u32 = 1;

/// One line of a gate's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    Gate(Box<GateHeader>),
    Session(StoredSession),
    Record(Box<Record>),
    Comparison(Box<Comparison>),
    Fault(Fault),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateHeader {
    pub format: u32,
    /// Also the file's name: UTC start with the fraction of the second.
    pub id: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub provenance: Provenance,
    pub baseline: BaselineFacts,
    pub profile: String,
    /// Orders of blocks and lengths of environments follow from it.
    pub seed: u64,
    /// Comparisons of latencies and accuracies that share the error rate.
    pub cells: usize,
    /// The candidate's.
    pub models: Vec<ModelInfo>,
    pub devices: Vec<GateDevice>,
    pub planned: Vec<Planned>,
}

/// The cases of one session of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredSession {
    pub device: String,
    /// 0 for the first, others confirm.
    pub session: u32,
    pub cells: Vec<CellPlan>,
}

/// A gate as read back from its file.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRun {
    pub header: GateHeader,
    pub sessions: Vec<StoredSession>,
    pub records: Vec<Record>,
    pub comparisons: Vec<Comparison>,
    pub faults: Vec<Fault>,
}

impl GateRun {
    /// A last line that was cut off (the host lost power while writing) is dropped, anything else unreadable is an error.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> Result<GateRun, String> {
        let mut header = None;
        let (mut sessions, mut records) = (Vec::new(), Vec::new());
        let (mut comparisons, mut faults) = (Vec::new(), Vec::new());
        let last = text.lines().count();
        for (index, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(Entry::Gate(read)) if index == 0 => header = Some(*read),
                Ok(Entry::Gate(_)) => return Err(format!("line {}: a second header", index + 1)),
                Ok(Entry::Session(session)) => sessions.push(session),
                Ok(Entry::Record(record)) => records.push(*record),
                Ok(Entry::Comparison(comparison)) => comparisons.push(*comparison),
                Ok(Entry::Fault(fault)) => faults.push(fault),
                Err(_) if index + 1 == last && index > 0 && !text.ends_with('\n') => {}
                Err(error) => return Err(format!("line {}: {error}", index + 1)),
            }
        }
        let header = header.ok_or("it has no header line: not a gate's file")?;
        if header.format != FORMAT {
            return Err(format!("it has format {}, this espalier reads {FORMAT}", header.format));
        }
        Ok(GateRun { header, sessions, records, comparisons, faults })
    }

    /// The scripts of all sessions as they were when they ended, by device and number.
    ///
    /// # Errors
    /// The profile is not known.
    pub fn scripts(&self) -> Result<BTreeMap<(String, u32), GateScript>, String> {
        let profile = Profile::named(&self.header.profile)
            .ok_or_else(|| format!("profile `{}` is not known to this espalier", self.header.profile))?;
        let mut scripts = BTreeMap::new();
        for StoredSession { device, session, cells } in &self.sessions {
            let info = self.header.devices.iter().find(|info| info.name == *device);
            let terms = Terms {
                cells: self.header.cells,
                confirming: *session > 0,
                other_binary: info.and_then(|info| info.other_binary),
            };
            let labelled = cells.iter().map(|cell| CellPlan { labels: self.labels(&cell.case.model), ..cell.clone() });
            let mut script = GateScript::new(profile, terms, self.header.seed, labelled.collect());
            let mine = |record: &&Record| {
                record.case.device == *device && record.trial.is_some_and(|trial| trial.session == *session)
            };
            let mut records: Vec<&Record> = self.records.iter().filter(mine).collect();
            // Where the device was lost, the job that met it stands last, and in no block.
            let is_lost = |failure: &Failure| {
                let mut faults = self.faults.iter().filter(|fault| fault.device == *device);
                faults.any(|fault| fault.stage == failure.stage && fault.message == failure.message)
            };
            if let Some(Outcome::Failed(failure)) = records.last().map(|record| &record.outcome)
                && is_lost(failure)
            {
                script.lost(failure);
                records.pop();
            }
            records.into_iter().for_each(|record| script.hear_stored(record));
            scripts.insert((device.clone(), *session), script);
        }
        Ok(scripts)
    }

    /// The verdicts on what was measured, from the stored invocations.
    ///
    /// # Errors
    /// The profile is not known.
    pub fn judge_again(&self) -> Result<Vec<Comparison>, String> {
        let mut scripts = self.scripts()?;
        let mut comparisons = Vec::new();
        for device in &self.header.devices {
            let name = &device.name;
            let Some(first) = scripts.remove(&(name.clone(), 0)) else { continue };
            let seconds: Vec<Vec<Comparison>> =
                (1..).map_while(|session| scripts.get(&(name.clone(), session))).map(GateScript::comparisons).collect();
            for mut comparison in first.comparisons() {
                let again = |comparison: &Comparison, others: &[Comparison]| {
                    others.iter().find(|other| is_same(comparison, other)).cloned()
                };
                if session::wants_confirmation(&comparison) {
                    let found: Vec<Comparison> =
                        seconds.iter().filter_map(|others| again(&comparison, others)).collect();
                    session::confirm(&mut comparison, &found);
                }
                comparisons.push(comparison);
            }
        }
        Ok(comparisons)
    }

    fn labels(&self, model: &str) -> Option<Vec<i64>> {
        self.header.models.iter().find(|info| info.name == model)?.labels.clone()
    }
}

/// The same case and criterion, for the same reason.
pub fn is_same(one: &Comparison, other: &Comparison) -> bool {
    let identity = |comparison: &Comparison| -> (espalier_bench::record::Case, Role, super::Criterion) {
        (comparison.case.clone(), comparison.role, comparison.criterion)
    };
    identity(one) == identity(other)
}
