//! `espalier`: the product's commands as a program of their own, for any folder with a `targets.toml`.

use std::process::ExitCode;

use clap::Parser;
use espalier_cli::{Command, EXIT_CODES, Program};

/// Prunes neural networks, builds the program that runs them for your boards, measures them there, and shows what
/// each prune ratio costs and gains.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    // Usage errors exit with 2 by themselves, as documented.
    let cli = Cli::parse();
    espalier_cli::exit_code(Program::ESPALIER, || cli.command.run())
}
