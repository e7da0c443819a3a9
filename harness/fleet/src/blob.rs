//! Files by what they hold: `CACHE/blobs/<sha256>`. Put in atomically, looked at again when taken out.
//!
//! A name that is the content cannot be stale; what can happen is a disk that lies or a person who edits, and both are found by hashing on the way out.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::cache::Cache;

/// A file that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub path: PathBuf,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

/// Puts the contents of a file into the store; whether it may be executed carries over.
pub fn put_file(cache: &Cache, file: &Path) -> Result<Blob> {
    let read = || -> io::Result<_> {
        let mode = fs::metadata(file)?.permissions().mode();
        Ok((fs::read(file)?, mode & 0o111 != 0))
    };
    let (content, executable) = read().with_context(|| format!("cannot read `{}`", file.display()))?;
    put(cache, &content, executable)
}

/// Puts bytes into the store.
pub fn put_bytes(cache: &Cache, content: &[u8]) -> Result<Blob> {
    put(cache, content, false)
}

/// Puts a file into the store whose name is known before it is made: what `write` writes has to have this SHA-256. One that is there is not made.
///
/// # Errors
/// Where nothing can be written, `write` gives up, or what it wrote is something else.
pub fn put_made(cache: &Cache, sha256: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Blob> {
    if let Some(blob) = get(cache, sha256)? {
        return Ok(blob);
    }
    let folder = cache.folder("blobs")?;
    let path = folder.join(sha256);
    let made = || -> io::Result<_> {
        let mut file = NamedTempFile::new_in(&folder)?;
        let mut hashed = Hashed { file: file.as_file_mut(), hasher: Sha256::new(), bytes: 0 };
        let mut buffered = io::BufWriter::with_capacity(256 * 1024, &mut hashed);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        let (actual, bytes) = (hex(&hashed.hasher.finalize()), hashed.bytes);
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        Ok((file, actual, bytes))
    };
    let cannot = || format!("cannot write `{}`", path.display());
    let (file, actual, bytes) = made().with_context(cannot)?;
    ensure!(actual == sha256, "what was made has SHA-256 {actual}, not {sha256} as it should");
    file.persist(&path).map_err(|error| error.error).with_context(cannot)?;
    Ok(Blob { path, sha256: actual, bytes })
}

/// A file that is hashed while it is written.
struct Hashed<'a> {
    file: &'a mut File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.file.write(piece)?;
        self.hasher.update(&piece[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The blob of this name, if it is there and still holds what its name says.
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

fn put(cache: &Cache, content: &[u8], executable: bool) -> Result<Blob> {
    let sha256 = sha256_hex(content);
    if let Some(blob) = get(cache, &sha256)? {
        return Ok(blob);
    }
    let folder = cache.folder("blobs")?;
    let path = folder.join(&sha256);
    let write = || -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&folder)?;
        file.write_all(content)?;
        file.as_file().set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(Blob { path, sha256, bytes: content.len() as u64 })
}

pub(crate) fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((hex(&hasher.finalize()), bytes)),
            length => {
                hasher.update(&piece[..length]);
                bytes += length as u64;
            }
        }
    }
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_by_content_and_never_given_out_damaged() {
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
    fn what_is_made_is_what_its_name_says() {
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
    fn programs_stay_programs() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let blob = put_file(&cache, &program).unwrap();
        assert_eq!(fs::metadata(blob.path).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
