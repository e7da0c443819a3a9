//! What the exit code of every `cargo xtask` command says. One table, so that scripts and gates can rely on it.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Everything that was asked for was done.
    #[default]
    Ok = 0,
    /// Something could not be done for a reason that has no code of its own: a build, a job, a test.
    Failed = 1,
    /// The command line or a file a person writes is wrong; nothing was done.
    Usage = 2,
    /// A comparison found a variant worse than its baseline, or outside its budget.
    Regression = 3,
    /// Nothing is known to be worse, but too little was measured to say so, or nothing was compared.
    Inconclusive = 4,
    /// A device could not be reached, or broke while it was in use.
    Device = 5,
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status.code())
    }
}
