//! Text that came from a board or a file, safe for a terminal, a report and JSON. An escape sequence in it could
//! rewrite what a person sees, so characters that act on a terminal are written as escapes (`\u{1b}`); nothing is
//! dropped silently. [`Text`] is such text: it cannot be made, nor read from JSON, without being cleaned.

use std::{borrow::Borrow, fmt, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text without characters that act on a terminal or hide other text. A line feed may be in it.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(String);

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(sanitise(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        // Most text is clean: no copy.
        if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) { Text(text) } else { Text(sanitise(&text)) }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

impl PartialEq<Text> for &str {
    fn eq(&self, other: &Text) -> bool {
        *self == other.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        String::deserialize(deserializer).map(Text::from)
    }
}

/// Escapes control characters and those that reorder or hide text; a tab becomes a space, `\r\n` a line feed.
pub fn sanitise(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => safe.push('\n'),
            '\t' => safe.push(' '),
            '\r' if chars.peek() == Some(&'\n') => {}
            c if c.is_control() || is_invisible(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// The same for JSON that is complete: its strings keep their values, since JSON has an escape for every character.
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_invisible(c) || (c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
            let mut units = [0; 2];
            safe.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Line and paragraph separators, zero-width characters, marks and overrides of the writing direction, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(sanitise(text), expected);
    }

    #[test]
    fn what_acts_on_a_terminal_is_written_out() {
        check("\x1b[2Jgone", r"\u{1b}[2Jgone");
        check("\u{9b}31m", r"\u{9b}31m");
        check("100%\rfake", r"100%\u{d}fake");
        check("one\r\ntwo\tthree", "one\ntwo three");
        check("abc\u{202e}fdp", r"abc\u{202e}fdp");
        check("grün, 21 °C, 速い", "grün, 21 °C, 速い");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_survives(text in any::<String>()) {
            let safe = sanitise(&text);
            prop_assert!(safe.chars().all(|c| c == '\n' || !c.is_control()));
            prop_assert_eq!(sanitise(&safe), safe);
        }

        #[test]
        fn escaped_json_has_the_same_values(text in any::<String>()) {
            let json = serde_json::to_string_pretty(&[&text, "\u{9b}31m\u{202e}\u{e0041}"]).unwrap();
            let safe = escape_json(&json);
            prop_assert_eq!(sanitise(&safe), safe.clone());
            prop_assert_eq!(&serde_json::from_str::<Vec<String>>(&safe).unwrap()[0], &text);
        }

        #[test]
        fn a_text_is_clean_however_it_was_made(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let made = [Text::from(text.as_str()), text.clone().into(), serde_json::from_str(&json).unwrap()];
            for made in made {
                prop_assert_eq!(&*made, sanitise(&text));
                prop_assert_eq!(&serde_json::from_str::<Text>(&serde_json::to_string(&made).unwrap()).unwrap(), &made);
            }
        }

        #[test]
        fn printable_text_stays(text in "[ -~\n]*") {
            prop_assert_eq!(sanitise(&text), text);
        }
    }
}
