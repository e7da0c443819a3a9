//! Text from a board on its way to a terminal or a page: no control characters, no escape sequences.

/// Control characters (escape among them) become `\u{…}`, so that they are seen instead of obeyed.
pub fn sanitise(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}
