//! `bench`: builds runners, prunes models, measures on every selected device, and prints the table.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use espalier_bench::{engine::Engine, exit::ExitStatus, record::MeasuringProtocol};
use espalier_inventory::Unit;

use crate::{
    context::Context,
    measuring::{NewRun, Request, RunRequest},
    output::Exports,
    recipe_flags::unit,
    selection::Selection,
};

const DEFAULT: MeasuringProtocol = MeasuringProtocol::DEFAULT;

#[derive(Args)]
pub struct Flags {
    /// A device by its file's name in devices/; may be repeated [default: local]
    #[arg(short, long, value_name = "NAME", conflicts_with = "resume")]
    device: Vec<String>,
    /// Every device in devices/, but those with `in-all = false`
    #[arg(long, conflicts_with_all = ["device", "resume"])]
    all_devices: bool,
    /// A model by its file's name in models/, or an ONNX file; may be repeated [default: every model in models/, but
    /// those with `in-all = false`]
    #[arg(short, long, value_name = "NAME|FILE.onnx", conflicts_with = "resume")]
    model: Vec<String>,
    /// Held-out samples (.npz with x and y) for an ONNX file
    #[arg(long, value_name = "FILE.npz", requires = "model")]
    eval: Option<String>,
    /// Ratios instead of the model's own; the dense variant is always measured too
    #[arg(long, value_name = "R,R,…", value_delimiter = ',', conflicts_with = "resume")]
    ratios: Vec<f64>,
    /// What is removed together, instead of the models' own: weight, block-4x1, 2:4, channel, …, as for `prune`
    #[arg(long, value_name = "UNIT", value_parser = unit, conflicts_with = "resume")]
    unit: Option<Unit>,
    /// What runs the models, each a group of rows: espalier (the runner), tract (the runner without its own kernels),
    /// onnxruntime (on this host only), skipping (the runner with --skip-below)
    #[arg(long, value_name = "E,E,…", value_delimiter = ',', value_parser = Engine::parse)]
    #[arg(default_value = "espalier", conflicts_with = "resume")]
    engine: Vec<Engine>,
    /// Magnitude up to which the engine `skipping` leaves out activations in layers with dense weights [default: 0]
    #[arg(long, value_name = "X", value_parser = not_negative, conflicts_with = "resume")]
    skip_below: Option<f64>,
    /// Measure one pack of all ratios of a model instead of a file for each, as `pack --ratios` writes it
    #[arg(long, conflicts_with = "resume")]
    nested: bool,
    /// Also show where the time goes, layer by layer, dense beside pruned
    #[arg(long, conflicts_with = "resume")]
    profile: bool,
    /// The shape of an input with open dimensions, for a model without an eval set
    #[arg(long, value_name = "NAME=1x128", conflicts_with = "resume")]
    shape: Vec<String>,
    /// Timing invocations a variant, each a fresh process
    #[arg(short, long, default_value_t = DEFAULT.runs, conflicts_with = "resume")]
    runs: u32,
    /// Untimed inferences at the start of each invocation
    #[arg(long, default_value_t = DEFAULT.warmup, conflicts_with = "resume")]
    warmup: u32,
    /// Timed inferences an invocation, at least
    #[arg(long, default_value_t = DEFAULT.iterations, conflicts_with = "resume")]
    iterations: u32,
    /// Timed milliseconds an invocation, at least
    #[arg(long, value_name = "MS", default_value_t = DEFAULT.min_time_ms, conflicts_with = "resume")]
    min_time: u64,
    /// A runner built elsewhere, for every selected device, instead of building one
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// Devices at a time [default: all]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Finish an earlier run: measure what it lacks, with its own flags [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "")]
    resume: Option<String>,
    #[command(flatten)]
    exports: Exports,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t = MessageFormat::Human)]
    message_format: MessageFormat,
    /// Print the plan and the exact commands; nothing is built, pushed or measured
    #[arg(long)]
    dry_run: bool,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MessageFormat {
    Human,
    /// One JSON object a line
    Json,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "it is a number from 0 on".to_owned())
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let run = match flags.resume {
        Some(run) => RunRequest::Resume(Some(run).filter(|run| !run.is_empty())),
        None => RunRequest::New(NewRun {
            selection: Selection { device: flags.device, all_devices: flags.all_devices, model: flags.model },
            eval: flags.eval,
            ratios: flags.ratios,
            unit: flags.unit,
            engines: flags.engine,
            skip_below: flags.skip_below,
            nested: flags.nested,
            protocol: MeasuringProtocol {
                runs: flags.runs,
                warmup: flags.warmup,
                iterations: flags.iterations,
                min_time_ms: flags.min_time,
                profile: flags.profile,
            },
            shapes: flags.shape,
        }),
    };
    Request {
        run,
        runner: flags.runner,
        jobs: flags.jobs,
        exports: flags.exports,
        json: flags.message_format == MessageFormat::Json,
        dry_run: flags.dry_run,
        verbose: flags.verbose,
        quiet: flags.quiet,
    }
    .run(context)
}
