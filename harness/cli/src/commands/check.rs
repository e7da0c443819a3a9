//! `check`: reports every mistake in targets.toml, devices/ and models/.

use anyhow::Result;
use espalier_bench::exit::ExitStatus;

use crate::context::Context;

pub fn run() -> Result<ExitStatus> {
    let context = Context::open()?;
    match context.read_inventory()? {
        Ok(inventory) => {
            println!(
                "{} targets, {} devices and {} models are valid",
                inventory.targets.len(),
                inventory.devices.len(),
                inventory.models.len()
            );
            let by_name: Vec<&str> =
                inventory.models.values().filter(|model| !model.in_all).map(|model| model.name.as_str()).collect();
            if !by_name.is_empty() {
                println!("only when they are named (`in-all = false`): {}", by_name.join(", "));
            }
            Ok(ExitStatus::Ok)
        }
        Err(problems) => {
            for problem in &problems {
                println!("{}", problem.with_source());
            }
            eprintln!("error: {} mistakes", problems.len());
            Ok(ExitStatus::Usage)
        }
    }
}
