//! The results of a gate: waivers applied, report shown and exported, controls and history added to; the exit code.

use std::path::{Path, PathBuf};

use crate::{
    context::{Context, mistakes, usage},
    gating::controls,
    history_file, output,
    progress::Progress,
    run_file::{self, RunFile},
    terminal::print,
};
use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Comparison, Role,
    date::Date,
    file::{Entry, GateHeader, GateRun},
    history::HistoryEntry,
    json, junit,
    profile::Profile,
    render,
    replay::{Invocation, Replay},
    report::{Fault, Latency, MarginFacts, ProfileFacts, Report, Took},
    session::{CasePlan, GateScript},
    waivers::{self, Waiver},
};

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Exports")]
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

impl Exports {
    /// # Errors
    /// A file that cannot be written there: asked before anything is measured.
    pub fn check(&self) -> Result<()> {
        let Exports { export_json, export_markdown, export_junit, export_replay } = self;
        let all = [export_json, export_markdown, export_junit, export_replay];
        all.into_iter().flatten().try_for_each(|path| output::check(path))
    }
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
    /// Whether it becomes an entry of the history.
    pub history: bool,
}

/// An earlier gate judged again from its invocations; today's waivers hold.
pub fn judge_again(context: &Context, gate: &str, exports: &Exports) -> Result<ExitStatus> {
    let path = run_file::find_in(&context.root.join("reports/gates"), Some(gate))?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let unusable = |error: String| usage(format!("`{}` cannot be used: {error}", path.display()));
    let run = GateRun::parse(&text).map_err(|error| anyhow::anyhow!("`{}` cannot be used: {error}", path.display()))?;
    let judged = run.judge_again().map_err(unusable)?;
    let scripts = run.scripts().map_err(unusable)?;
    let first = scripts.into_iter().filter(|((_, session), _)| *session == 0);
    // Sizes are in no session.
    let sizes = run.comparisons.iter().filter(|stored| !judged.iter().any(|again| stored.is_same(again)));
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
    /// Shows and exports the report, adds to controls and history. The status is the gate's.
    pub fn conclude(&self, context: &Context, progress: &Progress, exports: &Exports) -> Result<ExitStatus> {
        let report = self.report(context)?;
        let markdown = context.root.join("reports").join(format!("{}-gate.md", self.header.id));
        output::write(&markdown, &render::markdown(&report))?;
        controls::append(context, &self.header, &self.comparisons)?;
        if self.history && !self.cancelled {
            history_file::append(&context.root, &self.history_entries())?;
        }
        self.show(&report, exports)?;
        progress.emit(&format!("invocations: {}", self.path.display()));
        let status = report.outcome().status;
        // What was proved and confirmed before it was stopped is proved.
        Ok(if self.cancelled { ExitStatus::Failed.and(status) } else { status })
    }

    /// Adds faults and verdicts to the gate's file.
    pub fn store(&self, file: &mut RunFile) -> Result<()> {
        for fault in &self.faults {
            file.append(&Entry::Fault(fault.clone()))?;
        }
        for comparison in &self.comparisons {
            file.append(&Entry::Comparison(Box::new(comparison.clone())))?;
        }
        Ok(())
    }

    /// One for each latency that was measured.
    fn history_entries(&self) -> Vec<HistoryEntry> {
        let header = &self.header;
        let entry = |comparison: &Comparison| {
            let Comparison { case, criterion, role, verdict, tags, .. } = comparison.clone();
            let effect = comparison.finding.effect().filter(|_| role == Role::Gate)?;
            let [anchor, _] = self.script(&case.device)?.arm_means(&case, role, criterion)?;
            Some(HistoryEntry {
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
        self.comparisons.iter().filter_map(entry).collect()
    }

    /// The first session of a device.
    fn script(&self, device: &str) -> Option<&GateScript> {
        self.scripts.iter().find(|(name, _)| name == device).map(|(_, script)| script)
    }

    /// # Errors
    /// The waivers have mistakes.
    pub fn report(&self, context: &Context) -> Result<Report> {
        let mut comparisons = self.comparisons.clone();
        let mut notes = self.notes.clone();
        notes.extend(waivers::apply(&read_waivers(context)?, &mut comparisons, today()?));
        let profile = Profile::named(&self.header.profile);
        let mut margins: Vec<MarginFacts> = Vec::new();
        for comparison in &comparisons {
            let device = self.header.devices.iter().find(|device| device.name == comparison.case.device);
            let other_binary = device.and_then(|device| device.other_binary);
            let criterion = comparison.criterion;
            if let Some(tolerance) = profile.and_then(|profile| profile.tolerance(criterion, other_binary))
                && !margins.iter().any(|known| known.criterion == criterion)
            {
                margins.push(MarginFacts { criterion, lower: tolerance.lower, upper: tolerance.upper });
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
            took: self.took(),
            comparisons,
            faults: self.faults.clone(),
            notes,
        })
    }

    fn took(&self) -> Vec<Took> {
        let of = |script: &GateScript| -> Vec<Took> {
            let took = |plan: &CasePlan| {
                let ms = script.took_ms(&plan.case, plan.role)?;
                Some(Took { case: plan.case.clone(), role: plan.role, ms })
            };
            script.plans().filter_map(took).collect()
        };
        self.scripts.iter().flat_map(|(_, script)| of(script)).collect()
    }

    fn latency(&self, comparison: &Comparison) -> Option<Latency> {
        let (case, role, criterion) = (&comparison.case, comparison.role, comparison.criterion);
        let [base, candidate] = self.script(&case.device)?.arm_means(case, role, criterion)?;
        Some(Latency { case: case.clone(), criterion, role, base_ns: base.ns, candidate_ns: candidate.ns })
    }

    fn show(&self, report: &Report, exports: &Exports) -> Result<()> {
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
        print(render::terminal(report, output::look(160)))
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

/// In UTC.
pub fn today() -> Result<Date> {
    let (now, _) = run_file::now()?;
    Date::parse(&now[..10]).context("the clock has no valid day")
}

/// # Errors
/// Every mistake, one a line.
pub fn read_waivers(context: &Context) -> Result<Vec<Waiver>> {
    match context.source("reports/waivers.toml")? {
        Some(source) => waivers::parse(&source, today()?).map_err(|problems| mistakes("the waivers have", &problems)),
        None => Ok(Vec::new()),
    }
}
