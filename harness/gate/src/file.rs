//! What is stored of a gate: who was compared with whom, every session's cases, every invocation, and the verdicts.
//!
//! Verdicts can be given again from the invocations ([`GateRun::judge_again`]). Those that were given are stored as
//! well: they decided the exit code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Comparison,
    accuracy::Expected,
    lines,
    outcome::Planned,
    profile::{Profile, Terms},
    report::{BaselineFacts, Fault, GateDevice},
    session::{CasePlan, GateScript},
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
    /// Determines orders of blocks and lengths of environments.
    pub seed: u64,
    /// Comparisons of latencies and accuracies that share the error rate.
    #[serde(rename = "cells")]
    pub comparisons: usize,
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
    #[serde(rename = "cells")]
    pub cases: Vec<CasePlan>,
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
    /// A last line that was cut off is dropped.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> Result<GateRun, String> {
        let mut header = None;
        let (mut sessions, mut records) = (Vec::new(), Vec::new());
        let (mut comparisons, mut faults) = (Vec::new(), Vec::new());
        for (index, entry) in lines::from_json(text)?.into_iter().enumerate() {
            match entry {
                Entry::Gate(read) if index == 0 => header = Some(*read),
                Entry::Gate(_) => return Err(format!("line {}: a second header", index + 1)),
                Entry::Session(session) => sessions.push(session),
                Entry::Record(record) => records.push(*record),
                Entry::Comparison(comparison) => comparisons.push(*comparison),
                Entry::Fault(fault) => faults.push(fault),
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
        let script = |stored: &StoredSession| {
            let StoredSession { device, session, cases } = stored;
            let facts = self.header.devices.iter().find(|facts| facts.name == *device);
            let terms = Terms {
                comparisons: self.header.comparisons,
                confirming: *session > 0,
                other_binary: facts.and_then(|facts| facts.other_binary),
            };
            let labelled =
                cases.iter().map(|case| CasePlan { expected: self.expected(&case.case.model), ..case.clone() });
            let mut script = GateScript::new(profile, terms, self.header.seed, labelled.collect());
            let of_session = |record: &&Record| {
                record.case.device == *device && record.trial.is_some_and(|trial| trial.session == *session)
            };
            let mut records: Vec<&Record> = self.records.iter().filter(of_session).collect();
            // Where the device was lost, the job that was running is the last record and belongs to no block.
            let is_fault = |failure: &Failure| {
                let mut faults = self.faults.iter().filter(|fault| fault.device == *device);
                faults.any(|fault| fault.stage == failure.stage && failure.message == fault.message)
            };
            if let Some(Outcome::Failed(failure)) = records.last().map(|record| &record.outcome)
                && is_fault(failure)
            {
                script.lost(failure);
                records.pop();
            }
            records.into_iter().for_each(|record| script.take_stored(record));
            ((device.clone(), *session), script)
        };
        Ok(self.sessions.iter().map(script).collect())
    }

    /// The verdicts on what was measured, from the stored invocations.
    ///
    /// # Errors
    /// The profile is not known.
    pub fn judge_again(&self) -> Result<Vec<Comparison>, String> {
        let scripts = self.scripts()?;
        let mut comparisons = Vec::new();
        for device in &self.header.devices {
            let session = |number: u32| scripts.get(&(device.name.clone(), number)).map(GateScript::comparisons);
            let confirming: Vec<Comparison> = (1..).map_while(session).flatten().collect();
            for mut comparison in session(0).unwrap_or_default() {
                if comparison.needs_confirmation() {
                    let same = confirming.iter().filter(|other| comparison.is_same(other));
                    let same: Vec<Comparison> = same.cloned().collect();
                    comparison.confirm(&same);
                }
                comparisons.push(comparison);
            }
        }
        Ok(comparisons)
    }

    fn expected(&self, model: &str) -> Expected {
        self.header.models.iter().find(|info| info.name == model).map(Expected::of).unwrap_or_default()
    }
}
