//! A mistake in a file: its position, its message, and a suggestion.
//!
//! Columns count characters, not bytes. A problem keeps its line, so that it can be shown without the file.

use std::{fmt, ops::Range};

/// One file and its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// From the root, with `/`, e.g. `devices/pi4.toml`.
    pub path: String,
    pub text: String,
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    /// The file's name without folder and `.toml`; `None` for other names.
    pub fn stem(&self) -> Option<&str> {
        self.path.rsplit('/').next()?.strip_suffix(".toml")
    }

    /// The path before the file's name: empty or ending in `/`.
    pub(super) fn folder(&self) -> &str {
        &self.path[..self.path.rfind('/').map_or(0, |slash| slash + 1)]
    }
}

/// Shown as `file:line:column: message; did you mean …?`, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Number of wrong characters on this line, at least 1.
    pub width: usize,
    pub message: String,
    /// Text to write instead.
    pub suggestion: Option<String>,
    /// The complete line.
    pub source_line: String,
}

impl Problem {
    /// `span` is in bytes of the text. It is clamped to the text.
    pub(super) fn new(source: &SourceFile, span: Range<usize>, message: String, suggestion: Option<String>) -> Problem {
        let text = &source.text;
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = text.ceil_char_boundary(span.end).clamp(start, line_end);
        let source_line = text[line_start..line_end].trim_end_matches('\r').trim_start_matches('\u{feff}');
        Problem {
            file: source.path.clone(),
            line: 1 + text[..start].matches('\n').count(),
            column: 1 + text[line_start..start].trim_start_matches('\u{feff}').chars().count(),
            width: text[start..end].chars().count().max(1),
            message,
            suggestion,
            source_line: source_line.to_owned(),
        }
    }

    /// The problem, its line, and carets below the wrong characters: four lines without a final line break.
    pub fn with_source(&self) -> String {
        let gutter = " ".repeat(self.line.to_string().len());
        // Tabs are kept, so that carets line up whatever the width of a tab.
        let before = self.source_line.chars().take(self.column - 1);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let line = printable(&self.source_line);
        format!("{self}\n{gutter} |\n{} | {line}\n{gutter} | {indent}{}", self.line, "^".repeat(self.width))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, message, .. } = self;
        write!(f, "{file}:{line}:{column}: {}", printable(message))?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{}`?", printable(suggestion))?;
        }
        Ok(())
    }
}

/// Replaces each character that would move a terminal's cursor by one that does not.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, span: Range<usize>, expected: &str) {
        let problem = Problem::new(&SourceFile::new("f.toml", text), span, "wrong".into(), None);
        assert_eq!(problem.with_source(), expected);
    }

    #[test]
    fn points_at_characters_of_one_line() {
        check("a = 1\nb = \"x\"\n", 10..13, "f.toml:2:5: wrong\n  |\n2 | b = \"x\"\n  |     ^^^");
        check("ä = é\r\n", 5..7, "f.toml:1:5: wrong\n  |\n1 | ä = é\n  |     ^");
        check("\tb\t= 1\n", 5..6, "f.toml:1:6: wrong\n  |\n1 | \tb\t= 1\n  | \t \t  ^");
        // A span over several lines is cut at the end of the first; one past the end is on the last line.
        check("a = [\n1]", 4..8, "f.toml:1:5: wrong\n  |\n1 | a = [\n  |     ^");
        check("a\n", 2..2, "f.toml:2:1: wrong\n  |\n2 | \n  | ^");
        check("a", 90..95, "f.toml:1:2: wrong\n  |\n1 | a\n  |  ^");
        check("\u{feff}a", 3..4, "f.toml:1:1: wrong\n  |\n1 | a\n  | ^");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        check("a\u{1b}[2J", 0..1, "f.toml:1:1: wrong\n  |\n1 | a\u{fffd}[2J\n  | ^");
    }
}
