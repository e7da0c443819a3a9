//! A folder of `.npy` files: one array each, called as the file is.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::npz::{self, Array};

/// In the order of the files' names.
///
/// # Errors
/// A folder without arrays, or a file that is none.
pub fn read(folder: &Path) -> Result<Vec<Array>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok();
        names.extend(name.as_deref().and_then(|name| name.strip_suffix(".npy")).map(str::to_owned));
    }
    ensure!(!names.is_empty(), "the folder has no `.npy` file; `x.npy` is the model's first input, `y.npy` the labels");
    names.sort_unstable();
    let array = |name: &String| {
        let file = folder.join(name).with_extension("npy");
        let file = std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        npz::parse_npy(name, &file).map_err(|why| anyhow::anyhow!("array `{name}` {why}"))
    };
    names.iter().map(array).collect()
}
