//! Where baselines are: `reports/baselines/NAME.toml`, written by `accept`, read by the gate.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use espalier_bench::exit::ExitStatus;
use espalier_gate::baseline::Baseline;

use crate::context::{Exit, usage};

/// Where a baseline's manifest is.
pub fn path(root: &Path, name: &str) -> PathBuf {
    root.join("reports/baselines").join(format!("{name}.toml"))
}

/// The baseline of this name; the only one there is where no name is given.
///
/// # Errors
/// There is none, or more than one to choose from: nothing can be compared, which is not a pass.
pub fn find(root: &Path, name: Option<&str>) -> Result<Baseline> {
    let folder = root.join("reports/baselines");
    let mut names: Vec<String> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
            .collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    let none = |message: String| anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message });
    let cure = "`cargo xtask accept --name NAME` makes one of what is here now";
    let name = match (name, names.as_slice()) {
        (Some(name), names) if names.iter().any(|known| known == name) => name.to_owned(),
        (None, [only]) => only.clone(),
        (_, []) => return Err(none(format!("there is no baseline in `{}`: {cure}", folder.display()))),
        (Some(name), names) => {
            return Err(none(format!("there is no baseline `{name}` (there are: {}): {cure}", names.join(", "))));
        }
        (None, names) => {
            return Err(none(format!(
                "there are several baselines ({}): say which with `--baseline`",
                names.join(", ")
            )));
        }
    };
    let path = path(root, &name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Baseline::parse(&text, &path.display().to_string())
        .map_err(|error| usage(format!("the baseline has mistakes:\n{error}")))
}
