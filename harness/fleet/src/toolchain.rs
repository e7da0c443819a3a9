//! Rust for every target: which toolchain builds for a target, and making there be one (`cargo xtask setup`).
//!
//! There are two ways. Where rustup's server answers, `rustup target add` is all it takes. Where it does not (a closed
//! network), Debian's packages hold a compiler: they are unpacked below the cache, nothing is installed, and the
//! standard library for other machines is built from the sources in them ([`debian`]). That tree is used by path and
//! needs no rustup. The host itself is always built for with the user's own `cargo`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use espalier_bench::{build_plan, command::CommandLine};
use espalier_inventory::{Builder, Libc, Target};

use crate::{
    apt,
    cache::Cache,
    process::{self, ProcessError, Watch},
    versions::Versions,
};

pub mod debian;
mod standard_library;
pub mod zig;

/// What cargo is run with to build for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    pub cargo: PathBuf,
    /// Set on top of the inherited environment.
    pub env: Vec<(String, String)>,
    /// As `rustc --version` gives it, e.g. `1.96.0`.
    pub version: String,
    /// All that `rustc -vV` says.
    pub verbose_version: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The one `cargo xtask` itself runs with.
    Active,
    /// The tree in the cache made of Debian's packages.
    Debian { tree: PathBuf },
}

/// How a target is made buildable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Rustup,
    Debian,
}

impl Way {
    /// Reads `rustup` or `debian`.
    pub fn parse(text: &str) -> Option<Way> {
        match text {
            "rustup" => Some(Way::Rustup),
            "debian" => Some(Way::Debian),
            _ => None,
        }
    }

    /// What the environment variable `ESPALIER_TOOLCHAIN` asks for.
    ///
    /// # Errors
    /// It is set to something else than `rustup` or `debian`.
    pub fn from_environment() -> Result<Option<Way>> {
        match env::var("ESPALIER_TOOLCHAIN") {
            Ok(text) if !text.is_empty() => Way::parse(&text)
                .map(Some)
                .with_context(|| format!("`ESPALIER_TOOLCHAIN` is `{text}`: it can be `rustup` or `debian`")),
            _ => Ok(None),
        }
    }
}

/// The Rust that `cargo` on `PATH` uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRust {
    pub host: String,
    pub version: String,
    pub verbose_version: String,
    pub sysroot: PathBuf,
}

impl ActiveRust {
    /// # Errors
    /// There is no working rustc.
    pub fn find(versions: &Versions) -> Result<ActiveRust> {
        let rustc = real_rustc()?;
        let verbose_version = versions.of(&rustc, &["-vV"]).context("`rustc -vV` does not answer")?;
        let field = |name: &str| {
            let value = verbose_version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("`rustc -vV` names no {name}"))
        };
        let sysroot = rustc.parent().and_then(Path::parent).unwrap_or(Path::new("/usr")).to_owned();
        Ok(ActiveRust { host: field("host")?, version: field("release")?, sysroot, verbose_version })
    }

    /// Whether the standard library for a target is there.
    pub fn has_target(&self, triple: &str) -> bool {
        standard_library::is_in(&self.sysroot, triple)
    }

    fn toolchain(&self) -> Toolchain {
        let (version, verbose_version) = (self.version.clone(), self.verbose_version.clone());
        Toolchain { cargo: "cargo".into(), env: Vec::new(), version, verbose_version, origin: Origin::Active }
    }
}

/// The toolchain that can build for a target as things are; changes nothing.
///
/// # Errors
/// There is none: `cargo xtask setup` has to make it buildable.
pub fn find(cache: &Cache, versions: &Versions, active: &ActiveRust, target: &Target) -> Result<Toolchain> {
    let triple = target.triple.as_str();
    let way = Way::from_environment()?;
    if triple == active.host || (way != Some(Way::Debian) && active.has_target(triple)) {
        return Ok(active.toolchain());
    }
    if way != Some(Way::Rustup)
        && let Some(tree) = debian::find_tree(cache)?
        && standard_library::is_in(&tree, triple)
    {
        return from_tree(versions, tree);
    }
    bail!("no Rust standard library for `{triple}`: run `cargo xtask setup --target {}`", target.name)
}

/// Makes a target buildable: its toolchain, and a linker where the builder needs one. Does nothing when nothing is
/// missing.
///
/// `way` is the one of the command line. Without it the environment decides, and else what is installed.
///
/// # Errors
/// Something is missing and cannot be had; the message says how to get it by hand.
pub fn setup(cache: &Cache, target: &Target, way: Option<Way>, watch: Watch) -> Result<Toolchain> {
    let triple = target.triple.as_str();
    let versions = Versions::open(cache)?;
    let active = ActiveRust::find(&versions)?;
    linker(cache, target, &active.host, watch)?;
    if triple == active.host {
        return Ok(active.toolchain());
    }
    match way.or(Way::from_environment()?) {
        Some(Way::Debian) => {}
        Some(Way::Rustup) => {
            rustup_target_add(&active, triple, watch)?;
            return Ok(active.toolchain());
        }
        None if active.has_target(triple) => return Ok(active.toolchain()),
        // Made before, on this machine: a person here has chosen already.
        None if debian::find_tree(cache)?.is_some() => {}
        None => {
            rustup_target_add(&active, triple, watch).map_err(|error| match is_cancelled(&error) {
                true => error,
                false => error.context(
                    "on a closed network, or without rustup, Debian's packages are the way: \
                     `cargo xtask setup --from debian`",
                ),
            })?;
            return Ok(active.toolchain());
        }
    }
    let tree = debian::ensure_tree(cache, watch)?;
    standard_library::ensure(cache, &tree, &active.host, triple, watch)?;
    debian::link_with_rustup(&tree, watch);
    from_tree(&versions, tree)
}

fn from_tree(versions: &Versions, tree: PathBuf) -> Result<Toolchain> {
    let rustc = tree.join("bin/rustc");
    let verbose_version = versions.of(&rustc, &["-vV"]).context("the toolchain in the cache does not run")?;
    let version = verbose_version.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(Toolchain {
        cargo: tree.join("bin/cargo"),
        env: vec![("RUSTC".to_owned(), rustc.display().to_string())],
        version: version.context("the toolchain in the cache names no version")?.to_owned(),
        verbose_version: verbose_version.clone(),
        origin: Origin::Debian { tree },
    })
}

/// The rustc itself, not rustup's proxy, which takes longer than all other steps to a cached artifact.
fn real_rustc() -> Result<PathBuf> {
    // Set by the cargo that runs `cargo xtask`; a toolchain has both in one folder.
    if let Some(cargo) = env::var_os("CARGO") {
        let rustc = Path::new(&cargo).with_file_name("rustc");
        if rustc.is_file() && !is_rustup(&rustc) {
            return Ok(rustc);
        }
    }
    let rustc = process::which("rustc").context("`rustc` is not on `PATH`: install Rust, see https://rustup.rs")?;
    if !is_rustup(&rustc) {
        return Ok(fs::canonicalize(&rustc).unwrap_or(rustc));
    }
    let sysroot = process::output_of(&CommandLine::new("rustc").args(["--print", "sysroot"]))
        .context("`rustc --print sysroot` does not answer: is a toolchain installed (`rustup toolchain list`)?")?;
    Ok(Path::new(sysroot.trim()).join("bin/rustc"))
}

fn is_rustup(program: &Path) -> bool {
    // A link to it, or a hard link beside it.
    fs::canonicalize(program).is_ok_and(|path| path.ends_with("rustup")) || program.with_file_name("rustup").exists()
}

fn rustup_target_add(active: &ActiveRust, triple: &str, watch: Watch) -> Result<()> {
    if active.has_target(triple) {
        return Ok(());
    }
    if process::which("rustup").is_none() {
        bail!("`rustup` is not on `PATH`: cannot add the target `{triple}`");
    }
    let toolchain = active.sysroot.file_name().context("the active toolchain has no name")?.to_string_lossy();
    let add = CommandLine::new("rustup").args(["target", "add", "--toolchain", &toolchain, triple]);
    process::run(&add, None, watch).with_context(|| format!("cannot add the target `{triple}`"))?;
    if active.has_target(triple) { Ok(()) } else { Err(anyhow!("`{add}` brought no standard library")) }
}

/// What links for a target and compiles its assembly kernels: the system's (cross) C compiler, or zig.
fn linker(cache: &Cache, target: &Target, host: &str, watch: Watch) -> Result<()> {
    if build_plan::wants_zig(target) {
        zig::ensure(cache, watch)?;
    }
    if !build_plan::wants_system_linker(target, host) {
        return Ok(());
    }
    let Some(compiler) = build_plan::system_compiler(&target.triple, host) else {
        bail!(
            "no C compiler is known for `{}`: set `builder = \"zigbuild\"` or `builder = \"cross\"` in target `{}`",
            target.triple,
            target.name
        );
    };
    if process::which(&compiler.program).is_some() {
        return Ok(());
    }
    let packages: Vec<&str> = compiler.packages.iter().map(String::as_str).collect();
    match apt::ensure_packages(&packages, watch) {
        Err(error) if target.builder == Builder::Auto && target.libc != Libc::Static && !is_cancelled(&error) => {
            // zig needs no root and no Debian. If it cannot be installed either, the first error is reported.
            watch.emit(&format!("{error:#}; taking zig instead"));
            zig::ensure(cache, watch).map(|_| ()).map_err(|_| error)
        }
        other => other,
    }
    .with_context(|| format!("target `{}` needs `{}`", target.name, compiler.program))
}

pub(crate) fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ProcessError::Cancelled))
}
