//! `nightly`: everything for a shelf of boards in one command: the tables of `bench`, the gate against a fixed baseline
//! with its controls, the history; one summary, one exit code. Each step is a command of its own, and a step that fails
//! does not stop the next.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, record::MeasuringProtocol};
use espalier_gate::{controls, profile::Profile};

use crate::{
    context::{Context, status_of},
    gating::{self, Controls, Exports, Strictness},
    history_file, measuring, output,
    program::Program,
    progress::{Progress, stop_on_signal},
    selection::Selection,
    terminal::{causes, print},
};

/// The slow-down of the positive control, which every device has once a week, and again until it was measured.
const DRILL_PERCENT: f64 = 5.0;

#[derive(Args)]
pub struct Flags {
    /// The fixed baseline to compare with, as `accept` named it [default: the only baseline there is]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// [default: every device, but those with `in-all = false`]
    #[command(flatten)]
    selection: Selection,
    /// Timing invocations a variant, for the tables
    #[arg(long, default_value_t = MeasuringProtocol::DEFAULT.runs)]
    runs: u32,
    /// Judge emulated devices too: whether the command works there, not whether the candidate is slower
    #[arg(long)]
    emulated: bool,
    /// How strictly to judge: nightly, release or coarse
    #[command(flatten)]
    strictness: Strictness,
    /// The summary, fit for a job's
    #[arg(long, value_name = "FILE")]
    export_summary: Option<PathBuf>,
    #[command(flatten)]
    exports: Exports,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

/// A step that was carried out.
struct Step {
    name: &'static str,
    status: ExitStatus,
    reasons: Vec<String>,
}

pub fn run(mut flags: Flags) -> Result<ExitStatus> {
    flags.exports.check()?;
    flags.export_summary.as_deref().map_or(Ok(()), output::check)?;
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    if flags.selection.device.is_empty() {
        flags.selection.all_devices = true;
    }
    let profile = flags.strictness.profile()?;
    let mut steps = Vec::new();

    progress.emit(&format!("{} bench", Program::current().call));
    steps.push(step("bench", flags.bench().run(Context::open()?).map(|status| (status, Vec::new()))));
    if !cancel.is_requested() {
        progress.emit("gate");
        steps.push(step("gate", flags.gate(&context, &progress, profile)));
    }
    if !cancel.is_requested() {
        steps.push(step("controls", self::controls(&context)));
        steps.push(step("history", history_file::suspects(&context).map(|suspects| (ExitStatus::Ok, suspects))));
    }

    let mut status = steps.iter().fold(ExitStatus::Ok, |status, step| status.and(step.status));
    if cancel.is_requested() {
        status = ExitStatus::Failed;
    }
    let summary = summary(&steps, status);
    if let Some(path) = &flags.export_summary {
        output::write(path, &summary)?;
    }
    print(format_args!("\n{summary}"))?;
    Ok(status)
}

impl Flags {
    /// The tables, measured with the defaults of `bench`.
    fn bench(&self) -> measuring::Request {
        let mut request = measuring::Request { verbose: self.verbose, quiet: self.quiet, ..Default::default() };
        let Selection { device, all_devices, model } = self.selection.clone();
        (request.new.device, request.new.all_devices, request.new.model) = (device, all_devices, model);
        request.new.runs = self.runs;
        request
    }

    fn gate(&self, context: &Context, progress: &Progress, profile: Profile) -> Result<(ExitStatus, Vec<String>)> {
        let cancel = stop_on_signal(progress)?;
        let (controls, today) = (gating::read_controls(context)?, gating::today()?);
        let names = self.selection.resolve(context)?.devices.into_iter().map(|device| device.name);
        let devices = names.filter(|name| controls::needs_slow_down(&controls, name, today)).collect();
        let request = gating::Request {
            baseline: self.baseline.clone(),
            profile,
            selection: self.selection.clone(),
            ratios: Vec::new(),
            runner: None,
            criteria: Vec::new(),
            emulated: self.emulated,
            controls: Controls { negative: true, positive: Some(DRILL_PERCENT), devices: Some(devices) },
            slow_down: None,
            seed: None,
            jobs: None,
            verbose: self.verbose,
            history: true,
        };
        let results = request.run(context, progress, &cancel)?;
        let status = results.conclude(context, progress, &self.exports)?;
        Ok((status, results.report(context)?.outcome().reasons))
    }
}

/// Whether the gate itself can be believed.
fn controls(context: &Context) -> Result<(ExitStatus, Vec<String>)> {
    let alarms = controls::alarms(&gating::read_controls(context)?, gating::today()?);
    let status = if alarms.is_empty() { ExitStatus::Ok } else { ExitStatus::Inconclusive };
    Ok((status, alarms))
}

/// An error ends a step, not the command.
fn step(name: &'static str, result: Result<(ExitStatus, Vec<String>)>) -> Step {
    match result {
        Ok((status, reasons)) => Step { name, status, reasons },
        Err(error) => Step { name, status: status_of(&error), reasons: vec![causes(&error)] },
    }
}

fn summary(steps: &[Step], status: ExitStatus) -> String {
    let mut out = String::from("nightly\n");
    for Step { name, status, reasons } in steps {
        out.push_str(&format!("- {name}: {} (exit code {})\n", status.name(), status.code()));
        out.extend(reasons.iter().map(|reason| format!("  - {}\n", reason.replace('\n', "\n    "))));
    }
    out.push_str(&format!("NIGHTLY: {} (exit code {})\n", status.name(), status.code()));
    out
}
