//! Networks of model files with `build`: built on first use, by their known SHA-256; and their synthetic samples.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use espalier_bench::sheet;
use espalier_fleet::{
    blob,
    cache::{self, Cache},
    cancel::Cancel,
};
use espalier_inventory::Source;
use espalier_protocol::tensor::{DType, Tensor, TensorHeader};
use espalier_zoo::{Blueprint, Net, Values};

use crate::{
    context::{Context, usage},
    progress::{Progress, Task, stop_on_signal},
};

/// The path of a model's dense ONNX file, which is built if necessary.
///
/// # Errors
/// There is no room for it, or building was stopped.
pub fn dense_file(context: &Context, source: &Source, progress: &Progress) -> Result<PathBuf> {
    match source {
        Source::File(path) => Ok(context.root.join(path)),
        Source::Build { net, .. } => built(&context.cache, named(net)?, progress),
    }
}

fn built(cache: &Cache, net: Net, progress: &Progress) -> Result<PathBuf> {
    if let Some(blob) = blob::get(cache, net.sha256())? {
        return Ok(blob.path);
    }
    let blueprint = net.blueprint();
    let folder = cache.folder("blobs")?;
    check_room(&folder, blueprint.bytes(), "`ESPALIER_CACHE` puts the cache elsewhere")?;
    let cancel = stop_on_signal(progress)?;
    let task = task(progress, net, &blueprint);
    let blob = blob::put_made(cache, net.sha256(), |out| blueprint.write(&mut Watched::new(out, &task, &cancel)))?;
    task.done();
    Ok(blob.path)
}

/// Inputs for a built network, which has no eval set.
///
/// # Errors
/// The network is unknown.
pub fn synthetic_inputs(net: &str, samples: u32) -> Result<Vec<Tensor>> {
    let tensor = |sampled: espalier_zoo::Sampled| {
        let (dtype, bytes) = match &sampled.values {
            Values::Floats(values) => (DType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::Ints(values) => (DType::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        };
        let shape = sampled.dims.iter().map(|axis| *axis as u64).collect();
        Tensor { header: TensorHeader { name: sampled.name.to_owned(), dtype, shape }, bytes }
    };
    Ok(named(net)?.samples(samples as usize).into_iter().map(tensor).collect())
}

fn named(net: &str) -> Result<Net> {
    // The inventory has checked the name, but a stored run may be of another release.
    Net::named(net).ok_or_else(|| usage(format!("there is no network `{net}` to build")))
}

/// `advice` is the end of the error's message.
///
/// # Errors
/// The folder has not so many bytes free.
pub fn check_room(folder: &Path, bytes: u64, advice: &str) -> Result<()> {
    match cache::free_bytes(folder) {
        Some(free) if free < bytes => Err(anyhow::anyhow!(
            "no room in `{}`: {} are needed, {} are free; {advice}",
            folder.display(),
            sheet::size(bytes),
            sheet::size(free)
        )),
        _ => Ok(()),
    }
}

pub fn task(progress: &Progress, net: Net, blueprint: &Blueprint) -> Task {
    let task = progress.task("build", Some(blueprint.bytes() / STEP));
    task.milestone(&format!("{} ({}, random weights)", net.name(), sheet::size(blueprint.bytes())));
    task
}

/// Bytes of a progress bar's step.
const STEP: u64 = 1 << 20;

/// A writer that shows its progress and can be cancelled.
pub struct Watched<'a> {
    out: &'a mut dyn Write,
    task: &'a Task,
    cancel: &'a Cancel,
    written: u64,
}

impl<'a> Watched<'a> {
    pub fn new(out: &'a mut dyn Write, task: &'a Task, cancel: &'a Cancel) -> Watched<'a> {
        Watched { out, task, cancel, written: 0 }
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.cancel.is_requested() {
            return Err(io::Error::other("stopped"));
        }
        let written = self.out.write(piece)?;
        let before = self.written / STEP;
        self.written += written as u64;
        (before..self.written / STEP).for_each(|_| self.task.step());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
