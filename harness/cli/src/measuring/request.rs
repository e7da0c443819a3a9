//! The flags of a run, and what they mean: devices, models and options, from the files or from an earlier run.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, ValueEnum};
use espalier_bench::{
    engine::Engine,
    record::{MeasuringProtocol, ModelInfo, RunHeader},
};
use espalier_inventory::{Budget, Device, Inventory, Model, Recipe, Source, Spec, Unit};

use crate::{
    context::{Context, usage},
    output::Exports,
    peers,
    recipe_flags::{RecipeFlags, is_onnx, unit},
    selection,
};

const DEFAULT: MeasuringProtocol = MeasuringProtocol::DEFAULT;

/// The flags of `bench`.
#[derive(Parser)]
pub struct Request {
    #[command(flatten)]
    pub new: NewRun,
    /// A runner built elsewhere, for every selected device, instead of building one
    #[arg(long, value_name = "FILE")]
    pub runner: Option<PathBuf>,
    /// Devices at a time [default: all]
    #[arg(short, long)]
    pub jobs: Option<usize>,
    /// Finish an earlier run: measure what it lacks, with its own flags [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with = "NewRun")]
    pub resume: Option<String>,
    #[command(flatten)]
    pub exports: Exports,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t = MessageFormat::Human)]
    pub message_format: MessageFormat,
    /// Print the plan; with --verbose every command; nothing is built, pushed or measured
    #[arg(long)]
    pub dry_run: bool,
    /// Show every command as it is run, or would be
    #[arg(short, long)]
    pub verbose: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// The flags of a new run. An empty list stands for what the files say.
#[derive(Args)]
#[command(next_help_heading = "What is measured")]
pub struct NewRun {
    /// A device by its file's name in devices/; may be repeated [default: local]
    #[arg(short, long, value_name = "NAME")]
    pub device: Vec<String>,
    /// Every device in devices/, but those with `in-all = false`
    #[arg(long, conflicts_with = "device")]
    pub all_devices: bool,
    /// A model by its file's name in models/, or an ONNX file; may be repeated [default: every model in models/, but
    /// those with `in-all = false`]
    #[arg(short, long, value_name = "NAME|FILE.onnx")]
    pub model: Vec<String>,
    /// Held-out samples (.npz with x and y), instead of the model's own
    #[arg(long, value_name = "FILE.npz", requires = "model")]
    pub eval: Option<String>,
    /// Ratios instead of the model's own; the dense variant is always measured too
    #[arg(long, value_name = "R,R,…", value_delimiter = ',')]
    pub ratios: Vec<f64>,
    /// What is removed together, instead of the models' own: weight, block-4x1, 2:4, channel, …, as for `prune`
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub unit: Option<Unit>,
    /// What runs the models, each a group of rows: espalier (the runner), tract (the runner without its own kernels),
    /// onnxruntime (on this host only), skipping (the runner with --skip-below)
    #[arg(long, value_name = "E,E,…", value_delimiter = ',', value_parser = Engine::parse, default_value = "espalier")]
    pub engine: Vec<Engine>,
    /// Magnitude up to which the engine `skipping` leaves out activations in layers with dense weights [default: 0]
    #[arg(long, value_name = "X", value_parser = not_negative)]
    pub skip_below: Option<f64>,
    /// Measure one pack of all ratios of a model instead of a file for each, as `pack --ratios` writes it
    #[arg(long)]
    pub nested: bool,
    /// Also show where the time goes, layer by layer, dense beside pruned
    #[arg(long)]
    pub profile: bool,
    /// The shape of an input with open dimensions, for a model without an eval set
    #[arg(long, value_name = "NAME=1x128")]
    pub shape: Vec<String>,
    /// Timing invocations a variant, each a fresh process
    #[arg(long, default_value_t = DEFAULT.runs)]
    pub runs: u32,
    /// Untimed inferences at the start of each invocation
    #[arg(long, default_value_t = DEFAULT.warmup)]
    pub warmup: u32,
    /// Timed inferences an invocation, at least
    #[arg(long, default_value_t = DEFAULT.iterations)]
    pub iterations: u32,
    /// Timed milliseconds an invocation, at least
    #[arg(long, value_name = "MS", default_value_t = DEFAULT.min_time_ms)]
    pub min_time: u64,
}

/// The defaults of the command line.
impl Default for Request {
    fn default() -> Request {
        Request::parse_from(["bench"])
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    Human,
    /// One JSON object a line
    Json,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "it is a number from 0 on".to_owned())
}

pub struct Resolved {
    pub devices: Vec<Device>,
    pub models: Vec<Model>,
    /// Each once.
    pub engines: Vec<Engine>,
    /// Where [`Engine::Skipping`] is one of them.
    pub skip_below: Option<f64>,
    pub nested: bool,
    /// In place of the models' own.
    pub unit: Option<Unit>,
    pub protocol: MeasuringProtocol,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
}

/// # Errors
/// A mistake in the request or in a file that it names.
pub fn resolve(context: &Context, run: &NewRun) -> Result<(Inventory, Resolved)> {
    let NewRun { device, all_devices, model: names, eval, ratios, unit, engine, skip_below, nested, .. } = run;
    let (inventory, devices) = selection::devices(context, device, *all_devices, names)?;
    let mut models = if names.is_empty() {
        selection::in_all(&inventory)
    } else {
        names.iter().map(|name| model(name, eval.as_deref(), &inventory)).collect::<Result<Vec<_>>>()?
    };
    let mut names = HashSet::new();
    if let Some(twice) = models.iter().find(|model| !names.insert(&model.name)) {
        return Err(usage(format!("two models are called `{}`: measure them in two runs, or rename one", twice.name)));
    }
    if models.is_empty() {
        return Err(usage(
            "no model is named, and `models/` has none with `in-all`: name one with `--model`, which takes ONNX files \
             too",
        ));
    }
    if let Some(bad) = ratios.iter().find(|ratio| !(0.0..1.0).contains(*ratio)) {
        return Err(usage(format!("ratio {bad} is not in [0, 1): it is the fraction of the units that is removed")));
    }
    let mut with_dense = [&ratios[..], &[0.0]].concat();
    with_dense.sort_by(f64::total_cmp);
    with_dense.dedup();
    for model in &mut models {
        if !ratios.is_empty() {
            model.recipe.ratios.clone_from(&with_dense);
        }
        model.recipe = with_unit(model.recipe.clone(), *unit);
        let has_samples = model.calibration.is_some() || model.train.is_some();
        if let Some(conflict) = model.recipe.conflicts(has_samples).first() {
            let flag = if unit.is_some() { "--unit" } else { "--ratios" };
            return Err(usage(format!("{flag}: model `{}`: {}", model.name, conflict.message)));
        }
    }
    let protocol = MeasuringProtocol {
        runs: run.runs,
        warmup: run.warmup,
        iterations: run.iterations,
        min_time_ms: run.min_time,
        profile: run.profile,
    };
    if protocol.runs == 0 || protocol.iterations == 0 {
        return Err(usage("`--runs` and `--iterations` must be at least 1: nothing would be measured"));
    }
    let mut engines: Vec<Engine> = Vec::new();
    engine.iter().for_each(|engine| engines.extend((!engines.contains(engine)).then_some(*engine)));
    peers::check(&engines, &devices)?;
    let skips = engines.contains(&Engine::Skipping);
    if skip_below.is_some() && !skips {
        return Err(usage("`--skip-below` is for `--engine skipping`, e.g. `--engine espalier,skipping`"));
    }
    let skip_below = skips.then(|| skip_below.unwrap_or(0.0));
    let (nested, unit, shapes) = (*nested, *unit, run.shape.clone());
    Ok((inventory, Resolved { devices, models, engines, skip_below, nested, unit, protocol, shapes }))
}

/// The same devices, models and numbers as an earlier run.
///
/// # Errors
/// A device or a model is gone, or its file has mistakes.
pub fn resolve_again(context: &Context, header: &RunHeader) -> Result<(Inventory, Resolved)> {
    let inventory = context.inventory(&|file| match file.trim_end_matches(".toml").split_once('/') {
        Some(("devices", name)) => header.devices.iter().any(|device| device.name == name),
        Some((_, name)) => header.models.iter().any(|model| model.name == name),
        None => true,
    })?;
    let devices = selection::named(&inventory, header.devices.iter().map(|device| device.name.as_str()))?;
    let unit = header.unit.as_deref().and_then(|unit| unit.parse().ok());
    let again = |info: &ModelInfo| {
        let model = earlier_model(info, &inventory);
        Model { recipe: with_unit(model.recipe, unit), ..model }
    };
    let models = header.models.iter().map(again).collect();
    peers::check(&header.engines, &devices)?;
    let RunHeader { engines, skip_below, nested, protocol, shapes, .. } = header.clone();
    Ok((inventory, Resolved { devices, models, engines, skip_below, nested, unit, protocol, shapes }))
}

/// A model's recipe with another unit, where one is given.
fn with_unit(recipe: Recipe, unit: Option<Unit>) -> Recipe {
    RecipeFlags { unit, ..RecipeFlags::default() }.over(recipe)
}

/// An earlier run can only be resumed with exactly the files it started with.
///
/// # Errors
/// Names what has changed.
pub fn check_same(earlier: &RunHeader, now: &RunHeader, path: &Path) -> Result<()> {
    let refuse =
        |what: String| Err(usage(format!("`{}` cannot be resumed: {what} since; start a new run", path.display())));
    for (model, was) in now.models.iter().zip(&earlier.models) {
        if model != was {
            return refuse(format!("model `{}`, its eval set or its recipe has changed", was.name));
        }
    }
    if now.peers != earlier.peers {
        return refuse("the peers, or what they run with, have changed".to_owned());
    }
    for (device, was) in now.devices.iter().zip(&earlier.devices) {
        let runner =
            |info: &espalier_bench::record::DeviceInfo| info.runner.as_ref().map(|runner| runner.sha256.clone());
        // A runner that could not be built before may be built now.
        if was.runner.is_some() && runner(device) != runner(was) {
            return refuse(format!("the runner for `{}` has changed", was.name));
        }
        if device.threads != was.threads {
            return refuse(format!("the `threads` of `{}` have changed", was.name));
        }
    }
    Ok(())
}

/// A model of `models/`, or one made of an ONNX file.
fn model(name: &str, eval: Option<&str>, inventory: &Inventory) -> Result<Model> {
    let absolute = |path: &str| -> Result<String> {
        let path = std::path::absolute(path)?;
        if !path.is_file() {
            return Err(usage(format!("there is no file `{}`", path.display())));
        }
        Ok(path.to_string_lossy().into_owned())
    };
    if !is_onnx(name) {
        let model = inventory.model(name).cloned().map_err(usage)?;
        return match eval {
            Some(_) if matches!(model.source, Source::Build { .. }) => {
                Err(usage(format!("--eval: the weights of `{name}` are random; there is no accuracy to measure")))
            }
            Some(eval) => Ok(Model { eval: Some(absolute(eval)?), ..model }),
            None => Ok(model),
        };
    }
    let stem = Path::new(name).file_stem().context("the file has no name")?.to_string_lossy().into_owned();
    Ok(Model {
        name: stem,
        source: Source::File(absolute(name)?),
        eval: eval.map(absolute).transpose()?,
        calibration: None,
        train: None,
        recipe: Recipe::default(),
        task: Spec::default(),
        budget: Budget::default(),
        in_all: true,
    })
}

/// With the files of the earlier run; [`check_same`] compares their contents later.
fn earlier_model(info: &ModelInfo, inventory: &Inventory) -> Model {
    let known = inventory.models.get(&info.name).filter(|model| model.source.to_string() == info.source);
    let recipe = known.map_or_else(Recipe::default, |model| model.recipe.clone());
    Model {
        name: info.name.clone(),
        source: known.map_or_else(|| Source::parse(&info.source), |model| model.source.clone()),
        eval: info.eval.clone(),
        calibration: known.and_then(|model| model.calibration.clone()),
        train: known.and_then(|model| model.train.clone()),
        recipe: Recipe { ratios: info.variants.iter().map(|variant| variant.ratio).collect(), ..recipe },
        task: known.map_or_else(Spec::default, |model| model.task.clone()),
        budget: Budget { max_accuracy_drop: info.max_accuracy_drop },
        in_all: true,
    }
}
