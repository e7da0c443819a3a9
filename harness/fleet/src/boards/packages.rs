//! Debian packages for another architecture or another suite, downloaded and never installed.
//!
//! A private apt (with its own lists, status and cache, and the host's mirror and keys) resolves dependencies: for it
//! nothing is installed yet, so it downloads the closure. From then on a complete set is used as it is, without the
//! network; removing its folder fetches anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use super::{
    run::{require_program, run},
    sources::{Source, host_mirror},
};
use crate::{cancel::Cancel, process::Watch};

/// Packages to download.
pub struct PackageSet<'a> {
    /// The folder's name below `debs`, also in messages.
    pub name: &'a str,
    /// dpkg's name, e.g. `armhf`.
    pub architecture: &'a str,
    /// Suites to try after the host's own.
    pub further_suites: &'a [&'a str],
    /// Each with its dependencies; of each inner list the first that the suite has.
    pub packages: &'a [&'a [&'a str]],
    /// A kernel's metapackage. Of its dependencies only the kernel's own packages are taken, not those that install it.
    pub kernel: Option<&'a str>,
}

/// The `.deb` files of a complete set, in a stable order. `debs` is the folder of all sets.
pub fn fetch(debs: &Path, set: &PackageSet, watch: Watch) -> Result<Vec<PathBuf>> {
    let folder = debs.join(set.name);
    if let Some(files) = complete(&folder) {
        return Ok(files);
    }
    require_program("apt-get", "apt")?;
    require_program("apt-cache", "apt")?;
    let (mirror, host_suite) = host_mirror()?;
    let mut suites = vec![host_suite.as_str()];
    suites.extend(set.further_suites.iter().copied().filter(|suite| *suite != host_suite));
    let mut failures = Vec::new();
    for suite in suites {
        watch.emit(&format!("looking for the packages for `{}` in `{suite}`", set.name));
        match fetch_from(&folder, &mirror, suite, set, watch) {
            Ok(files) => return Ok(files),
            Err(error) if watch.cancel.is_requested() => return Err(error),
            Err(error) => failures.push(format!("`{suite}`: {error:#}")),
        }
    }
    bail!("no suite has all the packages for `{}`: {}", set.name, failures.join("; "))
}

fn complete(folder: &Path) -> Option<Vec<PathBuf>> {
    let list = fs::read_to_string(folder.join("complete")).ok()?;
    let files: Vec<PathBuf> = list.lines().map(|name| folder.join(name)).collect();
    files.iter().all(|file| file.is_file()).then_some(files)
}

fn fetch_from(folder: &Path, mirror: &Source, suite: &str, set: &PackageSet, watch: Watch) -> Result<Vec<PathBuf>> {
    let cancel = watch.cancel;
    let fresh = folder.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let apt = PrivateApt::new(&fresh.join("apt"), mirror, suite, set.architecture)?;
    apt.run("apt-get", &["update"], cancel)?;

    let mut args = vec!["install", "--download-only", "--yes"];
    for alternatives in set.packages {
        let has = |name: &&&str| apt.run("apt-cache", &["show", name], cancel).is_ok();
        let name = alternatives.iter().find(has);
        args.push(name.with_context(|| format!("it has no package `{}` for {}", alternatives[0], set.architecture))?);
    }
    watch.emit(&format!("downloading packages for `{}` from `{suite}`", set.name));
    apt.run("apt-get", &args, cancel)?;
    if let Some(metapackage) = set.kernel {
        let tree = apt.run("apt-cache", &["depends", "--recurse", "--important", metapackage], cancel)?;
        let parts = kernel_parts(&tree);
        if parts.is_empty() {
            bail!("it has no kernel below `{metapackage}`");
        }
        watch.emit(&format!("downloading the kernel for `{}` from `{suite}`", set.name));
        let args: Vec<&str> = ["download"].into_iter().chain(parts).collect();
        apt.run("apt-get", &args, cancel)?;
    }

    let mut names = Vec::new();
    for entry in fs::read_dir(apt.archives())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fs::rename(&path, fresh.join(&name))?;
            names.push(name);
        }
    }
    names.sort();
    fs::remove_dir_all(&apt.home)?;
    fs::write(fresh.join("complete"), names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&fresh, folder)?;
    complete(folder).context("the downloaded set is gone again")
}

/// Names of the packages with a kernel and its modules, from `apt-cache depends --recurse`.
fn kernel_parts(tree: &str) -> Vec<&str> {
    let is_part = |name: &&str| {
        // Metapackages carry no version and no files.
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
    };
    tree.lines().filter(is_part).collect()
}

struct PrivateApt {
    home: PathBuf,
}

impl PrivateApt {
    fn new(home: &Path, mirror: &Source, suite: &str, architecture: &str) -> Result<PrivateApt> {
        let apt = PrivateApt { home: home.to_owned() };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder)).with_context(|| format!("cannot make `{}`", home.display()))?;
        }
        fs::write(home.join("status"), "")?;
        fs::write(home.join("host.sources"), mirror.for_suite(suite))?;
        fs::write(home.join("apt.conf"), configuration(home, architecture))?;
        Ok(apt)
    }

    fn archives(&self) -> PathBuf {
        self.home.join("cache/archives")
    }

    fn run(&self, program: &str, args: &[&str], cancel: &Cancel) -> Result<String> {
        let configuration = self.home.join("apt.conf");
        let line = CommandLine::new(program)
            .args(["--config-file", &configuration.to_string_lossy(), "--quiet"])
            .args(args.iter().copied());
        // `apt-get download` writes to its working folder.
        run(&line, &self.archives(), cancel)
    }
}

/// Read after the host's own configuration, which stays in force otherwise (proxies, checks of dates).
fn configuration(home: &Path, architecture: &str) -> String {
    let home = home.display();
    format!(
        r#"APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures:: "{architecture}";
Dir::State "{home}";
Dir::State::Lists "{home}/lists";
Dir::State::status "{home}/status";
Dir::Cache "{home}/cache";
Dir::Etc::SourceList "{home}/host.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
// Hooks are about the host's own packages, and may need root.
#clear APT::Update;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_packages() {
        let tree = "\
linux-image-riscv64
  Depends: linux-base-riscv64
  Depends: linux-image-7.1+deb14-riscv64
linux-base-riscv64
linux-image-7.1+deb14-riscv64
  Depends: linux-binary-7.1+deb14-riscv64
linux-base
initramfs-tools
linux-binary-7.1+deb14-riscv64
linux-modules-7.1+deb14-riscv64
";
        assert_eq!(
            kernel_parts(tree),
            ["linux-image-7.1+deb14-riscv64", "linux-binary-7.1+deb14-riscv64", "linux-modules-7.1+deb14-riscv64"]
        );
    }

    #[test]
    fn a_set_is_complete_only_with_all_its_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(complete(folder.path()), None);
        fs::write(folder.path().join("complete"), "a.deb\nb.deb\n").unwrap();
        fs::write(folder.path().join("a.deb"), "").unwrap();
        assert_eq!(complete(folder.path()), None);
        fs::write(folder.path().join("b.deb"), "").unwrap();
        assert_eq!(complete(folder.path()), Some(vec![folder.path().join("a.deb"), folder.path().join("b.deb")]));
    }
}
