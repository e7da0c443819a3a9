//! `setup`: makes targets buildable on this host.

use anyhow::Result;
use clap::{Args, ValueEnum};
use espalier_bench::exit::ExitStatus;
use espalier_fleet::{
    process::Watch,
    toolchain::{self, Way},
};

use crate::{
    context::{Context, usage},
    progress::{Progress, stop_on_signal},
    terminal::say,
};

#[derive(Args)]
pub struct Flags {
    /// A target of targets.toml; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// The source of the standard library: rustup's server, or Debian's packages where that server is out of reach
    #[arg(long, value_enum)]
    from: Option<From>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum From {
    Rustup,
    Debian,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let inventory = context.inventory(&|_| false)?;
    let names = if flags.target.is_empty() { inventory.targets.keys().cloned().collect() } else { flags.target };
    let way = flags.from.map(|from| match from {
        From::Rustup => Way::Rustup,
        From::Debian => Way::Debian,
    });
    let progress = Progress::new(false);
    let cancel = stop_on_signal(&progress)?;
    for name in names {
        let target = inventory.target(&name).map_err(usage)?;
        let task = progress.task(&format!("set up {name}"), None);
        let on_line = |text: &str| task.milestone(text);
        let toolchain = toolchain::setup(&context.cache, target, way, Watch { cancel: &cancel, progress: &on_line })?;
        task.done();
        say(format_args!("{name}: {} with rustc {}", target.triple, toolchain.version))?;
    }
    Ok(ExitStatus::Ok)
}
