//! `gate`: is a candidate worse than its baseline? Measured on devices, or judged again from stored measurements.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, builder::PossibleValuesParser};
use espalier_bench::exit::ExitStatus;
use espalier_gate::Criterion;

use crate::{
    context::{Context, usage},
    gating::{Controls, Exports, Request, Strictness, judge_again, replay},
    progress::{Progress, stop_on_signal},
    selection::Selection,
};

#[derive(Args)]
pub struct Flags {
    /// What to compare with, as `accept` named it [default: the only baseline there is]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["replay", "from"])]
    pub baseline: Option<String>,
    #[command(flatten)]
    pub strictness: Strictness,
    #[command(flatten)]
    pub selection: Selection,
    /// Prune ratios to compare, separated by commas [default: the model's]
    #[arg(long, value_delimiter = ',')]
    ratios: Vec<f64>,
    /// A runner built elsewhere as the candidate's, for every selected device
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// What is judged of an invocation's times; may be repeated
    /// [default: as the device was calibrated, else p50 and p95]
    #[arg(long, value_parser = PossibleValuesParser::new(["fastest", "p50", "p95", "p99"]))]
    criterion: Vec<String>,
    /// Judge emulated devices too: whether the gate works there, not whether the candidate is slower
    #[arg(long)]
    emulated: bool,
    /// Compare the baseline with itself as well: it must not be found slower
    #[arg(long)]
    negative_control: bool,
    /// Compare the candidate with itself made slower by so many per cent as well: it must be found
    #[arg(long, value_name = "PERCENT")]
    positive_control: Option<f64>,
    /// A drill: make the candidate slower by so many per cent
    #[arg(long, value_name = "PERCENT")]
    slow_down: Option<f64>,
    /// Add it to the history, as a nightly run does
    #[arg(long, conflicts_with_all = ["slow_down", "replay", "from"])]
    history: bool,
    /// Orders of blocks follow from it [default: from the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Devices at a time [default: all]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Judge recorded comparisons instead of measuring: one JSON object a line, plain or gzipped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "all_devices", "model"])]
    replay: Option<PathBuf>,
    /// Comparisons that share the chance of a false alarm, with `--replay`
    #[arg(long = "cells", default_value_t = 1, value_name = "N", requires = "replay")]
    comparisons: usize,
    /// Judge an earlier gate again from its invocations: its file, its id or the beginning of it
    #[arg(
        long,
        value_name = "GATE",
        conflicts_with_all = ["replay", "device", "all_devices", "model", "profile", "criterion"]
    )]
    from: Option<String>,
    #[command(flatten)]
    exports: Exports,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let profile = flags.strictness.profile()?;
    flags.exports.check()?;
    let criteria: Vec<Criterion> = flags.criterion.iter().filter_map(|name| Criterion::named(name)).collect();
    if let Some(recorded) = &flags.replay {
        if criteria.len() > 1 {
            return Err(usage("`--replay` judges one criterion at a time"));
        }
        let criterion = criteria.first().copied().unwrap_or(Criterion::P50);
        return replay(recorded, profile, criterion, flags.comparisons);
    }
    let context = Context::open()?;
    if let Some(earlier) = &flags.from {
        return judge_again(&context, earlier, &flags.exports);
    }
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let request = Request {
        baseline: flags.baseline,
        profile,
        selection: flags.selection,
        ratios: flags.ratios,
        runner: flags.runner,
        criteria,
        emulated: flags.emulated,
        controls: Controls { negative: flags.negative_control, positive: flags.positive_control, devices: None },
        slow_down: flags.slow_down,
        seed: flags.seed,
        jobs: flags.jobs,
        verbose: flags.verbose,
        history: flags.history,
    };
    let results = request.run(&context, &progress, &cancel)?;
    results.conclude(&context, &progress, &flags.exports)
}
