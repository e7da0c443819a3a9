//! Valid, damaged and hostile packs: an error or a result, never a panic. `memory.rs` tests memory.

use std::sync::LazyLock;

use espalier_weights::{
    Channels, Form, Values, WeightsError,
    pack::{AtRatio, Choice, MAGIC, Pack, PackedRatio, Span, is_pack, most_file_bytes, pack, pack_ratios},
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{CHANNELS, forms, gaussian, magnitude_pruned};

/// Unpacks without a panic, to a file of the size in the header.
fn survives(bytes: &[u8]) -> Result<(), WeightsError> {
    let pack = Pack::open(bytes)?;
    let file = pack.unpack()?;
    assert_eq!(file.len() as u64, pack.file_bytes());
    assert!(file.len() as u64 <= most_file_bytes(bytes.len() as u64));
    Ok(())
}

/// A file with tensors between other bytes, their spans, and their values.
fn file() -> (Vec<u8>, Vec<Span>) {
    let (mut file, mut spans) = (b"\x08\x07graph".to_vec(), Vec::new());
    for (index, (shape, ratio)) in
        [(vec![8, 3, 3, 3], 0.0), (vec![20, 16], 0.9), (vec![1, 64, 32], 0.8), (vec![5], 0.4)].into_iter().enumerate()
    {
        let count = shape.iter().product::<u64>() as usize;
        let span = Span {
            name: format!("w{index}"),
            rows: shape[0],
            shape,
            channels: CHANNELS[index % 2],
            offset: file.len() as u64,
        };
        spans.push(span);
        let values = magnitude_pruned(gaussian(count, index as u64), ratio);
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        file.extend(vec![index as u8; index * 3]);
    }
    (file, spans)
}

fn packed(choice: Choice) -> Vec<u8> {
    let (file, spans) = file();
    let tensors: Vec<(Span, Choice)> = spans.into_iter().map(|span| (span, choice)).collect();
    pack(&file, &tensors).unwrap().bytes
}

/// One in every form.
static PACKS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| forms().into_iter().map(|form| packed(Choice::Form(form))).collect());

/// Corrects the header's own hash, so that changes get past it.
fn resign(bytes: &mut [u8]) {
    let end = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    if let Some(signed) = end.checked_sub(32).filter(|_| end <= bytes.len()) {
        let sha256: [u8; 32] = Sha256::digest(&bytes[..signed]).into();
        bytes[signed..end].copy_from_slice(&sha256);
    }
}

#[test]
fn a_pack_gives_back_the_file() {
    let (file, spans) = file();
    for choice in forms().into_iter().map(Choice::Form).chain([Choice::Smallest(Values::F32)]) {
        // Tensors may be given in any order.
        let tensors: Vec<(Span, Choice)> = spans.iter().rev().map(|span| (span.clone(), choice)).collect();
        let packed = pack(&file, &tensors).unwrap();
        assert!(is_pack(&packed.bytes) && !is_pack(&file));
        let opened = Pack::open(&packed.bytes).unwrap();
        assert_eq!(opened.tensors(), packed.tensors);
        assert_eq!(opened.tensors().iter().map(|tensor| tensor.name.as_str()).collect::<String>(), "w0w1w2w3");
        let back = opened.unpack().unwrap();
        let sha256: [u8; 32] = Sha256::digest(&back).into();
        assert_eq!((opened.file_bytes(), opened.file_sha256()), (file.len() as u64, sha256));
        let lossless = match choice {
            Choice::Form(form) => form.is_lossless(),
            Choice::Smallest(_) => true,
        };
        assert_eq!(back.len(), file.len());
        assert!(back == file || !lossless, "{choice:?}");
        // Packing the unpacked file again loses nothing more, except for int8, whose scales are rounded.
        if !matches!(choice, Choice::Form(Form { values: Values::Int8, .. })) {
            let again = pack(&back, &tensors).unwrap();
            assert!(Pack::open(&again.bytes).unwrap().unpack().unwrap() == back, "{choice:?}");
        }
    }
    let nothing = pack(&file, &[]).unwrap();
    assert_eq!(Pack::open(&nothing.bytes).unwrap().unpack().unwrap(), file);
}

#[test]
fn the_smallest_form_is_found() {
    let check = |values: Vec<f32>, expected: &str| {
        let file: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let span = Span { name: "w".into(), shape: vec![64, 64], rows: 64, channels: Channels::Rows, offset: 0 };
        let size = |choice| pack(&file, &[(span.clone(), choice)]).unwrap().bytes.len();
        let packed = pack(&file, &[(span.clone(), Choice::Smallest(Values::F32))]).unwrap();
        assert_eq!(packed.tensors[0].form.to_string(), expected);
        for form in forms().into_iter().filter(|form| form.is_lossless()) {
            assert!(packed.bytes.len() <= size(Choice::Form(form)), "{form} is smaller than {expected}");
        }
    };
    let dense = gaussian(64 * 64, 1);
    check(dense.clone(), "dense-f32");
    check(magnitude_pruned(dense.clone(), 0.5), "bitmap-f32");
    check(magnitude_pruned(dense.clone(), 0.9), "bitmap-f32");
    let signs = |value: &f32| if value.abs() < 0.02 { 0.0 } else { value.signum() };
    check(dense.iter().map(signs).collect(), "bitmap-codebook-256");
    let block = |(cell, value): (usize, &f32)| {
        let hash = (cell / 64 / 8 * 64 + cell % 64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if (hash >> 40) % 16 == 0 { *value } else { 0.0 }
    };
    check(dense.iter().enumerate().map(block).collect(), "block-csr-8x1-f32");
}

#[test]
fn a_tensor_can_be_had_alone() {
    let bytes = packed(Choice::Form("csr-f32".parse().unwrap()));
    let pack = Pack::open(&bytes).unwrap();
    let (file, spans) = file();
    for (index, span) in spans.iter().enumerate() {
        let sparse = pack.tensor(index).unwrap();
        let dense: Vec<u8> = sparse.to_dense().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(dense, file[span.offset as usize..][..dense.len()]);
        assert_eq!((sparse.rows as u64, sparse.channels), (span.rows, span.channels));
    }
}

#[test]
fn spans_have_to_fit() {
    let (file, spans) = file();
    let check = |change: &dyn Fn(&mut Span), expected: &str| {
        let mut spans = spans.clone();
        change(&mut spans[1]);
        let tensors: Vec<(Span, Choice)> = spans.into_iter().map(|span| (span, Choice::Form(Form::DENSE))).collect();
        let error = pack(&file, &tensors).unwrap_err().to_string();
        assert!(error.starts_with("tensor `w1`") && error.contains(expected), "{error}");
    };
    check(&|span| span.offset -= 8, "overlaps");
    check(&|span| span.offset = file.len() as u64 - 8, "beyond the end");
    check(&|span| span.offset = u64::MAX - 8, "beyond the end");
    check(&|span| span.shape = vec![u64::MAX, 3], "than can be counted");
    check(&|span| span.shape = vec![0, 3], "has no values");
    check(&|span| span.rows = 7, "no 7 x 45 matrix");
    check(&|span| span.rows = 0, "no 0 x 0 matrix");
    check(&|span| span.shape = vec![1; 256], "more axes");

    let mut infinite = file.clone();
    infinite[spans[2].offset as usize + 4..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let tensors = [(spans[2].clone(), Choice::Form("bitmap-int8".parse().unwrap()))];
    let error = pack(&infinite, &tensors).unwrap_err().to_string();
    assert!(
        error.starts_with("tensor `w2`: value ") && error.ends_with("is inf, which int8 cannot hold; f32 can"),
        "{error}"
    );
}

#[test]
fn a_cut_pack_is_an_error_wherever_it_is_cut() {
    let bytes = packed(Choice::Smallest(Values::F32));
    survives(&bytes).unwrap();
    for cut in 0..bytes.len() {
        assert!(survives(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(survives(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn a_damaged_pack_is_an_error() {
    let bytes = packed(Choice::Form("bitmap-codebook".parse().unwrap()));
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            assert!(survives(&damaged).is_err(), "bit {bit} of byte {place}");
        }
    }
    let mut last = bytes.clone();
    *last.last_mut().unwrap() ^= 1;
    assert_eq!(survives(&last).unwrap_err().to_string(), "the pack is damaged: the checksum of tensor `w3` is wrong");
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(survives(&newer).unwrap_err().to_string().contains("version 9"));
    assert_eq!(survives(b"\x08\x07onnx"), Err(WeightsError::NotAPack));
    assert_eq!(&bytes[..8], MAGIC);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A hostile pack has the right hash.
    #[test]
    fn a_signed_lie_is_survived(
        pack in prop::sample::select(PACKS.as_slice()),
        lies in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 1..4
        ),
    ) {
        let mut bytes = pack.clone();
        let end = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        for (place, byte) in lies {
            bytes[8 + place.index(end - 8)] = byte;
        }
        resign(&mut bytes);
        survives(&bytes).ok();
    }

    #[test]
    fn a_tensor_of_any_bytes_is_survived(
        form in prop::sample::select(forms()),
        rows in 0usize..40,
        columns in 0usize..40,
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..600),
    ) {
        for channels in CHANNELS {
            if let Ok(sparse) = form.decode(rows, columns, channels, &bytes) {
                prop_assert_eq!(sparse.to_dense().len(), rows * columns);
            }
        }
    }

    /// Bytes that were a tensor's before a few of them were changed get further than random ones.
    #[test]
    fn a_changed_tensor_is_survived(
        form in prop::sample::select(forms()),
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let values = magnitude_pruned(gaussian(19 * 23, 5), 0.7);
        let matrix = espalier_weights::Matrix::new(19, 23, Channels::Rows, &values).unwrap();
        let mut bytes = form.encode(&matrix).unwrap();
        for (place, byte) in lies {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            let is_whole = bytes.len() == form.encode(&matrix).unwrap().len();
            prop_assert!(form.decode(19, 23, Channels::Rows, &bytes).is_err() || is_whole);
        }
        form.decode(19, 23, Channels::Rows, &bytes).ok();
    }
}

/// Three ratios of one model. The second is pruned in one step, the third is fine-tuned as well. One tensor was as
/// sparse before.
fn nested() -> Vec<u8> {
    let (dense, spans) = file();
    let pruned = |ratio: f64, fine_tuned: bool| {
        let mut file = dense.clone();
        for span in &spans {
            let count = span.shape.iter().product::<u64>() as usize;
            let bytes = &mut file[span.offset as usize..][..4 * count];
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            let kept = magnitude_pruned(values, ratio);
            for (value, out) in kept.iter().zip(bytes.as_chunks_mut().0) {
                *out = (if fine_tuned { value * 1.5 } else { *value }).to_le_bytes();
            }
        }
        file
    };
    let files = [dense.clone(), pruned(0.9, false), pruned(0.95, true)];
    let tensors: Vec<(Span, Choice)> = spans.iter().map(|span| (span.clone(), Choice::Smallest(Values::F32))).collect();
    let at = |(file, ratio)| AtRatio { ratio, file, tensors: &tensors };
    let ratios: Vec<AtRatio> = files.iter().map(Vec::as_slice).zip([0.0, 0.9, 0.95]).map(at).collect();
    let packed = pack_ratios(&ratios).unwrap();
    let counts = |ratio: &PackedRatio| (ratio.same, ratio.nested, ratio.own);
    assert_eq!(packed.ratios.iter().map(counts).collect::<Vec<_>>(), [(0, 0, 4), (1, 3, 0), (1, 0, 3)]);
    assert!(packed.ratios[1].bytes * 4 < packed.ratios[0].bytes, "{:?}", packed.ratios);
    let pack = Pack::open(&packed.bytes).unwrap();
    assert_eq!(pack.ratios(), [0.0, 0.9, 0.95]);
    for (index, file) in files.iter().enumerate() {
        assert!(pack.at_ratio(index).unpack().unwrap() == *file, "{index}");
    }
    drop(pack);
    packed.bytes
}

#[test]
fn several_ratios_share_what_is_the_same() {
    let bytes = nested();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Pack::open(&damaged).is_err(), "{at}");
        assert!(Pack::open(&bytes[..at]).is_err(), "{at}");
    }
}

proptest! {
    /// A header with a corrected hash never causes a panic.
    #[test]
    fn headers_of_several_are_untrusted(at in 16usize..1200, byte: u8) {
        static NESTED: LazyLock<Vec<u8>> = LazyLock::new(nested);
        let mut bytes = NESTED.clone();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        resign(&mut bytes);
        if let Ok(pack) = Pack::open(&bytes) {
            for index in 0..pack.ratios().len() {
                let _ = pack.at_ratio(index).unpack();
                let _ = pack.at_ratio(index).without_tensors();
            }
        }
    }
}
