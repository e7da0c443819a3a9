//! `bench`: builds runners, prunes models, measures on every selected device, and prints the table.

use anyhow::Result;
use espalier_bench::exit::ExitStatus;

use crate::context::Context;
pub use crate::measuring::Request as Flags;

pub fn run(flags: Flags) -> Result<ExitStatus> {
    flags.run(Context::open()?)
}
