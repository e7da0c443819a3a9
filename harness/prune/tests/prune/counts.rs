//! Which weights are removed: exactly the requested number, the smallest, earlier ones first among equals.

use espalier_prune::{Bytes, PruneError, Recipe, onnx::*, prune};
use proptest::prelude::*;

use crate::build::*;

/// Three tensors in the three forms a file can store them in.
fn three_forms(a: &[f32], b: &[f32], c: &[f32]) -> Bytes {
    let len = |values: &[f32]| values.len() as i64;
    model(graph(
        vec![raw("a", &[len(a)], a), floats("b", &[1, len(b)], b)],
        vec![
            constant("c", raw("", &[len(c)], c)),
            node("MatMul", "x a", "1"),
            node("MatMul", "x b", "2"),
            node("MatMul", "x c", "3"),
        ],
    ))
}

fn weights() -> impl Strategy<Value = Vec<f32>> {
    // Ties, zeros of both signs and infinities among ordinary numbers.
    let value = prop_oneof![
        Just(0.0f32),
        Just(-0.0),
        Just(0.5),
        Just(-0.5),
        Just(f32::INFINITY),
        Just(1e-45),
        any::<f32>().prop_filter("NaN is an error", |value| !value.is_nan()),
    ];
    prop::collection::vec(value, 0..40)
}

proptest! {
    #[test]
    fn the_same_as_sorting_by_absolute_value(a in weights(), b in weights(), c in weights(), ratio in 0.0..1.0f64) {
        let dense: Vec<f32> = [&a[..], &b, &c].concat();
        prop_assume!(!dense.is_empty());
        let k = (ratio * dense.len() as f64).round() as usize;
        let mut order: Vec<usize> = (0..dense.len()).collect();
        order.sort_by(|x, y| dense[*x].abs().total_cmp(&dense[*y].abs()));
        let mut expected = dense.clone();
        order[..k].iter().for_each(|index| expected[*index] = 0.0);

        let file = three_forms(&a, &b, &c);
        let pruned = prune(&file, &Recipe::magnitude(ratio), None).unwrap();
        let got = [values(&pruned.bytes, "a"), values(&pruned.bytes, "b"), values(&pruned.bytes, "c")].concat();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&got), bits(&expected));

        let manifest = pruned.manifest;
        prop_assert_eq!(manifest.prunable, dense.len() as u64);
        prop_assert_eq!(manifest.removed, k as u64);
        prop_assert_eq!(manifest.tensors.iter().map(|tensor| tensor.removed).sum::<u64>(), k as u64);
        prop_assert_eq!(manifest.zeros, got.iter().filter(|value| **value == 0.0).count() as u64);
        if k == 0 {
            prop_assert_eq!(pruned.bytes, file);
        }
    }
}

/// Nothing is decoded and encoded again: fields unknown to the schema survive.
#[test]
fn fields_of_a_later_onnx_are_kept() {
    let values: Vec<f32> = (1..=10).map(|value| value as f32).collect();
    let mut file = model(graph(vec![raw("w", &[10], &values)], vec![node("MatMul", "x w", "y")])).to_vec();
    // Field 1000 of the model: three bytes.
    file.extend([0xc2, 0x3e, 0x03, b'n', b'e', b'w']);
    let pruned = prune(&Bytes::from(file.clone()), &Recipe::magnitude(0.5), None).unwrap();
    let changed = file.iter().zip(&pruned.bytes).filter(|(before, after)| before != after).count();
    assert_eq!(pruned.bytes.len(), file.len());
    assert!(pruned.bytes.ends_with(b"new"));
    assert!((1..=20).contains(&changed), "{changed} bytes differ");
}

#[test]
fn what_cannot_be_pruned_says_why() {
    #[track_caller]
    fn check(file: Bytes, ratio: f64, expected: &str) {
        assert_eq!(prune(&file, &Recipe::magnitude(ratio), None).unwrap_err().to_string(), expected);
    }
    let matmul = |tensor| model(graph(vec![tensor], vec![node("MatMul", "x w", "y")]));
    let good = matmul(raw("w", &[2], &[1.0, 2.0]));
    check(good.clone(), 1.0, "ratio 1 is not in [0, 1): it is the fraction of weights to remove");
    check(good.clone(), -0.1, "ratio -0.1 is not in [0, 1): it is the fraction of weights to remove");
    check(good, f64::NAN, "ratio NaN is not in [0, 1): it is the fraction of weights to remove");
    check(
        matmul(raw("w", &[3], &[1.0, f32::NAN, f32::NAN])),
        0.4,
        "tensor `w` has a NaN at flat index 1; a weight that is not a number has no importance to rank",
    );
    check(
        matmul(raw("w", &[3], &[1.0, 2.0])),
        0.5,
        "tensor `w` has 2 values, its shape [3] wants 3; was the file cut off?",
    );
    check(
        matmul(typed("w", &[1], tensor_proto::DataType::Float, vec![0; 7])),
        0.5,
        "tensor `w` has 7 bytes of f32 values, which are 4 bytes each",
    );
    check(matmul(raw("w", &[-1], &[1.0])), 0.5, "tensor `w` has the impossible shape [-1]");
    check(
        matmul(raw("w", &[i64::MAX, 3], &[1.0])),
        0.5,
        "tensor `w` has the impossible shape [9223372036854775807, 3]",
    );
    check(
        matmul(typed("w", &[2], tensor_proto::DataType::Float16, vec![0; 4])),
        0.5,
        "nothing in the model can be pruned: `w`, for one, is a weight of type float16, only float32 is pruned",
    );
    check(
        model(graph(vec![], vec![node("Relu", "x", "y")])),
        0.5,
        "nothing in the model can be pruned: it has no Conv, Gemm, MatMul, LSTM, GRU or RNN with constant weights",
    );
    let external = TensorProto {
        raw_data: None,
        data_location: Some(tensor_proto::DataLocation::External as i32),
        external_data: vec![StringStringEntryProto { key: Some("location".into()), value: Some("w.bin".into()) }],
        ..raw("w", &[2], &[])
    };
    check(
        matmul(external),
        0.5,
        "tensor `w` keeps its values in another file (`w.bin`); read the model from its path, not from bytes alone",
    );
    let twice = vec![raw("w", &[1], &[1.0]), raw("w", &[1], &[2.0])];
    check(
        model(graph(twice, vec![node("MatMul", "x w", "y")])),
        0.5,
        "the model is malformed: two constant tensors are called `w`",
    );
}

/// The dense variant of any model can be made, so that a model without weights can be measured too.
#[test]
fn ratio_0_is_the_file_itself() {
    for file in [
        model(graph(vec![], vec![node("Relu", "x", "y")])),
        model(graph(vec![raw("w", &[2], &[f32::NAN, 0.0])], vec![node("MatMul", "x w", "y")])),
    ] {
        assert_eq!(prune(&file, &Recipe::magnitude(0.0), None).unwrap().bytes, file);
    }
}

#[test]
fn halves_are_rounded_away_from_zero() {
    let removed = |n: u64, ratio: f64| Recipe::magnitude(ratio).removed(n);
    assert_eq!((removed(1, 0.5), removed(3, 0.5), removed(5, 0.5), removed(5, 0.49)), (1, 2, 3, 2));
    assert_eq!(removed(52_768, 0.9), 47_491);
    assert!(matches!(Recipe::magnitude(2.0).check(), Err(PruneError::Ratio { ratio: 2.0 })));
}
