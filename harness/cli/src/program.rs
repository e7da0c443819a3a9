//! Which program this is: `cargo xtask` in the repository, or an installed `espalier`. Both have the same commands.
//! They differ in their name in messages, in where they look for files, and in how they are rebuilt with SSH.

use std::{borrow::Cow, sync::OnceLock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// What a person types before a command's name.
    pub call: &'static str,
    pub package: &'static str,
    pub binary: &'static str,
    /// Whether it uses the repository it was built from where no folder above has a `targets.toml`.
    pub is_developers: bool,
}

static CURRENT: OnceLock<Program> = OnceLock::new();

impl Program {
    pub const XTASK: Program = Program { call: "cargo xtask", package: "xtask", binary: "xtask", is_developers: true };
    pub const ESPALIER: Program =
        Program { call: "espalier", package: "espalier-cli", binary: "espalier", is_developers: false };

    /// The running program; `cargo xtask` in tests.
    pub fn current() -> Program {
        *CURRENT.get().unwrap_or(&Program::XTASK)
    }

    /// Makes it the running program. Only the first call has an effect.
    pub(crate) fn set_current(self) {
        let _ = CURRENT.set(self);
    }

    /// Replaces `cargo xtask`, as libraries call the program in messages, by what this program's user types.
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
