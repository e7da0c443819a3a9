//! `cargo zigbuild` and zig itself, from PyPI, in a Python environment of their own below the cache. Used when they are
//! not on `PATH`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use espalier_bench::command::CommandLine;

use crate::{
    cache::Cache,
    process::{self, Watch},
};

/// The two programs that build with zig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zig {
    pub cargo_zigbuild: PathBuf,
    /// Where it is not the one that `cargo zigbuild` finds by itself.
    pub zig: Option<PathBuf>,
}

/// What is there already.
pub fn find(cache: &Cache) -> Option<Zig> {
    if let (Some(cargo_zigbuild), Some(_)) = (process::which("cargo-zigbuild"), process::which("zig")) {
        return Some(Zig { cargo_zigbuild, zig: None });
    }
    let environment = cache.root.join("venv-zig");
    let cargo_zigbuild = environment.join("bin/cargo-zigbuild");
    let python = std::fs::read_dir(environment.join("lib")).ok()?.flatten().next()?;
    let zig = python.path().join("site-packages/ziglang/zig");
    (cargo_zigbuild.is_file() && zig.is_file()).then_some(Zig { cargo_zigbuild, zig: Some(zig) })
}

/// What is there, or else made.
///
/// # Errors
/// There is no Python with `venv`, or PyPI does not answer.
pub fn ensure(cache: &Cache, watch: Watch) -> Result<Zig> {
    if let Some(zig) = find(cache) {
        return Ok(zig);
    }
    watch.emit("installing zig and cargo-zigbuild from PyPI");
    // Scripts in an environment hold its path, so it is made in place. It is complete when both programs are there,
    // which `find` looks at.
    let environment = cache.root.join("venv-zig").display().to_string();
    let by_hand = "or put `zig` and `cargo-zigbuild` on `PATH` yourself";
    let venv = CommandLine::new("python3").args(["-m", "venv", "--clear", &environment]);
    process::run(&venv, None, watch)
        .with_context(|| format!("zig needs Python with `venv` (`python3-venv`), {by_hand}"))?;
    let pip = CommandLine::new(format!("{environment}/bin/python")).args(["-m", "pip", "install", "--quiet"]);
    process::run(&pip.args(["ziglang", "cargo-zigbuild"]), None, watch)
        .with_context(|| format!("cannot install zig from PyPI; {by_hand}"))?;
    find(cache).with_context(|| format!("pip installed no zig into `{environment}`; {by_hand}"))
}
