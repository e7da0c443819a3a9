//! What a gate came to: waivers applied, shown, exported, remembered; and the exit code.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Comparison, Role,
    controls::{self, Control},
    date::Date,
    file::{Entry, GateHeader, is_same},
    history::Night,
    json, junit,
    profile::Profile,
    render,
    replay::{Invocation, Replay},
    report::{Fault, Latency, MarginFacts, ProfileFacts, Report},
    session::{self, GateScript},
    waivers::{self, Waiver},
};
use espalier_inventory::{Problem, SourceFile};

use super::file::{self, GateFile};
use crate::{
    context::{Context, usage},
    history_file, output,
    progress::Progress,
    run_file,
};

/// From the repository's root.
const CONTROLS: &str = "reports/controls.jsonl";

#[derive(Args, Clone, Default)]
pub struct Exports {
    /// Everything, with units and intervals
    #[arg(long, value_name = "FILE")]
    pub export_json: Option<PathBuf>,
    /// Fit for a pull request or a job summary
    #[arg(long, value_name = "FILE")]
    pub export_markdown: Option<PathBuf>,
    /// A suite a device, a test a criterion of a case
    #[arg(long, value_name = "FILE")]
    pub export_junit: Option<PathBuf>,
    /// The times, to be judged again with `--replay`
    #[arg(long, value_name = "FILE")]
    pub export_replay: Option<PathBuf>,
}

pub struct Results {
    pub header: GateHeader,
    pub comparisons: Vec<Comparison>,
    pub faults: Vec<Fault>,
    pub notes: Vec<String>,
    /// First sessions, by device.
    pub scripts: Vec<(String, GateScript)>,
    /// Where the invocations are.
    pub path: PathBuf,
    pub cancelled: bool,
    /// Whether it is one of the history's nights.
    pub history: bool,
}

/// An earlier gate judged again from its invocations; today's waivers hold.
pub fn judge_again(context: &Context, wanted: &str, exports: &Exports) -> Result<ExitStatus> {
    let path = run_file::find_in(&context.root.join("reports/gates"), Some(wanted))?;
    let run = file::read(&path)?;
    let unusable = |error: String| usage(format!("`{}` cannot be used: {error}", path.display()));
    let judged = run.judge_again().map_err(unusable)?;
    let scripts = run.scripts().map_err(unusable)?;
    let first = scripts.into_iter().filter(|((_, session), _)| *session == 0);
    // Sizes are in no session.
    let sizes = run.comparisons.iter().filter(|made| !judged.iter().any(|again| is_same(made, again)));
    let comparisons = sizes.cloned().chain(judged.iter().cloned()).collect();
    let results = Results {
        header: run.header.clone(),
        comparisons,
        faults: run.faults.clone(),
        notes: vec![format!("judged again from `{}`", path.display())],
        scripts: first.map(|((device, _), script)| (device, script)).collect(),
        path,
        cancelled: false,
        history: false,
    };
    let report = results.report(context)?;
    results.show(&report, exports)?;
    Ok(report.outcome().status)
}

impl Results {
    /// Shows, exports and remembers. The status is the gate's.
    pub fn conclude(&self, context: &Context, progress: &Progress, exports: &Exports) -> Result<ExitStatus> {
        let report = self.report(context)?;
        self.show(&report, exports)?;
        let markdown = context.root.join("reports").join(format!("{}-gate.md", self.header.id));
        output::write(&markdown, &render::markdown(&report))?;
        self.remember(context)?;
        progress.emit(&format!("invocations: {}", self.path.display()));
        let status = report.outcome().status;
        // What was proved and confirmed before it was stopped is proved.
        Ok(if self.cancelled { ExitStatus::Failed.and(status) } else { status })
    }

    /// What came of the gate, behind its invocations.
    pub fn store(&self, file: &mut GateFile) -> Result<()> {
        for fault in &self.faults {
            file.append(&Entry::Fault(fault.clone()))?;
        }
        for comparison in &self.comparisons {
            file.append(&Entry::Comparison(Box::new(comparison.clone())))?;
        }
        Ok(())
    }

    /// Controls go to a file of their own: whether the gate can be believed is seen over many nights.
    fn remember(&self, context: &Context) -> Result<()> {
        let day = &self.header.started[..self.header.started.len().min(10)];
        let controls = self.comparisons.iter().filter_map(|made| Control::of(&self.header.id, day, made));
        let lines: String = controls.map(|control| control.to_line()).collect();
        run_file::append(&context.root.join(CONTROLS), &lines)?;
        if self.history && !self.cancelled {
            history_file::append(&context.root, &self.nights())?;
        }
        Ok(())
    }

    /// A line of history for each latency that was measured.
    fn nights(&self) -> Vec<Night> {
        let header = &self.header;
        let night = |comparison: &Comparison| {
            let Comparison { case, criterion, role, verdict, tags, .. } = comparison.clone();
            let effect = session::effect(comparison).filter(|_| role == Role::Gate)?;
            let (_, script) = self.scripts.iter().find(|(device, _)| *device == case.device)?;
            let [anchor, _] = script.arm_means(&case, role, criterion)?;
            Some(Night {
                gate: header.id.clone(),
                time: header.started.clone(),
                commit: header.provenance.revision.clone(),
                baseline: header.baseline.name.clone(),
                log_ratio: effect.ratio.ln(),
                se: effect.se,
                pairs: effect.pairs,
                anchor_ns: anchor.ns,
                anchor_se: anchor.error,
                case,
                criterion,
                verdict,
                tags,
            })
        };
        self.comparisons.iter().filter_map(night).collect()
    }

    /// # Errors
    /// The waivers have mistakes.
    pub fn report(&self, context: &Context) -> Result<Report> {
        let mut comparisons = self.comparisons.clone();
        let mut notes = self.notes.clone();
        notes.extend(waive(context, &mut comparisons)?);
        let profile = Profile::named(&self.header.profile);
        let mut margins: Vec<MarginFacts> = Vec::new();
        for comparison in &comparisons {
            let other_binary = self.header.devices.iter().find(|device| device.name == comparison.case.device);
            let other_binary = other_binary.and_then(|device| device.other_binary);
            let tolerance = profile.and_then(|profile| profile.tolerance(comparison.criterion, other_binary));
            if let Some(tolerance) = tolerance
                && !margins.iter().any(|known| known.criterion == comparison.criterion)
            {
                let (lower, upper) = (tolerance.lower, tolerance.upper);
                margins.push(MarginFacts { criterion: comparison.criterion, lower, upper });
            }
        }
        let header = &self.header;
        Ok(Report {
            baseline: header.baseline.clone(),
            candidate: header.provenance.clone(),
            started: header.started.clone(),
            profile: ProfileFacts { name: header.profile.clone(), margins },
            devices: header.devices.clone(),
            planned: header.planned.clone(),
            latencies: comparisons.iter().filter_map(|comparison| self.latency(comparison)).collect(),
            comparisons,
            faults: self.faults.clone(),
            notes,
        })
    }

    fn latency(&self, comparison: &Comparison) -> Option<Latency> {
        let (case, role, criterion) = (&comparison.case, comparison.role, comparison.criterion);
        let (_, script) = self.scripts.iter().find(|(device, _)| *device == case.device)?;
        let [base, candidate] = script.arm_means(case, role, criterion)?;
        Some(Latency { case: case.clone(), criterion, role, base_ns: base.ns, candidate_ns: candidate.ns })
    }

    fn show(&self, report: &Report, exports: &Exports) -> Result<()> {
        print!("{}", render::terminal(report, output::look(160)));
        let to = |path: &Option<PathBuf>, render: &dyn Fn() -> String| match path {
            Some(path) => output::write(path, &render()),
            None => Ok(()),
        };
        to(&exports.export_json, &|| json::render(report))?;
        to(&exports.export_markdown, &|| render::markdown(report))?;
        to(&exports.export_junit, &|| junit::render(report))?;
        if let Some(path) = &exports.export_replay {
            self.export_replay(path)?;
        }
        Ok(())
    }

    fn export_replay(&self, path: &Path) -> Result<()> {
        let mut lines = String::new();
        for (_, script) in &self.scripts {
            for plan in script.plans() {
                let role = match plan.role {
                    Role::Gate => String::new(),
                    other => format!(", {other:?}"),
                };
                let invocations = script.blocks(&plan.case, plan.role).iter().flat_map(|block| {
                    let pairs = block.arms.iter().zip(&block.times);
                    pairs.map(|(arm, times)| Invocation { arm: *arm, ns: times.clone() })
                });
                let invocations: Vec<Invocation> = invocations.collect();
                if !invocations.is_empty() {
                    let replay = Replay::new(format!("{}{role}", plan.case), 0, invocations).map_err(usage)?;
                    lines.push_str(&replay.to_line());
                    lines.push('\n');
                }
            }
        }
        output::write(path, &lines)
    }
}

/// The controls of all nights so far.
pub fn read_controls(context: &Context) -> Result<Vec<Control>> {
    let path = context.root.join(CONTROLS);
    match std::fs::read_to_string(&path) {
        Ok(text) => controls::parse(&text).map_err(|error| usage(format!("`{CONTROLS}` cannot be used: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{CONTROLS}`")),
    }
}

/// In UTC.
pub fn today() -> Result<Date> {
    let (now, _) = run_file::now()?;
    Date::parse(&now[..10]).context("the clock tells no day")
}

/// Marks what somebody answers for, and says what is to be known of the waivers.
fn waive(context: &Context, comparisons: &mut [Comparison]) -> Result<Vec<String>> {
    Ok(waivers::apply(&read_waivers(context)?, comparisons, today()?))
}

/// # Errors
/// Every mistake, one a line.
pub fn read_waivers(context: &Context) -> Result<Vec<Waiver>> {
    const FILE: &str = "reports/waivers.toml";
    let text = match std::fs::read_to_string(context.root.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{FILE}`")),
    };
    waivers::parse(&SourceFile { path: FILE.to_owned(), text }, today()?).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        usage(format!("the waivers have mistakes:\n{}", lines.join("\n")))
    })
}
