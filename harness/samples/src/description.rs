//! A TOML file that says how the files of a list become samples.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{audio::Audio, images::Images, list, model_input::ModelInput, npz::Array};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Description {
    /// The CSV file, relative to this one.
    list: String,
    #[serde(default)]
    images: Images,
    #[serde(default)]
    audio: Audio,
}

/// # Errors
/// No such TOML, or what is wrong with the list.
pub fn read(path: &Path, model: Option<&[ModelInput]>) -> Result<Vec<Array>> {
    let text = std::fs::read_to_string(path)?;
    let description: Description = toml::from_str(&text)?;
    let list = path.parent().unwrap_or(Path::new(".")).join(&description.list);
    list::read(&list, &description.images, &description.audio, model)
        .with_context(|| format!("its list `{}` cannot be used", list.display()))
}
