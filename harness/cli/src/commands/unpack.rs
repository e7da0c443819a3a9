//! `unpack`: writes the ONNX file that a pack holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_fleet::blob;
use espalier_prune::Bytes;
use espalier_weights::pack::Pack;

use crate::{
    context::usage,
    output,
    terminal::{print, say},
};

#[derive(Args)]
pub struct Flags {
    /// A file written by `pack`
    #[arg(value_name = "FILE.pack")]
    pack: PathBuf,
    /// The ratio to unpack from a pack of several [default: its first]
    #[arg(long)]
    ratio: Option<f64>,
    /// The ONNX file
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    output::check(&flags.output)?;
    output::check_apart(&flags.output, &[&flags.pack])?;
    let path = flags.pack.display();
    let bytes = std::fs::read(&flags.pack).map_err(|error| usage(format!("cannot read `{path}`: {error}")))?;
    let refused = |error| usage(format!("failed to unpack `{path}`: {error}"));
    let pack = Pack::open(&bytes).map_err(refused)?;
    let pack = match flags.ratio {
        None => pack,
        Some(ratio) => {
            let known = pack.ratios();
            let index = known.iter().position(|known| *known == ratio);
            pack.at_ratio(index.ok_or_else(|| usage(format!("`{path}` holds the ratios {known:?}, not {ratio}")))?)
        }
    };
    let file = Bytes::from(pack.unpack().map_err(refused)?);
    let sha256 = blob::sha256_hex(&file);
    let expected: String = pack.file_sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 != expected {
        return Err(usage(format!("failed to unpack `{path}`: the checksum of its contents is wrong")));
    }
    espalier_prune::file::write(&flags.output, &file)?;
    let forms = pack.tensors().iter().map(|tensor| format!("  {:<40} {}\n", tensor.name, tensor.form));
    print(forms.collect::<String>())?;
    say(format_args!("{}: {} bytes from {} in `{path}`", flags.output.display(), file.len(), bytes.len()))?;
    let lossy = pack.tensors().iter().filter(|tensor| !tensor.form.is_lossless()).count();
    if lossy > 0 {
        let all = pack.tensors().len();
        say(format_args!(
            "{lossy} of {all} tensors are in a form that rounds (a codebook only rounds where it is too small)"
        ))?;
    }
    Ok(ExitStatus::Ok)
}
