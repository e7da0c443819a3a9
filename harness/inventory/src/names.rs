//! Names of targets, devices and models: which are valid, and which is probably meant by an unknown one.

use std::fmt;

/// An unknown name, with what helps to find the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// `device`, `model` or `target`.
    pub kind: &'static str,
    pub name: String,
    pub suggestion: Option<String>,
    pub known: Vec<String>,
}

impl UnknownName {
    pub fn new<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> UnknownName {
        UnknownName {
            kind,
            name: name.to_owned(),
            suggestion: suggest(name, known.clone()).map(str::to_owned),
            known: known.map(str::to_owned).collect(),
        }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} `{}`", self.kind, self.name.escape_debug())?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        match self.known.as_slice() {
            [] => write!(f, " (there is no {} yet)", self.kind),
            known => write!(f, " (known: {})", list(known.iter().map(String::as_str))),
        }
    }
}

impl std::error::Error for UnknownName {}

/// The known name that was probably meant: at most a third of it (and three characters) differs, or it alone contains
/// `name`.
pub fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    // The cost of a comparison grows with the product of both lengths, and no name is that long.
    if length > 100 {
        return None;
    }
    let mut nearest: Option<(usize, &str)> = None;
    let mut containing = Vec::new();
    for candidate in known {
        let lower = candidate.to_lowercase();
        // A transposition of neighbours counts 1, as other slips do.
        let distance = strsim::osa_distance(&name, &lower);
        if distance <= (length / 3).min(3) && nearest.is_none_or(|(best, _)| distance < best) {
            nearest = Some((distance, candidate));
        }
        if length >= 3 && lower.contains(&name) {
            containing.push(candidate);
        }
    }
    match (nearest, containing.as_slice()) {
        (Some((_, candidate)), _) => Some(candidate),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// Names become parts of file names, flags and tables, so they need no quoting and do not begin with `-` or `.`.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    name.chars().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 64
}

/// The message for a name that [`is_name`] refuses.
pub fn ill_name(kind: &str, name: &str) -> String {
    format!("`{name}` cannot be a {kind}'s name: a to z, 0 to 9, `.`, `_` and `-`, a letter or digit first, at most 64")
}

/// `` `a`, `b`, `c` ``
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_close() {
        #[track_caller]
        fn check(name: &str, expected: Option<&str>) {
            let known = ["local", "pi4", "pi5", "jetson-orin-nano", "digits-cnn", "digits-mlp", "host-key"];
            assert_eq!(suggest(name, known.into_iter()), expected, "{name}");
        }
        check("locla", Some("local"));
        check("PI5", Some("pi5"));
        check("pi4b", Some("pi4"));
        check("jetson", Some("jetson-orin-nano"));
        check("host_key", Some("host-key"));
        check("digits_cnn", Some("digits-cnn"));
        // Two contain it: neither is more likely.
        check("digits", None);
        check("x", None);
        check("", None);
        check("visionfive2", None);
        check(&"pi4".repeat(100_000), None);
    }

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["pi4", "jetson-orin-nano", "virt-riscv64", "2.4ghz_box"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-d", "Pi4", "a b", "a/b", "ä", "a\n", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_name_says_what_there_is() {
        let error = UnknownName::new("device", "pi44", ["local", "pi4"].into_iter());
        assert_eq!(error.to_string(), "unknown device `pi44`; did you mean `pi4`? (known: `local`, `pi4`)");
        let error = UnknownName::new("model", "x", [].into_iter());
        assert_eq!(error.to_string(), "unknown model `x` (there is no model yet)");
    }
}
