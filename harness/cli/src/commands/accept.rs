//! `accept`: the current runners and variants become a baseline. The manifest goes to `reports/baselines/`, to be
//! committed; the files go to the baseline store. A baseline is complete or not written: a runner that cannot be built
//! stops it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_fleet::{
    blob::Blob,
    deploy::BlobFile,
    store::{Put, Store},
};
use espalier_gate::baseline::{self, Baseline, BaselineModel, BaselineRunner, BaselineVariant};
use espalier_inventory::{Transport, is_name};

use crate::{
    baselines,
    context::{Context, usage},
    output,
    progress::{Progress, stop_on_signal},
    provenance, run_file,
    runners::{self, Builds},
    selection::{Selected, Selection},
    terminal::say,
    variants,
};

#[derive(Args)]
pub struct Flags {
    /// What the baseline is called, e.g. release-1.4
    #[arg(long, default_value = "main")]
    name: String,
    #[command(flatten)]
    selection: Selection,
    /// A runner built elsewhere, for every selected device, instead of building one
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// Take the place of a baseline of this name
    #[arg(long)]
    replace: bool,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    if !is_name(&flags.name) {
        return Err(usage(format!("`{}` cannot be a baseline's name: it becomes a file's", flags.name)));
    }
    let path = baselines::path(&context.root, &flags.name);
    if path.exists() && !flags.replace {
        return Err(is_taken(&path));
    }
    let Selected { inventory, devices, models } = flags.selection.resolve(&context)?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let targets = runners::targets(&inventory, devices.iter())?;
    let builds = Builds { context: &context, progress: &progress, cancel: &cancel, verbose: flags.verbose };
    let runners = builds.all(&targets, flags.runner.as_deref())?;
    let mut files: Vec<BlobFile> = Vec::new();
    let mut baseline_runners = Vec::new();
    for target in &targets {
        let device = devices.iter().find(|device| device.target == target.name).context("a target without device")?;
        let runner = runners.of(device).map_err(|message| anyhow::anyhow!("{message}"))?;
        baseline_runners.push(BaselineRunner {
            target: target.name.clone(),
            triple: target.triple.clone(),
            sha256: runner.file.sha256.clone(),
            bytes: runner.file.bytes,
            builder: runner.builder.clone(),
        });
        files.push(runner.file.clone());
    }
    let mut baseline_models = Vec::new();
    for prepared in variants::prepare_all(&context, &models, &progress)? {
        files.extend(prepared.files);
        let info = prepared.info;
        baseline_models.push(BaselineModel {
            name: info.name,
            recipe: info.recipe,
            inputs: info.inputs,
            variants: info.variants.into_iter().map(BaselineVariant::from).collect(),
        });
    }
    let store = Store::find(&context.root)?;
    for file in &files {
        let BlobFile { sha256, path, bytes, .. } = file.clone();
        if store.put(&Blob { path, sha256: sha256.clone(), bytes })? == Put::Repaired {
            progress.emit(&format!("`{sha256}` was damaged in the store and is repaired: check that disk"));
        }
    }
    let (accepted, _) = run_file::now()?;
    let provenance = provenance::of_this_run(&context);
    let baseline = Baseline {
        format: baseline::FORMAT,
        name: flags.name.clone(),
        accepted,
        by: provenance::person(),
        espalier: provenance.espalier,
        revision: provenance.revision,
        runners: baseline_runners,
        models: baseline_models,
    };
    std::fs::create_dir_all(path.parent().context("it lies in a folder")?)
        .with_context(|| format!("cannot make the folder of `{}`", path.display()))?;
    // The files are in the store before the manifest names them.
    if flags.replace {
        output::write(&path, &baseline.to_toml())?;
    } else if !output::write_new(&path, &baseline.to_toml())? {
        // Another process made one meanwhile.
        return Err(is_taken(&path));
    }
    let variants: usize = baseline.models.iter().map(|model| model.variants.len()).sum();
    say(format_args!("baseline `{}`: {} runners, {variants} variants", flags.name, baseline.runners.len()))?;
    say(format_args!("manifest: {} (to be committed)", path.display()))?;
    say(format_args!("files: {}", store.folder.display()))?;
    let local_only = devices.iter().all(|device| matches!(device.transport, Transport::Local));
    if local_only && flags.selection.device.is_empty() && !flags.selection.all_devices {
        progress.emit("only this machine's runner is in it: `--all-devices` or `--device` takes the boards' too");
    }
    Ok(ExitStatus::Ok)
}

fn is_taken(path: &Path) -> anyhow::Error {
    let path = path.display();
    usage(format!("there is a baseline in `{path}`: take another `--name`, or `--replace` it"))
}
