//! Broken and hostile files give an error or a result, never a panic and never a flood of memory. A program of its own,
//! because its allocator counts what all threads allocate.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use espalier_engine::{Array, Tensor};
use espalier_prune::{Bytes, Method, PruneError, Recipe, Samples, Scope, Unit, inspect, prune};
use proptest::prelude::*;

static DIGITS: &[u8] = include_bytes!("../../../models/digits-cnn/dense.onnx");

/// Counts the bytes of all threads together, and their peak.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// No panic; and a result can be read again and has as many zeros as its manifest claims.
fn survives(file: &Bytes) -> Result<(), PruneError> {
    inspect(file).ok();
    let pruned = prune(file, &Recipe::magnitude(0.5), None)?;
    let zeros: u64 = inspect(&pruned.bytes)?.tensors.iter().map(|tensor| tensor.zeros).sum();
    assert_eq!(zeros, pruned.manifest.zeros);
    assert!(zeros >= pruned.manifest.removed);
    Ok(())
}

/// Every method that runs the network, and every unit, whatever the result.
fn survives_all(file: &Bytes, which: usize) {
    let samples = Samples { inputs: vec![Tensor::F32(Array::filled([3, 1, 8, 8], 0.5))], labels: Some(vec![0, 1, 2]) };
    let method = Method::ALL[which % Method::ALL.len()];
    let unit: Unit = ["weight", "block-4x1", "block-1x8", "2:4"][which % 4].parse().unwrap();
    let scope = Scope::ALL[which % 2];
    let Ok(pruned) = prune(file, &Recipe::new(method, scope, unit, 0.5), Some(&samples)) else { return };
    let zeros: u64 = inspect(&pruned.bytes).unwrap().tensors.iter().map(|tensor| tensor.zeros).sum();
    assert!(zeros >= pruned.manifest.removed);
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    // Every cut near the ends, where the small fields are, and some within the weights.
    let len = DIGITS.len();
    for cut in (0..400).chain((400..len - 400).step_by(997)).chain(len - 400..len) {
        assert!(survives(&Bytes::from_static(&DIGITS[..cut])).is_err(), "cut at {cut}");
    }
    survives(&Bytes::from_static(DIGITS)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32), 1..6)) {
        let mut file = DIGITS.to_vec();
        for (index, bit) in flips {
            file[index.index(DIGITS.len())] ^= 1 << bit;
        }
        survives(&file.into()).ok();
    }

    #[test]
    fn every_method_and_unit(writes in prop::collection::vec((0..1600usize, any::<u8>()), 0..4), which in 0..28usize) {
        let mut file = DIGITS.to_vec();
        for (index, byte) in writes {
            let index = if index < 1300 { index } else { file.len() - (index - 1299) };
            file[index] = byte;
        }
        survives_all(&file.into(), which);
    }

    /// The structure, not the weights: the nodes come first in the file, inputs and operator sets last.
    #[test]
    fn overwritten_structure(writes in prop::collection::vec((0..1600usize, any::<u8>()), 1..6)) {
        let mut file = DIGITS.to_vec();
        for (index, byte) in writes {
            let index = if index < 1300 { index } else { file.len() - (index - 1299) };
            file[index] = byte;
        }
        survives(&file.into()).ok();
    }

    #[test]
    fn noise(file in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&file.into()).ok();
    }
}

#[test]
fn memory_is_bounded_whatever_the_file() {
    fn wrap(key: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![key];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    }
    const LEN: usize = 4 << 20;
    let graph = |content: &[u8]| wrap(0x3a, content);
    let tensor = |content: &[u8]| graph(&wrap(0x2a, content));
    let files = [
        // Empty nodes, empty attributes of one node, empty tensors, empty inputs, empty functions.
        graph(&[0x0a, 0].repeat(LEN / 2)),
        graph(&wrap(0x0a, &[0x2a, 0].repeat(LEN / 2))),
        graph(&[0x2a, 0].repeat(LEN / 2)),
        graph(&[0x5a, 0].repeat(LEN / 2)),
        [0xca, 0x01, 0].repeat(LEN / 3),
        // Names without letters, packed numbers of one byte, a shape of a thousand gigabytes.
        graph(&wrap(0x0a, &[0x0a, 0].repeat(LEN / 2))),
        tensor(&wrap(0x3a, &[0; LEN])),
        tensor(&wrap(0x0a, &[0; LEN])),
        tensor(&[0x10, 0x01, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]),
    ];
    for (index, file) in files.into_iter().enumerate() {
        let file = Bytes::from(file);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        survives(&file).unwrap_err();
        let peak = (PEAK.load(Ordering::Relaxed) - before) >> 20;
        // Twice the budget of decoding, as vectors grow by doubling, and what the other tests use at the same time.
        assert!(peak <= 700, "file {index}: {peak} MiB at the peak");
    }
}
