//! The product's command line: flags in, exit code out. `commands` has one file a command and no command uses another.
//!
//! Two programs have these commands: `espalier`, and `cargo xtask`, which adds the developers' own.

mod baselines;
mod commands;
pub mod context;
mod gating;
mod history_file;
mod measuring;
mod networks;
pub mod output;
mod packing;
pub mod peers;
mod program;
pub mod progress;
mod provenance;
mod pruning;
mod recipe_flags;
pub mod run_file;
mod runners;
mod samples;
mod selection;
mod sessions;
pub mod ssh_feature;
mod variants;

use std::process::ExitCode;

use anyhow::Result;
use espalier_bench::exit::ExitStatus;

pub use commands::Command;
pub use program::Program;

/// Follows a program's help.
pub const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 regression, 4 inconclusive or \
                              nothing compared, 5 device unreachable or broken.";

/// Runs a command as `program` and reports its error on stderr.
pub fn exit_code(program: Program, command: impl FnOnce() -> Result<ExitStatus>) -> ExitCode {
    program.set_current();
    match command() {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("{}", program.text(&format!("error: {error:#}")));
            context::status_of(&error).into()
        }
    }
}
