//! The folder of everything that can be made again: toolchains, build folders, artifacts, variants, emulated boards.

use std::{
    env,
    ffi::CString,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The cache folder: `ESPALIER_CACHE`, else `espalier` in `XDG_CACHE_HOME`, else `~/.cache/espalier`.
#[derive(Clone, Debug)]
pub struct Cache {
    pub root: PathBuf,
}

impl Cache {
    pub fn open() -> Result<Cache> {
        let root = match (env::var_os("ESPALIER_CACHE"), env::var_os("XDG_CACHE_HOME")) {
            (Some(own), _) if !own.is_empty() => PathBuf::from(own),
            (_, Some(xdg)) if !xdg.is_empty() => Path::new(&xdg).join("espalier"),
            _ => {
                let home = env::var_os("HOME")
                    .context("no place for the cache: neither `HOME` nor `ESPALIER_CACHE` is set")?;
                Path::new(&home).join(".cache/espalier")
            }
        };
        Cache::at(&root)
    }

    pub fn at(root: &Path) -> Result<Cache> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make the cache folder `{}`", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot resolve `{}`", root.display()))?;
        Ok(Cache { root })
    }

    /// A folder below the cache, made if need be.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        Ok(folder)
    }
}

/// Bytes that this user may still write to a folder's file system; `None` where the system does not know.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut facts = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in a zero byte, `facts` has room for the structure, and all zeros are a value of it.
    let facts = unsafe {
        if libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) != 0 {
            return None;
        }
        facts.assume_init()
    };
    Some((facts.f_bavail as u64).saturating_mul(facts.f_frsize as u64))
}
