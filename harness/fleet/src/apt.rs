//! System packages of apt: which are missing, and installing them where that is allowed.
//!
//! Root may, and a user whose `sudo` needs no password; others get the one line to run. Nothing is ever removed or
//! downgraded: with the options given here apt refuses to.

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use crate::{
    cancel::Cancel,
    process::{self, Watch},
};

/// Makes sure that packages are installed.
///
/// # Errors
/// Packages are missing and this user may not install them, or there is no apt, or apt fails. The message holds the
/// line to run, or the programs that are needed.
pub fn ensure_packages(packages: &[&str], watch: Watch) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("sudo {}", install_command(&[], &missing));
    let Some(privilege) = privilege() else {
        bail!("system packages are missing: run `{by_hand}`");
    };
    watch.emit(&format!("installing {}", missing.join(", ")));
    // Once begun it is let end: a package manager stopped half-way leaves work for a person.
    watch.go_on()?;
    let watch = Watch { cancel: &Cancel::default(), ..watch };
    if process::run(&install_command(privilege, &missing), None, watch).is_ok() {
        return Ok(());
    }
    // Unknown to the index, or gone from the server since: the index is old.
    watch.emit("apt could not; updating its index");
    update(watch)?;
    process::run(&install_command(privilege, &missing), None, watch)
        .with_context(|| format!("cannot install {}: to try by hand, run `{by_hand}`", missing.join(", ")))?;
    Ok(())
}

/// Those of `packages` that are not installed.
///
/// # Errors
/// This system has no dpkg.
pub fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if process::which("dpkg-query").is_none() || process::which("apt-get").is_none() {
        bail!(
            "this system has no apt: install by its own means what Debian calls {}",
            packages.iter().map(|package| format!("`{package}`")).collect::<Vec<_>>().join(", ")
        );
    }
    // Ends with an error for unknown packages, having listed the others: so through a shell that ends well.
    let query = CommandLine::new("sh")
        .args(["-c", "dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\\n' \"$@\" 2>&1 || true", "sh"])
        .args(packages.iter().copied());
    Ok(not_listed(packages, &process::output_of(&query).unwrap_or_default()))
}

/// Brings apt's index up to date.
///
/// # Errors
/// This user may not, or apt fails.
pub fn update(watch: Watch) -> Result<()> {
    let Some(privilege) = privilege() else { bail!("apt's index is too old: run `sudo apt-get update`") };
    let update = privileged(privilege).args(["apt-get", "-q", "update"]);
    process::run(&update, None, watch).context("cannot update apt's index")?;
    Ok(())
}

/// Words to put before a command that needs root; nothing when root cannot be had without a question.
fn privilege() -> Option<&'static [&'static str]> {
    // SAFETY: takes nothing, cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Some(&[]);
    }
    let sudo: &[&str] = &["sudo", "-n"];
    process::output_of(&CommandLine::new("sudo").args(["-n", "true"])).map(|_| sudo)
}

fn privileged(privilege: &[&str]) -> CommandLine {
    // `env` and not the command's own environment, which sudo would drop.
    let argv = privilege.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive"]);
    CommandLine { env: Vec::new(), argv: argv.map(|argument| (*argument).to_owned()).collect() }
}

fn install_command(privilege: &[&str], packages: &[&str]) -> CommandLine {
    privileged(privilege)
        .args(["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"])
        .args(["install", "--no-remove", "--no-install-recommends"])
        .args(packages.iter().copied())
}

/// Reads what dpkg-query lists, e.g. `ii  gcc`.
fn not_listed<'a>(packages: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed = |package: &str| {
        listing.lines().any(|line| {
            let mut words = line.split_whitespace();
            // The second letter is the present state, the first the selected one (`hi` is a package on hold).
            words.next().is_some_and(|status| status.len() == 2 && status.ends_with('i'))
                && words.next() == Some(package)
        })
    };
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wholly_installed_counts() {
        let listing = "ii  gcc\nrc  old-config\nun  never\nhi  held\niU  unpacked\n\
                       dpkg-query: no packages found matching nowhere\n";
        let packages = ["gcc", "old-config", "never", "held", "unpacked", "nowhere", "gc"];
        assert_eq!(not_listed(&packages, listing), ["old-config", "never", "unpacked", "nowhere", "gc"]);
    }

    #[test]
    fn nothing_is_removed_and_sudo_keeps_the_environment() {
        assert_eq!(
            install_command(&["sudo", "-n"], &["a", "b"]).to_string(),
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
             install --no-remove --no-install-recommends a b"
        );
    }
}
