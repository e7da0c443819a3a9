//! `model`: the networks that articles on pruning measure, as ONNX files of full size. They are built here with random
//! weights, because trained ones have hundreds of megabytes and licences of their own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use espalier_bench::exit::ExitStatus;
use espalier_zoo::Net;

use crate::{
    context::usage,
    networks, output,
    progress::{Progress, stop_on_signal},
    terminal::say,
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
    let path = flags.output.unwrap_or_else(|| format!("{}.onnx", net.name()).into());
    if path.is_dir() {
        return Err(usage(format!("`{}` is a folder: add the file's name", path.display())));
    }
    if path.exists() && !flags.force {
        return Err(usage(format!("`{}` exists; `--force` overwrites it", path.display())));
    }
    let blueprint = net.blueprint();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    networks::check_room(folder, blueprint.bytes(), "`-o` writes elsewhere")?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let task = networks::task(&progress, net, &blueprint);
    output::write_with(&path, |out| blueprint.write(&mut networks::Watched::new(out, &task, &cancel)))?;
    task.done();
    say(format_args!("{}: {}", path.display(), net.about()))?;
    say(format_args!("{} bytes, {} parameters, SHA-256 {}", blueprint.bytes(), blueprint.parameters(), net.sha256()))?;
    say(format_args!(
        "its weights are random: a pruned variant can be compared with the dense one, but has no accuracy"
    ))?;
    Ok(ExitStatus::Ok)
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
