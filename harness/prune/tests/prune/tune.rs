//! Fine-tuning and pruning in steps, on a small network that separates four clusters of points.

use std::cell::Cell;

use espalier_engine::{Array, Tensor};
use espalier_prune::{
    Bytes, Mask, Method, PruneError, Recipe, Samples, Scope, Scores, importance,
    onnx::{GraphProto, Model, NodeProto, TensorProto, ValueInfoProto},
    prunable::survey,
    tensor::Values,
    tune::{
        Distil, End, Event, Iterated, Options, Plan, Schedule, Search, TrainableModel, Watch, iterate, sensitivity,
        until,
    },
};

use crate::build;

const CLASSES: usize = 4;
const WIDTH: usize = 6;
const HIDDEN: usize = 16;

/// Numbers in [-1, 1), the same every time.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| (next() + next() + next()) / 1.5).collect()
}

/// Points around the centre of their class.
fn points(count: usize, seed: u64) -> Samples {
    let (centres, scatter) = (noise(CLASSES * WIDTH, 7), noise(count * WIDTH, seed));
    let labels: Vec<usize> = (0..count).map(|index| index % CLASSES).collect();
    let place = |(index, scatter): (usize, &f32)| {
        let (point, axis) = (index / WIDTH, index % WIDTH);
        2.0 * centres[labels[point] * WIDTH + axis] + 0.6 * scatter
    };
    let data = scatter.iter().enumerate().map(place).collect();
    Samples { inputs: vec![Tensor::F32(Array::new([count, WIDTH], data))], labels: Some(labels) }
}

fn weights() -> Vec<TensorProto> {
    let scaled = |len, seed, scale: f32| noise(len, seed).iter().map(|value| value * scale).collect::<Vec<f32>>();
    vec![
        build::raw("w1", &[WIDTH as i64, HIDDEN as i64], &scaled(WIDTH * HIDDEN, 1, 0.8)),
        build::raw("b1", &[HIDDEN as i64], &[0.0; HIDDEN]),
        build::raw("w2", &[HIDDEN as i64, CLASSES as i64], &scaled(HIDDEN * CLASSES, 2, 0.5)),
        build::raw("b2", &[CLASSES as i64], &[0.0; CLASSES]),
    ]
}

fn layers() -> Vec<NodeProto> {
    vec![
        build::node("MatMul", "x w1", "a"),
        build::node("Add", "a b1", "b"),
        build::node("Relu", "b", "c"),
        build::node("MatMul", "c w2", "d"),
        build::node("Add", "d b2", "y"),
    ]
}

pub fn fed(weights: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Bytes {
    let port = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
    build::model(GraphProto { input: vec![port("x")], output: vec![port("y")], ..build::graph(weights, nodes) })
}

fn untrained() -> Bytes {
    fed(weights(), layers())
}

fn options(epochs: usize) -> Options {
    Options { epochs, batch: 20, rate: 1e-2, ..Options::default() }
}

/// Calls `work` with a watch that stops it at batch `stop`; also returns the events.
fn watched<R>(stop: usize, work: impl FnOnce(&mut Watch<'_>) -> R) -> (R, Vec<Event>) {
    let (mut events, calls) = (Vec::new(), Cell::new(0));
    let result = work(&mut Watch {
        on_event: &mut |event| events.push(event),
        stop: &|| {
            calls.set(calls.get() + 1);
            calls.get() > stop
        },
    });
    (result, events)
}

/// One step that removes `ratio` of the weights, then fine-tunes.
fn one_step(ratio: f64, options: &Options) -> Plan {
    Plan { schedule: Schedule::OneShot, options: *options, ..Plan::new(Recipe::magnitude(ratio)) }
}

fn fine_tune(model: &Bytes, samples: &Samples, plan: &Plan) -> Iterated {
    watched(usize::MAX, |watch| iterate(model, plan, samples, None, watch)).0.unwrap()
}

fn trained_with(options: &Options) -> Iterated {
    fine_tune(&untrained(), &points(200, 3), &one_step(0.0, options))
}

fn trained() -> Bytes {
    trained_with(&options(12)).bytes
}

/// A mask of the weights that are zero.
fn zeros(model: &Bytes) -> Mask {
    let model = Model::decode(model).unwrap();
    let of = |weight: &espalier_prune::prunable::Weight| {
        let mut zeros = Vec::new();
        let values = Values::of(&weight.name, weight.place.tensor(model.graph())).unwrap();
        values.for_each(|value| zeros.push(value == 0.0));
        zeros
    };
    Mask(survey(&model).unwrap().weights.iter().map(of).collect())
}

fn accuracy(model: &Bytes, samples: &Samples) -> f64 {
    let classes = TrainableModel::new(model).unwrap().predict(samples).unwrap().classes();
    let right = classes.iter().zip(samples.labels.as_ref().unwrap()).filter(|(a, b)| a == b).count();
    right as f64 / samples.len() as f64
}

/// The largest of what is NaN was the first class: right where that was the label, and something to learn.
#[test]
fn nan_is_never_right_and_teaches_nothing() {
    let model = fed(vec![build::raw("w", &[1, 2], &[1.0, -1.0])], vec![build::node("MatMul", "x w", "y")]);
    let samples = |values: Vec<f32>, labels: Option<Vec<usize>>| Samples {
        inputs: vec![Tensor::F32(Array::new([values.len(), 1], values))],
        labels,
    };
    let run = |samples: &Samples, validation: Option<&Samples>, distil: Distil| {
        let plan = one_step(0.0, &Options { distil, ..options(0) });
        watched(usize::MAX, |watch| iterate(&model, &plan, samples, validation, watch)).0
    };
    let train = samples(vec![1.0, -1.0], Some(vec![0, 1]));
    let validation = samples(vec![1.0, f32::NAN, -1.0, 2.0], Some(vec![0; 4]));
    assert_eq!(run(&train, Some(&validation), Distil::Not).unwrap().dense.unwrap().accuracy, 0.5);
    let unlabelled = Samples { labels: None, ..validation.clone() };
    for (train, validation) in [(&unlabelled, None), (&train, Some(&unlabelled))] {
        let error = run(train, validation, Distil::Free { temperature: 1.0 }).unwrap_err().to_string();
        assert!(error.contains("answers NaN for 1 of 4 of them, the first of these sample 1"), "{error}");
    }
}

#[test]
fn a_net_learns_from_labels() {
    let tuned = trained_with(&options(12));
    let (before, after) = (tuned.dense.unwrap(), tuned.stages[0].tuned.unwrap());
    assert!(before.accuracy < 0.7 && after.accuracy > 0.9, "{before:?}, then {after:?}");
    assert!(accuracy(&tuned.bytes, &points(400, 4)) > 0.9);
    assert_eq!(tuned.end, End::Complete);
}

#[test]
fn every_event_is_reported() {
    let plan = one_step(0.0, &options(3));
    let (_, events) = watched(usize::MAX, |watch| iterate(&untrained(), &plan, &points(200, 3), None, watch));
    let batches = events.iter().filter(|event| matches!(event, Event::Batch { batches: 9, .. })).count();
    let epochs: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Epoch { loss, evaluation: Some(_), epochs: 3, .. } => Some(*loss),
            _ => None,
        })
        .collect();
    assert_eq!((batches, epochs.len()), (27, 3));
    assert!(epochs[2] < epochs[0], "losses {epochs:?}");
}

#[test]
fn a_seed_makes_the_same_bytes() {
    let again = trained_with(&options(2)).bytes;
    assert_eq!(trained_with(&options(2)).bytes, again);
    assert_ne!(trained_with(&Options { seed: 21, ..options(2) }).bytes, again);
}

#[test]
fn what_is_masked_stays_zero_and_the_rest_of_the_file_as_it_was() {
    let tuned = fine_tune(&untrained(), &points(200, 3), &one_step(0.6, &options(4)));
    let (mask, tuned) = (tuned.mask.unwrap(), tuned.bytes);
    assert_eq!(mask.removed(), 96);
    for (name, mask) in ["w1", "w2"].iter().zip(&mask.0) {
        let (before, after) = (build::values(&untrained(), name), build::values(&tuned, name));
        for ((before, after), masked) in before.iter().zip(&after).zip(mask) {
            assert_eq!(after.to_bits() == 0, *masked);
            assert!(*masked || before != after, "an unmasked weight did not move");
        }
    }
    assert_ne!(build::values(&tuned, "b1"), build::values(&untrained(), "b1"));
    assert_eq!(zeros(&tuned), mask);
    // Only the weights may differ: 4 bytes each.
    let moved = untrained().iter().zip(&tuned).filter(|(a, b)| a != b).count();
    assert_eq!(tuned.len(), untrained().len());
    assert!(moved <= 4 * (WIDTH * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES), "{moved} bytes differ");
}

#[test]
fn without_labels_the_dense_model_teaches() {
    let samples = Samples { labels: None, ..points(200, 3) };
    let options = Options { distil: Distil::Free { temperature: 2.0 }, ..options(12) };
    let tuned = fine_tune(&trained(), &samples, &one_step(0.65, &options));
    let (before, after) = (tuned.stages[0].pruned.unwrap(), tuned.stages[0].tuned.unwrap());
    assert!(after.accuracy > before.accuracy && after.accuracy > 0.8, "{before:?}, then {after:?}");
    assert!(accuracy(&tuned.bytes, &points(400, 4)) > 0.9);
}

/// One number a sample is a value, not a class.
#[test]
fn a_single_output_is_fitted_as_a_number() {
    let mut weights = weights();
    weights[2] = build::raw("w2", &[HIDDEN as i64, 1], &noise(HIDDEN, 2));
    weights[3] = build::raw("b2", &[1], &[0.5]);
    let samples = Samples { labels: None, ..points(200, 3) };
    let options = Options { distil: Distil::Free { temperature: 2.0 }, ..options(12) };
    let tuned = fine_tune(&fed(weights, layers()), &samples, &one_step(0.5, &options));
    let (before, after) = (tuned.stages[0].pruned.unwrap(), tuned.stages[0].tuned.unwrap());
    assert_eq!((tuned.dense.unwrap().accuracy, tuned.dense.unwrap().loss), (1.0, 0.0));
    assert!(after.loss < before.loss / 2.0 && after.accuracy > 0.9, "{before:?}, then {after:?}");
}

/// A softmax after the predictions does not change the gradients: training must not take probabilities for logits.
#[test]
fn a_final_softmax_is_looked_through() {
    let mut nodes = layers();
    nodes[4].output = vec!["z".into()];
    nodes.push(build::node("Softmax", "z", "y"));
    let softmax = fed(weights(), nodes);
    let tuned = fine_tune(&softmax, &points(200, 3), &one_step(0.0, &options(3)));
    let without = trained_with(&options(3)).bytes;
    assert_eq!(build::values(&tuned.bytes, "w1"), build::values(&without, "w1"));
}

fn plan(method: Method, ratio: f64, epochs: usize) -> Plan {
    let recipe = Recipe::new(method, Scope::Global, espalier_prune::Unit::Weight, ratio);
    Plan { options: options(epochs), ..Plan::new(recipe) }
}

fn iterated(plan: &Plan, stop: usize) -> Iterated {
    watched(stop, |watch| iterate(&trained(), plan, &points(200, 3), None, watch)).0.unwrap()
}

fn removed(iterated: &Iterated) -> Vec<u64> {
    iterated.stages.iter().map(|stage| stage.removed).collect()
}

const N: usize = (WIDTH + CLASSES) * HIDDEN;

#[test]
fn every_step_removes_its_share_of_the_dense_model() {
    let plan = Plan { steps: 4, ..plan(Method::Magnitude, 0.75, 24) };
    // 160 weights; 1 - 0.25^(s/4).
    let hard = iterated(&plan, usize::MAX);
    assert_eq!(removed(&hard), [47, 80, 103, 120]);
    assert_eq!(hard.mask, Some(zeros(&hard.bytes)));
    assert_eq!((hard.ratio, hard.end, hard.note(0.75)), (0.75, End::Complete, None));
    let (first, last) = (hard.stages[0].pruned.unwrap(), hard.stages[3].tuned.unwrap());
    assert!(last.accuracy > 0.9, "pruned to {first:?}, fine-tuned to {last:?}");

    let soft = iterated(&Plan { soft: true, ..plan.clone() }, usize::MAX);
    assert_eq!(removed(&soft), [47, 80, 103, 120]);
    assert_eq!(zeros(&soft.bytes).removed(), 120);
    let once = iterated(&Plan { schedule: Schedule::OneShot, ..plan.clone() }, usize::MAX);
    assert_eq!(removed(&once), [120]);
    assert_eq!(
        removed(&iterated(&Plan { schedule: Schedule::Cubic, ..plan.clone() }, usize::MAX)),
        [69, 105, 118, 120]
    );
}

/// Blocks and groups go through the same steps.
#[test]
fn other_units_keep_their_counts() {
    let of = |unit: &str, ratio| {
        let mut plan = plan(Method::Magnitude, ratio, 4);
        plan.recipe.unit = unit.parse().unwrap();
        zeros(&iterated(&plan, usize::MAX).bytes).removed()
    };
    // 40 tiles of 4.
    assert_eq!(of("block-4x1", 0.5), 80);
    // w1 has rows of 6 inputs, one group of 4 each; w2 of 16.
    assert_eq!(of("2:4", 0.5), (HIDDEN * 2 + CLASSES * 8) as u64);
}

/// A removed weight stays removed; in soft pruning some come back.
#[test]
fn masks_only_grow_unless_soft() {
    let came_back = |soft| {
        let mut plan = Plan { soft, schedule: Schedule::Cubic, ..plan(Method::Magnitude, 0.5, 9) };
        plan.options.rate = 0.05;
        let mut masks = Vec::new();
        // Stopped at later and later steps: the weights removed by then.
        for stop in [19, 38] {
            masks.push(iterated(&plan, stop).mask.unwrap());
        }
        masks.push(iterated(&plan, usize::MAX).mask.unwrap());
        let (mut back, mut counts) = (0, Vec::new());
        for pair in masks.windows(2) {
            let before = pair[0].0.iter().flatten();
            back += before.zip(pair[1].0.iter().flatten()).filter(|(before, after)| **before && !**after).count();
        }
        counts.extend(masks.iter().map(Mask::removed));
        (back, counts)
    };
    let (back, counts) = came_back(false);
    assert_eq!((back, counts), (0, vec![56, 77, 80]));
    let (back, counts) = came_back(true);
    assert!(back > 0, "none of {counts:?} came back");
}

#[test]
fn stopped_it_gives_the_best_so_far() {
    let plan = plan(Method::Magnitude, 0.75, 9);
    // 9 batches an epoch; 2, 2 and 5 epochs. Stopped in the middle of the last step:
    let last = iterated(&plan, 70);
    assert_eq!((last.end, last.ratio, last.stages.len()), (End::Stopped, 0.75, 3));
    assert!(last.note(0.75).unwrap().contains("best so far"), "{:?}", last.note(0.75));
    assert_eq!(zeros(&last.bytes).removed(), 120);
    // Stopped in the first step:
    let first = iterated(&plan, 15);
    assert_eq!((first.end, first.stages.len(), removed(&first)), (End::Stopped, 1, vec![59]));
    assert_eq!(zeros(&first.bytes).removed(), 59);
    // Stopped before anything:
    let none = iterated(&plan, 0);
    assert_eq!((none.end, none.ratio, none.bytes == trained()), (End::Stopped, 0.0, true));
    // The result is the state with the best of all reported evaluations.
    let validation = points(100, 9);
    let plan = one_step(0.0, &options(12));
    let (tuned, events) = watched(21, |watch| iterate(&untrained(), &plan, &points(200, 3), Some(&validation), watch));
    let accuracies = events.iter().filter_map(|event| match event {
        Event::Epoch { evaluation: Some(evaluation), .. } => Some(evaluation.accuracy),
        _ => None,
    });
    let tuned = tuned.unwrap();
    let after = tuned.stages[0].tuned.unwrap().accuracy;
    assert_eq!(Some(after), accuracies.reduce(f64::max));
    assert_eq!(accuracy(&tuned.bytes, &validation), after);
}

#[test]
fn a_loss_that_is_no_number_ends_it() {
    let options = Options { rate: 1e30, clip: f32::INFINITY, ..options(3) };
    let tuned = trained_with(&options);
    assert_eq!(tuned.end, End::Diverged);
    assert!(build::values(&tuned.bytes, "w1").iter().all(|value| value.is_finite()));
}

/// Without fine-tuning the accuracy at every ratio can be computed in advance; this test tries all of them.
#[test]
fn the_largest_ratio_within_a_budget() {
    let (dense, samples, validation) = (trained(), points(100, 3), points(100, 9));
    let search = Search { halvings: 9, ..Search::new(plan(Method::Magnitude, 0.99, 0), 0.05) };
    let found = watched(usize::MAX, |watch| until(&dense, &search, &samples, Some(&validation), watch)).0.unwrap();

    let least = accuracy(&dense, &validation) - 0.05;
    let model = Model::decode(&dense).unwrap();
    let survey = survey(&model).unwrap();
    let Scores(scores) = importance::scores(&model, &survey, Method::Magnitude, None, 1, 0).unwrap();
    let mut order: Vec<(f32, usize, usize)> = Vec::new();
    for (tensor, scores) in scores.iter().enumerate() {
        order.extend(scores.iter().enumerate().map(|(index, score)| (*score, tensor, index)));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut mask = Mask(scores.iter().map(|scores| vec![false; scores.len()]).collect());
    let holds: Vec<bool> = order
        .iter()
        .map(|(_, tensor, index)| {
            mask.0[*tensor][*index] = true;
            accuracy(&espalier_prune::remove::apply(&dense, &survey, &mask).unwrap(), &validation) >= least
        })
        .collect();
    let removed = found.mask.unwrap().removed() as usize;
    assert_eq!(removed, (found.ratio * N as f64).round() as usize);
    assert!(holds[removed - 1] && !holds[removed], "{removed} of {N} is not where it tips: {holds:?}");
    assert!(found.stages.iter().all(|(stage, held)| *held == holds[stage.removed as usize - 1]));
    assert!(accuracy(&found.bytes, &validation) >= least);
}

#[test]
fn fine_tuning_reaches_further() {
    let found = |epochs| {
        let search = Search::new(plan(Method::Taylor, 0.95, epochs), 0.03);
        let validation = points(200, 9);
        watched(usize::MAX, |watch| until(&trained(), &search, &points(200, 3), Some(&validation), watch)).0.unwrap()
    };
    let (alone, tuned) = (found(0), found(6));
    assert!(tuned.ratio > alone.ratio, "{} without, {} with fine-tuning", alone.ratio, tuned.ratio);
    let last = tuned.stages.iter().rfind(|(_, held)| *held).unwrap().0.tuned.unwrap();
    assert!(last.accuracy >= tuned.dense.accuracy - 0.03 - 1e-9);
    assert_eq!(zeros(&tuned.bytes).removed(), tuned.mask.unwrap().removed());
}

#[test]
fn no_ratio_holds_an_impossible_budget() {
    let search = Search::new(plan(Method::Magnitude, 0.9, 0), -1.0);
    let found = watched(usize::MAX, |watch| until(&trained(), &search, &points(100, 3), None, watch)).0.unwrap();
    assert_eq!((found.ratio, found.mask, found.bytes == trained()), (0.0, None, true));
}

#[test]
fn each_tensor_alone() {
    let (dense, samples) = (trained(), points(200, 9));
    let scores = Scores(["w1", "w2"].map(|name| build::values(&dense, name).iter().map(|w| w.abs()).collect()).into());
    let scan = |stop| watched(stop, |watch| sensitivity(&dense, &scores, &[0.0, 0.5, 0.9], &samples, watch)).0.unwrap();
    let whole = scan(usize::MAX);
    let removed: Vec<(&str, u64)> = whole.rows.iter().map(|row| (row.tensor.as_str(), row.removed)).collect();
    assert_eq!(removed, [("w1", 0), ("w1", 48), ("w1", 86), ("w2", 0), ("w2", 32), ("w2", 58)]);
    for row in whole.rows.iter().filter(|row| row.ratio == 0.0) {
        assert_eq!((row.evaluation, row.agreement), (whole.dense, 1.0));
    }
    assert!(whole.rows[2].agreement < 1.0 && whole.rows[2].evaluation.accuracy < whole.dense.accuracy);
    // Half of w1, pruned by the pruner itself; the other tensor is unchanged.
    let mask = |tensor: usize| {
        let recipe = Recipe::new(Method::Magnitude, Scope::Local, espalier_prune::Unit::Weight, 0.5);
        let model = Model::decode(&dense).unwrap();
        let survey = survey(&model).unwrap();
        let mut mask =
            espalier_prune::select::mask(&scores, &survey, recipe.scope, recipe.unit, recipe.ratio, None).unwrap();
        mask.0[1 - tensor].fill(false);
        accuracy(&espalier_prune::remove::apply(&dense, &survey, &mask).unwrap(), &samples)
    };
    assert_eq!([whole.rows[1].evaluation.accuracy, whole.rows[4].evaluation.accuracy], [mask(0), mask(1)]);
    let some = scan(2);
    assert_eq!((some.stopped, some.rows.as_slice()), (true, &whole.rows[..2]));
}

#[test]
fn samples_that_do_not_fit() {
    let check = |samples: Samples, options: &Options, expected: &str| {
        let plan = one_step(0.0, options);
        let tuned = watched(usize::MAX, |watch| iterate(&untrained(), &plan, &samples, None, watch)).0;
        let Err(PruneError::Samples { why }) = tuned else { panic!("{tuned:?}") };
        assert!(why.contains(expected), "`{why}` does not say `{expected}`");
    };
    let good = points(40, 3);
    check(Samples { labels: None, ..good.clone() }, &options(1), "no labels");
    check(Samples { labels: None, ..good.clone() }, &options(1), "a teacher is needed");
    check(Samples { labels: Some(vec![0; 39]), ..good.clone() }, &options(1), "40 samples have 39 labels");
    check(Samples { labels: Some(vec![4; 40]), ..good.clone() }, &options(1), "class 4");
    check(Samples { inputs: vec![], labels: None }, &options(1), "1 inputs");
    check(good.take(&[]), &options(1), "there are none");
}

/// Accuracy on a few samples means nothing.
#[test]
fn few_samples_are_all_trained_on() {
    let tuned = fine_tune(&untrained(), &points(8, 3), &one_step(0.0, &options(1)));
    assert_eq!((tuned.dense, tuned.stages[0].tuned), (None, None));
}
