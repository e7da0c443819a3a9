//! Rules that no exported fixture needs, each in a network of its own: a layer, the operator, a layer.

use espalier_prune::{
    Bytes, Method, PruneError, Recipe, Scope, Structure, Unit,
    onnx::TensorProto,
    structure::{Options, Report, inspect, prune},
};

use super::{
    agree::check,
    text::{ints, model, tensor},
};

fn half() -> Recipe {
    Recipe::new(Method::Magnitude, Scope::Local, Unit::Structure(Structure::Any), 0.5)
}

/// Removes half of all groups; `units` are the numbers of units of each group, in order.
#[track_caller]
fn shrinks(model: &Bytes, units: &[usize]) -> Report {
    let pruned = check("net", model, &half(), &Options::default());
    let report = pruned.manifest.structure.unwrap();
    let found: Vec<usize> = report.groups.iter().map(|group| group.units).collect();
    assert_eq!(found, units, "{report:#?}");
    report
}

/// A convolution from 2 channels to 6, the given node, and a convolution back to 2.
#[track_caller]
fn between_convolutions(nodes: &[&str], mut constants: Vec<TensorProto>, units: &[usize]) {
    constants.extend([tensor("v", &[6, 2, 1, 1]), tensor("c", &[6]), tensor("w", &[2, 6, 1, 1])]);
    let nodes: Vec<&str> = ["Conv x,v,c -> a"].iter().chain(nodes).copied().chain(["Conv b,w -> y"]).collect();
    shrinks(&model(&[0, 2, 5, 5], constants, &nodes), units);
}

#[test]
fn elementwise_pad_where_and_identity() {
    between_convolutions(&["Pad a,p -> b"], vec![ints("p", &[0, 0, 1, 1, 0, 0, 1, 1])], &[6]);
    between_convolutions(&["Sigmoid a -> s", "Mul a,s -> b"], vec![], &[6]);
    between_convolutions(&["Sigmoid a -> s", "Greater a,s -> g", "Where g,a,s -> b"], vec![], &[6]);
    between_convolutions(&["Max a,k -> m", "Identity m -> b"], vec![tensor("k", &[6, 1, 1])], &[6]);
    between_convolutions(&["PRelu a,k -> b"], vec![tensor("k", &[6, 1, 1])], &[6]);
}

#[test]
fn pools_and_norms() {
    between_convolutions(&["LpPool a -> b kernel_shape=2,2"], vec![], &[6]);
    between_convolutions(&["GlobalLpPool a -> p", "Add a,p -> b"], vec![], &[6]);
    between_convolutions(&["Hardmax a -> b axis=2"], vec![], &[6]);
    between_convolutions(&["RMSNormalization a,k -> b axis=-1"], vec![tensor("k", &[5])], &[6]);
}

#[test]
fn parts_are_cut_where_they_were() {
    let cut = |starts: &[i64], ends: &[i64]| vec![ints("s", starts), ints("e", ends), ints("ax", &[1])];
    // Two groups: the channels the slice keeps, and the ones it drops, which nothing uses.
    let mut constants = cut(&[1], &[5]);
    constants.extend([tensor("v", &[6, 2, 1, 1]), tensor("w", &[2, 4, 1, 1])]);
    shrinks(&model(&[0, 2, 5, 5], constants, &["Conv x,v -> a", "Slice a,s,e,ax -> b", "Conv b,w -> y"]), &[2, 4]);
    // From the end.
    let mut constants = cut(&[-4], &[i64::MAX]);
    constants.extend([tensor("v", &[6, 2, 1, 1]), tensor("w", &[2, 4, 1, 1])]);
    shrinks(&model(&[0, 2, 5, 5], constants, &["Conv x,v -> a", "Slice a,s,e,ax -> b", "Conv b,w -> y"]), &[2, 4]);
    between_convolutions(
        &["Split a,z -> l,r axis=1", "Relu l -> m", "Concat r,m -> b axis=1"],
        vec![ints("z", &[2, 4])],
        &[2, 4],
    );
}

#[test]
fn groups_stay_alike() {
    // Three groups of two channels in, four out: the same channel of each group is removed.
    let constants = vec![tensor("v", &[6, 2, 1, 1]), tensor("g", &[12, 2, 3, 3]), tensor("w", &[2, 12, 1, 1])];
    let nodes = ["Conv x,v -> a", "Conv a,g -> b group=3 pads=1,1,1,1", "Conv b,w -> y"];
    shrinks(&model(&[0, 2, 5, 5], constants, &nodes), &[2, 4]);
    // Two outputs for each of the depthwise channels.
    let constants = vec![tensor("v", &[6, 2, 1, 1]), tensor("g", &[12, 1, 3, 3]), tensor("w", &[2, 12, 1, 1])];
    let nodes = ["Conv x,v -> a", "Conv a,g -> b group=6", "Conv b,w -> y"];
    shrinks(&model(&[0, 2, 5, 5], constants, &nodes), &[6]);
}

#[test]
fn transposed_convolutions() {
    for (weight, outputs, attributes, units) in [
        ([6, 4, 2, 2], 4, "", &[6, 4][..]),
        ([6, 4, 3, 3], 12, " group=3 strides=2,2", &[2, 4]),
        ([6, 2, 2, 2], 12, " group=6", &[6]),
    ] {
        let first = vec![tensor("v", &[6, 2, 1, 1]), tensor("g", &weight)];
        let last = vec![tensor("h", &[outputs]), tensor("w", &[2, outputs, 1, 1])];
        let layer = format!("ConvTranspose a,g,h -> b{attributes}");
        let nodes = ["Conv x,v -> a", &layer, "Conv b,w -> y"];
        shrinks(&model(&[0, 2, 5, 5], [first, last].concat(), &nodes), units);
    }
}

#[test]
fn matrices_of_any_orientation() {
    let constants = vec![tensor("v", &[8, 3]), tensor("c", &[8]), tensor("w", &[8, 3])];
    shrinks(&model(&[0, 3], constants, &["Gemm x,v,c -> a transB=1", "Tanh a -> b", "Gemm b,w -> y"]), &[8]);
    // The constant on the left.
    let constants = vec![tensor("v", &[8, 3]), tensor("w", &[2, 8])];
    shrinks(&model(&[3, 5], constants, &["MatMul v,x -> a", "Relu a -> b", "MatMul w,b -> y"]), &[8]);
    // A sum over the channels without constant weights: nothing may be removed.
    let products = model(
        &[0, 4, 3],
        vec![tensor("v", &[3, 8])],
        &["MatMul x,v -> a", "Transpose a -> t perm=0,2,1", "MatMul a,t -> y"],
    );
    let report = inspect(&products, &Options::default()).unwrap();
    assert_eq!(report.groups, []);
    assert!(report.kept.iter().any(|kept| kept.why == "two computed values are summed over it"), "{:?}", report.kept);
}

#[test]
fn flattened_images_and_lengths_that_are_computed() {
    let constants = || vec![tensor("v", &[6, 2, 1, 1]), tensor("w", &[150, 3])];
    shrinks(&model(&[0, 2, 5, 5], constants(), &["Conv x,v -> a", "Flatten a -> b", "MatMul b,w -> y"]), &[6]);
    let mut reshaped = constants();
    reshaped.extend([ints("i", &[0]), ints("rest", &[150])]);
    let nodes = [
        "Conv x,v -> a",
        "Shape a -> s",
        "Gather s,i -> n",
        "Concat n,rest -> t axis=0",
        "Reshape a,t -> b",
        "MatMul b,w -> y",
    ];
    shrinks(&model(&[0, 2, 5, 5], reshaped, &nodes), &[6]);
    // A vector expanded to the length of another value, then added to it.
    let expanded = vec![tensor("v", &[3, 8]), tensor("w", &[8, 2]), tensor("k", &[1]), ints("to", &[4, 8])];
    shrinks(
        &model(&[4, 3], expanded, &["MatMul x,v -> a", "Expand k,to -> e", "Add a,e -> b", "MatMul b,w -> y"]),
        &[8],
    );
}

#[test]
fn recurrent_layers_with_states() {
    let hidden = 6;
    for (op, gates, direction, directions) in [
        ("RNN", 1, "reverse", 1),
        ("GRU", 3, "bidirectional", 2),
        ("LSTM", 4, "bidirectional", 2),
        ("LSTM", 4, "forward", 1),
    ] {
        let mut constants = vec![
            tensor("w", &[directions, gates * hidden, 3]),
            tensor("r", &[directions, gates * hidden, hidden]),
            tensor("b", &[directions, 2 * gates * hidden]),
            tensor("h", &[directions, 4, hidden]),
            tensor("o", &[hidden, 2]),
        ];
        let states = if op == "LSTM" {
            constants.push(tensor("c", &[directions, 4, hidden]));
            "h,c"
        } else {
            "h"
        };
        let layer = format!("{op} x,w,r,b,-,{states} -> s,last hidden_size={hidden} direction={direction}");
        let net = model(&[5, 4, 3], constants, &[&layer, "Add s,last -> a", "MatMul a,o -> y"]);
        shrinks(&net, &[6]);
    }
}

#[test]
fn an_operator_without_a_rule_holds_all_it_touches() {
    let constants = vec![tensor("v", &[6, 2, 1, 1]), tensor("w", &[2, 6, 1, 1]), tensor("u", &[6, 2, 1, 1])];
    let nodes = ["Conv x,v -> a", "Trilu a -> b", "Conv b,w -> c", "Conv c,u -> d", "Relu d -> e", "Conv e,w -> y"];
    let report = inspect(&model(&[0, 2, 5, 5], constants, &nodes), &Options::default()).unwrap();
    assert_eq!(report.unknown.into_iter().collect::<Vec<_>>(), [("Trilu".to_owned(), 1)]);
    let held = report.kept.iter().find(|kept| kept.tensor == "v" && kept.axis == 0).unwrap();
    assert_eq!((held.op.as_str(), held.node.as_str()), ("Trilu", "n_b"));
}

#[test]
fn what_cannot_be_done_is_an_error_that_says_why() {
    let unknown = model(&[0, 2], vec![tensor("v", &[2, 2])], &["MatMul x,v -> a", "Frobnicate a -> y"]);
    let error = prune(&unknown, &half(), None, &Options::default()).unwrap_err();
    assert!(matches!(error, PruneError::Engine(_)) && error.to_string().contains("Frobnicate"), "{error}");
    let nothing = model(&[0, 2], vec![tensor("v", &[2, 2])], &["MatMul x,v -> y"]);
    let error = prune(&nothing, &half(), None, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("an input or output of the network"), "{error}");
}
