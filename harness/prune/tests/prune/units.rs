//! Every scope and unit against the plainest way: list the units, sort them, take the first k.

use espalier_prune::{
    Bytes, Mask, Method, Recipe, Scope, Scores, Unit, inspect, onnx::*, prune, remove, select, survey,
};
use proptest::prelude::*;

use crate::build::*;

/// One weight: how it is used, and its matrix as flat indices `[batch][row][column]`.
struct Layer {
    name: &'static str,
    dims: Vec<i64>,
    nodes: Vec<NodeProto>,
    matrices: Vec<Vec<Vec<usize>>>,
}

fn flag(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), ..AttributeProto::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: values.to_vec(), ..AttributeProto::default() }
}

fn with(node: NodeProto, attribute: AttributeProto) -> NodeProto {
    NodeProto { attribute: vec![attribute], ..node }
}

/// `at(batch, row, column)`, from ONNX's definition of each operator.
fn matrices(
    batches: usize,
    rows: usize,
    columns: usize,
    at: impl Fn(usize, usize, usize) -> usize,
) -> Vec<Vec<Vec<usize>>> {
    let row = |batch, row| (0..columns).map(|column| at(batch, row, column)).collect();
    (0..batches).map(|batch| (0..rows).map(|r| row(batch, r)).collect()).collect()
}

fn layers((o, i, k): (usize, usize, usize)) -> Vec<Layer> {
    let dims = |dims: &[usize]| dims.iter().map(|dim| *dim as i64).collect::<Vec<_>>();
    vec![
        // Filters by input channels and kernel.
        Layer {
            name: "conv",
            dims: dims(&[o, i, k]),
            nodes: vec![node("Conv", "x conv", "1")],
            matrices: matrices(1, o, i * k, |_, row, column| row * i * k + column),
        },
        // The first axis is the input.
        Layer {
            name: "up",
            dims: dims(&[i, o, k]),
            nodes: vec![node("ConvTranspose", "x up", "2")],
            matrices: matrices(1, o * k, i, |_, row, column| column * o * k + row),
        },
        Layer {
            name: "gemm",
            dims: dims(&[i, o]),
            nodes: vec![node("Gemm", "x gemm", "3")],
            matrices: matrices(1, o, i, |_, row, column| column * o + row),
        },
        Layer {
            name: "gemmT",
            dims: dims(&[o, i]),
            nodes: vec![with(node("Gemm", "x gemmT", "4"), flag("transB", 1))],
            matrices: matrices(1, o, i, |_, row, column| row * i + column),
        },
        Layer {
            name: "matmul",
            dims: dims(&[k, i, o]),
            nodes: vec![node("MatMul", "x matmul", "5")],
            matrices: matrices(k, o, i, |batch, row, column| batch * i * o + column * o + row),
        },
        Layer {
            name: "left",
            dims: dims(&[o, i]),
            nodes: vec![node("MatMul", "left x", "6")],
            matrices: matrices(1, o, i, |_, row, column| row * i + column),
        },
        // PyTorch's newer exporter: gates are sliced, concatenated in another order, and given an axis of directions.
        Layer {
            name: "gates",
            dims: dims(&[4 * o, i]),
            nodes: vec![
                node("Slice", "gates a b", "g1"),
                node("Slice", "gates b c", "g2"),
                node("Concat", "g2 g1", "g3"),
                with(node("Unsqueeze", "g3", "g4"), ints("axes", &[0])),
                node("LSTM", "x g4", "7"),
            ],
            matrices: matrices(1, 4 * o, i, |_, row, column| row * i + column),
        },
        // The older exporter: transposed first.
        Layer {
            name: "turned",
            dims: dims(&[o, i]),
            nodes: vec![
                node("Identity", "turned", "t1"),
                with(node("Transpose", "t1", "t2"), ints("perm", &[1, 0])),
                node("MatMul", "x t2", "8"),
            ],
            matrices: matrices(1, o, i, |_, row, column| row * i + column),
        },
    ]
}

fn file(layers: &[Layer], weights: &[Vec<f32>]) -> Bytes {
    let tensors = layers.iter().zip(weights).map(|(layer, weights)| raw(layer.name, &layer.dims, weights));
    model(graph(tensors.collect(), layers.iter().flat_map(|layer| layer.nodes.clone()).collect()))
}

/// The units that are removed as a whole, in order: indices of (tensor, element).
fn units(layers: &[Layer], unit: Unit, tensor: usize) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    match unit {
        Unit::Weight => found = (0..layers[tensor].dims.iter().product::<i64>() as usize).map(|w| vec![w]).collect(),
        Unit::Block { rows, columns } => {
            for matrix in &layers[tensor].matrices {
                let width = matrix.first().map_or(0, Vec::len);
                for row in (0..matrix.len()).step_by(rows as usize) {
                    for column in (0..width).step_by(columns as usize) {
                        let mut tile = Vec::new();
                        for row in &matrix[row..matrix.len().min(row + rows as usize)] {
                            tile.extend(&row[column..width.min(column + columns as usize)]);
                        }
                        found.push(tile);
                    }
                }
            }
        }
        _ => unreachable!(),
    }
    found
}

/// Removes the `k` smallest, the earlier first among equals; what was removed before counts as infinitely small.
fn brute(layers: &[Layer], scores: &[Vec<f32>], recipe: &Recipe, already: Option<&Mask>) -> (Vec<Vec<bool>>, usize) {
    let mut mask: Vec<Vec<bool>> = match already {
        Some(already) => already.0.clone(),
        None => scores.iter().map(|scores| vec![false; scores.len()]).collect(),
    };
    if let Unit::NOfM { keep, of } = recipe.unit {
        for (tensor, layer) in layers.iter().enumerate() {
            for row in layer.matrices.iter().flatten() {
                for group in row.chunks_exact(of as usize).filter(|_| recipe.ratio > 0.0) {
                    let mut order = group.to_vec();
                    order.sort_by(|a, b| {
                        let removed = |w: &usize| already.is_some_and(|already| already.0[tensor][*w]);
                        removed(b).cmp(&removed(a)).then(scores[tensor][*a].total_cmp(&scores[tensor][*b]))
                    });
                    order[..(of - keep) as usize].iter().for_each(|w| mask[tensor][*w] = true);
                }
            }
        }
        return (mask, 0);
    }
    let mut all = Vec::new();
    for (tensor, scores) in scores.iter().enumerate() {
        for unit in units(layers, recipe.unit, tensor) {
            let gone = already.is_some_and(|already| unit.iter().all(|w| already.0[tensor][*w]));
            let sum = unit.iter().map(|w| f64::from(scores[*w])).sum::<f64>() as f32;
            all.push((tensor, if gone { f32::NEG_INFINITY } else { sum }, unit));
        }
    }
    let scopes: Vec<Vec<_>> = match recipe.scope {
        Scope::Global => vec![all],
        Scope::Local => {
            (0..layers.len()).map(|tensor| all.iter().filter(|unit| unit.0 == tensor).cloned().collect()).collect()
        }
    };
    let mut removed = 0;
    for mut scope in scopes {
        scope.sort_by(|a, b| a.1.total_cmp(&b.1));
        let k = match recipe.threshold {
            None => {
                let gone = scope.iter().filter(|unit| unit.1 == f32::NEG_INFINITY).count();
                gone.max((recipe.ratio * scope.len() as f64).round() as usize)
            }
            Some(threshold) => {
                let most = scope.last().map_or(0.0, |unit| unit.1);
                let limit = (threshold * f64::from(most)) as f32;
                scope.iter().filter(|unit| unit.1 < limit).count()
            }
        };
        removed += k;
        for (tensor, _, unit) in &scope[..k] {
            unit.iter().for_each(|w| mask[*tensor][*w] = true);
        }
    }
    (mask, removed)
}

fn unit() -> impl Strategy<Value = Unit> {
    let number = 1..6u32;
    prop_oneof![
        Just(Unit::Weight),
        (number.clone(), number).prop_map(|(rows, columns)| Unit::Block { rows, columns }),
        (1..4u32, 1..4u32).prop_map(|(keep, more)| Unit::NOfM { keep, of: keep + more }),
    ]
}

/// Layers with ties among their weights.
fn weighted() -> impl Strategy<Value = ((usize, usize, usize), Vec<Vec<f32>>)> {
    let value = prop_oneof![Just(0.0f32), Just(0.5), Just(-0.5), -3.0f32..3.0];
    (1..7usize, 1..9usize, 1..4usize).prop_flat_map(move |sizes| {
        let lens = layers(sizes).into_iter().map(|layer| layer.dims.iter().product::<i64>() as usize);
        let weights: Vec<_> = lens.map(|len| prop::collection::vec(value.clone(), len)).collect();
        (Just(sizes), weights)
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Global), Just(Scope::Local)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_same_as_sorting(
        (sizes, weights) in weighted(),
        unit in unit(),
        scope in scope(),
        ratio in 0.0..1.0f64,
        threshold in prop::option::of(0.0..=1.0f64),
        squared: bool,
    ) {
        let layers = layers(sizes);
        let method = if squared { Method::MagnitudeL2 } else { Method::Magnitude };
        let mut recipe = Recipe::new(method, scope, unit, ratio);
        match unit {
            Unit::NOfM { keep, of } => recipe.ratio = 1.0 - f64::from(keep) / f64::from(of),
            _ if threshold.is_some() => (recipe.threshold, recipe.ratio) = (threshold, 0.0),
            _ => {}
        }
        let score = |weight: &f32| if squared { weight * weight } else { weight.abs() };
        let scores: Vec<Vec<f32>> = weights.iter().map(|weights| weights.iter().map(score).collect()).collect();
        let (expected, removed) = brute(&layers, &scores, &recipe, None);

        let dense = file(&layers, &weights);
        let pruned = match prune(&dense, &recipe, None) {
            Ok(pruned) => pruned,
            Err(error) => {
                // Rows that are all too short.
                let Unit::NOfM { of, .. } = unit else { return Err(TestCaseError::fail(error.to_string())) };
                prop_assert!(sizes.1 * sizes.2 < of as usize, "{error}");
                return Ok(());
            }
        };
        for ((layer, weights), expected) in layers.iter().zip(&weights).zip(&expected) {
            let kept: Vec<f32> = weights.iter().zip(expected).map(|(w, gone)| if *gone { 0.0 } else { *w }).collect();
            prop_assert_eq!(values(&pruned.bytes, layer.name), kept, "{}", layer.name);
        }

        let manifest = pruned.manifest;
        let gone = expected.iter().flatten().filter(|gone| **gone).count() as u64;
        prop_assert_eq!(manifest.removed, gone);
        match unit {
            Unit::NOfM { .. } => {
                prop_assert_eq!(manifest.removed_units, gone);
                prop_assert_eq!(gone, (recipe.ratio * manifest.units as f64).round() as u64);
            }
            _ => prop_assert_eq!(manifest.removed_units, removed as u64),
        }
        if recipe.threshold.is_none() && scope == Scope::Global {
            prop_assert_eq!(manifest.removed_units, (recipe.ratio * manifest.units as f64).round() as u64);
        }
        for tensor in manifest.tensors.iter().filter(|_| recipe.threshold.is_none() && scope == Scope::Local) {
            prop_assert_eq!(tensor.removed_units, (recipe.ratio * tensor.units as f64).round() as u64);
        }
        // Nothing is lost: prunable or not, each tensor is listed once.
        let listed = manifest.tensors.iter().map(|tensor| tensor.weights);
        let listed = listed.chain(manifest.untouched.iter().map(|tensor| tensor.parameters)).sum::<u64>();
        prop_assert_eq!(listed, manifest.parameters);
        let zeros: u64 = inspect(&pruned.bytes).unwrap().tensors.iter().map(|tensor| tensor.zeros).sum();
        prop_assert!(zeros >= manifest.zeros);
    }

    /// Whatever the scores: removed weights stay removed, and exactly the requested number is removed.
    #[test]
    fn masks_only_grow(
        (sizes, scores) in weighted(),
        unit in unit(),
        scope in scope(),
        ratios in (0.0..1.0f64, 0.0..1.0f64),
    ) {
        let layers = layers(sizes);
        let map = |scores: &[Vec<f32>], change: fn(&f32) -> f32| -> Vec<Vec<f32>> {
            scores.iter().map(|scores| scores.iter().map(change).collect()).collect()
        };
        let scores = map(&scores, |score| score.abs());
        let other = map(&scores, |score| 3.0 - score);
        let dense = file(&layers, &scores);
        let survey = survey(&Model::decode(&dense).unwrap()).unwrap();
        let ratio = |ratio| match unit {
            Unit::NOfM { keep, of } => 1.0 - f64::from(keep) / f64::from(of),
            _ => ratio,
        };
        let first = select::mask(&Scores(scores), &survey, scope, unit, ratio(ratios.0), None).unwrap();
        let second =
            select::mask(&Scores(other.clone()), &survey, scope, unit, ratio(ratios.1), Some(&first)).unwrap();
        for (first, second) in first.0.iter().flatten().zip(second.0.iter().flatten()) {
            prop_assert!(*second || !*first);
        }
        let recipe = Recipe::new(Method::Random, scope, unit, ratio(ratios.1));
        let (expected, _) = brute(&layers, &other, &recipe, Some(&first));
        prop_assert_eq!(&second.0, &expected);

        // `apply` writes the mask, and `write` writes the values.
        let pruned = remove::apply(&dense, &survey, &second).unwrap();
        let mut by_name = std::collections::HashMap::new();
        for (weight, mask) in survey.weights.iter().zip(&second.0) {
            let dense = values(&dense, &weight.name);
            let kept: Vec<f32> = dense.iter().zip(mask).map(|(w, gone)| if *gone { 0.0 } else { *w }).collect();
            prop_assert_eq!(&values(&pruned, &weight.name), &kept);
            by_name.insert(weight.name.clone(), kept);
        }
        prop_assert_eq!(remove::write(&dense, &by_name).unwrap(), pruned);
    }
}

#[test]
fn what_a_unit_cannot_have_is_an_error() {
    let sizes = (4, 4, 1);
    let layers = layers(sizes);
    let weights: Vec<Vec<f32>> =
        layers.iter().map(|layer| vec![1.0; layer.dims.iter().product::<i64>() as usize]).collect();
    let dense = file(&layers, &weights);
    let refused = |unit: &str, ratio: f64, threshold: Option<f64>| {
        let recipe =
            Recipe { threshold, ..Recipe::new(Method::Magnitude, Scope::Global, unit.parse().unwrap(), ratio) };
        prune(&dense, &recipe, None).unwrap_err().to_string()
    };
    let only = "with the unit 2:4 2 of each 4 weights stay, so the ratio is 0.5 or 0, and there is no threshold";
    assert_eq!(refused("2:4", 0.9, None), only);
    assert_eq!(refused("2:4", 0.0, Some(0.1)), only);
    assert_eq!(
        refused("weight", 0.0, Some(1.5)),
        "threshold 1.5 is not in [0, 1]: what is less important than that part of the most important goes"
    );
    let short = refused("4:8", 0.5, None);
    assert_eq!(
        short,
        "nothing in the model can be pruned: `conv`, for one, is a weight without rows and columns that `4:8` fits"
    );
}

/// A tail that does not fill a group is kept and is no unit; a tensor of tails only is listed as untouched.
#[test]
fn tails_of_rows_stay() {
    let wide: Vec<f32> = (1..=14).map(|value| value as f32).collect();
    let nodes = vec![
        with(node("Gemm", "x wide", "1"), flag("transB", 1)),
        with(node("Gemm", "1 short", "2"), flag("transB", 1)),
    ];
    let dense = model(graph(vec![raw("wide", &[2, 7], &wide), raw("short", &[3, 2], &[1.0; 6])], nodes));
    let recipe = Recipe::new(Method::Magnitude, Scope::Global, "2:4".parse().unwrap(), 0.5);
    let pruned = prune(&dense, &recipe, None).unwrap();
    let kept = [0., 0., 3., 4., 5., 6., 7., 0., 0., 10., 11., 12., 13., 14.];
    assert_eq!(values(&pruned.bytes, "wide"), kept);
    let manifest = pruned.manifest;
    assert_eq!((manifest.units, manifest.removed_units, manifest.removed, manifest.prunable), (8, 4, 4, 14));
    assert_eq!(manifest.untouched[0].name, "short");
    assert_eq!(manifest.untouched[0].reason.to_string(), "a weight without rows and columns that `2:4` fits");
}
