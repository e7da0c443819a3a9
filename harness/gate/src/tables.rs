//! Committed files of tables that people edit, such as `[[waiver]]`: every mistake at once, with its place.

use espalier_bench::record::Case;
use espalier_inventory::{
    Problem, SourceFile,
    document::{Document, Table, Wrong},
};

use crate::{Criterion, date::Date};

/// The tables of a key. `read` gets a table and those before it, and returns `None` where a field is missing or wrong;
/// the document then has a problem.
///
/// # Errors
/// Every mistake in the file, from top to bottom.
pub fn parse<T>(
    source: &SourceFile,
    key: &'static str,
    read: impl Fn(Table<'_, '_>, &[T]) -> Option<T>,
) -> Result<Vec<T>, Vec<Problem>> {
    let (document, root) = Document::open(source, None);
    let mut root = document.root(root);
    let mut all: Vec<T> = Vec::new();
    for value in root.take(key).map(|value| value.items("tables")).unwrap_or_default() {
        let Some(table) = value.table() else { continue };
        all.extend(read(table, &all));
    }
    root.close();
    let problems = document.into_problems();
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

/// A required field.
pub fn field<T>(
    table: &mut Table<'_, '_>,
    key: &'static str,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<T> {
    table.require(key, &format!("\"{example}\""))?.parse(parse)
}

/// An optional field: the outer `None` where it is wrong, because wrong is not absent.
pub fn optional<T>(
    table: &mut Table<'_, '_>,
    key: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<Option<T>> {
    table.take(key).map_or(Some(None), |value| value.parse(parse).map(Some))
}

pub fn case(text: &str) -> Result<Case, Wrong> {
    Case::parse(text).map_err(Wrong::new)
}

pub fn criterion(text: &str) -> Result<Criterion, Wrong> {
    one_of("criterion", text, &Criterion::ALL.map(|criterion| (criterion.name(), criterion)))
}

pub fn one_of<T: Copy>(what: &str, text: &str, known: &[(&str, T)]) -> Result<T, Wrong> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| Wrong::unknown(what, text, known.iter().map(|(name, _)| *name)))
}

pub fn filled(key: &str, text: &str) -> Result<String, Wrong> {
    match text.trim() {
        "" => Err(Wrong::new(format!("`{key}` is empty: fill it in for whoever reads the report"))),
        text => Ok(text.to_owned()),
    }
}

pub fn day(text: &str) -> Result<Date, Wrong> {
    Date::parse(text).ok_or_else(|| Wrong::new(format!("`{text}` is no day such as `2026-12-31`")))
}
