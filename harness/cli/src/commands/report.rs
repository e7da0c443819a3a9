//! `report`: prints the table of an earlier run again.

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, summary};

use crate::{
    context::Context,
    output::{self, Exports},
    run_file,
};

#[derive(Args)]
pub struct Flags {
    /// A run's file, its id or the beginning of it [default: the newest]
    run: Option<String>,
    #[command(flatten)]
    exports: Exports,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    flags.exports.check()?;
    let context = Context::open()?;
    let path = run_file::find(&context.root, flags.run.as_deref())?;
    let run = run_file::read(&path)?;
    let summaries = summary::summarise(&run);
    flags.exports.write(&run, &summaries)?;
    output::print_table(&run, &summaries)?;
    Ok(output::status(&run))
}
