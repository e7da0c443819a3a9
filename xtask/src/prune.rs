//! `cargo xtask prune`: a pruned copy of an ONNX file, and what was and was not pruned.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_prune::{Manifest, Recipe};

use crate::{
    context::{Context, usage},
    report,
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// Fraction of the prunable weights to remove, in [0, 1): exactly round(ratio * n) of n
    #[arg(short, long)]
    ratio: f64,
    /// The pruned ONNX file
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,
    /// Write what was pruned, tensor by tensor, as JSON
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let source = source(&context, &flags.model)?;
    let dense = espalier_prune::file::read(&source).map_err(|error| usage(error.to_string()))?;
    let recipe = Recipe::magnitude(flags.ratio);
    recipe.check().map_err(|error| usage(error.to_string()))?;
    let pruned = espalier_prune::prune(&dense, &recipe, None)?;
    espalier_prune::file::write(&flags.output, &pruned.bytes)?;
    if let Some(path) = &flags.manifest {
        report::write(path, &(serde_json::to_string_pretty(&pruned.manifest)? + "\n"))?;
    }
    print!("{}", told(&flags.output, &pruned.manifest));
    Ok(ExitStatus::Ok)
}

/// The ONNX file a command is to work on.
pub fn source(context: &Context, model: &str) -> Result<PathBuf> {
    if Path::new(model).is_file() {
        return Ok(model.into());
    }
    if model.ends_with(".onnx") {
        return Err(usage(format!("there is no file `{model}`")));
    }
    let inventory = context.inventory(&|file| file == format!("models/{model}.toml"))?;
    let model = inventory.model(model).map_err(|error| usage(error.to_string()))?;
    Ok(context.root.join(&model.source))
}

fn told(output: &Path, manifest: &Manifest) -> String {
    let mut text = format!(
        "{}: {} of {} prunable weights removed (ratio {:.6}), {} of {} parameters\n",
        output.display(),
        manifest.removed,
        manifest.prunable,
        manifest.removed as f64 / (manifest.prunable.max(1)) as f64,
        manifest.removed,
        manifest.parameters,
    );
    for tensor in &manifest.tensors {
        let share = 100.0 * tensor.removed as f64 / tensor.weights.max(1) as f64;
        text += &format!("  {:<40} {:>10} of {:>10} ({share:5.1} %)\n", tensor.name, tensor.removed, tensor.weights);
    }
    for untouched in &manifest.untouched {
        text += &format!("  {:<40} not pruned: {}\n", untouched.name, untouched.reason);
    }
    text
}
