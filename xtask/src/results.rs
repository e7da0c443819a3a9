//! `cargo xtask results`: writes the results page from stored runs.

mod article;
mod page;
mod rows;
#[cfg(test)]
mod tests;
mod time_shares;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, record::Run};
use espalier_cli::{
    context::{Context, usage},
    output, run_file,
    terminal::{note, print},
};

#[derive(Args)]
pub struct Flags {
    /// Runs by their files, ids or the beginnings of them [default: all in reports/runs/]
    runs: Vec<String>,
    /// The page; `-` prints it [default: docs/results.md]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let runs: Vec<Run> = if flags.runs.is_empty() {
        run_file::all(&context.root)?.iter().filter_map(|path| readable(path)).collect()
    } else {
        let read = |name: &String| run_file::read(&run_file::find(&context.root, Some(name))?);
        flags.runs.iter().map(read).collect::<Result<_>>()?
    };
    let page = page::render(&runs).map_err(|error| {
        usage(format!("{error}: `cargo xtask bench --model resnet50 --engine tract,espalier,onnxruntime` measures one"))
    })?;
    match flags.output {
        Some(path) if path.as_os_str() == "-" => print(page)?,
        path => {
            let path = path.unwrap_or_else(|| context.root.join("docs/results.md"));
            output::write(&path, &page)?;
            note(format_args!("written: {}", path.display()));
        }
    }
    Ok(ExitStatus::Ok)
}

/// Among all runs a broken file is left out with a warning.
fn readable(path: &Path) -> Option<Run> {
    run_file::read(path).inspect_err(|error| note(format_args!("warning: {error:#}; left out"))).ok()
}
