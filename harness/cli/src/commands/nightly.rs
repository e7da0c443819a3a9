//! `nightly`: everything a shelf of boards does in a night. The tables of `bench`, the gate against a fixed baseline with its controls, the
//! history; one summary, one exit code. Each part is the command a person would run, and what one part loses does not stop the next.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, record::MeasuringProtocol};
use espalier_gate::{controls, profile::Profile};

use crate::{
    context::{Context, status_of},
    gating::{self, Controls, Exports, Strictness},
    history_file,
    measuring::{self, NewRun, RunRequest},
    output,
    program::Program,
    progress::{Progress, stop_on_signal},
    selection::Selection,
};

/// The slow-down every device is tried with once a week, and again for as long as it could not be measured.
const DRILL_PERCENT: f64 = 5.0;

#[derive(Args)]
pub struct Flags {
    /// The anchor every night is compared with, as `accept` named it [default: the only baseline there is]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// [default: every device, but those with `in-all = false`]
    #[command(flatten)]
    selection: Selection,
    /// Timing invocations a variant, for the tables
    #[arg(short, long, default_value_t = MeasuringProtocol::DEFAULT.runs)]
    runs: u32,
    /// Judge emulated devices too: whether the night works there, not whether the candidate is slower
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

/// One part of the night.
struct Part {
    name: &'static str,
    status: ExitStatus,
    told: Vec<String>,
}

pub fn run(mut flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    if flags.selection.device.is_empty() {
        flags.selection.all_devices = true;
    }
    let profile = flags.strictness.profile()?;
    let mut parts = Vec::new();

    progress.emit(&format!("{} bench", Program::current().call));
    parts.push(part("bench", flags.bench().run(Context::open()?).map(|status| (status, Vec::new()))));
    if !cancel.is_requested() {
        progress.emit("gate");
        parts.push(part("gate", flags.gate(&context, &progress, profile)));
    }
    if !cancel.is_requested() {
        parts.push(part("controls", self::controls(&context)));
        parts.push(part("history", history_file::suspects(&context).map(|told| (ExitStatus::Ok, told))));
    }

    let mut status = parts.iter().fold(ExitStatus::Ok, |status, part| status.and(part.status));
    if cancel.is_requested() {
        status = ExitStatus::Failed;
    }
    let summary = summary(&parts, status);
    print!("\n{summary}");
    if let Some(path) = &flags.export_summary {
        output::write(path, &summary)?;
    }
    Ok(status)
}

impl Flags {
    /// The tables, measured with the defaults of `bench`.
    fn bench(&self) -> measuring::Request {
        let protocol = MeasuringProtocol { runs: self.runs, ..MeasuringProtocol::DEFAULT };
        let run = RunRequest::New(NewRun { selection: self.selection.clone(), protocol, ..NewRun::default() });
        measuring::Request { run, verbose: self.verbose, quiet: self.quiet, ..measuring::Request::default() }
    }

    fn gate(&self, context: &Context, progress: &Progress, profile: Profile) -> Result<(ExitStatus, Vec<String>)> {
        let cancel = stop_on_signal(progress)?;
        let known = gating::read_controls(context)?;
        let today = gating::today()?;
        let mut devices = self.selection.resolve(context)?.devices;
        devices.retain(|device| controls::wants_slow_down(&known, &device.name, today));
        let devices: Vec<String> = devices.into_iter().map(|device| device.name).collect();
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
        let results = request.carry_out(context, progress, &cancel)?;
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

/// An error ends a part, not the night.
fn part(name: &'static str, done: Result<(ExitStatus, Vec<String>)>) -> Part {
    match done {
        Ok((status, told)) => Part { name, status, told },
        Err(error) => Part { name, status: status_of(&error), told: vec![format!("{error:#}")] },
    }
}

fn summary(parts: &[Part], status: ExitStatus) -> String {
    let mut out = String::from("nightly\n");
    for part in parts {
        out.push_str(&format!("- {}: {} (exit code {})\n", part.name, part.status.name(), part.status.code()));
        out.extend(part.told.iter().map(|line| format!("  - {}\n", line.replace('\n', "\n    "))));
    }
    out.push_str(&format!("NIGHTLY: {} (exit code {})\n", status.name(), status.code()));
    out
}
