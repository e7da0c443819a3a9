//! Files of JSON lines that only grow.

/// A line for each value. A last line that was cut off (the host lost power while writing) is dropped.
///
/// # Errors
/// Any other line that `parse` refuses, by its number.
pub fn parse<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let last = text.lines().count();
    let mut values = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match parse(line) {
            Ok(value) => values.push(value),
            Err(_) if index + 1 == last && !text.ends_with('\n') => {}
            Err(error) => return Err(format!("line {}: {error}", index + 1)),
        }
    }
    Ok(values)
}

/// [`parse`] for lines that serde reads.
pub fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    parse(text, |line| serde_json::from_str(line).map_err(|error| error.to_string()))
}

/// With the line break.
pub fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings and finite numbers always encode") + "\n"
}
