//! `pack`: a model's file with its weights in packed form, and the size of every other form. `--as-onnx` writes an ONNX
//! file with int8 weights, for other engines; `--ratios` or `--with` one pack of the model at several ratios.

mod ratios;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use espalier_bench::exit::ExitStatus;
use espalier_prune::Bytes;
use espalier_weights::{Form, Layout, Values, pack::Choice};

use crate::{
    context::{Context, usage},
    output,
    packing::{
        int8_onnx, pack_model,
        sizes::{self, forms},
    },
    progress::Progress,
    recipe_flags::Subject,
    terminal::say,
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// Where weights that are not zero are stored; auto takes the smallest for each tensor
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Blocks of block-csr, in outputs x inputs
    #[arg(long, value_name = "4x1", default_value = "4x1", value_parser = parse_block)]
    block: (u16, u16),
    /// How values are stored: f32 without loss; f16, int8 and codebook (or codebook-16, 2 to 256) rounded
    #[arg(long, value_name = "f32|f16|int8|codebook", default_value = "f32", value_parser = parse_values)]
    values: Values,
    /// Write a plain ONNX file instead, whose weights are int8 with a scale for each output channel, for any engine
    #[arg(long, conflicts_with_all = ["format", "block", "values"])]
    as_onnx: bool,
    /// One pack of the model at all these ratios (0,0.5,0.9), between which the runner switches without loading. MODEL
    /// is one of models/, pruned by its recipe
    #[arg(long, value_name = "R,R…", value_delimiter = ',', conflicts_with_all = ["as_onnx", "with"])]
    ratios: Vec<f64>,
    /// One pack of FILE.onnx at ratio 0 and of this file at that ratio; may be given several times
    #[arg(long, value_name = "R=PRUNED.onnx", value_parser = ratios::parse_with, conflicts_with = "as_onnx")]
    with: Vec<(f64, PathBuf)>,
    /// The packed file
    #[arg(short, long, value_name = "OUT.pack")]
    output: PathBuf,
    /// Do not compute the sizes of other forms
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Auto,
    Csr,
    BlockCsr,
    Bitmap,
    Dense,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let source = Subject::find(&context, &flags.model, &Progress::new(flags.quiet))?.source;
    output::check(&flags.output)?;
    let others = flags.with.iter().map(|(_, path)| path.as_path());
    output::check_apart(&flags.output, &[source.as_path()].into_iter().chain(others).collect::<Vec<_>>())?;
    let file = espalier_prune::file::read(&source).map_err(usage)?;
    if flags.as_onnx {
        return write_int8(&flags, &source, &file);
    }
    let (rows, columns) = flags.block;
    let layout = match flags.format {
        Format::Auto => None,
        Format::Csr => Some(Layout::Csr),
        Format::BlockCsr => Some(Layout::BlockCsr { rows, columns }),
        Format::Bitmap => Some(Layout::Bitmap),
        Format::Dense => Some(Layout::Dense),
    };
    let form = |layout| Choice::Form(Form { layout, values: flags.values });
    let choice = layout.map_or(Choice::Smallest(flags.values), form);
    if !flags.ratios.is_empty() || !flags.with.is_empty() {
        return ratios::run(&context, &flags, &file, choice);
    }
    let (packed, weights) =
        pack_model(&file, choice).with_context(|| format!("failed to pack `{}`", source.display()))?;
    output::write(&flags.output, &packed.bytes)?;
    if !flags.quiet {
        let (sizes, dense) = sizes::sizes(&file, &forms(flags.block))?;
        let sheet = sizes::sheet(&flags.model, &sizes, dense, &packed, weights);
        output::print_sheet(&sheet)?;
    }
    let (bytes, dense) = (packed.bytes.len(), file.len());
    let share = 100.0 * bytes as f64 / dense as f64;
    say(format_args!("{}: {bytes} bytes, {share:.2} % of {dense} in `{}`", flags.output.display(), source.display()))?;
    Ok(ExitStatus::Ok)
}

fn write_int8(flags: &Flags, source: &Path, file: &Bytes) -> Result<ExitStatus> {
    let quantised = int8_onnx::quantise(file).with_context(|| format!("failed to quantise `{}`", source.display()))?;
    espalier_prune::file::write(&flags.output, &quantised.file)?;
    for (name, why) in &quantised.left {
        say(format_args!("  {name:<40} stays f32: {why}"))?;
    }
    let (bytes, dense) = (quantised.file.len(), file.len());
    let share = 100.0 * bytes as f64 / dense as f64;
    let weights = quantised.weights;
    say(format_args!("{}: {weights} weights as int8, {bytes} bytes, {share:.2} % of {dense}", flags.output.display()))?;
    Ok(ExitStatus::Ok)
}

fn parse_block(text: &str) -> Result<(u16, u16), String> {
    match format!("block-csr-{text}").parse() {
        Ok(Layout::BlockCsr { rows, columns }) => Ok((rows, columns)),
        _ => Err("a block is outputs x inputs, as 4x1, each from 1 to 256".to_owned()),
    }
}

fn parse_values(text: &str) -> Result<Values, String> {
    text.parse().map_err(|_| "expected f32, f16, int8, codebook or codebook-16 (2 to 256)".to_owned())
}
