//! A model's variants and inputs as files named by content. Pruning is deterministic, so a variant is made only once.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use espalier_bench::record::{ModelInfo, PackedInfo, VariantInfo};
use espalier_fleet::{
    blob::{self, Blob},
    cache::Cache,
    cancel::Cancel,
    deploy::BlobFile,
    regular,
};
use espalier_inventory::{self as inventory, Model, Recipe};
use espalier_protocol::tensor;
use espalier_prune::{
    Amount, Bytes, Inspection, PRUNER,
    runnable::{REWRITES, runnable},
    tune::Watch,
};
use espalier_samples::EvalSet;
use espalier_weights::{
    Form, Layout, Values, WeightsError,
    pack::{Choice, Pack, is_pack},
};

use crate::{
    context::{Context, usage},
    networks::{dense_file, synthetic_inputs},
    packing::{pack_model, pack_nested},
    progress::{Progress, Task, stop_on_signal},
    pruning::{self, Goal, Made, Material, refused},
    samples::{self, model_inputs},
    tasks,
};

pub struct Prepared {
    pub info: ModelInfo,
    /// Variants and inputs.
    pub files: Vec<BlobFile>,
}

/// Makes the variants of all models, with progress. Ctrl-C ends it; an unfinished variant is dropped.
pub fn prepare_all(context: &Context, models: &[Model], progress: &Progress) -> Result<Vec<Prepared>> {
    let steps = models.iter().map(|model| model.recipe.ratios.len() as u64).sum();
    let cancel = stop_on_signal(progress)?;
    let task = progress.task("prune", Some(steps));
    let maker = Maker { context, progress, task: &task, cancel: &cancel };
    let prepared = models
        .iter()
        .map(|model| maker.prepare(model).with_context(|| format!("model `{}`", model.name)))
        .collect::<Result<_>>();
    task.done();
    prepared
}

/// Packs the variants of each model into one file. With `keep_onnx` the ONNX files stay, for other engines.
pub fn prepare_nested(
    context: &Context,
    models: &[Model],
    keep_onnx: bool,
    progress: &Progress,
) -> Result<Vec<Prepared>> {
    let unpacked = |model: &Model| Model { recipe: Recipe { pack: None, ..model.recipe.clone() }, ..model.clone() };
    let mut all = prepare_all(context, &models.iter().map(unpacked).collect::<Vec<Model>>(), progress)?;
    for (prepared, model) in all.iter_mut().zip(models) {
        let files = read(prepared)?;
        let choice = pack_form(&model.recipe)?.map_or(Choice::Smallest(Values::F32), Choice::Form);
        let packed = pack_nested(&files, choice).with_context(|| format!("failed to pack `{}`", model.name))?;
        let blob = blob::put_bytes(&context.cache, &packed.bytes)?;
        for variant in &mut prepared.info.variants {
            let onnx = std::mem::replace(&mut variant.sha256, blob.sha256.clone());
            variant.bytes = blob.bytes;
            if !keep_onnx {
                prepared.files.retain(|file| file.sha256 != onnx);
            }
            variant.unpacked = keep_onnx.then_some(onnx);
        }
        prepared.files.push(file(blob));
    }
    Ok(all)
}

/// The files of a model's variants with their ratios.
pub fn read(prepared: &Prepared) -> Result<Vec<(f64, Bytes)>> {
    let read = |variant: &VariantInfo| {
        let file = prepared.files.iter().find(|file| file.sha256 == variant.sha256).context("a variant has no file")?;
        Ok((variant.ratio, espalier_prune::file::read(&file.path).map_err(usage)?))
    };
    prepared.info.variants.iter().map(read).collect()
}

fn pack_form(recipe: &Recipe) -> Result<Option<Form>> {
    let form = recipe.pack.as_ref().map(|form| form.parse());
    form.transpose().map_err(|error: WeightsError| usage(format!("prune.pack: {error}")))
}

struct Maker<'a> {
    context: &'a Context,
    progress: &'a Progress,
    task: &'a Task,
    cancel: &'a Cancel,
}

/// A model's file, and what else its variants are made from, which is read only when one has to be made.
struct Source<'a> {
    model: &'a Model,
    dense: Bytes,
    /// Covers everything that can change a variant, except the ratio.
    identity: String,
    material: Option<Material>,
}

impl Maker<'_> {
    fn prepare(&self, model: &Model) -> Result<Prepared> {
        let path = dense_file(self.context, &model.source, self.progress)?;
        let dense = espalier_prune::file::read(&path).map_err(usage)?;
        // What the runner would compute otherwise is refused before anything is pruned or measured.
        runnable(&dense).map_err(|error| usage(format!("the runner cannot run `{}`:\n{error}", path.display())))?;
        let mut source = Source { model, identity: self.identity(model, &dense)?, dense, material: None };
        let mut files = Vec::new();
        let mut variants = Vec::new();
        for ratio in &model.recipe.ratios {
            self.task.now(&format!("{} at ratio {ratio}", model.name));
            let (info, blob) = self
                .variant(&mut source, *ratio)
                .with_context(|| format!("at ratio {ratio} (`--ratios 0` measures the dense variant alone)"))?;
            variants.push(info);
            files.push(file(blob));
            self.task.step();
        }
        let inspection = espalier_prune::inspect(&source.dense)?;
        let set = self.eval_set(model, &inspection)?;
        let task = tasks::resolve(&tasks::spec(&model.task, &model.source), &source.dense, &inspection, set.as_ref())?;
        let samples = set.as_ref().map(EvalSet::samples);
        let (inputs, truth) = match set {
            Some(EvalSet { inputs, truth }) => {
                let inputs = blob::put_bytes(&self.context.cache, &tensor::encode(&inputs))?;
                files.push(file(inputs));
                (files.last().map(|inputs| inputs.sha256.clone()), truth)
            }
            None => (None, None),
        };
        let (labels, truth) = tasks::divided(&task, truth);
        let info = ModelInfo {
            name: model.name.clone(),
            source: model.source.to_string(),
            eval: model.eval.clone(),
            recipe: model.recipe.describe(),
            labels,
            truth,
            task: Some(task),
            samples,
            inputs,
            variants,
            max_accuracy_drop: model.budget.max_accuracy_drop,
        };
        Ok(Prepared { info, files })
    }

    fn eval_set(&self, model: &Model, inspection: &Inspection) -> Result<Option<EvalSet>> {
        match (&model.eval, &model.source) {
            (Some(eval), _) => {
                let inputs = model_inputs(inspection);
                let set = espalier_samples::read("eval set", &self.context.root.join(eval), Some(&inputs));
                Ok(Some(set.map_err(|error| usage(format!("{error:#}")))?))
            }
            (None, inventory::Source::Build { net, samples }) => {
                Ok(Some(EvalSet { inputs: synthetic_inputs(net, *samples)?, truth: None }))
            }
            (None, inventory::Source::File(_)) => Ok(None),
        }
    }

    /// The dense file, the samples used, and the complete recipe.
    fn identity(&self, model: &Model, dense: &Bytes) -> Result<String> {
        let recipe = Recipe { ratios: Vec::new(), ..model.recipe.clone() };
        let mut identity = format!("pruner {PRUNER}, rewrites {REWRITES}\n{}\n{recipe:?}\n", blob::sha256_hex(dense));
        if model.recipe.needs_samples() {
            for (what, path) in [("calibration", &model.calibration), ("train", &model.train)] {
                if let Some(path) = path {
                    let bytes = samples::content(what, &self.context.root.join(path), dense)?;
                    identity += &format!("{what} {}\n", blob::sha256_hex(&bytes));
                }
            }
        }
        Ok(identity)
    }

    fn variant(&self, source: &mut Source<'_>, ratio: f64) -> Result<(VariantInfo, Blob)> {
        let identity = format!("{}{:016x}\n", source.identity, ratio.to_bits());
        let key = blob::sha256_hex(identity.as_bytes());
        let note: PathBuf = self.context.cache.folder("variants")?.join(format!("{key}.json"));
        if let Some(known) =
            regular::read(&note).ok().and_then(|text| serde_json::from_slice::<VariantInfo>(&text).ok())
            && let Some(blob) = blob::get(&self.context.cache, &known.sha256)?
        {
            return Ok((known, blob));
        }
        if self.cancel.is_requested() {
            bail!("stopped");
        }
        let made = self.made(source, ratio)?;
        // A stopped result is not what the recipe says.
        ensure!(!made.stopped, "stopped");
        if let Some(note) = &made.note {
            bail!("{note}");
        }
        let bytes = runnable(&made.bytes)?;
        let packed = sizes(&bytes)?;
        // The dense variant, which all others are compared with, is never packed.
        let pushed = match pack_form(&source.model.recipe)?.filter(|_| ratio > 0.0) {
            Some(form) => Bytes::from(pack_model(&bytes, Choice::Form(form))?.0.bytes),
            None => bytes,
        };
        let blob = blob::put_bytes(&self.context.cache, &pushed)?;
        let manifest = made.manifest;
        let info = VariantInfo {
            ratio,
            sha256: blob.sha256.clone(),
            bytes: blob.bytes,
            prunable: manifest.prunable,
            removed: manifest.removed,
            parameters: manifest.parameters,
            zeros: manifest.zeros,
            units: Some(manifest.units),
            removed_units: Some(manifest.removed_units),
            parameters_left: manifest.structure.map(|report| report.parameters_left),
            packed,
            unpacked: None,
        };
        std::fs::write(&note, serde_json::to_vec(&info)?)
            .with_context(|| format!("cannot write `{}`", note.display()))?;
        Ok((info, blob))
    }

    fn made(&self, source: &mut Source<'_>, ratio: f64) -> Result<Made> {
        let recipe = &source.model.recipe;
        let needs_samples = ratio > 0.0 && recipe.needs_samples();
        // The dense variant, which comes first, needs no samples.
        if source.material.as_ref().is_none_or(|material| needs_samples && !material.has_samples()) {
            source.material = Some(self.material(source, needs_samples)?);
        }
        let prefix = format!("{} at ratio {ratio}", source.model.name);
        let mut watch = Watch {
            on_event: &mut |event| pruning::show(self.task, &prefix, false, &event),
            stop: &|| self.cancel.is_requested(),
        };
        let material = source.material.as_ref().expect("it was just read");
        let made = material.make(recipe, Goal::Amount(Amount::Ratio(ratio)), &mut watch).map_err(refused)?;
        if let Some(reached) = made.trail.last().and_then(|(stage, _)| stage.tuned) {
            self.task.milestone(&format!("{prefix}: {}", pruning::evaluation_text(reached)));
        }
        Ok(made)
    }

    fn material(&self, source: &Source<'_>, with_samples: bool) -> Result<Material> {
        let Model { calibration, train, .. } = source.model;
        let dense = source.dense.clone();
        if !with_samples {
            return Ok(Material { dense, calibration: None, train: None, held_out: None });
        }
        let inspection: Inspection = espalier_prune::inspect(&dense)?;
        let read = |what: &str, path: &Option<String>| {
            path.as_ref().map(|path| samples::read(what, &self.context.root.join(path), &inspection)).transpose()
        };
        Ok(Material {
            calibration: read("calibration set", calibration)?,
            train: read("training set", train)?,
            held_out: None,
            dense,
        })
    }
}

/// Adds the ONNX file in every pack, for engines that read no packs.
pub fn unpack(cache: &Cache, prepared: &mut [Prepared]) -> Result<()> {
    for Prepared { info, files } in prepared {
        for variant in &mut info.variants {
            let Some(pushed) = files.iter().find(|file| file.sha256 == variant.sha256) else { continue };
            let bytes =
                std::fs::read(&pushed.path).with_context(|| format!("cannot read `{}`", pushed.path.display()))?;
            if !is_pack(&bytes) {
                continue;
            }
            let unpacked = Pack::open(&bytes).and_then(|pack| pack.unpack());
            let unpacked = unpacked.with_context(|| format!("model `{}` at ratio {}", info.name, variant.ratio))?;
            let blob = blob::put_bytes(cache, &unpacked)?;
            variant.unpacked = Some(blob.sha256.clone());
            files.push(file(blob));
        }
    }
    Ok(())
}

/// Files beyond this are not packed for two columns of a table: it would take too long.
const PACKED_AT_MOST: usize = 64 << 20;

/// The file's size as a pack: without loss, and in the form that is smallest for pruned weights.
fn sizes(file: &Bytes) -> Result<Option<PackedInfo>> {
    if file.len() > PACKED_AT_MOST {
        return Ok(None);
    }
    let size = |choice| pack_model(file, choice).map(|(packed, _)| packed.bytes.len() as u64);
    let codebook = Form { layout: Layout::Bitmap, values: Values::Codebook { size: 32 } };
    // Infinities, which the pruner keeps, do not fit a codebook.
    let codebook = size(Choice::Form(codebook)).ok();
    Ok(Some(PackedInfo { lossless: size(Choice::Smallest(Values::F32))?, bitmap_codebook: codebook }))
}

fn file(blob: Blob) -> BlobFile {
    BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable: false }
}
