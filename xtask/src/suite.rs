//! `cargo xtask test`: sets up what the tests need, and runs them all.

use anyhow::Result;
use clap::Args;
use espalier_bench::exit::ExitStatus;

#[derive(Args)]
pub struct Flags {}

pub fn run(_flags: Flags) -> Result<ExitStatus> {
    todo!()
}
