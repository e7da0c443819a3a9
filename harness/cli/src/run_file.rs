//! A run's file in `reports/runs/`: written a line at a time as records arrive, so that a later failure loses nothing.

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

    /// Goes on with an earlier run's file. A last line that was cut off is taken away first.
    pub fn reopen(path: &Path) -> Result<RunFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(whole as u64).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(RunFile { path: path.to_owned(), file })
    }

    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.append(&Entry::Record(Box::new(record.clone())))
    }

    pub fn append(&mut self, entry: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One write: a line is there whole or, after a power cut, recognisably not.
        self.file.write_all(&line).with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

fn folder(root: &Path) -> PathBuf {
    root.join("reports/runs")
}

/// A run by its file, its id or the beginning of it; the newest where nothing is given.
pub fn find(root: &Path, wanted: Option<&str>) -> Result<PathBuf> {
    let found = find_in(&folder(root), wanted);
    found.map_err(|_| match wanted {
        Some(wanted) => usage(format!("there is no run `{wanted}`: give a file, or an id as in `reports/runs/`")),
        None => usage("there is no earlier run: `cargo xtask bench` makes one"),
    })
}

/// Every run there is, the oldest first.
pub fn all(root: &Path) -> Result<Vec<PathBuf>> {
    let found = named(&folder(root), "");
    if found.is_empty() { Err(usage("there is no earlier run: `cargo xtask bench` makes one")) } else { Ok(found) }
}

/// A folder's `.jsonl` files whose name begins so, the oldest first.
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

/// The newest of a folder's `.jsonl` files whose name begins so; or the file itself.
pub fn find_in(folder: &Path, wanted: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = wanted.map(Path::new).filter(|path| path.is_file()) {
        return Ok(path.to_owned());
    }
    let prefix = wanted.unwrap_or_default();
    let mut found = named(folder, prefix);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    found.pop().ok_or_else(|| usage(format!("there is no `{prefix}`: give a file, or an id as in `reports/{name}/`")))
}

pub fn read(path: &Path) -> Result<Run> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Run::parse(&text).map_err(|error| anyhow::anyhow!("`{}` cannot be used: {error}", path.display()))
}

/// Adds whole lines to a file that only grows, in one write. A last line that was cut off is taken away first: what is added to it would be lost with
/// it.
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

/// Now in UTC: as RFC 3339, and as a run's id. The fraction of the second is behind it (in 65536ths): runs of one second differ, and sort by their time.
pub fn now() -> Result<(String, String)> {
    let now = OffsetDateTime::now_utc();
    let id = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?;
    let id = format!("{id}-{:04x}", u64::from(now.nanosecond()) * 0x1_0000 / 1_000_000_000);
    Ok((now.replace_nanosecond(0)?.format(&Rfc3339)?, id))
}
