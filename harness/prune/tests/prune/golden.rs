//! The bytes the pruner makes of fixed models. Caches store pruned models by model, recipe and
//! [`espalier_prune::PRUNER`]: when the bytes change, that number has to be raised.
//!
//! Everything here is exact on every processor: no sum depends on the order of its terms, and no function of the
//! system's mathematics library is called.

use espalier_engine::{Array, Tensor};
use espalier_fixtures::fixture;
use espalier_prune::{
    Bytes, Method, Recipe, Samples, Scope, Unit, prune,
    tune::{Distil, Options, Plan, Schedule, Watch, iterate},
};

use crate::{build, tune::fed};

static DIGITS: &[u8] = include_bytes!("../../../../models/digits-cnn/dense.onnx");

/// FNV-1a.
fn hash(bytes: &Bytes) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[track_caller]
fn check(what: &str, bytes: &Bytes, expected: u64) {
    let found = hash(bytes);
    assert_eq!(
        found, expected,
        "{what}: the pruner makes other bytes (0x{found:016x}): raise PRUNER, then note the hash"
    );
}

fn pruned(dense: &Bytes, method: Method, scope: Scope, unit: &str, ratio: f64) -> Bytes {
    let unit: Unit = unit.parse().unwrap();
    prune(dense, &Recipe::new(method, scope, unit, ratio), None).unwrap().bytes
}

#[test]
fn removed_weights() {
    let dense = Bytes::from_static(DIGITS);
    let of = |method, scope, unit, ratio| pruned(&dense, method, scope, unit, ratio);
    check("magnitude", &of(Method::Magnitude, Scope::Global, "weight", 0.5), 0x0d48_e24a_f986_bc4f);
    check("local blocks", &of(Method::Magnitude, Scope::Local, "block-4x1", 0.7), 0x6909_b8f1_b45a_0231);
    check("2:4", &of(Method::Magnitude, Scope::Local, "2:4", 0.5), 0x0aca_e89d_11d3_63eb);
    check("random", &of(Method::Random, Scope::Global, "weight", 0.9), 0xd091_c143_6d2c_7a1b);
}

#[test]
fn removed_units() {
    for (name, unit, expected) in [
        ("se-script", "channel", 0xc92a_8d16_e21c_a08b),
        ("transformer-dynamo", "head", 0xd992_0631_5ccc_1003),
        ("gru-script", "hidden", 0x183e_60ad_f4fb_ac59),
        ("bert-script", "neuron", 0x1a7e_3502_72fc_b2c9),
        ("residual-bn-script", "layer", 0x79b5_aeca_861b_5d0e),
    ] {
        check(name, &pruned(&fixture(name), Method::Magnitude, Scope::Global, unit, 0.4), expected);
    }
}

/// One step on numbers so short that every product and sum is exact.
#[test]
fn fine_tuned_weights() {
    let short = |len: usize, step: usize| -> Vec<f32> {
        (0..len).map(|index| ((index * step) % 5) as f32 / 2.0 - 1.0).collect()
    };
    let weights = vec![
        build::raw("w1", &[4, 8], &short(32, 7)),
        build::raw("b1", &[8], &short(8, 3)),
        build::raw("w2", &[8, 1], &short(8, 8)),
    ];
    let nodes = vec![
        build::node("MatMul", "x w1", "a"),
        build::node("Add", "a b1", "b"),
        build::node("Relu", "b", "c"),
        build::node("MatMul", "c w2", "y"),
    ];
    let samples = Samples { inputs: vec![Tensor::F32(Array::new([16, 4], short(64, 13)))], labels: None };
    let options = Options {
        epochs: 1,
        batch: 16,
        rate: 0.125,
        warm_up: 0.0,
        clip: f32::INFINITY,
        validation: 0.0,
        distil: Distil::Free { temperature: 1.0 },
        ..Options::default()
    };
    let plan = Plan { schedule: Schedule::OneShot, options, ..Plan::new(Recipe::magnitude(0.5)) };
    let watch = &mut Watch { on_event: &mut |_| (), stop: &|| false };
    let tuned = iterate(&fed(weights, nodes), &plan, &samples, None, watch).unwrap();
    check("fine-tuned", &tuned.bytes, 0xf8d5_43ae_977c_8523);
}
