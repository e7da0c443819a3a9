//! Errors that have an exit code of their own. All others mean [`ExitStatus::Failed`].

use std::fmt::{self, Display};

use espalier_bench::exit::ExitStatus;

#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub message: String,
}

impl Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// An error in flags or files.
pub fn usage(message: impl Display) -> anyhow::Error {
    anyhow::Error::new(Exit { status: ExitStatus::Usage, message: message.to_string() })
}

pub fn status_of(error: &anyhow::Error) -> ExitStatus {
    error.downcast_ref::<Exit>().map_or(ExitStatus::Failed, |exit| exit.status)
}
