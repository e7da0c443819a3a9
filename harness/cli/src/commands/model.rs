//! `model`: the networks that articles on pruning measure, as ONNX files of full size. They are built here with random
//! weights, because trained ones have hundreds of megabytes and licences of their own.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use espalier_bench::exit::ExitStatus;
use espalier_fleet::cancel::Cancel;
use espalier_zoo::{Blueprint, Net};

use crate::{
    context::usage,
    networks,
    progress::{Progress, Task, stop_on_signal},
};

#[derive(Subcommand)]
pub enum Action {
    /// Write a network's ONNX file, with random weights: the same bytes every time
    Build(Flags),
}

#[derive(Args)]
pub struct Flags {
    /// Which network
    #[arg(value_name = "NAME", value_parser = net())]
    net: Net,
    /// The ONNX file [default: NAME.onnx]
    #[arg(short, long, value_name = "OUT.onnx")]
    output: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

fn net() -> impl TypedValueParser<Value = Net> {
    PossibleValuesParser::new(Net::ALL.map(Net::name))
        .map(|name| Net::named(&name).expect("clap gives one of the values it was given"))
}

pub fn run(action: Action) -> Result<ExitStatus> {
    let Action::Build(flags) = action;
    let net = flags.net;
    let output = flags.output.unwrap_or_else(|| format!("{}.onnx", net.name()).into());
    if output.is_dir() {
        return Err(usage(format!("`{}` is a folder: add the file's name", output.display())));
    }
    if output.exists() && !flags.force {
        return Err(usage(format!("`{}` exists; `--force` overwrites it", output.display())));
    }
    let blueprint = net.blueprint();
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    networks::check_room(folder, blueprint.bytes(), "`-o` writes elsewhere")?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let task = networks::task(&progress, net, &blueprint);
    write(&output, &blueprint, &task, &cancel).with_context(|| format!("cannot write `{}`", output.display()))?;
    task.done();
    println!("{}: {}", output.display(), net.about());
    println!("{} bytes, {} parameters, SHA-256 {}", blueprint.bytes(), blueprint.parameters(), net.sha256());
    println!("its weights are random: a pruned variant can be compared with the dense one, but has no accuracy");
    Ok(ExitStatus::Ok)
}

/// Writes under another name first, so that the file is complete or absent.
fn write(path: &Path, blueprint: &Blueprint, task: &Task, cancel: &Cancel) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || {
        let mut out = io::BufWriter::with_capacity(256 * 1024, fs::File::create(&part)?);
        blueprint.write(&mut networks::Watched::new(&mut out, task, cancel))?;
        out.flush()?;
        fs::rename(&part, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use espalier_inventory::BUILT;

    use super::*;

    /// `espalier-inventory` does not depend on the networks, so it has a list of its own.
    #[test]
    fn both_know_the_same_networks() {
        assert_eq!(BUILT, Net::ALL.map(Net::name));
    }
}
