//! Builds the runner for a target, or finds the one built before from the same things.
//!
//! Artifacts are named by what they are built from (`key`) and stored by their content ([`crate::blob`]). If the key
//! is known, cargo does not run at all. If anything is in doubt (cargo read a file that is not in the key, sources
//! changed meanwhile, `cross` and its container), cargo decides and nothing is remembered.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use espalier_bench::build_plan::{self, BuildPlan, Cross, Layout, Profile, Tools, Zigbuild};
use espalier_inventory::{Builder, Target};
use serde::{Deserialize, Serialize};

use crate::{
    blob,
    cache::Cache,
    elf::{self, ElfInfo},
    file_lock, process,
    process::Watch,
    regular,
    toolchain::{self, ActiveRust, Origin, Toolchain},
    versions::Versions,
};

mod key;

/// A runner built for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub path: PathBuf,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub bytes: u64,
    /// E.g. `cargo, rustc 1.96.0, aarch64-linux-gnu-gcc 12.2.0`.
    pub builder: String,
    pub elf: ElfInfo,
    /// It was there: no cargo was run.
    pub cached: bool,
}

/// A plan and the toolchain it is for.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub plan: BuildPlan,
    pub toolchain: Toolchain,
    /// C compiler, assembler, libc, zig: all else that decides the result, with versions.
    compilers: Compilers,
}

/// Looks at what is installed and decides how to build; changes nothing. For `--dry-run`, and the first half of
/// [`build`].
///
/// # Errors
/// The target is not buildable as things are; the message says what to run.
pub fn prepare(cache: &Cache, target: &Target, layout: Layout) -> Result<Prepared> {
    let versions = Versions::open(cache)?;
    let active = ActiveRust::find(&versions)?;
    let toolchain = toolchain::find(cache, &versions, &active, target)
        .with_context(|| format!("target `{}` is not buildable yet", target.name))?;
    let zig = toolchain::zig::find(cache);
    let tools = Tools {
        compiler: compiler(&target.triple, &active.host),
        cargo: toolchain.cargo.display().to_string(),
        cargo_env: toolchain.env.clone(),
        zigbuild: zig.as_ref().map(|zig| Zigbuild {
            cargo_zigbuild: zig.cargo_zigbuild.display().to_string(),
            zig: zig.zig.as_ref().map(|zig| zig.display().to_string()),
        }),
        cross: process::which("cross").map(|_| cross(&active, &toolchain)),
        target_root: cache.folder("target")?.display().to_string(),
        host: active.host,
        profile: profile_from_environment()?,
    };
    let plan = build_plan::plan(target, &tools, layout).map_err(anyhow::Error::msg)?;
    let compilers = Compilers::of(&plan, zig.as_ref(), &versions)?;
    Ok(Prepared { plan, toolchain, compilers })
}

/// The profile that the environment names.
fn profile_from_environment() -> Result<Profile> {
    let name = std::env::var(Profile::VARIABLE).unwrap_or_default();
    if name.is_empty() {
        return Ok(Profile::default());
    }
    Profile::ALL.into_iter().find(|profile| profile.name() == name).with_context(|| {
        let names = Profile::ALL.map(|profile| format!("`{}`", profile.name())).join(" or ");
        format!("`{}` is `{name}`: it can be {names}", Profile::VARIABLE)
    })
}

/// The runner for a target, built from the workspace at `repository` unless it has been.
///
/// # Errors
/// The target is not buildable as things are, cargo fails, or what it built is not what the target promises.
pub fn build(cache: &Cache, repository: &Path, target: &Target, layout: Layout, watch: Watch) -> Result<Artifact> {
    let prepared = prepare(cache, target, layout)?;
    let Prepared { plan, toolchain, compilers } = &prepared;
    // What is in the container `cross` uses cannot be seen from here.
    let key = || match plan.builder {
        Builder::Cross => Ok(None),
        _ => key::of(repository, plan, [&toolchain.verbose_version, &compilers.long], target),
    };
    let before = key()?;
    if let Some(artifact) = before.as_ref().and_then(|key| find(cache, &key.name).transpose()).transpose()? {
        return Ok(artifact);
    }
    fs::create_dir_all(&plan.target_folder).with_context(|| format!("cannot make `{}`", plan.target_folder))?;
    let lock = Path::new(&plan.target_folder).join("espalier-lock");
    let _lock = file_lock::hold(&lock, "another build is at work on this target; waiting for it", watch)?;
    let sources = key::sources(repository)?;
    let note = Path::new(&plan.target_folder).join(format!("espalier-sources-{}", plan.profile.name()));
    if let Some(sources) = &sources {
        forget_others(plan, repository, sources, &note, watch)?;
    }
    process::run(&plan.command, Some(repository), watch)
        .with_context(|| format!("cannot build the runner for target `{}`", target.name))?;
    if let Some(sources) = &sources
        && key::sources(repository).is_ok_and(|now| now.is_some_and(|now| now.hash == sources.hash))
    {
        fs::write(&note, &sources.hash).with_context(|| format!("cannot write `{}`", note.display()))?;
    }

    let program = Path::new(&plan.program);
    let content = fs::read(program).with_context(|| format!("cargo built no `{}`", plan.program))?;
    let elf = elf::read(&content).with_context(|| format!("cannot read `{}`", plan.program))?;
    let broken: Vec<String> = elf::check_target(&elf, target).iter().map(ToString::to_string).collect();
    if !broken.is_empty() {
        bail!("the runner for target `{}` {}", target.name, broken.join("; it "));
    }
    let blob = blob::put_program(cache, &content)?;
    let mut builder = format!("{}, rustc {}{}", name(plan.builder), toolchain.version, compilers.short);
    if plan.profile != Profile::Usual {
        builder += &format!(", profile {}", plan.profile.name());
    }
    let stored = Stored { sha256: blob.sha256.clone(), command: plan.command.to_string(), builder, elf };
    // Sources may have been edited while cargo read them: only the same key again shows that they were not.
    if let Some(before) = before
        && before.covers(&program.with_extension("d"), Path::new(&plan.target_folder))
        && key().is_ok_and(|now| now.is_some_and(|now| now.name == before.name))
    {
        store(cache, &before.name, &stored)?;
    }
    let Stored { builder, elf, .. } = stored;
    Ok(Artifact { path: blob.path, sha256: blob.sha256, bytes: blob.bytes, builder, elf, cached: false })
}

/// cargo identifies a workspace's files by their place in it and by when they changed. What was built last in this
/// folder may come from another clone or an older commit, and cargo takes sources that are older for built. So unless
/// the sources are the same, cargo forgets this workspace's crates (which costs seconds).
fn forget_others(plan: &BuildPlan, repository: &Path, sources: &key::Sources, note: &Path, watch: Watch) -> Result<()> {
    if fs::read_to_string(note).is_ok_and(|last| last == sources.hash) {
        return Ok(());
    }
    match fs::remove_file(note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove `{}`", note.display()));
        }
        _ => {}
    }
    let packages = sources.packages.iter().flat_map(|name| ["--package", name]);
    process::run(&plan.forget.clone().args(packages), Some(repository), watch)
        .with_context(|| format!("cannot clear `{}` of what was built of other sources", plan.target_folder))?;
    Ok(())
}

/// What is stored of an artifact, in `CACHE/artifacts/<key>.json`.
#[derive(Serialize, Deserialize)]
struct Stored {
    sha256: String,
    builder: String,
    /// For people who look.
    command: String,
    elf: ElfInfo,
}

fn find(cache: &Cache, key: &str) -> Result<Option<Artifact>> {
    let path = cache.folder("artifacts")?.join(format!("{key}.json"));
    // Absent, or of another espalier's making: built again.
    let Some(stored) = regular::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok()) else {
        return Ok(None);
    };
    let blob = blob::get(cache, &stored.sha256)?;
    Ok(blob.map(|blob| Artifact {
        path: blob.path,
        sha256: blob.sha256,
        bytes: blob.bytes,
        builder: stored.builder,
        elf: stored.elf,
        cached: true,
    }))
}

fn store(cache: &Cache, key: &str, stored: &Stored) -> Result<()> {
    let folder = cache.folder("artifacts")?;
    let write = || -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer_pretty(&file, stored)?;
        file.persist(folder.join(format!("{key}.json")))?;
        Ok(())
    };
    write().with_context(|| format!("cannot write to `{}`", folder.display()))
}

fn name(builder: Builder) -> &'static str {
    match builder {
        Builder::Auto => "auto",
        Builder::Cargo => "cargo",
        Builder::Zigbuild => "zigbuild",
        Builder::Cross => "cross",
    }
}

fn cross(active: &ActiveRust, toolchain: &Toolchain) -> Cross {
    let (sysroot, name) = match &toolchain.origin {
        Origin::Active => (&active.sysroot, None),
        Origin::Debian { tree } => (tree, toolchain::debian::rustup_name(tree)),
    };
    // `cross` takes Docker before others, and one variable of the two only.
    let is_unset = |variable: &&str| std::env::var_os(variable).is_none();
    let untouched = ["CROSS_CONTAINER_OPTS", "DOCKER_OPTS", "CROSS_CONTAINER_ENGINE"].iter().all(is_unset);
    Cross {
        program: "cross".to_owned(),
        sysroot: sysroot.display().to_string(),
        toolchain: name,
        engine_options_are_ours: untouched && process::which("docker").is_some(),
        passed_on: std::env::var("CROSS_BUILD_ENV_PASSTHROUGH").ok(),
    }
}

/// The C compiler for a triple: the one a person set as cargo's linker, else the system's where it is installed.
fn compiler(triple: &str, host: &str) -> Option<String> {
    let variable = format!("CARGO_TARGET_{}_LINKER", triple.replace(['-', '.'], "_").to_ascii_uppercase());
    if let Some(linker) = std::env::var(variable).ok().filter(|linker| !linker.is_empty()) {
        return Some(linker);
    }
    let program = build_plan::system_compiler(triple, host)?.program;
    process::which(&program).map(|_| program)
}

#[derive(Clone, Debug, Default)]
struct Compilers {
    /// To be put behind the builder's name, e.g. `, aarch64-linux-gnu-gcc 12.2.0`.
    short: String,
    /// All that identifies them.
    long: String,
}

impl Compilers {
    fn of(plan: &BuildPlan, zig: Option<&toolchain::zig::Zig>, versions: &Versions) -> Result<Compilers> {
        let mut compilers = Compilers::default();
        if let Some(compiler) = &plan.compiler {
            let path = Path::new(compiler);
            let banner = versions.of(path, &["--version"]).with_context(|| format!("`{compiler} --version` fails"))?;
            let version = banner.lines().next().and_then(|line| line.split(' ').next_back()).unwrap_or_default();
            compilers.short = format!(", {compiler} {version}");
            compilers.long += &banner;
            // The assembler decides which kernels there are, libc which symbols are needed.
            let assembler = versions.of(path, &["-print-prog-name=as"]).unwrap_or_default();
            compilers.long += &versions.of(Path::new(assembler.trim()), &["--version"]).unwrap_or_default();
            for libc in ["-print-file-name=libc.so.6", "-print-file-name=libc.a"] {
                let file = versions.of(path, &[libc]).unwrap_or_default();
                if let Ok(facts) = fs::metadata(file.trim()) {
                    compilers.long += &format!("{} {} {:?}\n", file.trim(), facts.len(), facts.modified());
                }
            }
        }
        if let (Builder::Zigbuild, Some(found)) = (plan.builder, zig) {
            let zig = found.zig.clone().unwrap_or_else(|| "zig".into());
            let version = versions.of(&zig, &["version"]).context("`zig version` fails")?;
            compilers.short = format!(", zig {}", version.trim());
            compilers.long += &version;
            compilers.long += &versions.of(&found.cargo_zigbuild, &["--version"]).unwrap_or_default();
        }
        Ok(compilers)
    }
}
