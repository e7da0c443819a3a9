//! The door: TOML text in, values with positions out, every mistake noted on the way.
//!
//! This reads toml's spanned tree directly and not through serde types with `deny_unknown_fields`: those stop at the first mistake, and all are wanted
//! at once. A [`Table`] hands out its values key by key and remembers which keys were asked for; what is left when it is closed is unknown, and the
//! keys asked for are what suggestions are made from, so that no list of keys can go stale. A value that is wrong is noted and read as `None`: the
//! caller puts a default in its place and goes on, because what it builds is thrown away when there is any problem.

use std::{cell::RefCell, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    names,
    problem::{Problem, SourceFile},
};

/// What a value should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub suggestion: Option<String>,
}

impl Wrong {
    pub fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), suggestion: None }
    }

    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Wrong {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// A name that is none of the known: with the nearest one, or with all where none is near.
    pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Wrong {
        let suggestion = names::suggest(name, known.clone());
        let list = match suggestion {
            Some(_) => String::new(),
            None => format!(" (known: {})", names::list(known)),
        };
        Wrong::new(format!("unknown {what} `{name}`{list}")).suggest(suggestion)
    }
}

/// Values of variables that `${NAME}` stands for.
pub type Environment<'f> = dyn Fn(&str) -> Option<String> + 'f;

/// One file while it is read.
pub struct Document<'f> {
    pub source: &'f SourceFile,
    /// Where it is given, `${NAME}` is replaced in every string.
    environment: Option<&'f Environment<'f>>,
    syntax: Vec<Problem>,
    problems: RefCell<Vec<Problem>>,
}

impl<'f> Document<'f> {
    /// The document, and all that could be read of it.
    pub fn open(
        source: &'f SourceFile,
        environment: Option<&'f Environment<'f>>,
    ) -> (Document<'f>, Spanned<DeTable<'f>>) {
        let (mut root, mut errors) = DeTable::parse_recoverable(&source.text);
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        // The parser takes up again at the next line, so the rest of the file is checked too. Not so behind an open bracket, which makes one value of
        // all that follows: then the first error is the only one to trust.
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

    /// Whether parts of the file could not be read, so that what seems missing may be there.
    pub fn is_broken(&self) -> bool {
        !self.syntax.is_empty()
    }

    pub fn wrong(&self, span: Range<usize>, wrong: Wrong) {
        self.problems.borrow_mut().push(Problem::new(self.source, span, wrong.message, wrong.suggestion));
    }

    /// Everything noted, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        // What the parser made up for an unreadable line is not worth a second complaint; and the keys below an unreadable header went to the table
        // above it, so that nothing true can be said of them.
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

    /// The line of a syntax error; where that is a table's header, all up to the next header.
    fn lines_lost(&self, syntax: &Problem) -> Range<usize> {
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let mut end = syntax.line + 1;
        if is_header(&syntax.source_line) {
            end += self.source.text.lines().skip(syntax.line).take_while(|line| !is_header(line)).count();
        }
        syntax.line..end
    }
}

/// A table of which values are taken one by one; closed by [`Table::close`].
pub struct Table<'d, 'f> {
    document: &'d Document<'f>,
    /// As it is written in its header, e.g. `target.pi4`; empty for the whole file.
    name: String,
    span: Range<usize>,
    entries: DeTable<'f>,
    asked: Vec<(&'static str, bool)>,
    missing: Vec<(&'static str, String)>,
}

impl<'d, 'f> Table<'d, 'f> {
    fn new(document: &'d Document<'f>, name: String, span: Range<usize>, entries: DeTable<'f>) -> Table<'d, 'f> {
        Table { document, name, span, entries, asked: Vec::new(), missing: Vec::new() }
    }

    /// The value of a key, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'d, 'f>> {
        let value = self.entries.remove(key);
        self.asked.push((key, value.is_some()));
        Some(self.value(key, value?))
    }

    /// The same for a key that must be there; `example` is a value as it would be written.
    pub fn require(&mut self, key: &'static str, example: &str) -> Option<Value<'d, 'f>> {
        let value = self.take(key);
        if value.is_none() {
            let place = if self.name.is_empty() { String::new() } else { format!(" in `[{}]`", self.name) };
            self.missing.push((key, format!("`{key}` is missing{place}, e.g. `{key} = {example}`")));
        }
        value
    }

    /// What is left, for tables whose keys are names people give: name, its place, value.
    pub fn drain(&mut self) -> Vec<(String, Range<usize>, Value<'d, 'f>)> {
        let entries = std::mem::take(&mut self.entries);
        let drained = entries.into_iter().map(|(key, value)| {
            let (span, key) = (key.span(), key.into_inner().into_owned());
            let value = self.value(&key, value);
            (key, span, value)
        });
        drained.collect()
    }

    /// Of the table as a whole.
    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }

    /// Notes every key that was not asked for, and every required one that is missing.
    pub fn close(mut self) {
        let absent = self.asked.iter().filter(|(_, present)| !present).map(|(key, _)| *key);
        let all = self.asked.iter().map(|(key, _)| *key);
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

/// Where a value is, once it has been read.
pub struct Place<'d, 'f> {
    document: &'d Document<'f>,
    span: Range<usize>,
}

impl Place<'_, '_> {
    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }
}

/// A value and where it is. Each method below reads it as one type; `None` means that a problem was noted.
pub struct Value<'d, 'f> {
    document: &'d Document<'f>,
    /// With the tables around it, e.g. `conditions.cpus`.
    name: String,
    span: Range<usize>,
    value: DeValue<'f>,
}

impl<'d, 'f> Value<'d, 'f> {
    pub fn place(&self) -> Place<'d, 'f> {
        Place { document: self.document, span: self.span.clone() }
    }

    pub fn wrong(&self, wrong: Wrong) {
        self.document.wrong(self.span.clone(), wrong);
    }

    /// A string, with variables replaced where the document is given some.
    pub fn text(&self) -> Option<String> {
        let DeValue::String(text) = &self.value else {
            // `2.28` for `"2.28"` is the likely slip.
            let written = self.document.source.text.get(self.span.clone()).unwrap_or_default();
            let scalar = !matches!(self.value, DeValue::Array(_) | DeValue::Table(_));
            let quoted = scalar.then(|| format!("\"{written}\""));
            self.wrong(self.not("a string").suggest(quoted));
            return None;
        };
        match self.document.environment {
            Some(environment) => self.expand(text, environment),
            None => Some(text.clone().into_owned()),
        }
    }

    /// A string that `parse` makes something of.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|wrong| self.wrong(wrong)).ok()
    }

    pub fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(flag),
            _ => {
                self.wrong(self.not("`true` or `false`"));
                None
            }
        }
    }

    /// A whole number from `low` to `high`, both included.
    pub fn whole(&self, low: u32, high: u32) -> Option<u32> {
        let DeValue::Integer(integer) = &self.value else {
            self.wrong(self.not("a whole number"));
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (low..=high).contains(number));
        if number.is_none() {
            self.wrong(Wrong::new(format!("`{}` must be from {low} to {high}", self.name)));
        }
        number
    }

    /// A whole number from 0 on, of any size.
    pub fn count(&self) -> Option<u64> {
        let DeValue::Integer(integer) = &self.value else {
            self.wrong(self.not("a whole number"));
            return None;
        };
        let count = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if count.is_none() {
            self.wrong(Wrong::new(format!("`{}` must be 0 or more, and below 2^64", self.name)));
        }
        count
    }

    /// A number for which `holds` is true; `rule` says when it is, e.g. `from 0 to 1`. Never NaN nor infinite.
    pub fn number(&self, rule: &str, holds: impl FnOnce(f64) -> bool) -> Option<f64> {
        let number = match &self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64),
            _ => {
                self.wrong(self.not("a number"));
                return None;
            }
        };
        let number = number.filter(|number| number.is_finite() && holds(*number));
        if number.is_none() {
            self.wrong(Wrong::new(format!("`{}` must be {rule}", self.name)));
        }
        // Minus zero is zero.
        number.map(|number| number + 0.0)
    }

    /// The values of an array; none where it is no array.
    pub fn items(self, of: &str) -> Vec<Value<'d, 'f>> {
        let DeValue::Array(items) = self.value else {
            self.wrong(self.not(&format!("an array of {of}")));
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

    pub fn is_flag(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn table(self) -> Option<Table<'d, 'f>> {
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.document, self.name, self.span, entries)),
            _ => {
                self.wrong(self.not("a table"));
                None
            }
        }
    }

    fn not(&self, expected: &str) -> Wrong {
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

    /// `${NAME}` becomes the variable's value and `$$` a `$`; any other `$` is a mistake, lest `$HOME` go unnoticed.
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

    /// Where a part of this string's text is written; the whole string where escapes make the two differ.
    fn locate(&self, text: &str, part: Range<usize>) -> Range<usize> {
        let written = self.document.source.text.get(self.span.clone()).unwrap_or_default();
        match written.find(text) {
            Some(quote) => self.span.start + quote + part.start..self.span.start + quote + part.end,
            None => self.span.clone(),
        }
    }
}

/// What the text's first `$` begins: its length in bytes and what it stands for.
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
