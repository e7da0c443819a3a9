//! Where numbers come from: who ran which command on which commit.

use espalier_bench::record::Provenance;

use crate::{context::Context, program::Program};

pub fn of_this_run(context: &Context) -> Provenance {
    Provenance {
        espalier: env!("CARGO_PKG_VERSION").into(),
        revision: context.sources().ok().and_then(revision),
        host: host_name(),
        command: Program::current().call.split(' ').map(str::to_owned).chain(std::env::args().skip(1)).collect(),
    }
}

/// Names the holder of a board's lease.
pub fn owner() -> String {
    format!("{}, process {}", person(), std::process::id())
}

/// Names the author of a file that is committed.
pub fn person() -> String {
    format!("{}@{}", std::env::var("USER").unwrap_or_else(|_| "somebody".into()), host_name())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// The commit, followed by `+` where the tree has changes; `None` outside git.
pub fn revision(root: &std::path::Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|status| !status.is_empty());
    Some(if changed { format!("{commit}+") } else { commit })
}
