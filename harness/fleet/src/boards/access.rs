//! How boards are reached and recognised: keys made here, and one ssh configuration with an entry for every board.
//!
//! A board's host key is made on the host and put into its image, so that it is known before the board first starts.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use espalier_bench::command::CommandLine;

use super::{
    kind::BoardKind,
    run::{require_program, run},
};
use crate::{base64, cancel::Cancel};

/// The two key pairs of a board, in its folder.
pub struct Keys {
    /// The line for `authorized_keys`.
    pub client_public: String,
    /// The host's private key in dropbear's format.
    pub host_private: Vec<u8>,
    /// `ssh-ed25519 AAAA…`, without a comment.
    pub host_public: String,
}

pub const CLIENT_KEY: &str = "id_ed25519";
const HOST_KEY: &str = "host_ed25519";
const KNOWN_HOSTS: &str = "known_hosts";

/// Reads a board's keys; makes them where they are not there yet.
pub fn keys(folder: &Path, cancel: &Cancel) -> Result<Keys> {
    let make = |name: &str| -> Result<(String, String)> {
        let private = folder.join(name);
        let public = folder.join(format!("{name}.pub"));
        if !(private.is_file() && public.is_file()) {
            require_program("ssh-keygen", "openssh-client")?;
            // `ssh-keygen` would prompt before it overwrites half a pair.
            let _ = fs::remove_file(&private);
            let line =
                CommandLine::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "espalier", "-f", name]);
            run(&line, folder, cancel)?;
        }
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()));
        Ok((read(&private)?, read(&public)?))
    };
    let (_, client_public) = make(CLIENT_KEY)?;
    let (host_private, host_public) = make(HOST_KEY)?;
    let host_private = dropbear_host_key(&host_private).with_context(|| {
        format!("cannot use the key `{}` (remove it for a new one)", folder.join(HOST_KEY).display())
    })?;
    let host_public = host_public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(Keys { client_public, host_private, host_public })
}

pub fn write_known_hosts(folder: &Path, port: u16, host_public: &str) -> Result<()> {
    let path = folder.join(KNOWN_HOSTS);
    fs::write(&path, format!("[127.0.0.1]:{port} {host_public}\n"))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// An ssh configuration with an entry for each board; `boards` is the folder that holds theirs.
pub fn ssh_config(boards: &Path, ports: &[(BoardKind, u16)]) -> String {
    let mut text = "# Emulated boards. Written anew by each `cargo xtask board up`.\n".to_owned();
    for (kind, port) in ports {
        let folder = boards.join(kind.name());
        let path = |name: &str| quoted(&folder.join(name));
        text += &format!(
            "\nHost {}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n",
            kind.name(),
            path(CLIENT_KEY),
            path(KNOWN_HOSTS)
        );
    }
    text
}

/// Quoted only where needed, because not every reader of such files knows quotes. `%` starts ssh's own substitutions.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%");
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// Converts a plain ed25519 key from OpenSSH's format to dropbear's: type, seed and public key, each after its length.
///
/// Formats: OpenSSH's `PROTOCOL.key`; dropbear's `buf_put_ed25519_priv_key`. This saves `dropbearconvert`.
fn dropbear_host_key(openssh: &str) -> Result<Vec<u8>> {
    let body: String = openssh.lines().filter(|line| !line.starts_with('-')).collect();
    let bytes = base64::decode(&body).context("it is not base64")?;
    let rest = bytes.strip_prefix(b"openssh-key-v1\0").context("it is not an OpenSSH private key")?;
    let (cipher, rest) = take_string(rest)?;
    ensure!(cipher == b"none", "it is encrypted");
    let (_, rest) = take_string(rest)?;
    let (_, rest) = take_string(rest)?;
    let (_, rest) = take_bytes(rest, 4)?;
    let (_, rest) = take_string(rest)?;
    let (private, _) = take_string(rest)?;
    // Two equal random numbers, with which a wrong passphrase shows.
    let (_, rest) = take_bytes(private, 8)?;
    let (kind, rest) = take_string(rest)?;
    ensure!(kind == b"ssh-ed25519", "it is not an ed25519 key");
    let (_, rest) = take_string(rest)?;
    let (pair, _) = take_string(rest)?;
    ensure!(pair.len() == 64, "it is cut off");
    let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    Ok([string(kind), string(pair)].concat())
}

fn take_string(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = take_bytes(bytes, 4)?;
    take_bytes(rest, u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize)
}

fn take_bytes(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8])> {
    bytes.split_at_checked(count).context("it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test with `ssh-keygen`, and guards nothing.
    const OPENSSH: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCi2iq4WRt00GH0tSJKxiNRBTnXASYjssgg80D/L5xCRwAAAJARCckvEQnJ
LwAAAAtzc2gtZWQyNTUxOQAAACCi2iq4WRt00GH0tSJKxiNRBTnXASYjssgg80D/L5xCRw
AAAEDLibESocG8BDSwk3ZrGL91H8hig81qMTjmF+NcntrQ2aLaKrhZG3TQYfS1IkrGI1EF
OdcBJiOyyCDzQP8vnEJHAAAAB2V4YW1wbGUBAgMEBQY=
-----END OPENSSH PRIVATE KEY-----
";
    /// The output of `dropbearconvert openssh dropbear`.
    const DROPBEAR: &str = "0000000b7373682d6564323535313900000040\
                            cb89b112a1c1bc0434b093766b18bf751fc86283cd6a3138e617e35c9edad0d9\
                            a2da2ab8591b74d061f4b5224ac623510539d7012623b2c820f340ff2f9c4247";

    #[test]
    fn a_host_key_as_dropbearconvert_writes_it() {
        let key: String = dropbear_host_key(OPENSSH).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(key, DROPBEAR);
    }

    #[test]
    fn a_cut_off_host_key_is_an_error() {
        // The comment and padding at the end are not read.
        let needed = OPENSSH.find("B2V4").unwrap();
        for length in 0..needed - 4 {
            assert!(dropbear_host_key(&OPENSSH[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn one_entry_for_each_board() {
        let text = ssh_config(Path::new("/c/boards"), &[(BoardKind::Aarch64, 4022), (BoardKind::Riscv64, 4024)]);
        assert_eq!(
            text,
            "\
# Emulated boards. Written anew by each `cargo xtask board up`.

Host virt-aarch64
  HostName 127.0.0.1
  Port 4022
  User root
  IdentityFile /c/boards/virt-aarch64/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /c/boards/virt-aarch64/known_hosts
  StrictHostKeyChecking yes

Host virt-riscv64
  HostName 127.0.0.1
  Port 4024
  User root
  IdentityFile /c/boards/virt-riscv64/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /c/boards/virt-riscv64/known_hosts
  StrictHostKeyChecking yes
"
        );
        let spaced = ssh_config(Path::new("/my 100%"), &[(BoardKind::Armv7, 1)]);
        assert!(spaced.contains("IdentityFile \"/my 100%%/virt-armv7/id_ed25519\"\n"), "{spaced}");
    }
}
