//! A model's file with its weights in packed form, and with int8 weights in plain ONNX.

pub mod int8_onnx;
pub mod sizes;
mod spans;

use anyhow::Result;
use espalier_prune::Bytes;
use espalier_weights::{
    Values,
    pack::{AtRatio, Choice, Packed, PackedRatios, Span, pack, pack_ratios},
};

/// A pack of an ONNX file with weights in the chosen form and all else lossless; and the number of weight tensors.
///
/// # Errors
/// The file is no model, or has values that the form cannot hold.
pub fn pack_model(file: &Bytes, choice: Choice) -> Result<(Packed, usize)> {
    let (tensors, count) = tensors(file, choice)?;
    Ok((pack(file, &tensors)?, count))
}

/// One pack of a model's files at ascending ratios.
///
/// # Errors
/// As for [`pack_model`], and files whose graphs differ.
pub fn pack_nested(files: &[(f64, Bytes)], choice: Choice) -> Result<PackedRatios> {
    let tensors: Vec<Vec<(Span, Choice)>> =
        files.iter().map(|(_, file)| Ok(tensors(file, choice)?.0)).collect::<Result<_>>()?;
    let files = files.iter().zip(&tensors);
    let at: Vec<AtRatio<'_>> = files.map(|((ratio, file), tensors)| AtRatio { ratio: *ratio, file, tensors }).collect();
    Ok(pack_ratios(&at)?)
}

/// The tensors to pack and their forms, weights first, and the number of weights.
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

#[cfg(test)]
mod tests {
    use espalier_weights::pack::Pack;

    use espalier_weights::Form;

    use super::{
        sizes::{forms, sizes},
        *,
    };

    /// Of both exporters; with weights on either side of a product, in LSTMs, and already quantised.
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
            assert_eq!(of_weights.iter().map(|tensor| tensor.section.encoded_bytes).sum::<u64>(), bytes.encoded);
            assert_eq!(of_weights.iter().map(|tensor| tensor.section.packed_bytes).sum::<u64>(), bytes.packed);
            assert_eq!(of_weights.iter().map(|tensor| tensor.dense_bytes()).sum::<u64>(), dense);
        }
    }

    /// DequantizeLinear computes what a pack of int8 unpacks to.
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
