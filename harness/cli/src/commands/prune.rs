//! `prune`: writes a pruned copy of an ONNX file, fine-tuned if requested, and prints what was and was not pruned.

mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_inventory::{Model, Recipe};
use espalier_prune::{Amount, tune::Watch};

use crate::{
    context::{Context, usage},
    output,
    progress::{Progress, stop_on_signal},
    pruning::{self, Goal, Material, refused},
    recipe_flags::{RecipeFlags, Subject},
    terminal::{note, print, say},
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// Fraction of the prunable units to remove: exactly round(ratio * n) of n; with --until the largest to try
    #[arg(short, long, allow_negative_numbers = true)]
    ratio: Option<f64>,
    /// Remove every unit less important than this fraction of the most important one
    #[arg(long, value_name = "K", allow_negative_numbers = true, conflicts_with_all = ["ratio", "until"])]
    threshold: Option<f64>,
    /// Find the largest ratio that loses no more accuracy, e.g. max-accuracy-drop=0.01 (one point)
    #[arg(long, value_name = "max-accuracy-drop=D", value_parser = parse_until)]
    until: Option<f64>,
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Held-out samples to measure the accuracy with, an `.npz` [default: the model's]
    #[arg(long, value_name = "FILE.npz")]
    eval: Option<PathBuf>,
    /// The pruned ONNX file
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,
    /// Write what was pruned, tensor by tensor, as JSON
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let subject = Subject::find(&context, &flags.model, &progress)?;
    output::check(&flags.output)?;
    let samples = [&flags.eval, &flags.recipe.calibration, &flags.recipe.train].into_iter().flatten();
    let read: Vec<&Path> = samples.chain([&subject.source]).map(PathBuf::as_path).collect();
    output::check_apart(&flags.output, &read)?;
    flags.manifest.as_deref().map_or(Ok(()), output::check)?;
    let mut recipe = flags.recipe.over(subject.recipe());
    let goal = goal(&flags, &mut recipe)?;
    let dense = espalier_prune::file::read(&subject.source).map_err(usage)?;
    let failed = || format!("failed to prune `{}`", subject.source.display());
    let inspection = espalier_prune::inspect(&dense).map_err(refused).with_context(failed)?;
    let has = |flag: &Option<PathBuf>, own: fn(&Model) -> &Option<String>| {
        flag.is_some() || subject.model.as_ref().is_some_and(|model| own(model).is_some())
    };
    let has_samples =
        has(&flags.recipe.calibration, |model| &model.calibration) || has(&flags.recipe.train, |model| &model.train);
    pruning::check_flags(&recipe, has_samples)?;
    if matches!(goal, Goal::Until { .. }) && !has_samples {
        return Err(usage(
            "--until needs samples to judge accuracy by: name an `.npz` with `--train` or \
                          `--calibration`",
        ));
    }
    let is_until = matches!(goal, Goal::Until { .. });
    let read = |what: &str, is_needed: bool, flag: &Option<PathBuf>, own: fn(&Model) -> Option<String>| {
        // Unused samples of the model need not fit it; those of a flag must.
        if is_needed || flag.is_some() { subject.samples(what, flag.as_ref(), own, &inspection) } else { Ok(None) }
    };
    let needed = recipe.needs_samples() || is_until;
    let eval = read("eval set", true, &flags.eval, |model| model.eval.clone())?;
    let held_out = eval.clone().filter(|_| is_until);
    let material = Material {
        held_out,
        calibration: read("calibration set", needed, &flags.recipe.calibration, |model| model.calibration.clone())?,
        train: read("training set", recipe.is_tuned() || is_until, &flags.recipe.train, |model| model.train.clone())?,
        dense,
    };

    let cancel = stop_on_signal(&progress)?;
    let task = progress.task("prune", None);
    let mut watch =
        Watch { on_event: &mut |event| pruning::show(&task, "", true, &event), stop: &|| cancel.is_requested() };
    let made = material.make(&recipe, goal, &mut watch).map_err(refused).with_context(failed)?;
    task.done();
    espalier_prune::file::write(&flags.output, &made.bytes)?;
    if let Some(path) = &flags.manifest {
        output::write(path, &(serde_json::to_string_pretty(&made.manifest)? + "\n"))?;
    }
    print(report::text(&flags.output, &recipe, &made))?;
    print(pruning::runner_text(&pruning::for_the_runner(&made.bytes)))?;
    if let Some(eval) = &eval {
        say(report::held_out(&material.dense, &made.bytes, eval, flags.until))?;
    }
    if is_until && eval.is_none() {
        note("note: judged on samples that the dense model may have been trained on; `--eval` names held-out ones");
    }
    ensure!(!made.stopped, "stopped; `{}` is the best result so far, not the requested one", flags.output.display());
    Ok(ExitStatus::Ok)
}

/// How much is removed. Parts of a model's recipe that contradict it are dropped; flags that contradict it are errors.
fn goal(flags: &Flags, recipe: &mut Recipe) -> Result<Goal> {
    let ratio = flags.ratio.or(recipe.unit.only_ratio());
    let goal = match (flags.threshold, flags.until, ratio) {
        (Some(threshold), _, _) => {
            if flags.recipe.steps.is_none() {
                let once = RecipeFlags { steps: Some(1), schedule: flags.recipe.schedule, ..RecipeFlags::default() };
                *recipe = once.over(recipe.clone());
            } else if recipe.steps > 1 {
                return Err(usage("--steps: a threshold cannot be reached in steps; use `--ratio`"));
            }
            Goal::Amount(Amount::Threshold(threshold))
        }
        (None, Some(max_drop), ratio) => Goal::Until { max_drop, ratio: ratio.unwrap_or(LARGEST) },
        (None, None, Some(ratio)) => Goal::Amount(Amount::Ratio(ratio)),
        (None, None, None) => {
            return Err(usage(
                "how much is to be removed? Give `--ratio`, `--threshold` or `--until max-accuracy-drop=0.01`",
            ));
        }
    };
    recipe.ratios = match goal {
        Goal::Amount(Amount::Ratio(ratio)) | Goal::Until { ratio, .. } => vec![ratio],
        Goal::Amount(Amount::Threshold(_)) => vec![],
    };
    let amount = match goal {
        Goal::Amount(amount) => amount,
        Goal::Until { ratio, .. } => Amount::Ratio(ratio),
    };
    pruning::one_run(recipe, amount).check().map_err(refused)?;
    Ok(goal)
}

/// The default for the largest ratio that a search tries.
const LARGEST: f64 = 0.99;

fn parse_until(text: &str) -> Result<f64, String> {
    let drop = text.strip_prefix("max-accuracy-drop=").and_then(|drop| drop.parse::<f64>().ok());
    let is_all = "all of the accuracy may not be lost: 0.01 is one point, 1 would be a hundred".to_owned();
    match drop {
        Some(drop) if (0.0..1.0).contains(&drop) => Ok(drop),
        Some(drop) if drop >= 1.0 => Err(is_all),
        _ => {
            Err("it is `max-accuracy-drop=` and a fraction from 0, e.g. `max-accuracy-drop=0.01` for one point".into())
        }
    }
}
