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
    espalier_cli::main(Program::ESPALIER, |cli: Cli| cli.command.run())
}
