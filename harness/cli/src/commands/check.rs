//! `check`: reports every mistake in targets.toml, devices/ and models/.

use anyhow::Result;
use espalier_bench::exit::ExitStatus;

use crate::{
    context::Context,
    terminal::{counted, note, say},
};

pub fn run() -> Result<ExitStatus> {
    let context = Context::open()?;
    match context.read_inventory()? {
        Ok(inventory) => {
            say(format_args!(
                "{} targets, {} devices and {} models are valid",
                inventory.targets.len(),
                inventory.devices.len(),
                inventory.models.len()
            ))?;
            let by_name: Vec<&str> =
                inventory.models.values().filter(|model| !model.in_all).map(|model| model.name.as_str()).collect();
            if !by_name.is_empty() {
                say(format_args!("only when they are named (`in-all = false`): {}", by_name.join(", ")))?;
            }
            Ok(ExitStatus::Ok)
        }
        Err(problems) => {
            for problem in &problems {
                say(problem.with_source())?;
            }
            note(format_args!("error: {}", counted(problems.len(), "mistake")));
            Ok(ExitStatus::Usage)
        }
    }
}
