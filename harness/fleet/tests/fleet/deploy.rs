//! Files for a device on this host, and what tests of pushing files share.

use std::{fs, path::Path, time::Duration};

use espalier_fleet::{
    cancel::Cancel,
    deploy::{BlobFile, DeployError, Pushed, push},
    transport::{Limits, Transport},
};
use sha2::{Digest, Sha256};

pub const LIMITS: Limits = Limits { command: Duration::from_secs(600), idle: Duration::from_secs(120) };

#[test]
fn a_device_on_this_host_uses_the_files_where_they_are() {
    let here = tempfile::tempdir().unwrap();
    let model = file(here.path(), "model", b"m", false);
    let pushed = to_board(&mut Transport::Local, Path::new("/no/such/workdir"), std::slice::from_ref(&model)).unwrap();
    assert_eq!(pushed.paths[&model.sha256], model.path.to_str().unwrap());
    assert_eq!((pushed.bytes_sent, pushed.files_sent), (0, 0));
}

pub fn to_board(board: &mut Transport, workdir: &Path, files: &[BlobFile]) -> Result<Pushed, DeployError> {
    push(board, workdir.to_str().unwrap(), files, LIMITS, &Cancel::default(), &mut |_, _| {})
}

/// A file, named by its contents.
pub fn file(folder: &Path, name: &str, contents: &[u8], executable: bool) -> BlobFile {
    let path = folder.join(name);
    fs::write(&path, contents).unwrap();
    let sha256 = Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    BlobFile::new(&path, sha256, executable).unwrap()
}

/// Bytes that do not compress.
#[cfg(feature = "ssh")]
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
