//! What compilers say about their version, remembered: asking costs tens of milliseconds each, and every build asks several.
//!
//! An answer holds for a file as it is (its real path, length, time of change and inode); a replaced compiler is asked anew.

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
    process::{ask, which},
};

pub struct Versions {
    file: PathBuf,
    answers: Mutex<BTreeMap<String, String>>,
}

impl Versions {
    /// Answers remembered in the cache. An unreadable file is an empty one: it only saves time.
    pub fn open(cache: &Cache) -> Result<Versions> {
        let file = cache.root.join("versions.json");
        let answers = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Versions { file, answers: Mutex::new(answers) })
    }

    /// Stdout of `program args`, whose answer depends on nothing but the program's file. Nothing when it is not there or fails.
    pub fn of(&self, program: &Path, args: &[&str]) -> Option<String> {
        let found = which(&program.to_string_lossy())?;
        let real = fs::canonicalize(&found).ok()?;
        let facts = fs::metadata(&real).ok()?;
        let key = format!(
            "{} {} {}.{:09} {} {}",
            real.display(),
            facts.len(),
            facts.mtime(),
            facts.mtime_nsec(),
            facts.ino(),
            // Under another name a program may answer for another one.
            CommandLine::new(found.display().to_string()).args(args.iter().copied()),
        );
        let mut answers = self.answers.lock().ok()?;
        if let Some(answer) = answers.get(&key) {
            return Some(answer.clone());
        }
        let answer = ask(&CommandLine::new(found.display().to_string()).args(args.iter().copied()))?;
        answers.insert(key, answer.clone());
        self.store(&answers);
        Some(answer)
    }

    /// A failure to store costs the time of asking again, no more.
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
    fn a_replaced_compiler_is_asked_anew_and_an_unchanged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let compiler = folder.path().join("cc");
        let asked = folder.path().join("asked");
        let install = |version: &str| {
            fs::write(&compiler, format!("#!/bin/sh\necho {version}\necho x >> {}\n", asked.display())).unwrap();
            fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let answer = || Versions::open(&cache).unwrap().of(&compiler, &["--version"]);
        install("12.2.0");
        assert_eq!(answer().as_deref(), Some("12.2.0\n"));
        assert_eq!(answer().as_deref(), Some("12.2.0\n"));
        assert_eq!(fs::read_to_string(&asked).unwrap(), "x\n");
        install("13.10.0");
        assert_eq!(answer().as_deref(), Some("13.10.0\n"));
    }
}
