//! The product's command line: flags in, exit code out. `commands` has one file a command and no command uses another.
//!
//! Two programs have these commands: `espalier`, and `cargo xtask`, which adds the developers' own.

mod baselines;
mod commands;
pub mod context;
mod exit;
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
mod tasks;
pub mod terminal;
mod variants;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use espalier_bench::exit::ExitStatus;

pub use commands::Command;
pub use program::Program;

/// Follows a program's help.
pub const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 regression, 4 inconclusive or \
                              nothing compared, 5 device unreachable or broken, 141 the reader of the output has gone.";

/// A program from its flags to its exit code: `run` carries out what the command line says. Errors go to stderr; so do
/// usage errors, with clap's own exit code, which is [`ExitStatus::Usage`].
pub fn main<Flags: Parser>(program: Program, run: impl FnOnce(Flags) -> Result<ExitStatus>) -> ExitCode {
    program.set_current();
    let ended = match Flags::try_parse() {
        Ok(flags) => run(flags),
        // Help and version are results, which must reach whoever asked for them.
        Err(said) if !said.use_stderr() => {
            said.print().map(|()| ExitStatus::Ok).map_err(|error| terminal::failed(&error))
        }
        Err(mistake) => {
            let _ = mistake.print();
            Ok(ExitStatus::Usage)
        }
    };
    let status = ended.unwrap_or_else(|error| {
        let status = exit::status_of(&error);
        // Whoever closed the pipe knows.
        if status != ExitStatus::ClosedPipe {
            terminal::note(format_args!("error: {}", terminal::causes(&error)));
        }
        status
    });
    status.into()
}
