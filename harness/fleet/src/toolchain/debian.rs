//! A Rust toolchain out of Debian's packages, as a folder that runs from where it lies: `CACHE/toolchain/<version>`.
//!
//! Debian's security archive has a current compiler (`rustc-web`, for building browsers). Its packages and the
//! libraries below them are downloaded and unpacked, never installed, so no root is needed and the system's own Rust
//! does not change. Every program has the path of its libraries relative to itself, and each library is a plain file
//! under its soname: the tree can be moved, linked and mounted into a container.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use crate::{
    apt,
    cache::Cache,
    elf,
    process::{self, Watch},
    toolchain::standard_library::{self, empty_folder},
};

/// Raised when a tree made by an older espalier would not do.
const RECIPE: &str = "1";
/// In a tree's root, written last.
const STAMP: &str = "espalier-tree";
/// Libraries of glibc: these stay the system's.
const SYSTEM_LIBRARIES: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
];

/// The newest tree that is there and complete.
///
/// # Errors
/// The cache cannot be read.
pub fn find_tree(cache: &Cache) -> Result<Option<PathBuf>> {
    let folder = cache.folder("toolchain")?;
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let mut trees: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((version_numbers(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(_, path)| fs::read_to_string(path.join(STAMP)).is_ok_and(|recipe| recipe.trim() == RECIPE))
        .collect();
    trees.sort();
    Ok(trees.pop().map(|(_, path)| path))
}

/// The newest tree that is there, else a new one of the newest compiler apt offers.
///
/// # Errors
/// A program is missing, apt offers no such compiler or cannot download it, or it does not run here.
pub fn ensure_tree(cache: &Cache, watch: Watch) -> Result<PathBuf> {
    let _lock = standard_library::lock(cache, watch)?;
    if let Some(tree) = find_tree(cache)? {
        return Ok(tree);
    }
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar", "cc"] {
        if process::which(program).is_none() {
            bail!("making a toolchain from Debian's packages needs `{program}`, which is not on `PATH`");
        }
    }
    // First: an old index names packages that are gone, and other ones than the compiler of today needs.
    watch.emit("updating apt's index");
    if let Err(error) = apt::update(watch) {
        watch.go_on()?;
        watch.emit(&format!("going on with apt's index as it is: {error:#}"));
    }
    let version = offered_version()?;
    let folder = cache.folder("toolchain")?;
    let work = folder.join("work");
    empty_folder(&work)?;
    let packages = work.join("packages");
    download(&packages, &version, watch)?;
    let unpacked = work.join("unpacked");
    unpack(&packages, &unpacked, watch)?;
    let tree = work.join("tree");
    watch.emit("putting the toolchain together");
    assemble(&unpacked, &tree, watch)?;
    try_out(&tree, &version, watch)?;
    fs::write(tree.join(STAMP), RECIPE).context("cannot write the toolchain's stamp")?;
    let home = folder.join(&version.rust);
    if home.exists() {
        // One made by another recipe.
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove `{}`", home.display()))?;
    }
    fs::rename(&tree, &home).with_context(|| format!("cannot put the toolchain at `{}`", home.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove `{}`", work.display()))?;
    Ok(home)
}

/// Makes the tree known to rustup, if it is installed, as `espalier-<version>`: `cross` asks for toolchains by name.
/// Failing to is a message and no error, since nothing else needs it.
pub fn link_with_rustup(tree: &Path, watch: Watch) {
    let (Some(name), Some(_)) = (rustup_name(tree), process::which("rustup")) else { return };
    if let Err(error) = link_as(tree, &name, watch) {
        watch.emit(&format!("the toolchain is not known to rustup, which only `cross` would need: {error:#}"));
    }
}

fn link_as(tree: &Path, name: &str, watch: Watch) -> Result<()> {
    link_beside(tree, name)?;
    let home = process::output_of(&CommandLine::new("rustup").args(["show", "home"])).unwrap_or_default();
    let link = Path::new(home.trim()).join("toolchains").join(name);
    if !fs::read_link(link).is_ok_and(|present| present == tree) {
        let command = CommandLine::new("rustup").args(["toolchain", "link", name]).arg(tree.display().to_string());
        process::run(&command, None, watch)?;
    }
    Ok(())
}

/// `cross` takes the sysroot that rustc reports, which is the tree, and looks for the toolchain's name beside it.
fn link_beside(tree: &Path, name: &str) -> Result<()> {
    let link = tree.with_file_name(name);
    let folder = Path::new(tree.file_name().context("a toolchain's folder has a name")?);
    match std::os::unix::fs::symlink(folder, &link) {
        Err(_) if fs::read_link(&link).is_ok_and(|present| present == folder) => Ok(()),
        made => made.with_context(|| format!("cannot make the link `{}`", link.display())),
    }
}

/// What rustup knows the tree as, e.g. `espalier-1.96.0`.
pub fn rustup_name(tree: &Path) -> Option<String> {
    Some(format!("espalier-{}", tree.file_name()?.to_str()?))
}

/// Version of the compiler's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    /// As Debian numbers it, e.g. `1.96.0+dfsg1-1~deb12u2`.
    debian: String,
    /// As rustc has it, e.g. `1.96.0`.
    rust: String,
    /// First two parts, which are in a package's name.
    minor: String,
}

impl Version {
    fn parse(debian: &str) -> Option<Version> {
        let rust = debian.split(['+', '~', '-']).next()?;
        match version_numbers(rust)?[..] {
            [major, minor, _] => {
                Some(Version { debian: debian.to_owned(), rust: rust.to_owned(), minor: format!("{major}.{minor}") })
            }
            _ => None,
        }
    }
}

fn version_numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

fn offered_version() -> Result<Version> {
    let policy = process::output_of(&CommandLine::new("apt-cache").args(["policy", "rustc-web"])).unwrap_or_default();
    let debian = candidate_in(&policy).context(
        "apt offers no `rustc-web`: are Debian's security archives among its sources \
         (the suite `bookworm-security`, component `main`), and its index new (`sudo apt-get update`)?",
    )?;
    Version::parse(&debian).with_context(|| format!("cannot read a Rust version out of `{debian}`"))
}

/// Reads `apt-cache policy`.
fn candidate_in(policy: &str) -> Option<String> {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (candidate != "(none)").then(|| candidate.to_owned())
}

fn download(folder: &Path, version: &Version, watch: Watch) -> Result<()> {
    let runtime = format!("libstd-rust-web-{}", version.minor);
    let depends = |package: &[&str], recurse: &[&str]| {
        let options =
            ["--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"];
        let question = CommandLine::new("apt-cache").arg("depends").args(recurse.iter().copied()).args(options);
        process::run(&question.args(package.iter().copied()), None, watch).context("cannot ask apt for dependencies")
    };
    let direct = libraries_in(&depends(&["cargo-web"], &[])?);
    let mut roots: Vec<&str> = direct.iter().map(String::as_str).collect();
    roots.push(&runtime);
    let libraries = libraries_in(&depends(&roots, &["--recurse"])?);
    let fixed = ["rustc-web", "cargo-web", &runtime, "libstd-rust-web-dev", "rust-web-src", "patchelf"];
    let packages: BTreeSet<String> = fixed.iter().map(|name| (*name).to_owned()).chain(libraries).collect();

    watch.emit(&format!("downloading {} packages of Rust {}", packages.len(), version.debian));
    // apt's own user may not write into the cache; downloading needs no protection from itself there.
    let fetch = CommandLine::new("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
    empty_folder(folder)?;
    process::run(&fetch, Some(folder), watch)
        .context("cannot download the toolchain's packages (where apt's index is old: `sudo apt-get update`)")?;
    Ok(())
}

/// Reads `apt-cache depends`: packages of shared libraries, without glibc's and the ones that only hold data.
fn libraries_in(listing: &str) -> BTreeSet<String> {
    let mut libraries = BTreeSet::new();
    for line in listing.lines() {
        let name = line.trim().trim_start_matches('|').trim_start_matches("Depends: ");
        let is_library = name.starts_with("lib") || name == "zlib1g";
        let skipped = ["libc6", "libc-", "libdb", "libsasl2-modules"].iter().any(|start| name.starts_with(start))
            || ["-common", "-dev", "-bin"].iter().any(|end| name.ends_with(end));
        if is_library && !skipped && !name.contains(':') {
            libraries.insert(name.to_owned());
        }
    }
    libraries
}

fn unpack(packages: &Path, unpacked: &Path, watch: Watch) -> Result<()> {
    empty_folder(unpacked)?;
    for package in files_in(packages)? {
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        watch.emit(&format!("unpacking {name}"));
        let (from, to) = (package.display().to_string(), unpacked.display().to_string());
        let command = if name.starts_with("rust-web-src_") {
            // The source of the compiler is a gigabyte; only the standard library is needed.
            let script = "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --wildcards './usr/src/rustc-*/library/*'";
            CommandLine::new("sh").args(["-c", script, "sh"]).args([from, to])
        } else {
            CommandLine::new("dpkg-deb").arg("-x").args([from, to])
        };
        process::run(&command, None, watch).with_context(|| format!("cannot unpack `{name}`"))?;
    }
    Ok(())
}

fn assemble(unpacked: &Path, tree: &Path, watch: Watch) -> Result<()> {
    let usr = unpacked.join("usr");
    for folder in ["bin", "lib/private", "lib/rustlib/src/rust"] {
        fs::create_dir_all(tree.join(folder)).with_context(|| format!("cannot make `{folder}` in the toolchain"))?;
    }
    let copy = |from: &Path, to: &Path| {
        let copied = fs::copy(from, to).map(|_| ());
        copied.with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))
    };

    let programs = ["rustc", "rustdoc", "cargo"];
    for program in programs {
        copy(&usr.join("bin").join(program), &tree.join("bin").join(program))?;
    }
    // rustc's standard library for the host. Debian keeps links from there to the shared one; only static ones are
    // linked.
    for host in folders_in(&usr.join("lib/rustlib"))? {
        let libraries = host.join("lib");
        if !libraries.is_dir() {
            continue;
        }
        let home = tree.join("lib/rustlib").join(host.file_name().unwrap_or_default()).join("lib");
        fs::create_dir_all(&home).with_context(|| format!("cannot make `{}`", home.display()))?;
        for library in files_in(&libraries)? {
            // Plain files, and links resolved: `copy` follows them.
            copy(&library, &home.join(library.file_name().unwrap_or_default()))?;
        }
    }

    let patchelf = usr.join("bin/patchelf").display().to_string();
    let set_path = |file: &Path, path: &str| {
        // `--force-rpath`: the other kind does not apply to libraries of libraries, and `LD_LIBRARY_PATH`, which cargo
        // sets, overrides it.
        let command = CommandLine::new(&patchelf).args(["--force-rpath", "--set-rpath", path]);
        process::run(&command.arg(file.display().to_string()), None, watch)
    };
    for program in programs {
        let program = tree.join("bin").join(program);
        collect_libraries(&program, unpacked, tree)?;
        set_path(&program, "$ORIGIN/../lib:$ORIGIN/../lib/private")?;
    }
    for library in files_in(&tree.join("lib"))? {
        let is_llvm = library.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM"));
        if is_llvm {
            set_path(&library, "$ORIGIN/private")?;
        }
    }

    let sources = folders_in(&usr.join("src"))?.into_iter().find(|folder| folder.join("library").is_dir());
    let sources = sources.context("`rust-web-src` holds no sources of the standard library")?.join("library");
    let home = tree.join(standard_library::SOURCES);
    fs::rename(&sources, &home).with_context(|| format!("cannot put sources at `{}`", home.display()))?;
    standard_library::prepare_sources(&home)
}

/// Copies each library that a program asks for, and those ask for in turn, under its soname.
fn collect_libraries(program: &Path, unpacked: &Path, tree: &Path) -> Result<()> {
    let mut pending = needed(program)?;
    while let Some(soname) = pending.pop() {
        let own = if soname.starts_with("librustc_driver") || soname.starts_with("libLLVM") {
            // rustc finds its sysroot from where these lie.
            tree.join("lib").join(&soname)
        } else {
            tree.join("lib/private").join(&soname)
        };
        if own.exists() || SYSTEM_LIBRARIES.contains(&soname.as_str()) {
            continue;
        }
        let found = find_library(unpacked, &soname)
            .with_context(|| format!("`{}` needs `{soname}`, which no package brought", program.display()))?;
        fs::copy(&found, &own).with_context(|| format!("cannot copy `{}`", found.display()))?;
        pending.extend(needed(&own)?);
    }
    Ok(())
}

fn needed(file: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(elf::read(&bytes).with_context(|| format!("cannot read `{}`", file.display()))?.needed)
}

/// Below `usr/lib/<machine>`, `lib/<machine>` and `usr/lib`; links are followed.
fn find_library(unpacked: &Path, soname: &str) -> Option<PathBuf> {
    ["usr/lib", "lib"].iter().map(|folder| unpacked.join(folder)).find_map(|folder| {
        let mut places = vec![folder.clone()];
        places.extend(folders_in(&folder).unwrap_or_default());
        places.into_iter().map(|place| place.join(soname)).find(|path| path.is_file())
    })
}

fn try_out(tree: &Path, version: &Version, watch: Watch) -> Result<()> {
    for (program, starts) in [("cargo", "cargo"), ("rustdoc", "rustdoc"), ("rustc", "rustc")] {
        // In an environment with nothing in it that could help it find its libraries.
        let path = tree.join("bin").join(program).display().to_string();
        let command = CommandLine::new("env").args(["-i", "PATH=/usr/bin:/bin"]).arg(path).arg("--version");
        let reported =
            process::run(&command, None, watch).context("the toolchain made of Debian's packages does not run")?;
        if !reported.starts_with(&format!("{starts} {}", version.minor)) {
            bail!("`{command}` reports `{}` where Debian's packages are {}", reported.trim(), version.debian);
        }
    }
    Ok(())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    paths_in(folder, Path::is_file)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    paths_in(folder, Path::is_dir)
}

fn paths_in(folder: &Path, kind: fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| kind(path)).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = Version::parse("1.96.0+dfsg1-1~deb12u2").unwrap();
        assert_eq!((version.rust.as_str(), version.minor.as_str()), ("1.96.0", "1.96"));
        assert_eq!(Version::parse("1.96.0-1").unwrap().rust, "1.96.0");
        assert_eq!(Version::parse("(none)"), None);
        assert!(version_numbers("1.100.0") > version_numbers("1.96.0"));
        assert_eq!(version_numbers("work"), None);
    }

    #[test]
    fn only_complete_trees_count_and_the_newest_wins() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        assert_eq!(find_tree(&cache).unwrap(), None);
        let tree = |version: &str, stamp: Option<&str>| {
            let path = cache.folder("toolchain").unwrap().join(version);
            fs::create_dir_all(&path).unwrap();
            if let Some(recipe) = stamp {
                fs::write(path.join(STAMP), recipe).unwrap();
            }
            path
        };
        tree("work", Some(RECIPE));
        tree("1.101.0", None);
        tree("1.102.0", Some("0"));
        tree("1.96.0", Some(RECIPE));
        let newest = tree("1.100.0", Some(RECIPE));
        assert_eq!(find_tree(&cache).unwrap(), Some(newest));
    }

    #[test]
    fn the_name_beside_a_tree_leads_to_it_and_is_no_tree_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let tree = cache.folder("toolchain").unwrap().join("1.96.0");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join(STAMP), RECIPE).unwrap();
        let name = rustup_name(&tree).unwrap();
        link_beside(&tree, &name).unwrap();
        link_beside(&tree, &name).unwrap();
        let link = tree.with_file_name("espalier-1.96.0");
        assert_eq!(link.canonicalize().unwrap(), tree.canonicalize().unwrap());
        assert_eq!(find_tree(&cache).unwrap().as_ref(), Some(&tree));
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        assert!(link_beside(&tree, &name).is_err());
    }

    #[test]
    fn the_candidate_is_read() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate_in("x:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn libraries_come_out_of_a_listing() {
        let listing = "cargo-web\n  Depends: libc6\n  Depends: libcurl4\n |Depends: gcc\n  Depends: zlib1g\n\
                       \u{20} Depends: <c-compiler>\nlibllvm22\n\
                       \u{20} Depends: libz3-4\nlibtirpc-common\nlibgcc-12-dev\nlibfoo:i386\n";
        let libraries: Vec<String> = libraries_in(listing).into_iter().collect();
        assert_eq!(libraries, ["libcurl4", "libllvm22", "libz3-4", "zlib1g"]);
    }
}
