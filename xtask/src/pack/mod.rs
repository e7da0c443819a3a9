//! `cargo xtask pack`: a model's file with its weights in a form made for zeros; and what they would take in every other.

mod sizes;
mod spans;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use espalier_bench::{
    exit::ExitStatus,
    table::{self, Look},
};
use espalier_prune::Bytes;
use espalier_weights::{
    Form, Layout, Values,
    pack::{Choice, Packed, Span, pack},
};

use sizes::{forms, sizes};

use crate::{
    context::{Context, usage},
    prune,
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// How cells that are not zero are found; auto takes the smallest for each tensor
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Blocks of block-csr, in outputs x inputs
    #[arg(long, value_name = "4x1", default_value = "4x1", value_parser = parse_block)]
    block: (u16, u16),
    /// As what weights are kept: f32 without loss; f16, int8 and codebook (or codebook-16, 2 to 256) rounded
    #[arg(long, value_name = "f32|f16|int8|codebook", default_value = "f32", value_parser = parse_values)]
    values: Values,
    /// The packed file
    #[arg(short, long, value_name = "OUT.pack")]
    output: PathBuf,
    /// Do not work out what other forms take
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
    let source = prune::source(&context, &flags.model)?;
    let file = espalier_prune::file::read(&source).map_err(|error| usage(error.to_string()))?;
    let (block_rows, block_columns) = flags.block;
    let choice = match flags.format {
        Format::Auto => Choice::Smallest(flags.values),
        Format::Csr => Choice::Form(Form { layout: Layout::Csr, values: flags.values }),
        Format::BlockCsr => {
            let layout = Layout::BlockCsr { rows: block_rows, columns: block_columns };
            Choice::Form(Form { layout, values: flags.values })
        }
        Format::Bitmap => Choice::Form(Form { layout: Layout::Bitmap, values: flags.values }),
        Format::Dense => Choice::Form(Form { layout: Layout::Dense, values: flags.values }),
    };
    let (packed, weights) =
        pack_model(&file, choice).with_context(|| format!("failed to pack `{}`", source.display()))?;
    std::fs::write(&flags.output, &packed.bytes)
        .with_context(|| format!("cannot write `{}`", flags.output.display()))?;
    if !flags.quiet {
        let (sizes, dense) = sizes(&file, &forms(flags.block))?;
        let sheet = sizes::sheet(&flags.model, &sizes, dense, &packed, weights);
        let width = console::Term::stdout().size_checked().map_or(120, |(_, columns)| columns.into());
        print!("{}", table::render_sheet(&sheet, Look { width, colour: console::colors_enabled() }));
    }
    let (bytes, dense) = (packed.bytes.len(), file.len());
    let share = 100.0 * bytes as f64 / dense as f64;
    println!("{}: {bytes} bytes, {share:.2} % of {dense} in `{}`", flags.output.display(), source.display());
    Ok(ExitStatus::Ok)
}

/// A pack of an ONNX file in which its weights are as chosen and nothing else is rounded; and how many weights there are. Blocks are outputs x inputs.
///
/// # Errors
/// What is no model, or has values the form cannot hold.
pub fn pack_model(file: &Bytes, choice: Choice) -> Result<(Packed, usize)> {
    let spans = spans::Spans::of(file)?;
    let count = spans.weights.len();
    let weights = spans.weights.into_iter().map(|span| match choice {
        Choice::Form(form) => {
            let form = sizes::turned(form, span.channels);
            (span, Choice::Form(form))
        }
        Choice::Smallest(_) => (span, choice),
    });
    let others = spans.others.into_iter().map(|span| (span, Choice::Smallest(Values::F32)));
    let tensors: Vec<(Span, Choice)> = weights.chain(others).collect();
    Ok((pack(file, &tensors)?, count))
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
