//! Files by content: `CACHE/blobs/<sha256>`. Written atomically, hashed again when read.
//!
//! A name that is the content's hash cannot be stale. A disk can fail and a person can edit, and hashing shows both.

use std::{
    fs::{self, Permissions},
    io::{self, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{cache::Cache, regular};

/// The mode of programs; other blobs are only read.
const PROGRAM: u32 = 0o755;

/// A file in the cache or the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub path: PathBuf,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

/// Puts a program into the cache, where it can be run, whatever the mode of the file it comes from: downloads and CI's
/// artifacts lose theirs.
pub fn put_program(cache: &Cache, content: &[u8]) -> Result<Blob> {
    let blob = put(cache, &sha256_hex(content), PROGRAM, |out| out.write_all(content))?;
    // It may be there since before, as something that is only read.
    let mode = fs::metadata(&blob.path).map(|facts| facts.permissions().mode());
    if mode.is_ok_and(|mode| mode & PROGRAM != PROGRAM) {
        fs::set_permissions(&blob.path, Permissions::from_mode(PROGRAM))
            .with_context(|| format!("cannot make `{}` executable", blob.path.display()))?;
    }
    Ok(blob)
}

/// Puts bytes into the cache.
pub fn put_bytes(cache: &Cache, content: &[u8]) -> Result<Blob> {
    put(cache, &sha256_hex(content), 0o644, |out| out.write_all(content))
}

/// Puts a file into the cache whose hash is known before it is made; it is only made where it is not there.
///
/// # Errors
/// Nothing can be written, `write` gives up, or what it writes has another hash.
pub fn put_made(cache: &Cache, sha256: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Blob> {
    put(cache, sha256, 0o644, write)
}

fn put(cache: &Cache, sha256: &str, mode: u32, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Blob> {
    if let Some(blob) = get(cache, sha256)? {
        return Ok(blob);
    }
    let folder = cache.folder("blobs")?;
    let path = folder.join(sha256);
    let made = || -> io::Result<_> {
        let mut file = NamedTempFile::new_in(&folder)?;
        let mut hashed = Hashed::new(file.as_file_mut());
        let mut buffered = io::BufWriter::with_capacity(256 * 1024, &mut hashed);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        let (actual, bytes) = hashed.finish();
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        Ok((file, actual, bytes))
    };
    let cannot = || format!("cannot write `{}`", path.display());
    let (file, actual, bytes) = made().with_context(cannot)?;
    ensure!(actual == sha256, "what was made has SHA-256 {actual}, not {sha256} as it should");
    file.persist(&path).map_err(|error| error.error).with_context(cannot)?;
    Ok(Blob { path, sha256: actual, bytes })
}

/// Hashes what goes through it.
struct Hashed<W> {
    to: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(to: W) -> Hashed<W> {
        Hashed { to, hasher: Sha256::new(), bytes: 0 }
    }

    /// SHA-256 and size.
    fn finish(self) -> (String, u64) {
        (hex(&self.hasher.finalize()), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.to.write(piece)?;
        self.hasher.update(&piece[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The blob with this hash, if it is there and undamaged.
pub fn get(cache: &Cache, sha256: &str) -> Result<Option<Blob>> {
    let path = cache.folder("blobs")?.join(sha256);
    match hash_file(&path) {
        Ok((actual, bytes)) if actual == sha256 => Ok(Some(Blob { path, sha256: actual, bytes })),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// SHA-256 of bytes, lower-case hexadecimal.
pub fn sha256_hex(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// SHA-256 and size of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut hashed = Hashed::new(io::sink());
    io::copy(&mut BufReader::with_capacity(256 * 1024, regular::open(path)?), &mut hashed)?;
    Ok(hashed.finish())
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_blob_is_not_returned() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let blob = put_bytes(&cache, b"abc").unwrap();
        // FIPS 180-4, appendix B.1
        assert_eq!(blob.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(get(&cache, &blob.sha256).unwrap(), Some(blob.clone()));
        fs::write(&blob.path, b"abd").unwrap();
        assert_eq!(get(&cache, &blob.sha256).unwrap(), None);
        assert_eq!(put_bytes(&cache, b"abc").unwrap(), blob);
        assert_eq!(fs::read(&blob.path).unwrap(), b"abc");
    }

    #[test]
    fn what_is_made_has_to_have_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let sha256 = sha256_hex(b"abc");
        let error = put_made(&cache, &sha256, |out| out.write_all(b"abd")).unwrap_err().to_string();
        assert!(error.starts_with("what was made has SHA-256 a52d159f"), "{error}");
        let stopped = put_made(&cache, &sha256, |_| Err(io::Error::other("stopped"))).unwrap_err();
        assert!(format!("{stopped:#}").ends_with(": stopped"), "{stopped:#}");
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0, "nothing is left of it");
        let made = put_made(&cache, &sha256, |out| out.write_all(b"abc")).unwrap();
        assert_eq!(made, put_bytes(&cache, b"abc").unwrap());
        let again = put_made(&cache, &sha256, |_| panic!("it is there")).unwrap();
        assert_eq!(again, made);
    }

    #[test]
    fn programs_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let mode = |blob: &Blob| fs::metadata(&blob.path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&put_program(&cache, b"#!/bin/sh\n").unwrap()), 0o755);
        // The same bytes were there, to be read only.
        let read_only = put_bytes(&cache, b"#!/bin/sh\necho").unwrap();
        assert_eq!(mode(&read_only), 0o644);
        assert_eq!(put_program(&cache, b"#!/bin/sh\necho").unwrap(), read_only);
        assert_eq!(mode(&read_only), 0o755);
    }
}
