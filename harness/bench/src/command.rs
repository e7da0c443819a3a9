//! A command as data: decided here, run elsewhere, printed exactly as it runs.

use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables added to the inherited environment.
    pub env: Vec<(String, String)>,
    /// The program, then its arguments.
    pub argv: Vec<String>,
}

impl CommandLine {
    pub fn new(program: impl Into<String>) -> CommandLine {
        CommandLine { env: Vec::new(), argv: vec![program.into()] }
    }

    pub fn arg(mut self, arg: impl Into<String>) -> CommandLine {
        self.argv.push(arg.into());
        self
    }

    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> CommandLine {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> CommandLine {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// Quoted for a POSIX shell.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (name, value) in &self.env {
            write!(f, "{space}{name}={}", shell_quote(value))?;
            space = " ";
        }
        for word in &self.argv {
            write!(f, "{space}{}", shell_quote(word))?;
            space = " ";
        }
        Ok(())
    }
}

/// Quotes one argument for a POSIX shell where that is necessary.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_as_a_shell_takes_it() {
        let line = CommandLine::new("cargo").args(["build", "a b", "it's", ""]).env("RUSTFLAGS", "-C x=y");
        assert_eq!(line.to_string(), r"RUSTFLAGS='-C x=y' cargo build 'a b' 'it'\''s' ''");
    }
}
