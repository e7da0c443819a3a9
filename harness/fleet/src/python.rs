//! Python environments in the cache, each with the packages for one purpose. The system's Python is not changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use espalier_bench::command::CommandLine;

use crate::{
    cache::Cache,
    file_lock,
    process::{self, Watch},
};

/// An environment and its contents.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// Its folder below the cache.
    pub folder: &'a str,
    /// As `pip install` takes them.
    pub packages: &'a [&'a str],
    /// Modules that can be imported once it is complete.
    pub modules: &'a str,
}

impl Environment<'_> {
    /// The path of its interpreter; the environment is made where it is not there yet.
    ///
    /// # Errors
    /// There is no Python with `venv`, or PyPI does not answer.
    pub fn interpreter(&self, cache: &Cache, watch: Watch) -> Result<PathBuf> {
        let folder = cache.root.join(self.folder);
        let python = folder.join("bin/python");
        if imports(&python, self.modules) {
            return Ok(python);
        }
        std::fs::create_dir_all(folder.parent().context("a folder below the cache has a parent")?)?;
        let lock = folder.with_extension("lock");
        let _held = file_lock::hold(&lock, "another run makes the Python environment; waiting for it", watch)?;
        if imports(&python, self.modules) {
            return Ok(python);
        }
        watch.emit(&format!("installing {} from PyPI", self.packages.join(", ")));
        // Made in place, because its scripts hold its path; complete only when the modules can be imported.
        let venv = CommandLine::new("python3").args(["-m", "venv", "--clear"]).arg(folder.to_string_lossy());
        process::run(&venv, None, watch)
            .context("this needs Python with `venv` (Debian: `apt install python3-venv`)")?;
        let pip = call(&python).args(["-m", "pip", "install", "--quiet"]).args(self.packages.iter().copied());
        process::run(&pip, None, watch).context("cannot install Python packages")?;
        ensure!(
            imports(&python, self.modules),
            "`{}` was made, but it cannot import {}",
            python.display(),
            self.modules
        );
        Ok(python)
    }
}

/// Whether this interpreter is there and has these modules.
pub fn imports(python: &Path, modules: &str) -> bool {
    process::output_of(&call(python).args(["-c", &format!("import {modules}")])).is_some()
}

/// What Python code prints; `None` where it fails.
pub fn output_of(python: &Path, code: &str) -> Option<String> {
    process::output_of(&call(python).args(["-c", code])).map(|output| output.trim().to_owned())
}

/// An interpreter that leaves no compiled files behind.
fn call(python: &Path) -> CommandLine {
    CommandLine::new(python.to_string_lossy()).arg("-B")
}
