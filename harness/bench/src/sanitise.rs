//! Makes text from a board safe for a terminal or a report. An escape sequence in it could rewrite what a person sees,
//! so characters that act on a terminal are written as escapes (`\u{1b}`); nothing is dropped silently.

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

/// Line and paragraph separators, zero-width characters, marks and overrides of the writing direction, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sanitise;

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
        fn printable_text_stays(text in "[ -~\n]*") {
            prop_assert_eq!(sanitise(&text), text);
        }
    }
}
