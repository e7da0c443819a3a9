//! `cargo xtask …`: flags in, exit code out. One file a command; what they share stands in `context`, `progress` and `variants`.

mod accept;
mod accept_change;
mod bench;
mod board;
mod build;
mod calibrate;
mod check;
mod context;
mod gate;
mod history;
mod inspect;
mod instructions;
mod model;
mod nightly;
mod pack;
mod peers;
mod progress;
mod provenance;
mod prune;
mod pruning;
mod recipe_flags;
mod report;
mod results;
mod run_file;
mod runners;
mod samples;
mod selection;
mod selftest;
mod sensitivity;
mod sessions;
mod setup;
mod ssh_feature;
mod suite;
mod unpack;
mod variants;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Prunes neural networks, builds the program that runs them for your boards, measures them there, and shows what each prune ratio costs and gains.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 regression, 4 inconclusive or nothing compared, 5 device unreachable or broken."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a model's variants on this host or on boards, and print the table
    Bench(bench::Flags),
    /// Write a pruned copy of an ONNX file, fine-tuned if asked for
    Prune(prune::Flags),
    /// Show what each tensor of a model bears
    Sensitivity(sensitivity::Flags),
    /// Write the ONNX files of networks that articles on pruning measure
    #[command(subcommand)]
    Model(model::Action),
    /// Show what a model has, and what of it can be pruned
    Inspect(inspect::Flags),
    /// Write a model's file with its weights in packed form, and show what each form takes
    Pack(pack::Flags),
    /// Write the ONNX file that a pack holds
    Unpack(unpack::Flags),
    /// Make what is here now a baseline to compare with later
    Accept(accept::Flags),
    /// Find out how a device is to be gated, and what it is fit for
    Calibrate(calibrate::Flags),
    /// Say whether a candidate is worse than its baseline
    Gate(gate::Flags),
    /// Everything a shelf of boards does in a night: bench, gate, controls, history
    Nightly(nightly::Flags),
    /// Print the table of an earlier run again
    Report(report::Flags),
    /// Write the results page out of stored runs
    Results(results::Flags),
    /// Show the gate's nights one after another, and where a level changed
    History(history::Flags),
    /// Answer for a change that `history` shows
    AcceptChange(accept_change::Flags),
    /// Find every mistake in targets.toml, devices/ and models/
    Check,
    /// Make targets buildable on this host
    Setup(setup::Flags),
    /// Build the runner for a target
    Build(build::Flags),
    /// Count the kernels' instructions on processors this host does not have, under an emulator
    Instructions(instructions::Flags),
    /// Boot, stop and list emulated boards
    #[command(subcommand)]
    Board(board::Action),
    /// Whether Espalier keeps its own promises
    #[command(subcommand)]
    Selftest(selftest::Test),
    /// Set up what the tests need, and run them all
    Test(suite::Flags),
}

fn main() -> ExitCode {
    // Usage errors exit with 2 by themselves, as documented.
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Bench(flags) => bench::run(flags),
        Command::Prune(flags) => prune::run(flags),
        Command::Sensitivity(flags) => sensitivity::run(flags),
        Command::Model(action) => model::run(action),
        Command::Inspect(flags) => inspect::run(flags),
        Command::Pack(flags) => pack::run(flags),
        Command::Unpack(flags) => unpack::run(flags),
        Command::Accept(flags) => accept::run(flags),
        Command::Calibrate(flags) => calibrate::run(flags),
        Command::Gate(flags) => gate::run(flags),
        Command::Nightly(flags) => nightly::run(flags),
        Command::Report(flags) => report::run(flags),
        Command::Results(flags) => results::run(flags),
        Command::History(flags) => history::run(flags),
        Command::AcceptChange(flags) => accept_change::run(flags),
        Command::Check => check::run(),
        Command::Setup(flags) => setup::run(flags),
        Command::Build(flags) => build::run(flags),
        Command::Instructions(flags) => instructions::run(flags),
        Command::Board(action) => board::run(action),
        Command::Selftest(test) => selftest::run(test),
        Command::Test(flags) => suite::run(flags),
    };
    match done {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            context::status_of(&error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// Flags that name flags which are not there are found by clap only when the command is used.
    #[test]
    fn every_command_is_whole() {
        super::Cli::command().debug_assert();
    }
}
