//! A gate's file in `reports/gates/`: written a line at a time as records arrive, so that a later failure loses nothing.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use espalier_gate::file::{Entry, GateHeader, GateRun};

pub struct GateFile {
    pub path: PathBuf,
    file: File,
}

impl GateFile {
    pub fn create(root: &Path, header: &GateHeader) -> Result<GateFile> {
        let folder = root.join("reports/gates");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let path = folder.join(format!("{}.jsonl", header.id));
        let file = File::create_new(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
        let mut gate_file = GateFile { path, file };
        gate_file.append(&Entry::Gate(Box::new(header.clone())))?;
        Ok(gate_file)
    }

    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One write: a line is there whole or, after a power cut, recognisably not.
        self.file.write_all(&line).with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

pub fn read(path: &Path) -> Result<GateRun> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    GateRun::parse(&text).map_err(|error| anyhow::anyhow!("`{}` cannot be used: {error}", path.display()))
}
