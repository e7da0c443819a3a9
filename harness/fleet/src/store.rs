//! The files of baselines, kept for good: runners, variants and inputs by content, `STORE/sha256/ab/abcd…`.
//!
//! Unlike the cache nothing in it can be made again, and it may be a mount that several machines share. So a file is
//! there complete or not at all, is hashed when it is written, read back, and hashed again when it is read. A missing
//! store is an error: a folder made where one is not mounted would look like a store that lost everything.

use std::{
    env,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::{
    blob::{Blob, hash_file},
    regular,
};

/// The variable that names the folder of the store.
pub const VARIABLE: &str = "ESPALIER_STORE";

/// A folder of blobs; made with the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub folder: PathBuf,
}

/// The result of [`Store::put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    New,
    /// It was there, and correct.
    There,
    /// It was there and damaged, and is correct now: to be reported, because disks seldom damage one file only.
    Repaired,
}

impl Store {
    /// The store of a repository: the folder that `ESPALIER_STORE` names, else `reports/store`.
    ///
    /// # Errors
    /// The folder of the variable is not there.
    pub fn find(root: &Path) -> Result<Store> {
        let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) else {
            return Store::open(&root.join("reports/store"));
        };
        Store::named(Path::new(&named))
    }

    /// # Errors
    /// There is something other than a folder.
    pub fn open(folder: &Path) -> Result<Store> {
        let folder = std::path::absolute(folder).with_context(|| format!("no place `{}`", folder.display()))?;
        if folder.exists() && !folder.is_dir() {
            bail!("the store `{}` is not a folder", folder.display());
        }
        Ok(Store { folder })
    }

    fn named(folder: &Path) -> Result<Store> {
        if !folder.is_dir() {
            bail!("`{VARIABLE}` names `{}`, which is no folder: mount it, or make it", folder.display());
        }
        Store::open(folder)
    }

    /// Copies a blob into the store; an executable stays one.
    ///
    /// # Errors
    /// It cannot be read or does not have its hash, or the store cannot be written or reads back something else.
    pub fn put(&self, blob: &Blob) -> Result<Put> {
        let place = self.place(&blob.sha256)?;
        let source = blob.path.display();
        let mode = fs::metadata(&blob.path).with_context(|| format!("cannot read `{source}`"))?.permissions().mode();
        let mode = if mode & 0o111 != 0 { 0o755 } else { 0o644 };
        let before = self.hash(&place)?;
        if before.as_ref().is_some_and(|(sha256, _)| *sha256 == blob.sha256) {
            self.mark(&place, mode)?;
            return Ok(Put::There);
        }

        let cannot_read = || format!("cannot read `{source}`");
        let (actual, _) = hash_file(&blob.path).with_context(cannot_read)?;
        if actual != blob.sha256 {
            bail!("`{source}` is damaged: it should hash to {} and does to {actual}", blob.sha256);
        }
        let mut reading = regular::open(&blob.path).with_context(cannot_read)?;
        let folder = place.parent().expect("a place is in a folder of two digits");
        let mut write = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            // Under its own name it is never incomplete.
            let mut file = NamedTempFile::new_in(folder)?;
            io::copy(&mut reading, &mut file)?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            // Some file systems report only here that they are full.
            file.as_file().sync_all()?;
            file.persist(&place)?;
            Ok(())
        };
        write().map_err(|error| self.refused(&blob.sha256, &error))?;
        // The new name too should survive a power cut; best effort, because not every network file system can do that.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        if self.hash(&place)?.is_none_or(|(sha256, _)| sha256 != blob.sha256) {
            bail!(
                "the store `{}` does not give back what was written to it as `{}`: check its disk",
                self.folder.display(),
                place.display()
            );
        }
        Ok(if before.is_some() { Put::Repaired } else { Put::New })
    }

    /// The blob with this hash, in its place in the store.
    ///
    /// # Errors
    /// It is missing or damaged, with what to do about it.
    pub fn get(&self, sha256: &str) -> Result<Blob> {
        let path = self.place(sha256)?;
        let store = self.folder.display();
        match self.hash(&path)? {
            Some((actual, bytes)) if actual == sha256 => Ok(Blob { path, sha256: actual, bytes }),
            Some((actual, bytes)) => bail!(
                "`{}` is damaged: its {bytes} bytes hash to {actual}; put a good copy in its place, or accept the \
                 baseline again",
                path.display()
            ),
            None if !self.folder.is_dir() => bail!(
                "there is no store `{store}` to take the blob {sha256} from: if the baseline was accepted on another \
                 machine, mount its store and name it in `{VARIABLE}`; else accept the baseline again"
            ),
            None => bail!(
                "the store `{store}` has no blob {sha256}: if the baseline was accepted on another machine, mount its \
                 store and name it in `{VARIABLE}`; else accept the baseline again"
            ),
        }
    }

    /// A hash is untrusted input, from a file that people write: nothing else becomes a path.
    fn place(&self, sha256: &str) -> Result<PathBuf> {
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            bail!("`{}` is no SHA-256 in lower-case hexadecimal", sha256.escape_debug());
        }
        Ok(self.folder.join("sha256").join(&sha256[..2]).join(sha256))
    }

    /// Hash and size of a file of the store, if it is there.
    fn hash(&self, place: &Path) -> Result<Option<(String, u64)>> {
        match hash_file(place) {
            Ok(hash) => Ok(Some(hash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}` of the store", place.display())),
        }
    }

    /// Makes a stored file executable where `mode` is.
    fn mark(&self, place: &Path, mode: u32) -> Result<()> {
        let facts = fs::metadata(place).with_context(|| format!("cannot read `{}`", place.display()))?;
        if mode & 0o111 != 0 && facts.permissions().mode() & 0o111 == 0 {
            fs::set_permissions(place, Permissions::from_mode(mode))
                .with_context(|| format!("cannot make `{}` executable", place.display()))?;
        }
        Ok(())
    }

    fn refused(&self, sha256: &str, error: &io::Error) -> anyhow::Error {
        use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let advice = match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => "make room",
            PermissionDenied | ReadOnlyFilesystem => "make it writable",
            _ => "check its disk",
        };
        let store = self.folder.display();
        anyhow::anyhow!(
            "cannot write the blob {sha256} to the store `{store}`: {error}; {advice}, or name another folder in \
             `{VARIABLE}`"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::{blob, cache::Cache};

    struct Shelf {
        folder: TempDir,
        cache: Cache,
        store: Store,
    }

    impl Shelf {
        fn new() -> Shelf {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::at(&folder.path().join("cache")).unwrap();
            let store = Store::open(&folder.path().join("reports/store")).unwrap();
            Shelf { folder, cache, store }
        }

        fn files(&self) -> usize {
            files_below(&self.store.folder)
        }
    }

    fn files_below(folder: &Path) -> usize {
        let Ok(entries) = fs::read_dir(folder) else { return 0 };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
    }

    #[track_caller]
    fn check_error<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
        let text = format!("{:#}", result.unwrap_err());
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }

    #[test]
    fn a_blob_that_is_put_can_be_got() {
        let shelf = Shelf::new();
        let blob = blob::put_bytes(&shelf.cache, b"abc").unwrap();
        assert_eq!(shelf.store.put(&blob).unwrap(), Put::New);
        assert_eq!(shelf.store.put(&blob).unwrap(), Put::There);
        let back = shelf.store.get(&blob.sha256).unwrap();
        assert_eq!((back.sha256, back.bytes, fs::read(&back.path).unwrap()), (blob.sha256, 3, b"abc".to_vec()));
        assert!(back.path.ends_with("sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        assert_eq!(shelf.files(), 1);
        // The cache may be deleted.
        fs::remove_dir_all(&shelf.cache.root).unwrap();
        shelf.store.get("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
    }

    #[test]
    fn damage_is_reported_and_repaired() {
        let shelf = Shelf::new();
        let blob = blob::put_bytes(&shelf.cache, b"abc").unwrap();
        shelf.store.put(&blob).unwrap();
        let place = shelf.store.get(&blob.sha256).unwrap().path;
        for damage in ["abd", "", "abcabc"] {
            fs::write(&place, damage).unwrap();
            check_error(
                shelf.store.get(&blob.sha256),
                &["is damaged", place.to_str().unwrap(), "accept the baseline again"],
            );
            assert_eq!(shelf.store.put(&blob).unwrap(), Put::Repaired);
            assert_eq!(fs::read(shelf.store.get(&blob.sha256).unwrap().path).unwrap(), b"abc");
        }
    }

    #[test]
    fn a_missing_blob_is_an_error_with_advice() {
        let shelf = Shelf::new();
        let absent = "0".repeat(64);
        let store = shelf.store.folder.to_str().unwrap();
        check_error(shelf.store.get(&absent), &["there is no store", store, &absent, "another machine", VARIABLE]);
        shelf.store.put(&blob::put_bytes(&shelf.cache, b"abc").unwrap()).unwrap();
        check_error(
            shelf.store.get(&absent),
            &["has no blob", store, &absent, "another machine", "accept the baseline"],
        );
        for name in ["", "abc", "../../etc/passwd", &"A".repeat(64), &format!("{}/", "0".repeat(63)), &"é".repeat(32)]
        {
            check_error(shelf.store.get(name), &["is no SHA-256"]);
        }
    }

    #[test]
    fn a_store_that_is_not_mounted_is_not_made() {
        let shelf = Shelf::new();
        let absent = shelf.folder.path().join("mnt/store");
        check_error(Store::named(&absent), &[VARIABLE, "mnt/store", "mount it"]);
        assert!(!absent.exists());
        fs::write(shelf.folder.path().join("file"), "").unwrap();
        check_error(Store::open(&shelf.folder.path().join("file")), &["is not a folder"]);
    }

    /// A FIFO in the place of a blob waited for a writer, for ever.
    #[test]
    fn what_is_no_file_is_refused() {
        let shelf = Shelf::new();
        let blob = blob::put_bytes(&shelf.cache, b"abc").unwrap();
        shelf.store.put(&blob).unwrap();
        let place = shelf.store.get(&blob.sha256).unwrap().path;
        for place in [&place, &blob.path] {
            fs::remove_file(place).unwrap();
            assert!(Command::new("mkfifo").arg(place).status().unwrap().success());
        }
        check_error(shelf.store.get(&blob.sha256), &["cannot read", place.to_str().unwrap(), "no ordinary file"]);
        check_error(shelf.store.put(&blob), &["no ordinary file"]);
        check_error(blob::get(&shelf.cache, &blob.sha256), &["no ordinary file"]);
        check_error(blob::put_bytes(&shelf.cache, b"abc"), &["no ordinary file"]);
    }

    #[test]
    fn a_damaged_blob_is_not_taken_in() {
        let shelf = Shelf::new();
        let blob = blob::put_bytes(&shelf.cache, b"abc").unwrap();
        fs::write(&blob.path, "abd").unwrap();
        check_error(shelf.store.put(&blob), &[blob.path.to_str().unwrap(), "is damaged"]);
        fs::remove_file(&blob.path).unwrap();
        check_error(shelf.store.put(&blob), &[blob.path.to_str().unwrap(), "cannot read"]);
        assert_eq!(shelf.files(), 0, "not even a temporary one");
    }

    #[test]
    fn programs_stay_programs() {
        let shelf = Shelf::new();
        let script = b"#!/bin/sh\n";
        let data = blob::put_bytes(&shelf.cache, script).unwrap();
        let is_program = || {
            let path = shelf.store.get(&data.sha256).unwrap().path;
            fs::metadata(path).unwrap().permissions().mode() & 0o111 != 0
        };
        shelf.store.put(&data).unwrap();
        assert!(!is_program());
        fs::set_permissions(&data.path, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(shelf.store.put(&data).unwrap(), Put::There);
        assert!(is_program());
        fs::remove_dir_all(&shelf.store.folder).unwrap();
        shelf.store.put(&data).unwrap();
        assert!(is_program());
    }

    /// In `/sys` not even root can make a folder.
    #[test]
    fn a_store_that_cannot_be_written_is_an_error() {
        let shelf = Shelf::new();
        let store = Store::open(Path::new("/sys/espalier")).unwrap();
        let blob = blob::put_bytes(&shelf.cache, b"abc").unwrap();
        check_error(
            store.put(&blob),
            &["cannot write the blob", "store `/sys/espalier`", "make it writable", VARIABLE],
        );
    }

    const FULL: &str = "ESPALIER_TEST_FULL_STORE";

    /// A limit on the size of files simulates a full disk: writing fails half way. It holds for a process, so this test
    /// runs itself again as a child with that limit and the store's folder in [`FULL`].
    #[test]
    fn a_full_disk_leaves_nothing_behind() {
        let shelf = Shelf::new();
        let blob = blob::put_bytes(&shelf.cache, &[7; 300_000]);
        if let Some(folder) = env::var_os(FULL) {
            let store = Store::open(Path::new(&folder)).unwrap();
            let content = Path::new(&folder).with_file_name("content");
            let bytes = fs::metadata(&content).unwrap().len();
            let blob = Blob { sha256: hash_file(&content).unwrap().0, path: content, bytes };
            check_error(store.put(&blob), &["cannot write the blob", "store", "make room", VARIABLE]);
            assert_eq!(files_below(&store.folder), 0);
            return;
        }
        let blob = blob.unwrap();
        fs::copy(&blob.path, shelf.folder.path().join("content")).unwrap();
        let test = "store::tests::a_full_disk_leaves_nothing_behind";
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" --exact \"$1\""])
            .arg(env::current_exe().unwrap())
            .arg(test)
            .env(FULL, shelf.folder.path().join("store"))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
    }
}
