//! What every command needs: where the repository is, what its files say, and the exit code of an error.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use espalier_bench::exit::ExitStatus;
use espalier_fleet::cache::Cache;
use espalier_inventory::{self as inventory, Inventory, Problem, SourceFile, SourceFiles, Surroundings};

const TARGETS: &str = "targets.toml";

/// The device file of this host.
pub const LOCAL: &str = "local";

pub struct Context {
    /// Where targets.toml, devices/, models/ and reports/ are: the repository, or the folder `ESPALIER_ROOT` names (another shelf of boards).
    pub root: PathBuf,
    /// The repository: the sources runners are built from.
    pub sources: PathBuf,
    pub cache: Cache,
}

/// An error that has its own exit code.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub message: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// A mistake in flags or files.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Exit { status: ExitStatus::Usage, message: message.into() })
}

pub fn status_of(error: &anyhow::Error) -> ExitStatus {
    error.downcast_ref::<Exit>().map_or(ExitStatus::Failed, |exit| exit.status)
}

impl Context {
    pub fn open() -> Result<Context> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no repository")?.to_owned();
        let root = match std::env::var_os("ESPALIER_ROOT") {
            Some(root) if !root.is_empty() => {
                std::path::absolute(PathBuf::from(root)).context("`ESPALIER_ROOT` cannot be resolved")?
            }
            _ => sources.clone(),
        };
        Ok(Context { root, sources, cache: Cache::open()? })
    }

    /// What the files say, or every mistake in them.
    ///
    /// # Errors
    /// Only where a file cannot be read at all.
    pub fn read_inventory(&self) -> Result<Result<Inventory, Vec<Problem>>> {
        Ok(self.load(&self.sources()?))
    }

    /// What the files say. A mistake in a file that nobody asked for does not stop a nightly run on the other boards: that file is left out, and said so.
    ///
    /// # Errors
    /// All mistakes, one a line, where a file that is `wanted` (by its path from the repository's root) has any.
    pub fn inventory(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Inventory> {
        let mut sources = self.sources()?;
        let problems = match self.load(&sources) {
            Ok(inventory) => return Ok(inventory),
            Err(problems) => problems,
        };
        let fatal = |problem: &Problem| problem.file == TARGETS || wanted(&problem.file);
        if problems.iter().any(fatal) {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            return Err(usage(format!("the configuration has mistakes:\n{}", lines.join("\n"))));
        }
        let broken: BTreeSet<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
        for file in &broken {
            eprintln!("warning: `{file}` has mistakes and is left out: `cargo xtask check` shows them");
        }
        sources.devices.retain(|source| !broken.contains(source.path.as_str()));
        sources.models.retain(|source| !broken.contains(source.path.as_str()));
        self.load(&sources).map_err(|_| usage("the configuration has mistakes: `cargo xtask check` shows them"))
    }

    fn load(&self, sources: &SourceFiles) -> Result<Inventory, Vec<Problem>> {
        let environment = |name: &str| match name {
            "ESPALIER_CACHE" => Some(self.cache.root.to_string_lossy().into_owned()),
            _ => std::env::var(name).ok(),
        };
        let surroundings = Surroundings {
            host_triple: &host_triple(),
            environment: &environment,
            exists: &|path: &str| self.root.join(path).exists(),
        };
        inventory::load(sources, &surroundings)
    }

    fn sources(&self) -> Result<SourceFiles> {
        Ok(SourceFiles {
            targets: self.source(TARGETS)?,
            devices: self.folder("devices")?,
            models: self.folder("models")?,
        })
    }

    fn source(&self, name: &str) -> Result<Option<SourceFile>> {
        let path = self.root.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(SourceFile { path: name.to_owned(), text })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    fn folder(&self, folder: &str) -> Result<Vec<SourceFile>> {
        let path = self.root.join(folder);
        let mut names = Vec::new();
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if name.ends_with(".toml") {
                        names.push(format!("{folder}/{name}"));
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
        names.sort();
        names.iter().filter_map(|name| self.source(name).transpose()).collect()
    }
}

/// Of this program, and so of the host.
pub fn host_triple() -> String {
    env!("ESPALIER_HOST_TRIPLE").to_owned()
}
