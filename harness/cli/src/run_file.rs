//! A run's file in `reports/runs/`, written line by line as records arrive, so that a later failure loses nothing.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use espalier_bench::record::{Entry, Record, Run, RunHeader};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::context::usage;

pub struct RunFile {
    pub path: PathBuf,
    file: File,
}

impl RunFile {
    pub fn create(root: &Path, header: &RunHeader) -> Result<RunFile> {
        RunFile::begin(&folder(root), &header.id, &Entry::Header(Box::new(header.clone())))
    }

    /// A new file of this name, with its first line.
    pub fn begin(folder: &Path, id: &str, header: &impl Serialize) -> Result<RunFile> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let path = folder.join(format!("{id}.jsonl"));
        let file = File::create_new(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
        let mut run_file = RunFile { path, file };
        run_file.append(header)?;
        Ok(run_file)
    }

    /// Continues an earlier run's file. A last line that was cut off is removed first.
    pub fn reopen(path: &Path) -> Result<RunFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(complete as u64).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(RunFile { path: path.to_owned(), file })
    }

    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.append(&Entry::Record(Box::new(record.clone())))
    }

    pub fn append(&mut self, entry: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // In one write: after a power cut a line is complete or recognisably cut off.
        self.file.write_all(&line).with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

fn folder(root: &Path) -> PathBuf {
    root.join("reports/runs")
}

const NO_RUN: &str = "there is no earlier run: `cargo xtask bench` makes one";

/// A run by its file, its id or the beginning of it; without a name the newest.
pub fn find(root: &Path, name: Option<&str>) -> Result<PathBuf> {
    find_in(&folder(root), name).map_err(|_| match name {
        Some(name) => usage(format!("there is no run `{name}`: give a file, or an id as in `reports/runs/`")),
        None => usage(NO_RUN),
    })
}

/// Every run, the oldest first.
pub fn all(root: &Path) -> Result<Vec<PathBuf>> {
    let found = named(&folder(root), "");
    if found.is_empty() { Err(usage(NO_RUN)) } else { Ok(found) }
}

/// A folder's `.jsonl` files with this prefix, the oldest first.
fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut found: Vec<PathBuf> = entries.unwrap_or_default();
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".jsonl") && name.starts_with(prefix)
    });
    found.sort();
    found
}

/// A file itself, or the newest of a folder's `.jsonl` files with this prefix.
pub fn find_in(folder: &Path, prefix: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = prefix.map(Path::new).filter(|path| path.is_file()) {
        return Ok(path.to_owned());
    }
    let prefix = prefix.unwrap_or_default();
    let name = folder.file_name().unwrap_or_default().display();
    let missing = || usage(format!("there is no `{prefix}`: give a file, or an id as in `reports/{name}/`"));
    named(folder, prefix).pop().ok_or_else(missing)
}

pub fn read(path: &Path) -> Result<Run> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Run::parse(&text).map_err(|error| anyhow::anyhow!("`{}` cannot be used: {error}", path.display()))
}

/// Appends complete lines to a file in one write. A last line that was cut off is removed first.
pub fn append(path: &Path, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        file.set_len(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1))?;
        file.write_all(lines.as_bytes())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// The current time in UTC: as RFC 3339, and as a run's id, with the fraction of the second in 65536ths.
pub fn now() -> Result<(String, String)> {
    let now = OffsetDateTime::now_utc();
    let id = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?;
    let id = format!("{id}-{:04x}", u64::from(now.nanosecond()) * 0x1_0000 / 1_000_000_000);
    Ok((now.replace_nanosecond(0)?.format(&Rfc3339)?, id))
}
