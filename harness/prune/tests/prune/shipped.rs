//! The demonstration model.

use espalier_prune::{Axis, Bytes, Manifest, Recipe, inspect, onnx::Model, prune};

static DIGITS: &[u8] = include_bytes!("../../../../models/digits-cnn/dense.onnx");

fn digits() -> Bytes {
    Bytes::from_static(DIGITS)
}

#[test]
fn decoding_and_encoding_gives_the_same_bytes() {
    let model = Model::decode(&digits()).unwrap();
    assert!(model.encode() == digits(), "the encoded file differs");
}

#[test]
fn its_facts() {
    let inspection = inspect(&digits()).unwrap();
    assert_eq!((inspection.prunable, inspection.parameters), (52_768, 53_002));
    assert_eq!((inspection.ir_version, inspection.opsets), (8, vec![(String::new(), 17)]));
    let input = &inspection.inputs[0];
    assert_eq!((input.name.as_str(), input.dtype), ("input", "float32"));
    assert_eq!(input.axes, Some(vec![Axis::Free("N".into()), Axis::Fixed(1), Axis::Fixed(8), Axis::Fixed(8)]));
}

#[test]
fn exact_counts_and_a_file_of_the_same_size_at_every_ratio() {
    for (ratio, removed) in [(0.0, 0), (0.5, 26_384), (0.8, 42_214), (0.9, 47_491), (0.95, 50_130)] {
        let pruned = prune(&digits(), &Recipe::magnitude(ratio), None).unwrap();
        let manifest = &pruned.manifest;
        assert_eq!((manifest.removed, manifest.zeros, manifest.prunable), (removed, removed, 52_768), "ratio {ratio}");
        assert_eq!(pruned.bytes.len(), DIGITS.len());
        let zeros: u64 = inspect(&pruned.bytes).unwrap().tensors.iter().map(|tensor| tensor.zeros).sum();
        assert_eq!(zeros, removed, "zeros in the file");
        assert_eq!(prune(&digits(), &Recipe::magnitude(ratio), None).unwrap(), pruned, "the same again");
    }
}

#[test]
fn a_manifest_survives_its_file() {
    let manifest = prune(&digits(), &Recipe::magnitude(0.9), None).unwrap().manifest;
    let text = serde_json::to_string(&manifest).unwrap();
    assert!(text.starts_with(r#"{"method":"magnitude","scope":"global","unit":"weight","ratio":0.9,"#), "{text}");
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
}
