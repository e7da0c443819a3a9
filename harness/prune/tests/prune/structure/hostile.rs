//! Graphs broken on purpose give an error or a result, never a panic; and a result is a working model.

use espalier_fixtures::fixture;
use espalier_prune::{
    Bytes, Method, Recipe, Scope, Structure, Unit,
    onnx::Model,
    structure::{self, Options},
};
use proptest::prelude::*;

use super::agree::difference;

const NETS: [&str; 6] =
    ["residual-bn-script", "se-dynamo", "shufflenet-script", "transformer-dynamo", "gru-script", "densenet-dynamo"];

/// One change of the graph.
#[derive(Clone, Debug)]
enum Change {
    Dim { tensor: usize, axis: usize, len: i64 },
    Integer { node: usize, attribute: usize, value: i64 },
    Drop { node: usize },
    Swap { node: usize, other: usize },
    Input { node: usize, slot: usize, from: usize },
    Op { node: usize, from: usize },
    Element { tensor: usize, byte: usize, value: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..1000usize;
    let len = prop_oneof![-2..40i64, Just(i64::MAX), Just(i64::MIN), Just(1 << 31)];
    prop_oneof![
        (at.clone(), 0..4usize, len.clone()).prop_map(|(tensor, axis, len)| Change::Dim { tensor, axis, len }),
        (at.clone(), 0..6usize, len).prop_map(|(node, attribute, value)| Change::Integer { node, attribute, value }),
        at.clone().prop_map(|node| Change::Drop { node }),
        (at.clone(), at.clone()).prop_map(|(node, other)| Change::Swap { node, other }),
        (at.clone(), 0..4usize, at.clone()).prop_map(|(node, slot, from)| Change::Input { node, slot, from }),
        (at.clone(), at.clone()).prop_map(|(node, from)| Change::Op { node, from }),
        (at.clone(), at, any::<u8>()).prop_map(|(tensor, byte, value)| Change::Element { tensor, byte, value }),
    ]
}

fn apply(model: &mut Model, change: &Change) {
    let graph = model.graph_mut();
    let (nodes, tensors) = (graph.node.len(), graph.initializer.len());
    if nodes == 0 || tensors == 0 {
        return;
    }
    match *change {
        Change::Dim { tensor, axis, len } => {
            if let Some(dim) = graph.initializer[tensor % tensors].dims.get_mut(axis) {
                *dim = len;
            }
        }
        Change::Integer { node, attribute, value } => {
            let attributes = &mut graph.node[node % nodes].attribute;
            let count = attributes.len().max(1);
            if let Some(attribute) = attributes.get_mut(attribute % count) {
                attribute.i = attribute.i.map(|_| value);
                attribute.ints.first_mut().into_iter().for_each(|first| *first = value);
            }
        }
        Change::Drop { node } => {
            graph.node.remove(node % nodes);
        }
        Change::Swap { node, other } => {
            graph.node.swap(node % nodes, other % nodes);
        }
        Change::Input { node, slot, from } => {
            let name = graph.node[from % nodes].output[0].clone();
            if let Some(input) = graph.node[node % nodes].input.get_mut(slot) {
                *input = name;
            }
        }
        Change::Op { node, from } => graph.node[node % nodes].op_type = graph.node[from % nodes].op_type.clone(),
        Change::Element { tensor, byte, value } => {
            let tensor = &mut graph.initializer[tensor % tensors];
            let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty()) else { return };
            let mut bytes = raw.to_vec();
            let len = bytes.len();
            bytes[byte % len] = value;
            tensor.raw_data = Some(bytes.into());
        }
    }
}

fn survives(model: &Bytes, structure: Structure) {
    let recipe = Recipe::new(Method::Random, Scope::Global, Unit::Structure(structure), 0.4);
    let options = Options::default();
    let Ok(pruned) = structure::prune(model, &recipe, None, &options) else { return };
    let mut plan = structure::plan(Model::decode(model).unwrap(), &recipe, None, &options).unwrap();
    if let Ok(difference) = difference(&plan.masked().unwrap(), &pruned.bytes) {
        // NaN where the broken network computes no number.
        assert!(difference.is_nan() || difference <= 1e-4, "{difference} off");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn broken_graphs(net in 0..NETS.len(), changes in prop::collection::vec(change(), 1..4), layers: bool) {
        let mut model = Model::decode(&fixture(NETS[net])).unwrap();
        changes.iter().for_each(|change| apply(&mut model, change));
        survives(&model.encode(), if layers { Structure::Layer } else { Structure::Any });
    }
}
