//! The history's two files: `reports/history.jsonl`, which the gate adds to with [`append`], and `reports/changes.toml`, which `accept-change` adds to.

use std::path::Path;

use anyhow::{Context as _, Result};
use espalier_gate::{
    Criterion,
    history::{self, Change, History, Night, changes, night, render},
};
use espalier_inventory::{Problem, SourceFile, UnknownName};

use crate::{
    context::{Context, usage},
    run_file,
};

/// One line a criterion, case and gate.
pub const NIGHTS: &str = "reports/history.jsonl";
/// What people said of change points.
pub const CHANGES: &str = "reports/changes.toml";

/// One line for each change that nobody answers for; none where there is no history yet.
pub fn suspects(context: &Context) -> Result<Vec<String>> {
    Ok(render::suspects(&read(&context.root)?))
}

/// Adds to the history, in one write. A last line that was cut off is taken away first: what is added to it would be lost with it.
///
/// # Errors
/// A night that no later reader could use; then nothing is added.
pub fn append(root: &Path, nights: &[Night]) -> Result<()> {
    let lines: Vec<String> =
        nights.iter().map(Night::to_line).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    run_file::append(&root.join(NIGHTS), &lines.concat())
}

/// # Errors
/// Either file is there and cannot be read, or says what cannot be.
pub fn read(root: &Path) -> Result<History> {
    Ok(history::history(&nights(root)?, &changes(root)?.1))
}

fn nights(root: &Path) -> Result<Vec<Night>> {
    let text = read_or_empty(root, NIGHTS)?;
    night::parse(&text).map_err(|error| usage(format!("`{NIGHTS}`: {error}")))
}

/// The text of the file, and what it says.
pub fn changes(root: &Path) -> Result<(String, Vec<Change>)> {
    let text = read_or_empty(root, CHANGES)?;
    let changes = parse_changes(&text)?;
    Ok((text, changes))
}

/// # Errors
/// All mistakes, one a line.
pub fn parse_changes(text: &str) -> Result<Vec<Change>> {
    changes::parse(&SourceFile::new(CHANGES, text)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        usage(format!("the answers to changes have mistakes:\n{}", lines.join("\n")))
    })
}

fn read_or_empty(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// As files have it.
pub fn criterion(text: &str) -> Result<Criterion, String> {
    let names = Criterion::ALL.map(Criterion::name);
    let found = Criterion::ALL.into_iter().find(|criterion| criterion.name() == text);
    found.ok_or_else(|| UnknownName::new("criterion", text, names.into_iter()).to_string())
}
