//! Everything an artifact depends on, as one hash.
//!
//! It covers the sources of the runner and of the workspace's crates it uses, the versions of other crates (from the
//! lock file), the settings of the root manifest that apply to it, cargo's configuration and the environment variables
//! that change a build, the target, the exact command, and the versions of every compiler. After a build the files that
//! cargo lists as read are compared with those hashed here ([`Key::covers`]).

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use espalier_bench::{
    build_plan::{BuildPlan, Layout, RUNNER},
    runner_sources,
};
use espalier_inventory::Target;
use sha2::{Digest, Sha256};

/// Raised when something is added to what is hashed.
const FORMAT: &str = "espalier-artifact 2";

/// What of the workspace's own a runner is made of.
pub struct Sources {
    /// Of every file, with its place in the repository. Lower-case hexadecimal.
    pub hash: String,
    /// Names of the crates.
    pub packages: Vec<String>,
    folders: Vec<PathBuf>,
}

pub struct Key {
    /// Lower-case hexadecimal.
    pub name: String,
    /// Folders every file of which is in it.
    folders: Vec<PathBuf>,
}

/// The key of a build as it would be now; nothing when not all that matters can be found.
///
/// `compilers` are the versions of rustc and of all else that has a say.
pub fn of(repository: &Path, plan: &BuildPlan, compilers: [&str; 2], target: &Target) -> Result<Option<Key>> {
    let Some(sources) = sources(repository)? else { return Ok(None) };
    let repository = canonical(repository)?;
    let settings = runner_sources::root_settings(&read(&repository.join("Cargo.toml"))?, plan.profile.name())
        .map_err(in_file("Cargo.toml"))?;
    let lock = read(&repository.join("Cargo.lock"))?;
    let packages = runner_sources::locked_packages(&lock, RUNNER).map_err(in_file("Cargo.lock"))?;

    let mut parts = Parts::default();
    parts.add("format", FORMAT);
    parts.add("command", plan.command.to_string());
    parts.add("target", format!("{:?} {:?} {:?}", target.libc, target.cpu, target.features));
    parts.add("rustc", compilers[0]);
    parts.add("compilers", compilers[1]);
    parts.add("lock", packages.text);
    parts.add("settings", settings);
    for (name, value) in relevant_variables() {
        parts.add(&name, value);
    }
    for file in configurations(&repository) {
        if let Ok(text) = fs::read(&file) {
            parts.add(&file.display().to_string(), text);
        }
    }
    parts.add("sources", &sources.hash);
    Ok(Some(Key { name: parts.hash(), folders: sources.folders }))
}

/// The sources as they are now; nothing when not all can be found.
pub fn sources(repository: &Path) -> Result<Option<Sources>> {
    let repository = canonical(repository)?;
    let manifest = read(&repository.join("Cargo.toml"))?;
    let lock = read(&repository.join("Cargo.lock"))?;
    let packages = runner_sources::locked_packages(&lock, RUNNER).map_err(in_file("Cargo.lock"))?;
    let local = packages.local.iter().cloned().collect();

    let mut missing = packages.local;
    let mut folders = Vec::new();
    for member in runner_sources::members(&manifest).map_err(in_file("Cargo.toml"))? {
        let folder = repository.join(member);
        let name =
            fs::read_to_string(folder.join("Cargo.toml")).ok().and_then(|text| runner_sources::package_name(&text));
        if name.is_some_and(|name| missing.remove(&name)) {
            folders.push(folder);
        }
    }
    if !missing.is_empty() {
        // A crate in a folder outside of the workspace: cargo knows where, and decides.
        return Ok(None);
    }

    let mut parts = Parts::default();
    for folder in &folders {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        files.sort();
        for file in files {
            let content = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
            // By its place in the repository: a clone elsewhere has the same sources.
            parts.add(&file.strip_prefix(&repository).unwrap_or(&file).display().to_string(), content);
        }
    }
    Ok(Some(Sources { hash: parts.hash(), packages: local, folders }))
}

impl Key {
    /// Whether each file that cargo lists for the program is in this key or was made by the build itself. False without
    /// a list.
    pub fn covers(&self, dependencies: &Path, target_folder: &Path) -> bool {
        let Ok(text) = fs::read_to_string(dependencies) else { return false };
        files_in_rule(&text).iter().all(|file| {
            // Resolved: `/crate/src/../../secret.txt` begins like a file of the crate.
            let Ok(file) = fs::canonicalize(file) else { return false };
            self.folders.iter().any(|folder| file.starts_with(folder)) || file.starts_with(target_folder)
        })
    }
}

/// Named pieces, each with its length, so that no two lists of them hash alike.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, name: &str, content: impl AsRef<[u8]>) {
        for bytes in [name.as_bytes(), content.as_ref()] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }

    fn hash(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What cargo, rustc and the `cc` crate read, beyond what the command sets itself.
fn relevant_variables() -> Vec<(String, String)> {
    let mut variables: Vec<_> = env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| is_relevant(name))
        .collect();
    variables.sort();
    variables
}

fn is_relevant(name: &str) -> bool {
    const STARTS: [&str; 6] =
        ["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_", "CARGO_UNSTABLE_", "CARGO_ENCODED_", "RUSTC"];
    const FAMILIES: [&str; 11] = [
        "CC",
        "CFLAGS",
        "CPPFLAGS",
        "CXX",
        "CXXFLAGS",
        "AR",
        "ARFLAGS",
        "LIBRARY_PATH",
        "CPATH",
        "C_INCLUDE_PATH",
        "LDFLAGS",
    ];
    const HARMLESS: [&str; 3] = ["CARGO_TARGET_DIR", "CARGO_TARGET_TMPDIR", "CARGO_BUILD_JOBS"];
    let bare = name.strip_prefix("TARGET_").unwrap_or(name);
    let in_family =
        |family: &&str| bare.strip_prefix(*family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    if name == Layout::VARIABLE {
        // Set by hand it moves the usual build.
        return true;
    }
    !HARMLESS.contains(&name) && (STARTS.iter().any(|start| name.starts_with(start)) || FAMILIES.iter().any(in_family))
}

/// Every place cargo may read its configuration from.
fn configurations(repository: &Path) -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let beside = repository.ancestors().map(|folder| folder.join(".cargo"));
    beside.chain(home).flat_map(|folder| [folder.join("config.toml"), folder.join("config")]).collect()
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read `{}`", folder.display()))?.path();
        if !path.is_dir() {
            files.push(path);
        } else if !path.ends_with("target") {
            list(&path, files)?;
        }
    }
    Ok(())
}

fn canonical(repository: &Path) -> Result<PathBuf> {
    fs::canonicalize(repository).with_context(|| format!("no folder `{}`", repository.display()))
}

fn in_file(file: &'static str) -> impl Fn(String) -> anyhow::Error {
    move |error| anyhow::anyhow!("cannot read `{file}`: {error}")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Reads a rule as make knows it, `program: file file`; spaces within names are escaped.
fn files_in_rule(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.lines() {
        let Some((_, list)) = line.split_once(": ") else { continue };
        let marked = list.replace("\\ ", "\0");
        files.extend(marked.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_change_a_build_are_relevant() {
        let relevant =
            ["CC", "CC_aarch64_unknown_linux_gnu", "TARGET_CFLAGS", "CARGO_PROFILE_RUNNER_LTO", "RUSTC_WRAPPER"];
        for name in relevant.into_iter().chain(["ESPALIER_LAYOUT"]) {
            assert!(is_relevant(name), "{name}");
        }
        for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CCACHE", "ARCH", "PATH", "CARGO_PKG_NAME"] {
            assert!(!is_relevant(name), "{name}");
        }
    }

    #[test]
    fn pieces_have_boundaries() {
        let hash = |pieces: &[(&str, &str)]| {
            let mut parts = Parts::default();
            pieces.iter().for_each(|(name, content)| parts.add(name, content));
            parts.hash()
        };
        assert_ne!(hash(&[("a", "bc")]), hash(&[("ab", "c")]));
        assert_ne!(hash(&[("a", ""), ("b", "")]), hash(&[("a", "b")]));
    }

    #[test]
    fn a_file_outside_of_what_was_hashed_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["a b/src", "target"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["a b/src/main.rs", "target/made.rs", "secret.txt"] {
            fs::write(root.join(name), "").unwrap();
        }
        let rule = root.join("program.d");
        let key = Key { name: String::new(), folders: vec![root.join("a b")] };
        let covers = |files: &[&str]| {
            let files = files.iter().map(|file| root.join(file).display().to_string().replace(' ', "\\ "));
            fs::write(&rule, format!("/t/program: {}\n", files.collect::<Vec<_>>().join(" "))).unwrap();
            key.covers(&rule, &root.join("target"))
        };
        assert!(covers(&["a b/src/main.rs", "target/made.rs"]));
        assert!(!covers(&["a b/src/main.rs", "secret.txt"]));
        assert!(!covers(&["a b/src/../../secret.txt"]));
        assert!(!key.covers(Path::new("/nowhere.d"), &root));
    }
}
