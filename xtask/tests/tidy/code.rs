//! Just enough reading of Rust, as rustfmt lays it out.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Its line in the file, from 1.
    pub first: usize,
    /// From the line of its `fn` to its closing brace.
    pub lines: usize,
}

/// The text before the unit tests at its end.
pub fn production(text: &str) -> &str {
    let tests = text.match_indices("\n#[cfg(test)]\n").find(|(start, opening)| {
        // `mod tests;` is a file of its own.
        let line = text[start + opening.len()..].lines().next().unwrap_or_default();
        line.trim_start_matches("pub(crate) ").starts_with("mod ") && line.ends_with('{')
    });
    tests.map_or(text, |(start, _)| &text[..start])
}

/// Every function, found by its indentation: a body ends where a brace stands as far to the left as its `fn` does.
pub fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let (indentation, Some(name)) = (indentation(line), function_name(line)) else { continue };
        let end = lines[index..].iter().position(|line| {
            let ends = *line == format!("{}}}", " ".repeat(indentation)) || line.ends_with(';') || line.ends_with('}');
            ends && (self::indentation(line) == indentation)
        });
        if let Some(end) = end
            && lines[index + end].ends_with('}')
        {
            found.push(Function { name: name.to_owned(), first: index + 1, lines: end + 1 });
        }
    }
    found
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let qualifiers = ["pub", "const", "async", "unsafe", "extern", "\"C\"", "default"];
    let is_qualifier = |word: &str| qualifiers.contains(&word) || word.starts_with("pub(");
    if !before.split_whitespace().all(is_qualifier) {
        return None;
    }
    after.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

/// Every identifier with its line, keywords among them; not what is in comments, strings and literals.
pub fn identifiers(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code = code_alone(text);
    for (number, line) in code.lines().enumerate() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        found.extend(words.map(|word| (number + 1, word.to_owned())));
    }
    found
}

/// The words of `snake_case` and `CamelCase`, in lower case.
pub fn words_of(identifier: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    for c in identifier.chars() {
        if c == '_' || c.is_uppercase() && words.last().is_some_and(|word| word.chars().any(char::is_lowercase)) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().push(c);
        }
    }
    words.into_iter().map(|word| word.to_lowercase())
}

/// Comments, strings and characters left out, lines kept.
fn code_alone(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            end_of_string(rest)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !code.ends_with(is_word)) {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&close).map_or(rest.len(), |end| start + end + close.len())
        } else if c == '\'' {
            end_of_character(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..end].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[end..];
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The number of `#` of a raw string that begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn end_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Of a character, or of the quote that begins a lifetime.
fn end_of_character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        // The escaped one may be a quote.
        Some((_, '\\')) => rest[3..].find('\'').map_or(1, |end| end + 4),
        _ => characters.next().filter(|(_, c)| *c == '\'').map_or(1, |(index, _)| index + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_their_indentation() {
        let text = "fn one() {}\npub(crate) const fn two(\n    a: u8,\n) -> u8 {\n    if a {\n    }\n}\n\
                    trait T {\n    fn three(&self);\n\
                    \n    unsafe fn four() {\n    }\n}\nlet fn_pointer: fn (u8);\n";
        let found: Vec<_> = functions(text).into_iter().map(|found| (found.name, found.first, found.lines)).collect();
        assert_eq!(found, [("one".into(), 1, 1), ("two".into(), 2, 6), ("four".into(), 11, 2)]);
    }

    #[test]
    fn identifiers_outside_of_comments_and_strings() {
        let text =
            "// told\nlet a: &'told str = \"asked \\\" night\"; /* wild\n */ r#\"wanted\"#; '\\''; 'x'; b\"y\"; END";
        let words: Vec<_> = identifiers(text).into_iter().map(|(line, word)| format!("{line}{word}")).collect();
        assert_eq!(words, ["2let", "2a", "2told", "2str", "3b", "3END"]);
    }

    #[test]
    fn words_of_identifiers() {
        let words = |identifier| words_of(identifier).collect::<Vec<_>>().join(" ");
        assert_eq!(words("NightEntry"), "night entry");
        assert_eq!(words("all_asked_for"), "all asked for");
        assert_eq!(words("MAX_CELLS"), "max cells");
    }

    #[test]
    fn unit_tests_are_no_production_code() {
        assert_eq!(production("a\n\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
        assert_eq!(production("#[cfg(test)]\nmod tests;\n"), "#[cfg(test)]\nmod tests;\n");
    }
}
