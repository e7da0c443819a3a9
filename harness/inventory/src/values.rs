//! Strings with a format: triples, versions, durations, fingerprints. Each function reads a text or says what is wrong.

use std::time::Duration;

use super::{Builder, Glibc, document::Wrong, names};

/// A Linux triple of rustc's. Only its form is checked: the list of `rustc --print target-list` grows.
pub fn triple(text: &str) -> Result<String, Wrong> {
    if is_linux_triple(text) {
        return Ok(text.to_owned());
    }
    let known = || COMMON_TRIPLES.iter().map(|(_, triple)| *triple);
    let debian = COMMON_TRIPLES.iter().find(|(debian, _)| *debian == text).map(|(_, triple)| *triple);
    let message = format!("`{text}` is not a Linux target of rustc's");
    Err(Wrong::new(message).suggest(debian.or_else(|| names::suggest(text, known()))))
}

/// The names of Debian and gcc, and those of rustc.
const COMMON_TRIPLES: [(&str, &str); 8] = [
    ("aarch64-linux-gnu", "aarch64-unknown-linux-gnu"),
    ("aarch64-linux-musl", "aarch64-unknown-linux-musl"),
    ("arm-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"),
    ("arm-linux-musleabihf", "armv7-unknown-linux-musleabihf"),
    ("riscv64-linux-gnu", "riscv64gc-unknown-linux-gnu"),
    ("riscv64-linux-musl", "riscv64gc-unknown-linux-musl"),
    ("x86_64-linux-gnu", "x86_64-unknown-linux-gnu"),
    ("x86_64-linux-musl", "x86_64-unknown-linux-musl"),
];

fn is_linux_triple(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let &[architecture, vendor, "linux", environment] = parts.as_slice() else { return false };
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let arm32 = architecture.starts_with("arm") || architecture.starts_with("thumb");
    let libc = environment.strip_prefix("gnu").or_else(|| environment.strip_prefix("musl"));
    plain(architecture)
        && plain(vendor)
        && plain(environment)
        // Debian's `riscv64` and plain `arm64` are not rustc's names.
        && !["riscv64", "riscv32", "arm64", "armhf", "amd64", "x86"].contains(&architecture)
        && libc.is_some_and(|abi| abi.starts_with("eabi") == arm32)
}

pub fn builder(text: &str) -> Result<Builder, Wrong> {
    choose(
        "builder",
        text,
        &[
            ("auto", Builder::Auto),
            ("cargo", Builder::Cargo),
            ("zigbuild", Builder::Zigbuild),
            ("cross", Builder::Cross),
        ],
    )
}

/// A glibc version; only 2.x is in use.
pub fn glibc(text: &str) -> Result<Glibc, Wrong> {
    let digits = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let written = text.split_once('.').is_some_and(|(major, minor)| major == "2" && digits(minor));
    let glibc = if written { Glibc::parse(text) } else { None };
    glibc.ok_or_else(|| Wrong::new(format!("`{text}` is not a version of glibc such as `2.28`")))
}

/// A CPU, or a feature without its sign.
pub fn cpu(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("`{text}` is not a CPU as `rustc --print target-cpus` names them")))
    }
}

/// `+neon` or `-sse4.2`.
pub fn feature(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix(['+', '-']) {
        Some(name) if cpu(name).is_ok() => Ok(text.to_owned()),
        None if cpu(text).is_ok() => {
            Err(Wrong::new(format!("`{text}` is neither switched on nor off")).suggest(Some(format!("+{text}"))))
        }
        _ => Err(Wrong::new(format!("`{text}` is not a CPU feature such as `+neon`"))),
    }
}

/// `500ms`, `30s`, `10min`, `2h`: an integer above 0, at most a day.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || Wrong::new(format!("`{text}` is not a duration such as `30s`, `500ms`, `10min` or `2h`"));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "" => return Err(wrong().suggest(Some(format!("{number}s")))),
        "m" | "mins" | "minute" | "minutes" => return Err(wrong().suggest(Some(format!("{number}min")))),
        "sec" | "secs" | "second" | "seconds" => return Err(wrong().suggest(Some(format!("{number}s")))),
        _ => return Err(wrong()),
    };
    match number.checked_mul(milliseconds).map(Duration::from_millis) {
        Some(Duration::ZERO) => Err(Wrong::new(format!("`{text}` is no time at all"))),
        Some(duration) if duration <= Duration::from_secs(24 * 3600) => Ok(duration),
        _ => Err(Wrong::new(format!("`{text}` is longer than a day"))),
    }
}

/// `SHA256:` and 32 bytes in base64 without padding: 43 characters, the last of which has only four bits in use.
pub fn host_key(text: &str) -> Result<String, Wrong> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    let last = |c: char| "AEIMQUYcgkosw048".contains(c);
    let fingerprint = text.strip_prefix("SHA256:").filter(|rest| rest.chars().all(base64));
    match fingerprint {
        Some(fingerprint) if fingerprint.len() == 43 && fingerprint.ends_with(last) => Ok(text.to_owned()),
        Some(fingerprint) if fingerprint.len() != 43 => Err(Wrong::new(format!(
            "`host-key` must be `SHA256:` and 43 characters, these are {}; `ssh-keygen -lf` prints it",
            fingerprint.len()
        ))),
        _ => Err(Wrong::new(
            "`host-key` must be a fingerprint as `ssh-keygen -lf` prints it: `SHA256:` and 43 characters of base64",
        )),
    }
}

/// A host's name, address or ssh alias. It becomes an argument of a command line, so it does not begin with `-`.
pub fn host(text: &str) -> Result<String, Wrong> {
    let strange = |c: char| c.is_whitespace() || c.is_control() || "/'\"`\\$;&|<>()[]{}".contains(c);
    if text.is_empty() || text.starts_with('-') || text.contains(strange) {
        Err(Wrong::new(format!("`{text}` is not a host name")))
    } else if text.contains('@') {
        Err(Wrong::new(format!("`{text}` has a user in it: that goes to `user`")))
    } else if text.split_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())) {
        Err(Wrong::new(format!("`{text}` has a port in it: that goes to `port`")))
    } else {
        Ok(text.to_owned())
    }
}

/// A user or a governor: one word.
pub fn word(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("`{text}` is not one word of letters, digits, `.`, `_` and `-`")))
    }
}

/// A governor. A name close to one of Linux's is a slip; others are accepted, since vendors' kernels have more.
pub fn governor(text: &str) -> Result<String, Wrong> {
    const LINUX: [&str; 6] = ["performance", "powersave", "userspace", "ondemand", "conservative", "schedutil"];
    match names::suggest(text, LINUX.into_iter()) {
        Some(meant) if meant != text => Err(Wrong::new(format!("unknown governor `{text}`")).suggest(Some(meant))),
        _ => word(text),
    }
}

/// An absolute path of a folder that may be filled and emptied.
pub fn folder(key: &str, text: &str) -> Result<String, Wrong> {
    let trimmed = text.trim_end_matches('/');
    if !text.starts_with('/') {
        Err(Wrong::new(format!("`{key}` must be an absolute path on the board, `{text}` is not")))
    } else if trimmed.is_empty() || trimmed.split('/').any(|part| part == ".." || part == ".") {
        Err(Wrong::new(format!("`{key}` must be a folder of its own, `{text}` is not")))
    } else if text.contains(char::is_control) {
        Err(Wrong::new(format!("`{key}` must not have control characters in it")))
    } else {
        Ok(trimmed.to_owned())
    }
}

/// A text that is not empty; `what` begins the message, e.g. `the path`.
pub fn filled(what: &str, text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains('\0') {
        Err(Wrong::new(format!("{what} must not be empty")))
    } else {
        Ok(text.to_owned())
    }
}

/// One of a closed set of names.
pub fn choose<T: Copy>(what: &str, text: &str, known: &[(&str, T)]) -> Result<T, Wrong> {
    match known.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => Err(Wrong::unknown(what, text, known.iter().map(|(name, _)| *name))),
    }
}
