//! `cargo xtask pack`: a model's file with its weights in a form made for zeros; and what they would take in every other. With `--as-onnx` an ONNX file
//! of int8 weights, for engines that are not ours. With `--ratios` or `--with` one pack of the model at several ratios.

mod int8_onnx;
mod ratios;
mod sizes;
mod spans;

use std::path::{Path, PathBuf};

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
    progress::Progress,
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
    /// Write a plain ONNX file instead, whose weights are int8 with a scale for each output channel: any engine loads it
    #[arg(long, conflicts_with_all = ["format", "block", "values"])]
    as_onnx: bool,
    /// One pack of the model at all these ratios, between which the runner changes without loading: 0,0.5,0.9. MODEL is one of models/, pruned by its recipe
    #[arg(long, value_name = "R,R…", value_delimiter = ',', conflicts_with_all = ["as_onnx", "with"])]
    ratios: Vec<f64>,
    /// One pack of FILE.onnx at ratio 0 and of this file at that ratio; may be given several times
    #[arg(long, value_name = "R=PRUNED.onnx", value_parser = ratios::parse_with, conflicts_with = "as_onnx")]
    with: Vec<(f64, PathBuf)>,
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
    let source = prune::source(&context, &flags.model, &Progress::new(flags.quiet))?;
    let file = espalier_prune::file::read(&source).map_err(|error| usage(error.to_string()))?;
    if flags.as_onnx {
        return write_int8(&flags, &source, &file);
    }
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
    if !flags.ratios.is_empty() || !flags.with.is_empty() {
        return ratios::run(&context, &flags, &file, choice);
    }
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

fn write_int8(flags: &Flags, source: &Path, file: &Bytes) -> Result<ExitStatus> {
    let quantised = int8_onnx::quantise(file).with_context(|| format!("failed to quantise `{}`", source.display()))?;
    espalier_prune::file::write(&flags.output, &quantised.file)?;
    for (name, why) in &quantised.left {
        println!("  {name:<40} stays f32: {why}");
    }
    let (bytes, dense) = (quantised.file.len(), file.len());
    let share = 100.0 * bytes as f64 / dense as f64;
    let weights = quantised.weights;
    println!("{}: {weights} weights as int8, {bytes} bytes, {share:.2} % of {dense}", flags.output.display());
    Ok(ExitStatus::Ok)
}

/// A pack of an ONNX file in which its weights are as chosen and nothing else is rounded; and how many weights there are. Blocks are outputs x inputs.
///
/// # Errors
/// What is no model, or has values the form cannot hold.
pub fn pack_model(file: &Bytes, choice: Choice) -> Result<(Packed, usize)> {
    let (tensors, count) = tensors(file, choice)?;
    Ok((pack(file, &tensors)?, count))
}

/// What is to be packed, each how, weights first; and how many weights there are.
fn tensors(file: &Bytes, choice: Choice) -> Result<(Vec<(Span, Choice)>, usize)> {
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
    Ok((weights.chain(others).collect(), count))
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

#[cfg(test)]
mod tests {
    use espalier_weights::pack::Pack;

    use super::*;

    /// Of both exporters, with weights on either side of a product, in LSTMs, and already quantised.
    const FILES: [&str; 6] = [
        "bilstm-dynamo",
        "mobile-qdq",
        "residual-bn-script",
        "transformer-dynamic-int8",
        "transformer-script",
        "gru-dynamo",
    ];

    #[test]
    fn exports_come_back_byte_for_byte() {
        for name in FILES {
            let file = espalier_fixtures::fixture(name);
            for form in ["csr", "block-csr-4x1", "bitmap", "dense"] {
                let (packed, _) = pack_model(&file, Choice::Form(form.parse().unwrap())).unwrap();
                assert!(Pack::open(&packed.bytes).unwrap().unpack().unwrap() == file, "{name} as {form}");
            }
        }
    }

    #[test]
    fn rounding_keeps_shape_and_all_that_is_no_weight() {
        // With embeddings.
        let file = espalier_fixtures::fixture("bert-script");
        let spans = spans::Spans::of(&file).unwrap();
        assert!(!spans.weights.is_empty() && !spans.others.is_empty());
        for form in ["bitmap-f16", "csr-int8", "dense-codebook"].map(|form| form.parse::<Form>().unwrap()) {
            let (packed, weights) = pack_model(&file, Choice::Form(form)).unwrap();
            assert_eq!(weights, spans.weights.len());
            let mut back = Pack::open(&packed.bytes).unwrap().unpack().unwrap();
            assert!(back != file, "{form}");
            for span in &spans.weights {
                let place = span.offset as usize..(span.offset + sizes::dense_bytes(span)) as usize;
                back[place.clone()].copy_from_slice(&file[place]);
            }
            assert!(back == file, "{form}");
        }
    }

    #[test]
    fn sizes_are_those_of_packs() {
        let file = espalier_fixtures::fixture("residual-script");
        let forms = forms((4, 1));
        let (sizes, dense) = sizes(&file, &forms).unwrap();
        let names: Vec<String> = spans::Spans::of(&file).unwrap().weights.into_iter().map(|span| span.name).collect();
        assert_eq!(sizes.iter().map(|size| size.form).collect::<Vec<_>>(), forms);
        for size in sizes {
            let (packed, weights) = pack_model(&file, Choice::Form(size.form)).unwrap();
            let of_weights: Vec<_> = packed.tensors.iter().filter(|tensor| names.contains(&tensor.name)).collect();
            assert_eq!(of_weights.len(), weights);
            let bytes = size.bytes.unwrap();
            assert_eq!(of_weights.iter().map(|tensor| tensor.part.encoded_bytes).sum::<u64>(), bytes.encoded);
            assert_eq!(of_weights.iter().map(|tensor| tensor.part.packed_bytes).sum::<u64>(), bytes.packed);
            assert_eq!(of_weights.iter().map(|tensor| tensor.dense_bytes()).sum::<u64>(), dense);
        }
    }

    /// What DequantizeLinear makes of them is what a pack of int8 unpacks to.
    #[test]
    fn int8_in_onnx_and_in_a_pack_are_the_same_numbers() {
        use espalier_prune::{onnx::Model, survey, tensor::Values as Floats};
        for name in ["residual-bn-script", "transformer-script"] {
            let file = espalier_fixtures::fixture(name);
            let quantised = int8_onnx::quantise(&file).unwrap();
            assert!(quantised.weights > 0 && quantised.left.is_empty(), "{name}: {:?}", quantised.left);
            let int8 = Model::decode(&quantised.file).unwrap();
            let (packed, _) = pack_model(&file, Choice::Form("dense-int8".parse().unwrap())).unwrap();
            let back = Bytes::from(Pack::open(&packed.bytes).unwrap().unpack().unwrap());
            let back = Model::decode(&back).unwrap();
            let constant = |name: &str| int8.graph().initializer.iter().find(|tensor| tensor.name() == name).unwrap();
            for weight in survey(&back).unwrap().weights {
                let node = int8.graph().node.iter().find(|node| node.output[0] == weight.name).unwrap();
                assert_eq!(node.op_type(), "DequantizeLinear");
                let (codes, scales) = (constant(&node.input[0]), constant(&node.input[1]));
                let scales: Vec<f32> =
                    scales.raw_data().as_chunks().0.iter().map(|scale| f32::from_le_bytes(*scale)).collect();
                let axis = node.attribute[0].i() as usize;
                let inner: u64 = weight.shape[axis + 1..].iter().product();
                let mut cell = 0;
                Floats::of(&weight.name, weight.place.tensor(back.graph())).unwrap().for_each(|value| {
                    let channel = (cell / inner % weight.shape[axis]) as usize;
                    assert_eq!(f32::from(codes.raw_data()[cell as usize] as i8) * scales[channel], value, "{name}");
                    cell += 1;
                });
            }
        }
    }
}
