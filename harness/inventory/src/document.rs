//! Reads TOML: text in, values with their positions out, every mistake noted.
//!
//! This reads toml's spanned tree and not serde types with `deny_unknown_fields`, because those stop at the first
//! mistake. A [`Table`] returns its values key by key and remembers the keys requested. Keys left when it is closed are
//! unknown, and suggestions are made from the requested ones, so that no list of keys can go stale. A wrong value is
//! noted and read as `None`: the caller uses a default and continues, since its result is discarded when there is any
//! problem.

use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    names,
    problem::{Problem, SourceFile},
};

/// Why a value is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub suggestion: Option<String>,
}

impl Wrong {
    pub fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), suggestion: None }
    }

    pub(crate) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Wrong {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// An unknown name, with the nearest known one, or with all of them where none is near.
    pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Wrong {
        let suggestion = names::suggest(name, known.clone());
        let list = match suggestion {
            Some(_) => String::new(),
            None => format!(" (known: {})", names::list(known)),
        };
        Wrong::new(format!("unknown {what} `{name}`{list}")).suggest(suggestion)
    }
}

/// The values of the environment variables in `${NAME}`.
pub(crate) type Environment<'f> = dyn Fn(&str) -> Option<String> + 'f;

/// One file that is being read.
pub struct Document<'f> {
    pub source: &'f SourceFile,
    /// With it, `${NAME}` is replaced in every string.
    environment: Option<&'f Environment<'f>>,
    syntax: Vec<Problem>,
    problems: RefCell<Vec<Problem>>,
}

impl<'f> Document<'f> {
    /// The document and everything that could be read of it.
    pub fn open(
        source: &'f SourceFile,
        environment: Option<&'f Environment<'f>>,
    ) -> (Document<'f>, Spanned<DeTable<'f>>) {
        let (mut root, mut errors) = DeTable::parse_recoverable(&source.text);
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        // The parser continues at the next line, so the rest of the file is checked too. After an open bracket it
        // cannot: everything that follows is one value, and only the first error is reliable.
        if errors.iter().any(|error| {
            error.message().starts_with("unclosed array") || error.message().starts_with("unclosed inline table")
        }) {
            errors.truncate(1);
            root = Spanned::new(0..0, DeTable::new());
        }
        let syntax = errors.iter().map(|error| {
            let message = error.message().replace('\n', " ");
            Problem::new(source, error.span().unwrap_or(0..0), message, None)
        });
        let mut syntax: Vec<Problem> = syntax.collect();
        syntax.dedup_by_key(|problem| problem.line);
        (Document { source, environment, syntax, problems: RefCell::default() }, root)
    }

    pub fn root<'d>(&'d self, root: Spanned<DeTable<'f>>) -> Table<'d, 'f> {
        Table::new(self, String::new(), root.span(), root.into_inner())
    }

    /// Whether a part of the file could not be read, so that a missing key may be in that part.
    pub(crate) fn is_broken(&self) -> bool {
        !self.syntax.is_empty()
    }

    pub fn wrong(&self, span: Range<usize>, wrong: Wrong) {
        self.problems.borrow_mut().push(Problem::new(self.source, span, wrong.message, wrong.suggestion));
    }

    /// All problems, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        // The parser's substitute for an unreadable line is not worth a second message. The keys below an unreadable
        // header were added to the table above it, so that their problems are not real.
        let unreadable: Vec<Range<usize>> = self.syntax.iter().map(|problem| self.lines_lost(problem)).collect();
        let lost = |problem: &Problem| unreadable.iter().any(|lines| lines.contains(&problem.line));
        let lost_with_header = |problem: &Problem| {
            unreadable.iter().any(|lines| lines.start != problem.line && lines.contains(&problem.line))
        };
        let mut problems = self.problems.into_inner();
        problems.retain(|problem| !lost(problem));
        problems.extend(self.syntax.iter().filter(|problem| !lost_with_header(problem)).cloned());
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    /// The line of a syntax error; for a table's header all lines up to the next header.
    fn lines_lost(&self, syntax: &Problem) -> Range<usize> {
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let mut end = syntax.line + 1;
        if is_header(&syntax.source_line) {
            end += self.source.text.lines().skip(syntax.line).take_while(|line| !is_header(line)).count();
        }
        syntax.line..end
    }
}

/// A table whose values are taken one by one; [`Table::close`] checks what is left.
pub struct Table<'d, 'f> {
    document: &'d Document<'f>,
    /// As in its header, e.g. `target.pi4`; empty for the file's root.
    name: String,
    span: Range<usize>,
    entries: DeTable<'f>,
    requested: Vec<(&'static str, bool)>,
    missing: Vec<(&'static str, String)>,
}

impl<'d, 'f> Table<'d, 'f> {
    fn new(document: &'d Document<'f>, name: String, span: Range<usize>, entries: DeTable<'f>) -> Table<'d, 'f> {
        Table { document, name, span, entries, requested: Vec::new(), missing: Vec::new() }
    }

    /// The value of an optional key.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'d, 'f>> {
        let value = self.entries.remove(key);
        self.requested.push((key, value.is_some()));
        Some(self.value(key, value?))
    }

    /// The value of a required key; `example` is a value as TOML.
    pub fn require(&mut self, key: &'static str, example: &str) -> Option<Value<'d, 'f>> {
        let value = self.take(key);
        if value.is_none() {
            let place = if self.name.is_empty() { String::new() } else { format!(" in `[{}]`", self.name) };
            self.missing.push((key, format!("`{key}` is missing{place}, e.g. `{key} = {example}`")));
        }
        value
    }

    /// What is left, for tables whose keys are names people give: name, its place, value.
    pub(crate) fn drain(&mut self) -> Vec<(String, Range<usize>, Value<'d, 'f>)> {
        let entries = std::mem::take(&mut self.entries);
        let drained = entries.into_iter().map(|(key, value)| {
            let (span, key) = (key.span(), key.into_inner().into_owned());
            let value = self.value(&key, value);
            (key, span, value)
        });
        drained.collect()
    }

    /// Notes a problem of the table itself.
    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }

    /// Notes every key that was not requested, and every required key that is missing.
    pub fn close(mut self) {
        let absent = self.requested.iter().filter(|(_, present)| !present).map(|(key, _)| *key);
        let all = self.requested.iter().map(|(key, _)| *key);
        for (key, _) in &self.entries {
            let place = if self.name.is_empty() { String::new() } else { format!(" in `[{}]`", self.name) };
            let name: &str = key.get_ref();
            let wrong = match names::suggest(name, absent.clone()) {
                Some(meant) => {
                    // One mistake, not two.
                    self.missing.retain(|(key, _)| *key != meant);
                    Wrong::new(format!("unknown key `{name}`{place}")).suggest(Some(meant))
                }
                None => Wrong::new(format!("unknown key `{name}`{place} (known: {})", names::list(all.clone()))),
            };
            self.document.wrong(key.span(), wrong);
        }
        if !self.document.is_broken() {
            for (_, message) in self.missing {
                self.document.wrong(self.span.clone(), Wrong::new(message));
            }
        }
    }

    fn value(&self, key: &str, value: Spanned<DeValue<'f>>) -> Value<'d, 'f> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        Value { document: self.document, name, span: value.span(), value: value.into_inner() }
    }
}

/// The position of a value, kept after the value is read.
pub(crate) struct Place<'d, 'f> {
    document: &'d Document<'f>,
    span: Range<usize>,
}

impl Place<'_, '_> {
    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }
}

/// A value and its position. Each method reads it as one type; `None` means that a problem was noted.
pub struct Value<'d, 'f> {
    document: &'d Document<'f>,
    /// With the tables around it, e.g. `conditions.cpus`.
    name: String,
    span: Range<usize>,
    value: DeValue<'f>,
}

impl<'d, 'f> Value<'d, 'f> {
    pub(crate) fn place(&self) -> Place<'d, 'f> {
        Place { document: self.document, span: self.span.clone() }
    }

    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }

    /// A string, with variables replaced where the document has an environment.
    pub fn text(&self) -> Option<String> {
        let DeValue::String(text) = &self.value else {
            // `2.28` for `"2.28"` is the likely slip.
            let written = self.document.source.text.get(self.span.clone()).unwrap_or_default();
            let scalar = !matches!(self.value, DeValue::Array(_) | DeValue::Table(_));
            let quoted = scalar.then(|| format!("\"{written}\""));
            self.wrong(self.other_than("a string").suggest(quoted));
            return None;
        };
        match self.document.environment {
            Some(environment) => self.expand(text, environment),
            None => Some(text.clone().into_owned()),
        }
    }

    /// A string read by `parse`.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|wrong| self.wrong(wrong)).ok()
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(flag),
            _ => self.not("`true` or `false`"),
        }
    }

    /// An integer from `low` to `high`, both included.
    pub(crate) fn integer(&self, low: u32, high: u32) -> Option<u32> {
        let number = self.unsigned(&format!("from {low} to {high}"), u64::from(low)..=u64::from(high))?;
        Some(number as u32)
    }

    /// An integer from 0 on.
    pub fn count(&self) -> Option<u64> {
        self.unsigned("0 or more, and below 2^64", 0..=u64::MAX)
    }

    fn unsigned(&self, rule: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(integer) = &self.value else { return self.not("a whole number") };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        self.checked(number.filter(|number| range.contains(number)), rule)
    }

    /// A finite number for which `holds` is true; `rule` is that condition as text, e.g. `from 0 to 1`.
    pub fn number(&self, rule: &str, holds: impl FnOnce(f64) -> bool) -> Option<f64> {
        let number = match &self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64),
            _ => return self.not("a number"),
        };
        // Minus zero is zero.
        self.checked(number.filter(|number| number.is_finite() && holds(*number)), rule).map(|number| number + 0.0)
    }

    fn checked<T>(&self, value: Option<T>, rule: &str) -> Option<T> {
        if value.is_none() {
            self.wrong(Wrong::new(format!("`{}` must be {rule}", self.name)));
        }
        value
    }

    /// The values of an array; empty for anything else.
    pub fn items(self, of: &str) -> Vec<Value<'d, 'f>> {
        let DeValue::Array(items) = self.value else {
            self.wrong(self.other_than(&format!("an array of {of}")));
            return Vec::new();
        };
        let (document, name) = (self.document, self.name);
        let item = |item: Spanned<DeValue<'f>>| Value {
            document,
            name: name.clone(),
            span: item.span(),
            value: item.into_inner(),
        };
        items.into_iter().map(item).collect()
    }

    pub fn is_empty_array(&self) -> bool {
        matches!(&self.value, DeValue::Array(items) if items.is_empty())
    }

    pub(crate) fn is_flag(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn table(self) -> Option<Table<'d, 'f>> {
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.document, self.name, self.span, entries)),
            _ => self.not("a table"),
        }
    }

    fn not<T>(&self, expected: &str) -> Option<T> {
        self.wrong(self.other_than(expected));
        None
    }

    fn other_than(&self, expected: &str) -> Wrong {
        let found = match &self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        Wrong::new(format!("`{}` must be {expected}, not {found}", self.name))
    }

    /// Replaces `${NAME}` and `$$`. Any other `$` is a mistake, so that `$HOME` does not pass as plain text.
    fn expand(&self, text: &str, environment: &Environment<'_>) -> Option<String> {
        let mut expanded = Some(String::new());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (plain, from_dollar) = rest.split_at(dollar);
            let (length, value) = variable(from_dollar, environment);
            match (value, &mut expanded) {
                (Ok(value), Some(expanded)) => *expanded += &(plain.to_owned() + &value),
                (Ok(_), None) => {}
                (Err(wrong), _) => {
                    let start = text.len() - from_dollar.len();
                    self.document.wrong(self.locate(text, start..start + length), wrong);
                    expanded = None;
                }
            }
            rest = &from_dollar[length..];
        }
        expanded.map(|expanded| expanded + rest)
    }

    /// The position of a part of this string's text; that of the complete string where it is written with escapes.
    fn locate(&self, text: &str, part: Range<usize>) -> Range<usize> {
        let written = self.document.source.text.get(self.span.clone()).unwrap_or_default();
        match written.find(text) {
            Some(quote) => self.span.start + quote + part.start..self.span.start + quote + part.end,
            None => self.span.clone(),
        }
    }
}

/// The variable at the beginning of `text`: its length in bytes and its value.
fn variable(text: &str, environment: &Environment<'_>) -> (usize, Result<String, Wrong>) {
    let name_length = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with("$$") {
        return (2, Ok("$".to_owned()));
    }
    let Some(braced) = text.strip_prefix("${") else {
        let name = &text[1..1 + name_length(&text[1..])];
        let suggestion = (!name.is_empty()).then(|| format!("${{{name}}}"));
        let wrong = Wrong::new("a `$` stands for nothing without braces; a plain one is written `$$`");
        return (1 + name.len(), Err(wrong.suggest(suggestion)));
    };
    let name = &braced[..name_length(braced)];
    let length = "${".len() + name.len();
    if !braced[name.len()..].starts_with('}') {
        (length, Err(Wrong::new(format!("no `}}` behind `${{{name}`: only names of variables go there"))))
    } else if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        (length + 1, Err(Wrong::new(format!("`{name}` is no name of a variable"))))
    } else {
        let value = environment(name);
        (length + 1, value.ok_or_else(|| Wrong::new(format!("the environment variable `{name}` is not set"))))
    }
}
