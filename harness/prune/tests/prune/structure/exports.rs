//! What PyTorch's two exporters write.

use espalier_fixtures::fixture;
use espalier_prune::{
    Method, Recipe, Scope, Structure, Unit,
    structure::{Options, inspect},
};

use super::agree::check;

const EXPORTERS: [&str; 2] = ["script", "dynamo"];

fn recipe(scope: Scope, structure: Structure, ratio: f64) -> Recipe {
    Recipe::new(Method::Magnitude, scope, Unit::Structure(structure), ratio)
}

/// The number of groups of each kind, and of all units, whichever exporter wrote the file.
#[test]
fn half_of_every_family() {
    use Structure::*;
    for (net, groups, units) in [
        ("residual", vec![(Channel, 8)], 320),
        ("residual-bn", vec![(Channel, 8)], 320),
        ("mobile", vec![(Channel, 7)], 456),
        ("mobile-bn", vec![(Channel, 7)], 456),
        ("se", vec![(Channel, 8), (Neuron, 1)], 236),
        ("densenet", vec![(Channel, 16)], 320),
        ("shufflenet", vec![(Channel, 6)], 72),
        ("transformer", vec![(Neuron, 2), (Head, 2)], 200),
        ("bert", vec![(Neuron, 3), (Head, 2)], 1160),
        ("ds-cnn", vec![(Channel, 5)], 320),
        ("lstm", vec![(Hidden, 2)], 64),
        ("gru", vec![(Hidden, 1)], 48),
        ("bilstm", vec![(Hidden, 2)], 192),
        ("bilstm-static", vec![(Hidden, 2)], 192),
    ] {
        for exporter in EXPORTERS {
            let name = format!("{net}-{exporter}");
            let pruned = check(&name, &fixture(&name), &recipe(Scope::Local, Structure::Any, 0.5), &Options::default());
            assert_eq!((pruned.manifest.units, pruned.manifest.removed_units), (units, units / 2), "{name}");
            // Where the file has shapes, half of the channels leave about a quarter of the multiply-accumulates.
            if let Some(macs) = pruned.manifest.macs {
                assert!(macs.pruned < macs.dense * 2 / 3, "{name}: {macs:?}");
            } else {
                assert!(!matches!(net, "residual" | "mobile" | "densenet"), "{name}: not counted");
            }
            let report = pruned.manifest.structure.unwrap();
            for (kind, count) in &groups {
                let found = report.groups.iter().filter(|group| group.kind == *kind).count();
                assert_eq!(found, *count, "{name}: {kind:?}");
            }
            assert!(report.groups.iter().all(|group| group.removed * 2 == group.units), "{name}");
            assert_eq!(report.notes, [""; 0]);
            assert_eq!(report.unknown.len(), 0, "{name}: {:?}", report.unknown);
        }
    }
}

#[test]
fn exactly_as_many_as_requested_of_each_kind() {
    for (name, structure, units) in [
        ("se-script", Structure::Channel, 228),
        ("se-script", Structure::Neuron, 8),
        ("bert-dynamo", Structure::Head, 8),
        ("bert-script", Structure::Neuron, 1152),
        ("bilstm-dynamo", Structure::Hidden, 192),
        ("residual-bn-script", Structure::Layer, 3),
        ("transformer-dynamo", Structure::Layer, 4),
    ] {
        for ratio in [0.3, 0.77] {
            let pruned = check(name, &fixture(name), &recipe(Scope::Global, structure, ratio), &Options::default());
            let (all, removed) = (pruned.manifest.units, pruned.manifest.removed_units);
            assert_eq!((all, removed), (units, (ratio * units as f64).round() as u64), "{name}: {structure:?}");
        }
    }
}

#[test]
fn counts_are_multiples_and_enough_stays() {
    for name in ["residual-bn-dynamo", "densenet-script", "bilstm-script"] {
        let options = Options { round_to: 8, keep_at_least: 0.25, ..Options::default() };
        let pruned = check(name, &fixture(name), &recipe(Scope::Global, Structure::Any, 0.7), &options);
        for group in pruned.manifest.structure.unwrap().groups {
            let kept = group.units - group.removed;
            assert!(kept.is_multiple_of(8) && kept * 4 >= group.units, "{name}: {group:?}");
        }
    }
}

#[test]
fn what_stays_is_reported_with_the_reason() {
    let report = inspect(&fixture("bert-script"), &Options::default()).unwrap();
    let why = |tensor: &str, axis: usize| {
        let kept = report.kept.iter().find(|kept| kept.tensor == tensor && kept.axis == axis);
        kept.map_or(String::new(), |kept| format!("{} {}", kept.op, kept.why))
    };
    assert_eq!(why("classifier.weight", 0), " it is an input or output of the network");
    assert_eq!(why("pooler.weight", 1), "LayerNormalization it is normalised over");
    let report = inspect(&fixture("shufflenet-script"), &Options::default()).unwrap();
    assert!(report.kept.iter().any(|kept| kept.why == "all of it would have to go at once"), "{:?}", report.kept);
}

#[test]
fn nothing_changes_at_ratio_0() {
    let dense = fixture("se-dynamo");
    let none = recipe(Scope::Local, Structure::Any, 0.0);
    assert!(espalier_prune::prune(&dense, &none, None).unwrap().bytes == dense);
}
