//! Files as PyTorch's exporters write them: nothing changes where nothing is removed, and no weight is left out of the
//! report.

use espalier_fixtures::{external_data, fixture, names};
use espalier_prune::{Reason, Recipe, file, inspect, onnx::Model, prune, survey};

#[test]
fn unchanged_files_are_the_same_to_the_byte() {
    let names = names();
    assert!(names.len() >= 30, "{names:?}");
    for name in &names {
        let bytes = fixture(name);
        assert!(Model::decode(&bytes).unwrap().encode() == bytes, "`{name}` decoded and encoded again differs");
        if external_data(name).is_none() {
            assert!(
                prune(&bytes, &Recipe::magnitude(0.0), None).unwrap().bytes == bytes,
                "`{name}` at ratio 0 differs"
            );
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = file::read(&espalier_fixtures::write("residual-external", folder.path())).unwrap();
    assert!(Model::decode(&whole).unwrap().encode() == whole);
    assert!(prune(&whole, &Recipe::magnitude(0.0), None).unwrap().bytes == whole);
}

/// One network has the same weights, whichever exporter wrote it: read in place, transposed, sliced, or also read by
/// `Shape`.
#[test]
fn both_exporters_have_the_same_weights() {
    for (net, weights) in [
        ("bert", 410_240),
        ("bert-classifier", 70_912),
        ("bilstm", 326_976),
        ("bilstm-static", 326_976),
        ("densenet", 24_848),
        ("ds-cnn", 22_016),
        ("gru", 10_128),
        ("lstm", 16_480),
        ("mobile", 24_944),
        ("mobile-bn", 24_944),
        ("mobilenetv2", 3_469_760),
        ("residual", 169_520),
        ("residual-bn", 169_520),
        ("resnet50", 25_502_912),
        ("se", 71_952),
        ("shufflenet", 4_248),
        ("transformer", 37_920),
    ] {
        for exporter in ["script", "dynamo"] {
            let name = format!("{net}-{exporter}");
            let model = Model::decode(&fixture(&name)).unwrap();
            let survey = survey(&model).unwrap();
            assert_eq!(survey.prunable(), weights, "`{name}`");
            for weight in &survey.weights {
                assert!(weight.layout.is_some(), "`{name}`: rows and columns of `{}` are not known", weight.name);
            }
            for tensor in &survey.untouched {
                let told = matches!(
                    tensor.reason,
                    Reason::Bias | Reason::Normalisation | Reason::Embedding | Reason::Scalar | Reason::InitialState
                );
                assert!(told, "`{name}`: `{}` is {}", tensor.name, tensor.reason);
            }
        }
    }
}

/// Integer weights are kept, with the reason in the report.
#[test]
fn quantised_weights_are_not_pruned() {
    for (name, reason) in [
        ("mobile-qdq", "a weight that reaches its use through `DequantizeLinear`"),
        ("transformer-dynamic-int8", "a weight of type int8, only float32 is pruned"),
    ] {
        let survey = survey(&Model::decode(&fixture(name)).unwrap()).unwrap();
        let parameters: u64 = survey
            .untouched
            .iter()
            .filter(|tensor| tensor.reason.to_string() == reason)
            .map(|tensor| tensor.parameters)
            .sum();
        assert!(parameters > 20_000, "`{name}`: {:#?}", survey.untouched);
        let error = prune(&fixture(name), &Recipe::magnitude(0.5), None).unwrap_err().to_string();
        assert!(error.starts_with("nothing in the model can be pruned: `"), "{error}");
    }
}

/// The well-known counts of these networks: multiply-accumulates of the convolutions and the last layer for one image
/// of 224 by 224.
#[test]
fn multiplications_are_counted_without_a_run() {
    for (net, macs) in [("resnet50", 4_089_184_256u64), ("mobilenetv2", 300_774_272)] {
        for exporter in ["script", "dynamo"] {
            let name = format!("{net}-{exporter}");
            let inspection = inspect(&fixture(&name)).unwrap();
            let by_tensor = inspection.macs.unwrap_or_else(|| panic!("`{name}` has no counts"));
            assert_eq!(by_tensor.iter().map(|(dense, _)| dense).sum::<u64>(), macs, "`{name}`");

            let manifest = prune(&fixture(&name), &Recipe::magnitude(0.5), None).unwrap().manifest;
            let counted = manifest.macs.unwrap();
            assert_eq!((counted.dense, counted.pruned), (macs, macs), "zeros do not shrink tensors");
            let left: f64 = manifest
                .tensors
                .iter()
                .zip(&by_tensor)
                .map(|(tensor, (macs, _))| *macs as f64 * (1.0 - tensor.zeros as f64 / tensor.weights as f64))
                .sum();
            assert!((counted.pruned_nonzero as f64 - left).abs() < 1.0, "{counted:?}, {left}");
        }
    }
    // The file does not fix the length of a sequence.
    assert_eq!(inspect(&fixture("bert-script")).unwrap().macs, None);
}
