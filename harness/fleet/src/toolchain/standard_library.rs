//! The standard library for another machine, built from the sources in a toolchain tree, without a network and without
//! a linker for that machine.
//!
//! The sources are of the compiler's own version and built with the flags of its makers: the result is what
//! `rustup target add` installs, less the shared `libstd.so`, which would need a linker. Debian's sources hold every
//! crate the library needs but none that its tests need, and cargo resolves both. So the tests' dependencies are cut
//! out of the manifests once, when a tree is made.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use crate::{
    cache::Cache,
    file_lock::{self, FileLock},
    process::{self, Watch},
};

/// Where the sources are in a tree; rustup has them there, too.
pub const SOURCES: &str = "lib/rustlib/src/rust/library";
/// Each of these has to come out exactly once.
const CRATES: [&str; 8] =
    ["core", "alloc", "std", "test", "proc_macro", "panic_unwind", "panic_abort", "compiler_builtins"];

/// Builds the standard library for `triple` into `tree`, unless it is there.
///
/// # Errors
/// The compiler does not know the triple, or the library does not build.
pub fn ensure(cache: &Cache, tree: &Path, host: &str, triple: &str, watch: Watch) -> Result<()> {
    let _lock = lock(cache, watch)?;
    let home = tree.join("lib/rustlib").join(triple);
    if is_in(tree, triple) {
        return Ok(());
    }
    let rustc = tree.join("bin/rustc").display().to_string();
    let known = process::run(&CommandLine::new(&rustc).args(["--print", "target-list"]), None, watch)?;
    if !known.lines().any(|line| line == triple) {
        bail!("rustc knows no target `{triple}`: `rustc --print target-list` lists them");
    }
    if !triple.contains("-linux-gnu") {
        // musl and others need start-up objects of their own beside the library.
        bail!("the way from Debian's packages makes targets with glibc only, not `{triple}`");
    }
    watch.emit(&format!("building the standard library for {triple}"));
    let work = cache.folder("toolchain")?.join(format!("work-{triple}"));
    empty_folder(&work)?;
    process::run(&build_command(tree, &work, host, triple), Some(&tree.join(SOURCES)), watch)
        .with_context(|| format!("cannot build the standard library for `{triple}`"))?;

    let built = work.join("target").join(triple).join("dist/deps");
    let parts = work.join("parts");
    empty_folder(&parts.join("lib"))?;
    let libraries = rlibs_in(&built)?;
    for name in CRATES {
        let found = libraries.iter().filter(|(library, _)| is_library_of(library, name)).count();
        if found != 1 {
            bail!("building the standard library for `{triple}` gave {found} libraries `{name}` instead of one");
        }
    }
    for (name, path) in &libraries {
        fs::copy(path, parts.join("lib").join(name)).with_context(|| format!("cannot copy `{name}`"))?;
    }
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove `{}`", home.display()))?;
    }
    fs::rename(&parts, &home).with_context(|| format!("cannot put the library at `{}`", home.display()))?;
    if let Err(error) = try_out(&rustc, &work, triple, watch) {
        // What does not work must not be found next time.
        let _ = fs::remove_dir_all(&home);
        return Err(error);
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove `{}`", work.display()))
}

/// Cuts out of the manifests what only the library's tests, its C parts and its shared form need.
pub fn prepare_sources(library: &Path) -> Result<()> {
    let mut manifests = Vec::new();
    find_manifests(library, &mut manifests)?;
    for manifest in manifests {
        let within = manifest.strip_prefix(library).unwrap_or(&manifest).to_string_lossy().into_owned();
        let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read `{}`", manifest.display()))?;
        fs::write(&manifest, trimmed(&within, &text))
            .with_context(|| format!("cannot write `{}`", manifest.display()))?;
    }
    let lock = library.join("Cargo.lock");
    // It locks the tests' crates as well; with one folder of crates to take from there is nothing to choose.
    if lock.exists() {
        fs::remove_file(&lock).with_context(|| format!("cannot remove `{}`", lock.display()))?;
    }
    Ok(())
}

/// `name` is the manifest's path within the library.
fn trimmed(name: &str, text: &str) -> String {
    let mut skipping = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            skipping = line.contains("dev-dependencies");
        }
        let replaced = match name {
            "Cargo.toml" if ["\"coretests\"", "\"alloctests\""].contains(&line.trim().trim_end_matches(',')) => None,
            // A runtime for profiling: C++.
            "sysroot/Cargo.toml" if line.starts_with("profiler_builtins = ") || line.starts_with("profiler = ") => None,
            // Replacements in C for parts that exist in Rust as well.
            "compiler-builtins/compiler-builtins/Cargo.toml" if line.starts_with("cc = ") => None,
            "compiler-builtins/compiler-builtins/Cargo.toml" if line.starts_with("c = ") => Some("c = []"),
            "std/Cargo.toml" if line.starts_with("crate-type = ") => Some("crate-type = [\"rlib\"]"),
            _ => Some(line),
        };
        if let (false, Some(line)) = (skipping, replaced) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// In an environment of its own: none of the caller's flags, wrappers or configuration belong into a standard library.
fn build_command(tree: &Path, work: &Path, host: &str, triple: &str) -> CommandLine {
    let sources = tree.join(SOURCES);
    let version = tree.file_name().unwrap_or_default().to_string_lossy();
    // As Rust's makers build it (`src/bootstrap`): what is not marked stable is unstable, functions are inlined across
    // crates, paths are those of their releases.
    let mut flags = format!(
        "-Zforce-unstable-if-unmarked -Zinline-mir -Zinline-mir-preserve-debug \
         -Zmir_strip_debuginfo=locals-in-tiny-functions --remap-path-prefix={}=/rustc/{version}/library",
        sources.display()
    );
    if triple.starts_with("riscv") {
        flags += " -Cforce-unwind-tables=yes";
    }
    let variable = triple.replace('-', "_").to_ascii_uppercase();
    let path = |path: PathBuf| path.display().to_string();
    let variables = [
        ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", path(tree.join("bin")))),
        ("HOME", path(work.join("home"))),
        ("CARGO_HOME", path(work.join("home"))),
        ("CARGO_TARGET_DIR", path(work.join("target"))),
        ("RUSTC", path(tree.join("bin/rustc"))),
        // The library uses what only its own compiler may.
        ("RUSTC_BOOTSTRAP", "1".to_owned()),
        ("__CARGO_DEFAULT_LIB_METADATA", "stablestd".to_owned()),
        (&format!("CARGO_TARGET_{variable}_RUSTFLAGS"), flags),
    ];
    let vendored = format!("source.vendored.directory='{}'", path(sources.join("vendor")));
    let mut command = CommandLine::new("env").arg("-i");
    command = command.args(variables.map(|(name, value)| format!("{name}={value}")));
    if let Ok(jobs) = env::var("CARGO_BUILD_JOBS") {
        command = command.arg(format!("CARGO_BUILD_JOBS={jobs}"));
    }
    debug_assert_ne!(triple, host, "the packages hold the host's own");
    command
        .arg(path(tree.join("bin/cargo")))
        .args(["build", "--offline", "--profile", "dist", "--target", triple])
        .args(["--features", "panic-unwind backtrace"])
        .args(["--config", "source.crates-io.replace-with='vendored'", "--config", &vendored])
        .arg("--manifest-path")
        .arg(path(sources.join("sysroot/Cargo.toml")))
}

/// Lets the compiler use every part once: an object, since linking needs more than is known to be here.
fn try_out(rustc: &str, work: &Path, triple: &str, watch: Watch) -> Result<()> {
    let probe = work.join("probe.rs");
    fs::write(&probe, "fn main() { let caught = std::panic::catch_unwind(|| 1 + 1); println!(\"{caught:?}\") }\n")
        .context("cannot write a probe")?;
    let command = CommandLine::new(rustc).args(["--target", triple, "--emit=obj", "-o"]);
    let command = command.arg(work.join("probe.o").display().to_string()).arg(probe.display().to_string());
    process::run(&command, None, watch).context("the compiler does not take the standard library built for it")?;
    Ok(())
}

fn rlibs_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let named = entries.flatten().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    Ok(named.filter(|(name, _)| name.ends_with(".rlib")).collect())
}

/// `libcore-0123456789abcdef.rlib` is of `core`, `libcore_simd-….rlib` is not.
fn is_library_of(file: &str, name: &str) -> bool {
    file.strip_prefix("lib").and_then(|file| file.strip_prefix(name)).is_some_and(|rest| rest.starts_with('-'))
}

fn find_manifests(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Crates from elsewhere carry checksums of their files.
            if name != "vendor" {
                find_manifests(&path, found)?;
            }
        } else if name == "Cargo.toml" {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a compiler has the standard library for `triple`.
pub fn is_in(sysroot: &Path, triple: &str) -> bool {
    let folder = sysroot.join("lib/rustlib").join(triple).join("lib");
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| is_std(&entry.file_name().to_string_lossy())))
}

/// Held while the toolchains in the cache are changed: two at once would undo each other's work.
pub fn lock(cache: &Cache, watch: Watch) -> Result<FileLock> {
    let busy = "another setup is at work on the toolchains; waiting for it";
    file_lock::hold(&cache.folder("toolchain")?.join("lock"), busy, watch)
}

/// A folder that is there and has nothing in it.
pub fn empty_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &str) {
        assert_eq!(trimmed(name, text), expected);
    }

    #[test]
    fn what_only_tests_need_is_cut_out() {
        check(
            "alloc/Cargo.toml",
            "[dependencies]\ncore = 1\n[dev-dependencies]\nrand = 1\n[target.x.dev-dependencies]\na = 1\n\
             [lints]\nb = 1\n",
            "[dependencies]\ncore = 1\n[lints]\nb = 1\n",
        );
        check(
            "Cargo.toml",
            "members = [\n  \"std\",\n  \"coretests\",\n  \"alloctests\",\n]\n",
            "members = [\n  \"std\",\n]\n",
        );
        check("std/Cargo.toml", "crate-type = [\"dylib\", \"rlib\"]\n", "crate-type = [\"rlib\"]\n");
        check("test/Cargo.toml", "crate-type = [\"dylib\", \"rlib\"]\n", "crate-type = [\"dylib\", \"rlib\"]\n");
        check(
            "compiler-builtins/compiler-builtins/Cargo.toml",
            "[build-dependencies]\ncc = { version = \"1.2\" }\n[features]\nc = [\"dep:cc\"]\n",
            "[build-dependencies]\n[features]\nc = []\n",
        );
        check(
            "sysroot/Cargo.toml",
            "profiler_builtins = { optional = true }\nprofiler = [\"dep:profiler_builtins\"]\nstd = 1\n",
            "std = 1\n",
        );
    }

    #[test]
    fn a_library_is_not_one_with_a_longer_name() {
        assert!(is_library_of("libcore-1f.rlib", "core"));
        assert!(!is_library_of("libcore_simd-1f.rlib", "core"));
        assert!(!is_library_of("liballoc-1f.rlib", "core"));
    }
}
