//! Resolves a request into devices, models and options: from the files as they are now, or from an earlier run.

use std::{collections::HashSet, path::Path};

use anyhow::{Context as _, Result};
use espalier_bench::{
    engine::{Engine, default_engines},
    record::{MeasuringProtocol, ModelInfo, RunHeader},
};
use espalier_inventory::{Budget, Device, Inventory, Model, Recipe, Source, Unit};

use crate::{
    context::{Context, usage},
    peers,
    recipe_flags::RecipeFlags,
    selection::{self, Selection},
};

/// Empty lists stand for what the files say.
pub struct NewRun {
    pub selection: Selection,
    /// For models that are given as an ONNX file.
    pub eval: Option<String>,
    pub ratios: Vec<f64>,
    /// In place of the models' own.
    pub unit: Option<Unit>,
    pub engines: Vec<Engine>,
    /// For [`Engine::Skipping`]; `None` is 0.
    pub skip_below: Option<f64>,
    /// One pack of all ratios of a model.
    pub nested: bool,
    pub protocol: MeasuringProtocol,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
}

impl Default for NewRun {
    fn default() -> NewRun {
        NewRun {
            selection: Selection::default(),
            eval: None,
            ratios: Vec::new(),
            unit: None,
            engines: default_engines(),
            skip_below: None,
            nested: false,
            protocol: MeasuringProtocol::DEFAULT,
            shapes: Vec::new(),
        }
    }
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
    let NewRun { selection, eval, ratios, unit, engines, skip_below, nested, protocol, shapes } = run;
    let (inventory, devices) = selection::devices(context, &selection.device, selection.all_devices, &selection.model)?;
    let mut models = if selection.model.is_empty() {
        selection::in_all(&inventory)
    } else {
        selection.model.iter().map(|name| model(name, eval.as_deref(), &inventory)).collect::<Result<Vec<_>>>()?
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
    if protocol.runs == 0 || protocol.iterations == 0 {
        return Err(usage("`--runs` and `--iterations` must be at least 1: nothing would be measured"));
    }
    let mut each_once: Vec<Engine> = Vec::new();
    for engine in engines {
        if !each_once.contains(engine) {
            each_once.push(*engine);
        }
    }
    peers::check(&each_once, &devices)?;
    let skips = each_once.contains(&Engine::Skipping);
    if skip_below.is_some() && !skips {
        return Err(usage("`--skip-below` is for `--engine skipping`, e.g. `--engine espalier,skipping`"));
    }
    let skip_below = skips.then(|| skip_below.unwrap_or(0.0));
    let (engines, nested, unit, protocol, shapes) = (each_once, *nested, *unit, *protocol, shapes.clone());
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
    let is_file = name.ends_with(".onnx") || name.contains(std::path::MAIN_SEPARATOR);
    if !is_file {
        return inventory.model(name).cloned().map_err(usage);
    }
    let absolute = |path: &str| -> Result<String> {
        let path = std::path::absolute(path)?;
        if !path.is_file() {
            return Err(usage(format!("there is no file `{}`", path.display())));
        }
        Ok(path.to_string_lossy().into_owned())
    };
    let stem = Path::new(name).file_stem().context("the file has no name")?.to_string_lossy().into_owned();
    Ok(Model {
        name: stem,
        source: Source::File(absolute(name)?),
        eval: eval.map(absolute).transpose()?,
        calibration: None,
        train: None,
        recipe: Recipe::default(),
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
        budget: Budget { max_accuracy_drop: info.max_accuracy_drop },
        in_all: true,
    }
}
