//! Whether the board is the one it should be. The rules are OpenSSH's with `StrictHostKeyChecking yes`: no unknown key
//! is accepted, and an unexpected one is refused with both fingerprints.
//!
//! A server has several keys and shows the one whose algorithm the client lists first, so known algorithms are listed
//! first. libssh2 compares names (hashed ones too); the lines are read here, one by one, because it gives up on a file
//! at the first line it cannot parse.

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
    /// Revoked for any host, each with the file that revokes it.
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
            let Some(key) = fields.nth(if revoked { 2 } else { 1 }).and_then(base64::decode) else { continue };
            if revoked {
                known.revoked.push((key, file.clone()));
                continue;
            }
            let mut entry = session.known_hosts()?;
            let is_parsed = entry.read_str(line, KnownHostFileKind::OpenSSH).is_ok();
            if is_parsed && matches!(entry.check(name, &key), CheckResult::Match) {
                known.keys.push(key);
            }
        }
    }
    Ok(known)
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

    #[test]
    fn known_kinds_come_first() {
        let rsa = b"\0\0\0\x07ssh-rsa".to_vec();
        assert!(preference(&[rsa]).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-rsa,ssh-ed25519"));
        assert!(preference(&[]).starts_with("ssh-ed25519,"));
    }
}
