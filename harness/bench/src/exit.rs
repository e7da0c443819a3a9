//! The exit codes of every command. One table, so that scripts and gates can rely on it.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Everything requested was done.
    #[default]
    Ok = 0,
    /// Something failed that has no code of its own: a build, a job, a test.
    Failed = 1,
    /// The command line or a file a person writes is wrong; nothing was done.
    Usage = 2,
    /// A comparison found a variant worse than its baseline, or outside its budget.
    Regression = 3,
    /// Nothing is known to be worse, but too little was measured to conclude that, or nothing was compared.
    Inconclusive = 4,
    /// A device could not be reached, or broke while it was in use.
    Device = 5,
    /// Whoever read the output has closed the pipe: 128 and the number of SIGPIPE, as a shell shows that signal.
    ClosedPipe = 141,
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn name(self) -> &'static str {
        match self {
            ExitStatus::Ok => "ok",
            ExitStatus::Failed => "failed",
            ExitStatus::Usage => "usage or configuration",
            ExitStatus::Regression => "regression",
            ExitStatus::Inconclusive => "inconclusive",
            ExitStatus::Device => "device unreachable or broken",
            ExitStatus::ClosedPipe => "the reader of the output has gone",
        }
    }

    /// The status of two parts of one command: what is proved or broken outweighs what is merely unknown.
    pub fn and(self, other: ExitStatus) -> ExitStatus {
        let rank = |status: ExitStatus| match status {
            ExitStatus::Ok => 0,
            ExitStatus::Inconclusive => 1,
            ExitStatus::ClosedPipe => 2,
            ExitStatus::Failed => 3,
            ExitStatus::Usage => 4,
            ExitStatus::Device => 5,
            ExitStatus::Regression => 6,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status.code())
    }
}
