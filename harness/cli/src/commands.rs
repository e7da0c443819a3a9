//! The commands, one file each. A command reads its flags; the modules beside this one do the work.

mod accept;
mod accept_change;
mod bench;
mod board;
mod build;
mod calibrate;
mod check;
mod gate;
mod history;
mod inspect;
mod model;
mod nightly;
mod pack;
mod prune;
mod report;
mod selftest;
mod sensitivity;
mod setup;
mod unpack;

use anyhow::Result;
use clap::Subcommand;
use espalier_bench::exit::ExitStatus;

#[derive(Subcommand)]
pub enum Command {
    /// Measure a model's variants on this host or on boards, and print the table
    #[command(after_help = "Examples:\n\x20 \
                      bench --model digits-cnn\n\x20 \
                      bench --model FILE.onnx --shape x=1x3x224x224\n\x20 \
                      bench --device pi4 --engine tract,espalier\n\x20 \
                      bench --resume")]
    Bench(bench::Flags),
    /// Write a pruned copy of an ONNX file, fine-tuned if requested
    #[command(after_help = "Examples:\n\x20 \
                      prune digits-cnn --ratio 0.9 -o OUT.onnx\n\x20 \
                      prune FILE.onnx --unit channel --ratio 0.5 -o OUT.onnx\n\x20 \
                      prune digits-cnn --until max-accuracy-drop=0.01 -o OUT.onnx")]
    Prune(prune::Flags),
    /// Show how much accuracy each tensor of a model costs when it is pruned
    Sensitivity(sensitivity::Flags),
    /// Write the ONNX files of networks that articles on pruning measure
    #[command(subcommand)]
    Model(model::Action),
    /// Show what a model has, and what of it can be pruned
    Inspect(inspect::Flags),
    /// Write a model's file with its weights in packed form, and show what each form takes
    #[command(after_help = "Examples:\n\x20 \
                      pack FILE.onnx -o OUT.pack\n\x20 \
                      pack digits-cnn --ratios 0,0.5,0.9 -o OUT.pack")]
    Pack(pack::Flags),
    /// Write the ONNX file that a pack holds
    Unpack(unpack::Flags),
    /// Make what is here now a baseline to compare with later
    #[command(after_help = "Example:\n  accept --name release-1.4 --all-devices")]
    Accept(accept::Flags),
    /// Find out how a device is to be gated, and what it is fit for
    Calibrate(calibrate::Flags),
    /// Say whether a candidate is worse than its baseline
    #[command(after_help = "Examples:\n\x20 \
                      gate --baseline release-1.4 --profile release --all-devices\n\x20 \
                      gate --from ID --export-junit gate.xml")]
    Gate(gate::Flags),
    /// Everything a shelf of boards does nightly: bench, gate, controls, history
    Nightly(nightly::Flags),
    /// Print the table of an earlier run again
    Report(report::Flags),
    /// Show the gate's history entry by entry, and where a level changed
    History(history::Flags),
    /// Acknowledge a change that `history` shows
    AcceptChange(accept_change::Flags),
    /// Report every mistake in targets.toml, devices/ and models/
    Check,
    /// Make targets buildable on this host
    Setup(setup::Flags),
    /// Build the runner for a target
    Build(build::Flags),
    /// Boot, stop and list emulated boards
    #[command(subcommand)]
    Board(board::Action),
    /// Check that Espalier keeps its own promises
    #[command(subcommand)]
    Selftest(selftest::Test),
}

impl Command {
    /// # Errors
    /// What went wrong, with its exit code where that is not 1.
    pub fn run(self) -> Result<ExitStatus> {
        match self {
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
            Command::History(flags) => history::run(flags),
            Command::AcceptChange(flags) => accept_change::run(flags),
            Command::Check => check::run(),
            Command::Setup(flags) => setup::run(flags),
            Command::Build(flags) => build::run(flags),
            Command::Board(action) => board::run(action),
            Command::Selftest(test) => selftest::run(test),
        }
    }
}
