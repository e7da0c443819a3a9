//! Whether the board is the one it should be. The rules are OpenSSH's with `StrictHostKeyChecking yes`: no unknown key
//! is accepted, and an unexpected one is refused with both fingerprints.
//!
//! A server has several keys and shows the one whose algorithm the client lists first, so known algorithms are listed
//! first. The lines are read here, one by one, because libssh2 gives up on a file at the first line it cannot parse,
//! and knows neither wildcards nor negations; it compares hashed names.

use std::{fs, path::PathBuf};

use sha2::{Digest, Sha256};
use ssh2::{CheckResult, KnownHostFileKind, Session};

use crate::base64;

/// Algorithms of host keys, in groups that use one key each; no certificates.
pub(super) const KINDS: [&str; 5] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512,rsa-sha2-256,ssh-rsa",
];

/// A public key as SSH sends it.
pub(super) type KeyBlob = Vec<u8>;

/// The entries of known_hosts files for one host.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub keys: Vec<KeyBlob>,
    /// Revoked for the host, each with the file that revokes it.
    pub revoked: Vec<(KeyBlob, PathBuf)>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads the entries for `name`: a host, or `[host]:port` for other ports than 22. A missing file has none.
pub(super) fn known(session: &Session, files: &[PathBuf], name: &str) -> Result<Known, ssh2::Error> {
    let mut known = Known::default();
    for file in files {
        let Ok(text) = fs::read(file) else { continue };
        known.files.push(file.clone());
        for line in String::from_utf8_lossy(&text).lines() {
            let mut fields = line.split_whitespace();
            let first = fields.next().unwrap_or_default();
            let revoked = first == "@revoked";
            if first.is_empty() || first.starts_with('#') || (first.starts_with('@') && !revoked) {
                continue;
            }
            let Some(names) = (if revoked { fields.next() } else { Some(first) }) else { continue };
            let Some(key) = fields.nth(1).and_then(base64::decode) else { continue };
            let is_named = if names.starts_with('|') {
                let line = line.trim_start().trim_start_matches("@revoked").trim_start();
                let mut entry = session.known_hosts()?;
                let is_parsed = entry.read_str(line, KnownHostFileKind::OpenSSH).is_ok();
                is_parsed && matches!(entry.check(name, &key), CheckResult::Match)
            } else {
                is_among(names, name)
            };
            match (is_named, revoked) {
                (true, true) => known.revoked.push((key, file.clone())),
                (true, false) => known.keys.push(key),
                (false, _) => {}
            }
        }
    }
    Ok(known)
}

/// Whether a list of patterns names a host, as in ssh_config(5): separated by commas, `*` and `?` are wildcards, and
/// one with `!` before it that matches excludes the host, whatever the others say.
fn is_among(patterns: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    let mut found = false;
    for pattern in patterns.split(',') {
        let (pattern, negated) = match pattern.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        if matches_pattern(pattern.to_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last `*` was, and how much of the name it has taken so far.
    let (mut at, mut star, mut index) = (0, None, 0);
    while index < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, index));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[index] => {
                at += 1;
                index += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                index = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// [`KINDS`] as libssh2 takes them, those of `keys` first.
pub(super) fn preference(keys: &[KeyBlob]) -> String {
    let is_known = |kind: &&str| keys.iter().filter_map(|key| kind_of(key)).any(|known| known == *kind);
    let (mut first, rest): (Vec<&str>, Vec<&str>) = KINDS.iter().partition(|kind| is_known(kind));
    first.extend(rest);
    first.join(",")
}

/// Which of [`KINDS`] a key is of: its name is the first string in it.
pub(super) fn kind_of(key: &[u8]) -> Option<&'static str> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    let name = std::str::from_utf8(key.get(4..4 + length)?).ok()?;
    KINDS.into_iter().find(|kind| kind.split(',').any(|algorithm| algorithm == name))
}

/// As `ssh-keygen -lf` prints it, e.g. `SHA256:jSGV…`.
pub(super) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", base64::encode(&Sha256::digest(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    /// GitHub's published key and fingerprint.
    #[test]
    fn fingerprints_are_as_ssh_keygen_prints_them() {
        let key = base64::decode(ED25519).unwrap();
        assert_eq!(fingerprint(&key), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(kind_of(&key), Some("ssh-ed25519"));
        assert_eq!(kind_of(b"\0\0\0\x09abc"), None);
    }

    /// Answers of OpenSSH's `ssh-keygen -F`.
    #[test]
    fn patterns_are_as_in_openssh() {
        for (patterns, name, expected) in [
            ("pi4,192.168.1.7", "192.168.1.7", true),
            ("PI4.Local", "pi4.local", true),
            ("*.example.org", "pi4.example.org", true),
            ("*.example.org", "example.org", false),
            ("192.168.1.*", "192.168.1.77", true),
            ("192.168.1.?", "192.168.1.77", false),
            ("*.lab,!secret.lab", "pi4.lab", true),
            ("*.lab,!secret.lab", "secret.lab", false),
            ("!secret.lab,*.lab", "secret.lab", false),
            ("!pi4", "pi5", false),
            ("*", "[10.0.0.1]:2222", true),
            ("[10.0.0.*]:2222", "[10.0.0.1]:2222", true),
            ("10.0.0.1", "[10.0.0.1]:2222", false),
            ("", "pi4", false),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
        ] {
            assert_eq!(is_among(patterns, name), expected, "{patterns} {name}");
        }
    }

    #[test]
    fn known_kinds_come_first() {
        let rsa = b"\0\0\0\x07ssh-rsa".to_vec();
        assert!(preference(&[rsa]).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-rsa,ssh-ed25519"));
        assert!(preference(&[]).starts_with("ssh-ed25519,"));
    }
}
