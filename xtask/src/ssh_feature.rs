//! Switches SSH on when it is first needed.
//!
//! `ssh2` needs OpenSSL's headers. A person who only measures this host should not need them, so `cargo xtask` is built without; a command that must
//! reach a board builds itself once more with the feature and hands over its flags.

use std::process::Command;

use anyhow::{Context as _, Result};
use espalier_bench::exit::ExitStatus;

use crate::context::{Context, usage};

/// `None`: go on, SSH is in. Otherwise the other build has done the work and this is how it ended.
pub fn ensure(context: &Context) -> Result<Option<ExitStatus>> {
    if cfg!(feature = "ssh") {
        return Ok(None);
    }
    // Without this a build that cannot get the feature would start itself for ever.
    if std::env::var_os("ESPALIER_SSH_BUILD").is_some() {
        return Err(usage("this build has no ssh although it was asked for: build with `--features ssh`"));
    }
    let feature = if openssl_is_installed() { "ssh" } else { "ssh-vendored" };
    eprintln!(
        "building `cargo xtask` with SSH (once{})",
        if feature == "ssh" {
            ""
        } else {
            "; OpenSSL from source, some minutes: `libssl-dev` and `pkg-config` would save them"
        }
    );
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--package", "xtask", "--features", feature, "--"])
        .args(std::env::args_os().skip(1))
        .env("ESPALIER_SSH_BUILD", "1")
        .env("ESPALIER_MANIFEST", context.root.join("Cargo.toml"))
        .current_dir(std::env::current_dir().context("the current folder is gone")?)
        .status()
        .context("cannot run `cargo`")?;
    Ok(Some(ExitStatus::from_code(status.code())))
}

/// As openssl-sys looks for it: by an explicit folder or by pkg-config.
fn openssl_is_installed() -> bool {
    std::env::var_os("OPENSSL_DIR").is_some()
        || Command::new("pkg-config").args(["--exists", "openssl"]).status().is_ok_and(|status| status.success())
}
