//! A mistake in a file a person wrote: where it is, what it is, and what was probably meant.
//!
//! Columns count characters, not bytes, as editors do. The offending line is kept with the problem, so that it can be shown without the file.

use std::{fmt, ops::Range};

/// One file a person wrote, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// From the repository's root, with `/`, e.g. `devices/pi4.toml`.
    pub path: String,
    pub text: String,
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    /// For a file straight from the disk.
    ///
    /// # Errors
    /// Where the bytes are no UTF-8, which TOML must be.
    pub fn from_bytes(path: impl Into<String>, bytes: Vec<u8>) -> Result<SourceFile, Problem> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(SourceFile::new(path, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let lossy = SourceFile::new(path, String::from_utf8_lossy(error.as_bytes()));
                Err(Problem::new(&lossy, valid..valid + 1, "not UTF-8 text".into(), None))
            }
        }
    }

    /// The file's name without folder and `.toml`, if it has such a name.
    pub fn stem(&self) -> Option<&str> {
        self.path.rsplit('/').next()?.strip_suffix(".toml")
    }

    /// What is before the file's name: empty or ending in `/`.
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
    /// Characters at fault, at least 1, all on this line.
    pub width: usize,
    pub message: String,
    /// Text to put in the place of what is there.
    pub suggestion: Option<String>,
    /// The whole line at fault.
    pub source_line: String,
}

impl Problem {
    /// `span` is in bytes of the text; it may point anywhere, the position lies in the file.
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

    /// The problem, the line and a caret below what is at fault: four lines without a newline at the end.
    pub fn with_source(&self) -> String {
        let gutter = " ".repeat(self.line.to_string().len());
        // A tab stays a tab below itself, whatever its width on the screen.
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

/// One character for one character, none of which moves the cursor of a terminal.
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
        // A span over lines is cut at the end of the first, one behind the end lies on the last.
        check("a = [\n1]", 4..8, "f.toml:1:5: wrong\n  |\n1 | a = [\n  |     ^");
        check("a\n", 2..2, "f.toml:2:1: wrong\n  |\n2 | \n  | ^");
        check("a", 90..95, "f.toml:1:2: wrong\n  |\n1 | a\n  |  ^");
        check("\u{feff}a", 3..4, "f.toml:1:1: wrong\n  |\n1 | a\n  | ^");
    }

    #[test]
    fn nothing_reaches_the_terminal_unprinted() {
        check("a\u{1b}[2J", 0..1, "f.toml:1:1: wrong\n  |\n1 | a\u{fffd}[2J\n  | ^");
    }

    #[test]
    fn a_file_that_is_no_text() {
        let problem = SourceFile::from_bytes("devices/a.toml", b"x = 1\ny = \xff".to_vec()).unwrap_err();
        assert_eq!(problem.to_string(), "devices/a.toml:2:5: not UTF-8 text");
    }
}
