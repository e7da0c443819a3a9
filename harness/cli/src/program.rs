//! Which program this is: `cargo xtask` in the repository, or an installed `espalier`. Both have the same commands; they
//! differ in what messages call them, in where files are looked for, and in how they are built once more with SSH.

use std::{borrow::Cow, sync::OnceLock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// What a person types before the name of a command.
    pub call: &'static str,
    pub package: &'static str,
    pub binary: &'static str,
    /// Whether the repository it was built from stands in where no folder above has a `targets.toml`.
    pub is_developers: bool,
}

static CURRENT: OnceLock<Program> = OnceLock::new();

impl Program {
    pub const XTASK: Program = Program { call: "cargo xtask", package: "xtask", binary: "xtask", is_developers: true };
    pub const ESPALIER: Program =
        Program { call: "espalier", package: "espalier-cli", binary: "espalier", is_developers: false };

    /// The one that runs; `cargo xtask` where nobody said.
    pub fn current() -> Program {
        *CURRENT.get().unwrap_or(&Program::XTASK)
    }

    /// Has to be called first; later calls change nothing.
    pub(crate) fn is_current(self) {
        let _ = CURRENT.set(self);
    }

    /// A message of the libraries, which name commands as `cargo xtask …`, as this program's user types them.
    pub fn text(self, message: &str) -> Cow<'_, str> {
        if self == Program::XTASK {
            Cow::Borrowed(message)
        } else {
            Cow::Owned(message.replace(Program::XTASK.call, self.call))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_program_that_runs() {
        let message = "`cargo xtask check` shows them";
        assert_eq!(Program::XTASK.text(message), message);
        assert_eq!(Program::ESPALIER.text(message), "`espalier check` shows them");
    }
}
