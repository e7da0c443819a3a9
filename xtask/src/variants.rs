//! A model's variants and its inputs as files named by content. Pruning is deterministic, so a variant made once is not made again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use espalier_bench::{
    inventory::{Model, Recipe},
    record::{ModelInfo, VariantInfo},
};
use espalier_fleet::{
    blob::{self, Blob},
    cache::Cache,
    deploy::BlobFile,
    eval_set::{self, ModelAxis, ModelInput},
};
use espalier_protocol::tensor;
use espalier_prune::{Axis, Inspection, Port};

use crate::{
    context::{Context, usage},
    progress::{Progress, Task},
};

/// Raised when the pruner gives other bytes for the same recipe.
const PRUNER: u32 = 1;

pub struct Prepared {
    pub info: ModelInfo,
    /// Variants and inputs.
    pub files: Vec<BlobFile>,
}

/// Each of the models, with progress.
pub fn prepare_all(context: &Context, models: &[Model], progress: &Progress) -> Result<Vec<Prepared>> {
    let steps = models.iter().map(|model| model.recipe.ratios.len() as u64).sum();
    let task = progress.task("prune", Some(steps));
    let prepared = models.iter().map(|model| prepare(&context.cache, &context.root, model, &task)).collect();
    task.done();
    prepared
}

/// `root` is where the model's relative paths begin.
fn prepare(cache: &Cache, root: &Path, model: &Model, task: &Task) -> Result<Prepared> {
    let source = root.join(&model.source);
    let dense =
        espalier_prune::file::read(&source).map_err(|error| usage(format!("model `{}`: {error}", model.name)))?;
    let dense_sha = blob::sha256_hex(&dense);
    let mut files = Vec::new();
    let mut variants = Vec::new();
    for ratio in &model.recipe.ratios {
        task.now(&format!("{} at ratio {ratio}", model.name));
        let (info, blob) = variant(cache, &dense, &dense_sha, &model.recipe, *ratio).with_context(|| {
            format!("model `{}` at ratio {ratio} (`--ratios 0` measures the dense variant alone)", model.name)
        })?;
        variants.push(info);
        files.push(file(blob));
        task.step();
    }
    let (labels, inputs) = match &model.eval {
        Some(eval) => {
            let inspection = espalier_prune::inspect(&dense).with_context(|| format!("model `{}`", model.name))?;
            let set = eval_set::read(&root.join(eval), Some(&wanted(inspection)))
                .map_err(|error| usage(format!("model `{}`: {error:#}", model.name)))?;
            let blob = blob::put_bytes(cache, &tensor::encode(&set.inputs))?;
            let sha256 = blob.sha256.clone();
            files.push(file(blob));
            (set.labels, Some(sha256))
        }
        None => (None, None),
    };
    let info = ModelInfo {
        name: model.name.clone(),
        source: model.source.clone(),
        eval: model.eval.clone(),
        recipe: model.recipe.describe(),
        labels,
        inputs,
        variants,
        max_accuracy_drop: model.budget.max_accuracy_drop,
    };
    Ok(Prepared { info, files })
}

fn variant(
    cache: &Cache,
    dense: &bytes::Bytes,
    dense_sha: &str,
    recipe: &Recipe,
    ratio: f64,
) -> Result<(VariantInfo, Blob)> {
    let identity = format!("pruner {PRUNER}\n{dense_sha}\n{}\n{:016x}\n", recipe.describe(), ratio.to_bits());
    let note: PathBuf = cache.folder("variants")?.join(format!("{}.json", blob::sha256_hex(identity.as_bytes())));
    if let Some(known) = std::fs::read(&note).ok().and_then(|text| serde_json::from_slice::<VariantInfo>(&text).ok())
        && let Some(blob) = blob::get(cache, &known.sha256)?
    {
        return Ok((known, blob));
    }
    let pruned = espalier_prune::prune(dense, &espalier_prune::Recipe::magnitude(ratio), None)?;
    let blob = blob::put_bytes(cache, &pruned.bytes)?;
    let manifest = pruned.manifest;
    let info = VariantInfo {
        ratio,
        sha256: blob.sha256.clone(),
        bytes: blob.bytes,
        prunable: manifest.prunable,
        removed: manifest.removed,
        parameters: manifest.parameters,
        zeros: manifest.zeros,
    };
    std::fs::write(&note, serde_json::to_vec(&info)?).with_context(|| format!("cannot write `{}`", note.display()))?;
    Ok((info, blob))
}

/// What the model wants to be fed, in the eval set's words.
fn wanted(inspection: Inspection) -> Vec<ModelInput> {
    let axis = |axis| match axis {
        Axis::Fixed(length) => ModelAxis::Fixed(length),
        Axis::Free(name) => ModelAxis::Free(name),
    };
    let input = |port: Port| ModelInput {
        name: port.name,
        dtype: port.dtype.to_owned(),
        axes: port.axes.map(|axes| axes.into_iter().map(axis).collect()),
    };
    inspection.inputs.into_iter().map(input).collect()
}

fn file(blob: Blob) -> BlobFile {
    BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable: false }
}
