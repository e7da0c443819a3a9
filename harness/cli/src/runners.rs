//! The runner of each device: built for its target, or given.

use std::{cell::Cell, path::Path};

use anyhow::Result;
use espalier_bench::build_plan::Layout;
use espalier_fleet::{
    blob,
    build::{self, Artifact},
    cache::Cache,
    cancel::Cancel,
    deploy::BlobFile,
    elf,
    process::Watch,
    session::Runner,
};
use espalier_inventory::{Device, Inventory, Target};

use crate::{
    context::{Context, usage},
    program::Program,
    progress::Progress,
    terminal,
};

/// Runners, or why they could not be built, by their targets' names.
pub struct Runners(Vec<(String, Result<Runner, String>)>);

impl Runners {
    pub fn of(&self, device: &Device) -> Result<&Runner, &str> {
        let (_, runner) = self.0.iter().find(|(target, _)| *target == device.target).expect("every target was tried");
        runner.as_ref().map_err(String::as_str)
    }
}

/// The devices' targets, each once.
pub fn targets<'a>(inventory: &Inventory, devices: impl Iterator<Item = &'a Device>) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for device in devices {
        if !targets.iter().any(|target| target.name == device.target) {
            targets.push(inventory.target(&device.target).map_err(usage)?.clone());
        }
    }
    Ok(targets)
}

/// What builds need.
pub struct Builds<'a> {
    pub context: &'a Context,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
    /// Show every command.
    pub verbose: bool,
}

impl Builds<'_> {
    /// The runners of all targets, or `given`. A target that cannot be built does not stop the others.
    pub fn all(&self, targets: &[Target], given: Option<&Path>) -> Result<Runners> {
        let given = given.map(|path| given_runner(&self.context.cache, path, targets)).transpose()?;
        let runner = |target: &Target| match &given {
            Some(runner) => Ok(runner.clone()),
            None => {
                let message = |error| Program::current().text(&terminal::causes(&error)).into_owned();
                self.one(target, Layout::USUAL).map_err(message)
            }
        };
        let runners: Vec<(String, Result<Runner, String>)> =
            targets.iter().map(|target| (target.name.clone(), runner(target))).collect();
        for (target, runner) in &runners {
            if let Err(message) = runner {
                self.progress.emit(&format!("target `{target}`: {message}"));
            }
        }
        Ok(Runners(runners))
    }

    pub fn one(&self, target: &Target, layout: Layout) -> Result<Runner> {
        let task = self.progress.task(&format!("build {}", target.name), None);
        let announced = Cell::new(false);
        // Called only where cargo runs, not for an artifact of the cache.
        let on_line = |text: &str| {
            if !announced.replace(true) {
                task.milestone("building the runner; the first time takes minutes");
            }
            if self.verbose { self.progress.emit(text) } else { task.now(text) }
        };
        let watch = Watch { cancel: self.cancel, progress: &on_line };
        let artifact = build::build(&self.context.cache, self.context.sources()?, target, layout, watch)?;
        task.done();
        let Artifact { path, sha256, bytes, builder, elf, .. } = artifact;
        Ok(Runner {
            file: BlobFile { sha256, path, bytes, executable: true },
            elf: Some(elf),
            interpreter: Vec::new(),
            builder,
        })
    }
}

/// # Errors
/// It is no program, or none for one of the targets: boards would say so in words that nobody understands.
fn given_runner(cache: &Cache, path: &Path, targets: &[Target]) -> Result<Runner> {
    let refused = |why: &str| usage(format!("runner `{}`: {why}", path.display()));
    let content = std::fs::read(path).map_err(|error| refused(&error.to_string()))?;
    let elf = match elf::read(&content) {
        Ok(elf) => Some(elf),
        // A script that starts one.
        Err(_) if content.starts_with(b"#!") => None,
        Err(error) => return Err(refused(&format!("it is no program: {error:#}"))),
    };
    for target in targets {
        if let Some(why) = elf.as_ref().and_then(|elf| elf::misfit(elf, target)) {
            return Err(refused(&format!("it {why}: select the devices that it is for")));
        }
    }
    let blob = blob::put_program(cache, &content)?;
    Ok(Runner {
        file: BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable: true },
        elf,
        interpreter: Vec::new(),
        builder: format!("given as `{}`", path.display()),
    })
}
