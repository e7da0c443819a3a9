//! `cargo xtask instructions`: counts the instructions of kernels, dense and sparse, for processors under an emulator.

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_fleet::{emulated::Emulated, process::Watch};

use espalier_cli::{
    context::{Context, usage},
    progress::{Progress, stop_on_signal},
    terminal::say,
};

use crate::suite::TARGETS;

#[derive(Args)]
pub struct Flags {
    /// A target of targets.toml; may be repeated [default: aarch64-gnu, armv7-gnu and riscv64-gnu]
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let inventory = context.inventory(&|_| false)?;
    let mut names = flags.target;
    if names.is_empty() {
        names = TARGETS.map(str::to_owned).to_vec();
    }
    let progress = Progress::new(false);
    let cancel = stop_on_signal(&progress)?;
    say(format_args!(
        "Instructions of a kernel under an emulator (emulated: they are not times); nine tenths of the weights \
         removed where it is sparse."
    ))?;
    for name in names {
        let target = inventory.target(&name).map_err(|error| usage(error.to_string()))?;
        let task = progress.task(&format!("count for {name}"), None);
        let on_line = |text: &str| task.milestone(text);
        let watch = Watch { cancel: &cancel, progress: &on_line };
        let counted = Emulated::prepare(&context.cache, target)
            .and_then(|emulated| emulated.instructions(context.sources()?, watch))
            .with_context(|| format!("cannot count instructions for target `{name}`"))?;
        task.done();
        say(format_args!(
            "\n{name} (emulated)\n{:<20} {:>12} {:>14} {:>10}",
            "kernel", "instructions", "a dense weight", "fewer"
        ))?;
        let mut dense = None;
        for kernel in &counted {
            // Each dense one is what those after it are compared with.
            if kernel.kernel.ends_with("dense") {
                dense = Some(kernel.instructions);
            }
            let fewer =
                dense.map_or("—".to_owned(), |dense| format!("{:.1} x", dense as f64 / kernel.instructions as f64));
            let each = kernel.instructions as f64 / kernel.multiplications as f64;
            say(format_args!("{:<20} {:>12} {each:>14.3} {fewer:>10}", kernel.kernel, kernel.instructions))?;
        }
    }
    Ok(ExitStatus::Ok)
}
