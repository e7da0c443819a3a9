//! One pack of a model at several ratios: its files, and the bytes each adds.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use espalier_bench::exit::ExitStatus;
use espalier_inventory::Recipe;
use espalier_prune::Bytes;
use espalier_weights::pack::Choice;

use super::Flags;
use crate::{
    context::{Context, usage},
    output,
    packing::pack_nested,
    progress::Progress,
    terminal::say,
    variants,
};

pub fn run(context: &Context, flags: &Flags, dense: &Bytes, choice: Choice) -> Result<ExitStatus> {
    let files = if flags.with.is_empty() { of_model(context, flags)? } else { given(flags, dense)? };
    let packed = pack_nested(&files, choice).with_context(|| format!("failed to pack `{}`", flags.model))?;
    output::write(&flags.output, &packed.bytes)?;
    for ratio in &packed.ratios {
        let own = if ratio.own > 0 && ratio.ratio > packed.ratios[0].ratio {
            " (fine-tuned values differ and are stored separately)"
        } else {
            ""
        };
        say(format_args!(
            "  ratio {}: {} bytes more; {} tensors as before, {} with fewer of the first ratio's values, {} with \
             values of their own{own}",
            ratio.ratio, ratio.bytes, ratio.same, ratio.nested, ratio.own
        ))?;
    }
    let (bytes, all) = (packed.bytes.len(), files.iter().map(|(_, file)| file.len()).sum::<usize>());
    let share = 100.0 * bytes as f64 / all as f64;
    say(format_args!(
        "{}: {bytes} bytes, {share:.2} % of the {all} its {} files have",
        flags.output.display(),
        files.len()
    ))?;
    Ok(ExitStatus::Ok)
}

/// `0.9=pruned.onnx`.
pub fn parse_with(text: &str) -> Result<(f64, PathBuf), String> {
    let parsed = text.split_once('=').and_then(|(ratio, file)| Some((ratio.parse::<f64>().ok()?, file)));
    match parsed {
        Some((ratio, file)) if ratio > 0.0 && ratio < 1.0 && !file.is_empty() => Ok((ratio, file.into())),
        _ => Err("a ratio above 0 and below 1 and its file, as 0.9=pruned.onnx".to_owned()),
    }
}

fn given(flags: &Flags, dense: &Bytes) -> Result<Vec<(f64, Bytes)>> {
    let mut files = vec![(0.0, dense.clone())];
    for (ratio, path) in &flags.with {
        let file = espalier_prune::file::read(path).map_err(usage)?;
        files.push((*ratio, file));
    }
    ascending(files)
}

/// The variants of one of models/, pruned by its recipe or taken from the cache.
fn of_model(context: &Context, flags: &Flags) -> Result<Vec<(f64, Bytes)>> {
    let name = flags.model.as_str();
    let inventory = context.inventory(&|file| file == format!("models/{name}.toml"))?;
    let model = inventory.model(name).map_err(|error| usage(format!("{error}; `--with` takes files")))?;
    if let Some(wrong) = flags.ratios.iter().find(|ratio| !(0.0..1.0).contains(*ratio)) {
        return Err(usage(format!("--ratios: {wrong} is not a ratio from 0 and below 1")));
    }
    let mut model = model.clone();
    model.recipe = Recipe { ratios: flags.ratios.clone(), pack: None, ..model.recipe };
    let prepared = variants::prepare_all(context, &[model], &Progress::new(flags.quiet))?;
    let files: Vec<Vec<(f64, Bytes)>> = prepared.iter().map(variants::read).collect::<Result<_>>()?;
    ascending(files.concat())
}

fn ascending(mut files: Vec<(f64, Bytes)>) -> Result<Vec<(f64, Bytes)>> {
    files.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some(twice) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(usage(format!("ratio {} is there twice", twice[0].0)));
    }
    Ok(files)
}
