//! What every command needs: where files and sources are, the inventory, and errors with an exit code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use espalier_fleet::cache::Cache;
use espalier_inventory::{self as inventory, Inventory, Problem, SourceFile, SourceFiles, Surroundings};

pub use crate::exit::{Exit, status_of, usage};
use crate::{
    program::Program,
    terminal::{causes, note},
};

const TARGETS: &str = "targets.toml";

/// A folder with this file is the repository.
const RUNNER: &str = "harness/runner/Cargo.toml";

pub struct Context {
    /// The folder of targets.toml, devices/, models/ and reports/: the one that `ESPALIER_ROOT` names, else the nearest
    /// above the working folder that has a `targets.toml`.
    pub root: PathBuf,
    /// Whether `root` is such a folder. Otherwise it is the working folder, and only ONNX files can be named.
    has_files: bool,
    /// Whether `ESPALIER_ROOT` names it.
    is_named: bool,
    /// The repository with the runner's sources, or why there is none.
    sources: Result<PathBuf, String>,
    pub cache: Cache,
}

/// All mistakes of a file, one a line.
pub fn mistakes(what_has: &str, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    usage(format!("{what_has} mistakes:\n{}", lines.join("\n")))
}

impl Context {
    /// # Errors
    /// `ESPALIER_ROOT` or the cache cannot be used.
    pub fn open() -> Result<Context> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned);
        let is_clone = |folder: &PathBuf| folder.join(RUNNER).is_file();
        let sources = match named("ESPALIER_SOURCES") {
            Some(folder) if !is_clone(&folder) => {
                Err(format!("`{}`, which `ESPALIER_SOURCES` names, is no clone of Espalier", folder.display()))
            }
            folder => folder.or(built_from.filter(is_clone)).ok_or_else(|| {
                "runners are built from Espalier's sources, which were not found: name a clone of the repository in \
                 `ESPALIER_SOURCES`, or measure with a runner that is already built, `--runner FILE`"
                    .to_owned()
            }),
        };
        let here = std::env::current_dir().context("the working folder cannot be read")?;
        let above = || here.ancestors().find(|folder| folder.join(TARGETS).is_file()).map(Path::to_owned);
        let (root, has_files) = match named("ESPALIER_ROOT") {
            Some(root) => {
                let root = std::path::absolute(root).context("`ESPALIER_ROOT` cannot be resolved")?;
                let has_files = root.join(TARGETS).is_file();
                (root, has_files)
            }
            None => match above().or_else(|| sources.clone().ok().filter(|_| Program::current().is_developers)) {
                Some(root) => (root, true),
                None => (here, false),
            },
        };
        // Without a place for it nothing is done: the surroundings are wrong, as a file can be.
        let cache = Cache::open().map_err(|error| usage(causes(&error)))?;
        Ok(Context { root, has_files, is_named: named("ESPALIER_ROOT").is_some(), sources, cache })
    }

    /// The repository with the runner's sources.
    ///
    /// # Errors
    /// It is neither where this program was built nor where `ESPALIER_SOURCES` points.
    pub fn sources(&self) -> Result<&Path> {
        self.sources.as_deref().map_err(usage)
    }

    /// The inventory, or every mistake in its files.
    ///
    /// # Errors
    /// A file cannot be read at all.
    pub fn read_inventory(&self) -> Result<Result<Inventory, Vec<Problem>>> {
        Ok(self.load(&self.files()?))
    }

    /// The inventory. A file with mistakes that is not `needed` (called with its path from the root) is left out with a
    /// warning, so that it does not stop a nightly run on the other boards.
    ///
    /// # Errors
    /// All mistakes, one a line, where a needed file has any.
    pub fn inventory(&self, needed: &dyn Fn(&str) -> bool) -> Result<Inventory> {
        self.inventory_in(self.files()?, needed)
    }

    /// The same where no folder has a `targets.toml`, for a command that can do without: this host alone.
    ///
    /// # Errors
    /// As for [`Context::inventory`].
    pub fn inventory_or_this_host(&self, needed: &dyn Fn(&str) -> bool) -> Result<Inventory> {
        self.inventory_in(if self.has_files || self.is_named { self.files()? } else { SourceFiles::default() }, needed)
    }

    fn inventory_in(&self, mut sources: SourceFiles, needed: &dyn Fn(&str) -> bool) -> Result<Inventory> {
        let problems = match self.load(&sources) {
            Ok(inventory) => return Ok(inventory),
            Err(problems) => problems,
        };
        let fatal = |problem: &Problem| problem.file == TARGETS || needed(&problem.file);
        if problems.iter().any(fatal) {
            return Err(mistakes("the configuration has", &problems));
        }
        let broken: BTreeSet<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
        for file in &broken {
            let call = Program::current().call;
            note(format_args!("warning: `{file}` has mistakes and is left out: `{call} check` shows them"));
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

    fn files(&self) -> Result<SourceFiles> {
        if !self.has_files {
            let root = self.root.display();
            if self.is_named {
                return Err(usage(format!("there is no `{TARGETS}` in `{root}`, which `ESPALIER_ROOT` names")));
            }
            return Err(usage(format!(
                "there is no `{TARGETS}` in `{root}` or a folder above it: change to a folder that has one, or name it \
                 in `ESPALIER_ROOT`"
            )));
        }
        Ok(SourceFiles {
            targets: self.source(TARGETS)?,
            devices: self.folder("devices")?,
            models: self.folder("models")?,
        })
    }

    /// A file by its path from the root; `None` where there is none.
    pub fn source(&self, name: &str) -> Result<Option<SourceFile>> {
        let path = self.root.join(name);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        Ok(Some(SourceFile::new(name, text)))
    }

    fn folder(&self, folder: &str) -> Result<Vec<SourceFile>> {
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        let names = entries.map(|entry| Ok(format!("{folder}/{}", entry?.file_name().to_string_lossy())));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.retain(|name| name.ends_with(".toml"));
        names.sort();
        names.iter().filter_map(|name| self.source(name).transpose()).collect()
    }
}

/// The triple this program was built for.
pub fn host_triple() -> String {
    env!("ESPALIER_HOST_TRIPLE").to_owned()
}
