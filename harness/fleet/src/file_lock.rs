//! One process at a time: a lock on a file, which the system releases however the process ends.

use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::process::Watch;

/// Held until it is dropped.
#[must_use]
pub struct FileLock {
    _file: File,
}

/// Waits for a lock; reports `busy` once where it has to wait.
///
/// # Errors
/// The file cannot be made or locked, or waiting is stopped on request.
pub fn hold(path: &Path, busy: &str, watch: Watch) -> Result<FileLock> {
    // Read and write: opening a FIFO for writing alone would wait for a reader.
    let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = open.with_context(|| format!("cannot make `{}`", path.display()))?;
    let mut is_reported = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(FileLock { _file: file }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
            }
        }
        if !is_reported {
            watch.emit(busy);
            is_reported = true;
        }
        watch.go_on()?;
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::cancel::Cancel;

    #[test]
    fn the_second_waits_reports_it_and_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let reports = Cell::new(0);
        let cancel = Cancel::default();
        let progress = |_: &str| {
            reports.set(reports.get() + 1);
            cancel.request();
        };
        let watch = Watch { cancel: &cancel, progress: &progress };
        let first = hold(&path, "busy", watch).unwrap();
        assert_eq!(reports.get(), 0);
        assert!(hold(&path, "busy", watch).is_err());
        assert_eq!(reports.get(), 1);
        drop(first);
        assert!(hold(&path, "busy", watch).is_ok());
    }
}
