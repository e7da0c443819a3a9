//! The history's two files: `reports/history.jsonl`, which the gate adds to with [`append`], and
//! `reports/changes.toml`, which `accept-change` adds to.

use std::path::Path;

use anyhow::Result;
use espalier_gate::{
    Criterion,
    history::{self, Change, History, HistoryEntry, changes, entry, render},
};
use espalier_inventory::{SourceFile, UnknownName};

use crate::{
    context::{Context, mistakes, usage},
    run_file,
};

/// One line a criterion, case and gate.
pub const HISTORY: &str = "reports/history.jsonl";
/// Acknowledged change points.
pub const CHANGES: &str = "reports/changes.toml";

/// One line for each open change; none where there is no history yet.
pub fn suspects(context: &Context) -> Result<Vec<String>> {
    Ok(render::suspects(&read(context)?))
}

/// Adds to the history, in one write.
///
/// # Errors
/// An entry that could not be read again; then nothing is added.
pub fn append(root: &Path, entries: &[HistoryEntry]) -> Result<()> {
    let lines: Vec<String> =
        entries.iter().map(HistoryEntry::to_line).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    run_file::append(&root.join(HISTORY), &lines.concat())
}

/// # Errors
/// Either file cannot be read or has mistakes.
pub fn read(context: &Context) -> Result<History> {
    let text = context.source(HISTORY)?.map(|source| source.text).unwrap_or_default();
    let entries = entry::parse(&text).map_err(|error| usage(format!("`{HISTORY}`: {error}")))?;
    Ok(history::history(&entries, &parse_changes(&changes(context)?)?))
}

/// Empty where there is no file.
pub fn changes(context: &Context) -> Result<SourceFile> {
    Ok(context.source(CHANGES)?.unwrap_or_else(|| SourceFile::new(CHANGES, "")))
}

/// # Errors
/// All mistakes, one a line.
pub fn parse_changes(source: &SourceFile) -> Result<Vec<Change>> {
    changes::parse(source).map_err(|problems| mistakes("the acknowledged changes have", &problems))
}

/// As files have it.
pub fn criterion(text: &str) -> Result<Criterion, String> {
    let unknown = || UnknownName::new("criterion", text, Criterion::ALL.map(Criterion::name).into_iter()).to_string();
    Criterion::named(text).ok_or_else(unknown)
}
