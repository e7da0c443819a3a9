//! Switches SSH on when it is first needed.
//!
//! `ssh2` needs OpenSSL's headers. A person who only measures this host should not need them, so the program is built
//! without SSH. A command that has to reach a board builds the program again with the feature and becomes that program.

use std::{
    convert::Infallible,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use espalier_inventory::{Device, Transport};

use crate::{
    context::{Context, usage},
    program::Program,
    terminal::note,
};

/// Returns if this program can reach all devices; otherwise the process becomes the program with SSH.
pub fn ensure<'a>(context: &Context, devices: impl IntoIterator<Item = &'a Device>) -> Result<()> {
    let needs_ssh = devices.into_iter().any(|device| matches!(device.transport, Transport::Ssh(_)));
    if cfg!(feature = "ssh") || !needs_ssh {
        return Ok(());
    }
    if context.sources().is_err() {
        let device =
            "a device is reached by SSH, which this program was built without, and its sources are not at hand";
        return Err(usage(format!(
            "{device}: install it with `--features ssh`, or name a clone of the repository in `ESPALIER_SOURCES`"
        )));
    }
    match become_the_other_build(context)? {}
}

fn become_the_other_build(context: &Context) -> Result<Infallible> {
    let feature = if openssl_is_installed() { "ssh" } else { "ssh-vendored" };
    let program = build(context, feature)
        .with_context(|| format!("cannot build `{}` with `{feature}`", Program::current().call))?;
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}

/// Builds this program with a feature and returns its path. Prints a line only if that takes more than a second.
pub fn build(context: &Context, feature: &str) -> Result<PathBuf> {
    let Program { call, package, binary, .. } = Program::current();
    let mut child = cargo()
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            package,
            "--features",
            feature,
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(context.sources()?)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `cargo`")?;
    let output = child.stdout.take().context("stdout is piped")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(output));
    let start = Instant::now();
    let mut announced = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !announced && start.elapsed() > Duration::from_secs(1) {
            announced = true;
            let minutes = "; OpenSSL from source takes minutes, which the packages `libssl-dev` and `pkg-config` save";
            note(format_args!("building `{call}` with SSH{}", if feature == "ssh" { "" } else { minutes }));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let messages = reader.join().map_err(|_| anyhow::anyhow!("cargo's output could not be read"))??;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    executable(&messages, binary).with_context(|| format!("cargo built no `{binary}`"))
}

/// The program of this name in cargo's JSON messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// As openssl-sys looks for it: by an explicit folder or by pkg-config.
fn openssl_is_installed() -> bool {
    std::env::var_os("OPENSSL_DIR").is_some()
        || Command::new("pkg-config").args(["--exists", "openssl"]).status().is_ok_and(|status| status.success())
}
