//! `build`: builds the runner for one or several targets.

use anyhow::Result;
use clap::Args;
use espalier_bench::{build_plan::Layout, exit::ExitStatus};
use espalier_fleet::{build, process::Watch};

use crate::{
    context::{Context, usage},
    progress::{Progress, stop_on_signal},
    terminal::say,
};

#[derive(Args)]
pub struct Flags {
    /// A target of targets.toml, or `host`; may be repeated [default: host]
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Print the exact commands and the reason for the builder; do nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let inventory = context.inventory(&|_| false)?;
    let names = if flags.target.is_empty() { vec!["host".to_owned()] } else { flags.target };
    let progress = Progress::new(false);
    let cancel = stop_on_signal(&progress)?;
    for name in names {
        let target = inventory.target(&name).map_err(usage)?;
        if flags.dry_run {
            let plan = build::prepare(&context.cache, target, Layout::USUAL)?.plan;
            say(format_args!("# {}", plan.reason))?;
            say(plan.command)?;
            continue;
        }
        let task = progress.task(&format!("build {name}"), None);
        let on_line = |text: &str| task.milestone(text);
        let artifact = build::build(
            &context.cache,
            context.sources()?,
            target,
            Layout::USUAL,
            Watch { cancel: &cancel, progress: &on_line },
        )?;
        task.done();
        say(format_args!(
            "{name}: {} ({:.1} MB, {})",
            artifact.path.display(),
            artifact.bytes as f64 / 1e6,
            artifact.builder
        ))?;
    }
    Ok(ExitStatus::Ok)
}
