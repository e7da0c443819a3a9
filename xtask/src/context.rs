//! What every command needs: where the repository is, what its files say, and the exit code of an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use espalier_bench::{
    exit::ExitStatus,
    inventory::{self, Inventory, Problem, SourceFile, SourceFiles},
};
use espalier_fleet::cache::Cache;

pub struct Context {
    pub root: PathBuf,
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
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no repository")?.to_owned();
        Ok(Context { root, cache: Cache::open()? })
    }

    /// What the files say, or every mistake in them.
    ///
    /// # Errors
    /// Only where a file cannot be read at all.
    pub fn read_inventory(&self) -> Result<Result<Inventory, Vec<Problem>>> {
        let files = SourceFiles {
            targets: self.source("targets.toml")?,
            devices: self.sources("devices")?,
            models: self.sources("models")?,
        };
        let environment = |name: &str| match name {
            "ESPALIER_CACHE" => Some(self.cache.root.to_string_lossy().into_owned()),
            _ => std::env::var(name).ok(),
        };
        let exists = |path: &str| self.root.join(path).exists();
        Ok(inventory::load(&files, &environment, &exists, &host_triple()))
    }

    /// # Errors
    /// All mistakes, one a line.
    pub fn inventory(&self) -> Result<Inventory> {
        self.read_inventory()?.map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            usage(format!("the configuration has mistakes:\n{}", lines.join("\n")))
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

    fn sources(&self, folder: &str) -> Result<Vec<SourceFile>> {
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
