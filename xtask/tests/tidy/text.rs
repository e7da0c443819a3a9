//! What every file looks like: the width of lines, the length of functions, the words of identifiers.

use crate::{
    code::{functions, identifiers, production, words_of},
    read, rust_files, tracked_files,
};

/// No line of a text file is longer, in characters.
const WIDTH: usize = 120;
/// No function of production code is longer, from its `fn` to its closing brace, in lines.
const LENGTH: usize = 80;

/// Text that nobody writes by hand.
const GENERATED: [&str; 2] = ["Cargo.lock", "harness/onnx/src/model.rs"];
/// Ends of files that are text.
const TEXT: [&str; 10] = [".rs", ".toml", ".md", ".py", ".sh", ".yml", ".service", ".timer", ".ci/run", ".gitignore"];

/// Functions that may be longer, as `file: name`, each with its reason.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];

/// Words that are not in identifiers, and what is used instead. A word that ends with a slash and a path is left out
/// only there.
const WORDS: [(&str, &str); 16] = [
    ("anatomy", "dependency graph"),
    ("asked", "request or options"),
    ("course", "schedule"),
    ("exam", "validation"),
    ("grade", "score"),
    ("hopeless", "skip list"),
    ("learner", "student"),
    ("lesson", "step"),
    ("night", "history entry"),
    ("pupil", "student"),
    ("settle", "fixpoint"),
    ("stranger", "untrusted"),
    ("teach", "fine-tune"),
    ("tell", "report or format"),
    ("told", "message or report"),
    ("wanted", "what it is"),
];

#[test]
fn lines_are_narrow() {
    let mut wide = Vec::new();
    for path in tracked_files() {
        if GENERATED.contains(&&*path) || !TEXT.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        let is_markdown = path.ends_with(".md");
        let mut fenced = false;
        for (number, line) in read(&path).lines().enumerate() {
            fenced ^= is_markdown && line.trim_start().starts_with("```");
            // Rows of tables cannot be wrapped, and what a program printed is shown as it was.
            let free = is_markdown && (fenced || line.trim_start().starts_with('|'));
            let width = line.chars().count();
            if width > WIDTH && !free {
                wide.push(format!("{path}:{}: {width}", number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines have more than {WIDTH} columns: {wide:#?}", wide.len());
}

#[test]
fn functions_are_short() {
    let (mut seen, mut long) = (0, Vec::new());
    for (path, text) in production_files() {
        for function in functions(&text) {
            seen += 1;
            let name = format!("{path}: {}", function.name);
            if function.lines > LENGTH && !LONG_FUNCTIONS.iter().any(|(long, _)| *long == name) {
                long.push(format!("{path}:{}: {} has {} lines", function.first, function.name, function.lines));
            }
        }
    }
    assert!(seen > 1500, "functions are not found any more: {seen}");
    assert!(long.is_empty(), "functions of more than {LENGTH} lines: {long:#?}");
}

#[test]
fn identifiers_use_the_fields_words() {
    let mut found = Vec::new();
    for (path, text) in production_files() {
        for (number, identifier) in identifiers(&text) {
            for (word, instead) in WORDS {
                if words_of(&identifier).any(|part| part == word) {
                    found.push(format!("{path}:{number}: {identifier} (rather {instead})"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} identifiers: {found:#?}", found.len());
}

/// Rust files that are shipped, without their unit tests.
fn production_files() -> impl Iterator<Item = (String, String)> {
    let shipped = |path: &str| {
        let source = path.starts_with("harness/") || path.starts_with("xtask/");
        source && path.contains("/src/") && !path.ends_with("tests.rs") && !GENERATED.contains(&path)
    };
    let files = rust_files().into_iter().filter(move |(path, _)| shipped(path));
    files.map(|(path, text)| (path, production(&text).to_owned()))
}
