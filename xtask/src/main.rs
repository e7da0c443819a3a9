//! `cargo xtask …`: the product's commands, and those for developers of Espalier: flags in, exit code out.

mod instructions;
mod results;
mod suite;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use espalier_bench::exit::ExitStatus;
use espalier_cli::{EXIT_CODES, Program};

/// Prunes neural networks, builds the program that runs them for your boards, measures them there, and shows what
/// each prune ratio costs and gains.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Product(Box<espalier_cli::Command>),
    /// Write the results page out of stored runs
    Results(results::Flags),
    /// Count the kernels' instructions on processors this host does not have, under an emulator
    Instructions(instructions::Flags),
    /// Set up what the tests need, and run them all
    Test(suite::Flags),
}

impl Command {
    fn run(self) -> Result<ExitStatus> {
        match self {
            Command::Product(command) => command.run(),
            Command::Results(flags) => results::run(flags),
            Command::Instructions(flags) => instructions::run(flags),
            Command::Test(flags) => suite::run(flags),
        }
    }
}

fn main() -> ExitCode {
    espalier_cli::main(Program::XTASK, |cli: Cli| cli.command.run())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// Flags that name flags which are not there are found by clap only when the command is used.
    #[test]
    fn every_command_is_complete() {
        super::Cli::command().debug_assert();
    }
}
