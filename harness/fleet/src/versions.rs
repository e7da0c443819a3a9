//! Versions of compilers, cached: running one to get its version takes tens of milliseconds, and a build needs several.
//!
//! An entry is for a file by its real path, length, time of change and inode; a replaced compiler is run again.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::Result;
use espalier_bench::command::CommandLine;

use crate::{
    cache::Cache,
    process::{output_of, which},
    regular,
};

pub struct Versions {
    file: PathBuf,
    answers: Mutex<BTreeMap<String, String>>,
}

impl Versions {
    /// The cached versions. An unreadable file counts as empty: it only saves time.
    pub fn open(cache: &Cache) -> Result<Versions> {
        let file = cache.root.join("versions.json");
        let answers =
            regular::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Versions { file, answers: Mutex::new(answers) })
    }

    /// Stdout of `program args`, which depends on nothing but the program's file. `None` when it is not there or fails.
    pub fn of(&self, program: &Path, args: &[&str]) -> Option<String> {
        let path = which(&program.to_string_lossy())?;
        let real = fs::canonicalize(&path).ok()?;
        // By its own name, because a program may answer for another one under another name.
        let command = CommandLine::new(path.display().to_string()).args(args.iter().copied());
        let facts = fs::metadata(&real).ok()?;
        let key = format!(
            "{} {} {}.{:09} {} {}",
            real.display(),
            facts.len(),
            facts.mtime(),
            facts.mtime_nsec(),
            facts.ino(),
            command,
        );
        let mut answers = self.answers.lock().ok()?;
        if let Some(answer) = answers.get(&key) {
            return Some(answer.clone());
        }
        let answer = output_of(&command)?;
        answers.insert(key, answer.clone());
        self.store(&answers);
        Some(answer)
    }

    /// A failure to store only costs time later.
    fn store(&self, answers: &BTreeMap<String, String>) {
        let write = || -> Option<()> {
            let file = tempfile::NamedTempFile::new_in(self.file.parent()?).ok()?;
            serde_json::to_writer(&file, answers).ok()?;
            file.persist(&self.file).ok()?;
            Some(())
        };
        write();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_replaced_compiler_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let compiler = folder.path().join("cc");
        let runs = folder.path().join("runs");
        let install = |version: &str| {
            fs::write(&compiler, format!("#!/bin/sh\necho {version}\necho x >> {}\n", runs.display())).unwrap();
            fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let answer = || Versions::open(&cache).unwrap().of(&compiler, &["--version"]);
        install("12.2.0");
        assert_eq!(answer().as_deref(), Some("12.2.0\n"));
        assert_eq!(answer().as_deref(), Some("12.2.0\n"));
        assert_eq!(fs::read_to_string(&runs).unwrap(), "x\n");
        install("13.10.0");
        assert_eq!(answer().as_deref(), Some("13.10.0\n"));
    }
}
