//! Whether the board is the one it should be. The rules are OpenSSH's with `StrictHostKeyChecking yes`: nothing unknown is accepted, and a key
//! that is not the expected one is refused with both fingerprints.
//!
//! A server has several keys and shows the one the client asks for first, so the kinds of key that are known are asked for first. libssh2 compares
//! names (hashed ones too); the lines are read here, one by one, because it gives up on a file at the first line it does not understand.

use std::{fs, path::PathBuf};

use sha2::{Digest, Sha256};
use ssh2::{CheckResult, KnownHostFileKind, Session};

/// Every kind of host key asked for, as groups that stand for one key each; certificates are not among them.
pub(super) const KINDS: [&str; 5] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512,rsa-sha2-256,ssh-rsa",
];

/// A public key as SSH sends it.
pub(super) type KeyBlob = Vec<u8>;

/// What known_hosts files say about one host.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub keys: Vec<KeyBlob>,
    /// Revoked for whatever host, and the file that says so.
    pub revoked: Vec<(KeyBlob, PathBuf)>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads what is known of `name`: a host, or `[host]:port` for other ports than 22. A file that is not there knows nothing.
pub(super) fn known(session: &Session, files: &[PathBuf], name: &str) -> Result<Known, ssh2::Error> {
    let mut known = Known::default();
    for file in files {
        let Ok(text) = fs::read(file) else { continue };
        known.files.push(file.clone());
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            let revoked = first == "@revoked";
            if first.is_empty() || first.starts_with('#') || (first.starts_with('@') && !revoked) {
                continue;
            }
            let Some(key) = words.nth(if revoked { 2 } else { 1 }).and_then(decode_base64) else { continue };
            if revoked {
                known.revoked.push((key, file.clone()));
                continue;
            }
            let mut one = session.known_hosts()?;
            let understood = one.read_str(line, KnownHostFileKind::OpenSSH).is_ok();
            if understood && matches!(one.check(name, &key), CheckResult::Match) {
                known.keys.push(key);
            }
        }
    }
    Ok(known)
}

/// The kinds to ask for, those of `keys` first.
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
    format!("SHA256:{}", encode_base64(&Sha256::digest(key)))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Without the `=` at the end.
fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits =
            part.iter().enumerate().fold(0u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for index in 0..=part.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63]));
        }
    }
    text
}

/// `None` for what is not base64.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn base64_round_trips_at_every_length() {
        for length in 0..20u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(91).wrapping_add(200)).collect();
            assert_eq!(decode_base64(&encode_base64(&bytes)).unwrap(), bytes);
        }
        assert_eq!(encode_base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
        assert_eq!(decode_base64("YW55!"), None);
    }

    /// GitHub's published key and fingerprint.
    #[test]
    fn fingerprints_are_as_ssh_keygen_prints_them() {
        let key = decode_base64(ED25519).unwrap();
        assert_eq!(fingerprint(&key), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(kind_of(&key), Some("ssh-ed25519"));
        assert_eq!(kind_of(b"\0\0\0\x09abc"), None);
    }

    #[test]
    fn known_kinds_are_asked_for_first() {
        let rsa = b"\0\0\0\x07ssh-rsa".to_vec();
        assert!(preference(&[rsa]).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-rsa,ssh-ed25519"));
        assert!(preference(&[]).starts_with("ssh-ed25519,"));
    }
}
