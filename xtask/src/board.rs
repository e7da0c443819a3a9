//! `cargo xtask board`: emulated boards, for those who have none at hand, and for the tests.

use anyhow::Result;
use clap::Subcommand;
use espalier_bench::exit::ExitStatus;

#[derive(Subcommand)]
pub enum Action {
    /// Boot boards and wait until they answer
    Up { names: Vec<String> },
    /// Switch boards off
    Down { names: Vec<String> },
    /// What there is, and what runs
    List,
}

pub fn run(_action: Action) -> Result<ExitStatus> {
    todo!()
}
