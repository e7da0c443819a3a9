//! By hand, and from the examples in scikit-learn's documentation.

use proptest::prelude::*;

use super::*;

fn task(kind: Kind) -> Task {
    Task { kind, ..Task::classes_of_first() }
}

fn truth(width: u64, values: &[f64]) -> Truth {
    let shape = if width == 1 { Vec::new() } else { vec![width] };
    Truth { shape, integers: values.iter().all(|value| value.fract() == 0.0), values: values.to_vec() }
}

fn rows(width: usize, values: &[f32]) -> Vec<Vec<f32>> {
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

#[track_caller]
fn check(task: &Task, truth: &Truth, answers: &[Vec<f32>], expected: &[(&str, f64)]) {
    let measures = Scored::new(task, Some(truth), Answers::Values(answers), None).unwrap().measures();
    let names: Vec<&str> = measures.iter().map(|measure| measure.name.as_str()).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (measure, (name, value)) in measures.iter().zip(expected) {
        assert!((measure.value - value).abs() < 1e-12, "{name}: {} is not {value}", measure.value);
    }
}

#[test]
fn each_metric_by_hand() {
    let logits = rows(3, &[0.1, 0.9, 0.0, 0.5, 0.4, 0.3, 0.2, 0.2, 0.6]);
    let labels = truth(1, &[1.0, 1.0, 0.0]);
    check(&task(Kind::Classes), &labels, &logits, &[("accuracy", 1.0 / 3.0)]);
    // The third has 0 and 1 at the same height; the first of them counts.
    check(&Task { top: 2, ..task(Kind::Classes) }, &labels, &logits, &[("accuracy", 1.0)]);
    check(&task(Kind::Label), &labels, &rows(1, &[1.0, 0.0, 0.0]), &[("accuracy", 2.0 / 3.0)]);
    let yes_no = truth(1, &[1.0, 0.0, 1.0]);
    check(&task(Kind::Binary), &yes_no, &rows(1, &[0.3, 0.2, -1.0]), &[("accuracy", 1.0 / 3.0)]);
    let probable = Task { scale: Some(Scale::Probability), ..task(Kind::Binary) };
    check(&probable, &yes_no, &rows(1, &[0.6, 0.2, 0.5]), &[("accuracy", 2.0 / 3.0)]);
    // TP 1, FP 1, FN 2.
    let many = Task { scale: Some(Scale::Probability), ..task(Kind::MultiLabel) };
    let found = rows(3, &[0.9, 0.1, 0.9, 0.2, 0.3, 0.1]);
    check(&many, &truth(3, &[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), &found, &[("F1", 0.4), ("accuracy", 0.5)]);
    let ignoring = Task { ignore: Some(-100), ..task(Kind::Tokens) };
    check(&ignoring, &truth(2, &[1.0, -100.0, 2.0, 0.0]), &rows(2, &[1.0, 5.0, 2.0, 1.0]), &[("accuracy", 2.0 / 3.0)]);
    let planes = rows(4, &[0.0, 1.0, 1.0, 3.0]);
    let plane = Truth { shape: vec![2, 2], ..truth(4, &[0.0, 1.0, 0.0, 1.0]) };
    // Class 0: 1 of 2; class 1: 1 of 2; class 2 does not occur; class 3 is answered, never right.
    check(&task(Kind::Segments), &plane, &rows(4, &[0.0, 1.0, 3.0, 3.0]), &[("mIoU", 1.0 / 3.0), ("accuracy", 0.5)]);
    check(
        &Task { classes: Some(9), ..task(Kind::Segments) },
        &plane,
        &planes,
        &[("mIoU", (0.5 + 1.0 / 3.0 + 0.0) / 3.0), ("accuracy", 0.5)],
    );
    // sklearn: r2_score([3, -0.5, 2, 7], [2.5, 0, 2, 8]) = 0.9486081370449679.
    check(
        &task(Kind::Regression),
        &truth(1, &[3.0, -0.5, 2.0, 7.0]),
        &rows(1, &[2.5, 0.0, 2.0, 8.0]),
        &[("R2", 0.948_608_137_044_967_9), ("MAE", 0.5), ("RMSE", 0.375f64.sqrt())],
    );
    // r2_score([[0.5, 1], [-1, 1], [7, -6]], [[0, 2], [-1, 2], [8, -5]]) = 0.936800526662278 of uniform columns.
    let two = truth(2, &[0.5, 1.0, -1.0, 1.0, 7.0, -6.0]);
    let scored = Scored::new(
        &task(Kind::Regression),
        Some(&two),
        Answers::Values(&rows(2, &[0.0, 2.0, -1.0, 2.0, 8.0, -5.0])),
        None,
    );
    assert!((scored.unwrap().quality().unwrap() - 0.936_800_526_662_278).abs() < 1e-12);
    check(
        &task(Kind::Embedding),
        &truth(2, &[1.0, 0.0, 0.0, 2.0]),
        &rows(2, &[3.0, 4.0, 0.0, 9.0]),
        &[("cosine", 0.8)],
    );
}

#[test]
fn an_embedding_is_compared_with_the_dense_model() {
    let dense = rows(2, &[1.0, 0.0, 0.0, 2.0]);
    let of = |answers: &[Vec<f32>]| {
        Scored::new(&task(Kind::Embedding), None, Answers::Values(answers), Some(Answers::Values(&dense)))
    };
    assert_eq!(of(&dense).unwrap().quality(), Some(1.0));
    assert_eq!(of(&rows(2, &[-1.0, 0.0, 0.0, -2.0])).unwrap().quality(), Some(-1.0));
    assert!(of(&dense[..1]).is_err());
}

#[test]
fn what_cannot_be_judged_has_a_reason() {
    let said = |kind: Kind, truth: &Truth, answers: &[Vec<f32>]| {
        Scored::new(&task(kind), Some(truth), Answers::Values(answers), None).unwrap_err()
    };
    let two = truth(1, &[0.0, 1.0]);
    assert_eq!(said(Kind::Binary, &two, &rows(1, &[0.5])), "1 predictions for 2 samples");
    assert_eq!(said(Kind::Binary, &two, &rows(2, &[0.5; 4])), "sample 0 has 2 answers where `y` has 1");
    let nan = rows(1, &[0.5, f32::NAN]);
    assert_eq!(said(Kind::Regression, &two, &nan), "the answer to sample 1 is not a finite number");
    assert_eq!(said(Kind::Embedding, &two, &nan), "the answer to sample 1 is not a finite number");
    // What is no number is never right.
    let wrong = Scored::new(&task(Kind::Binary), Some(&two), Answers::Values(&nan), None).unwrap();
    assert_eq!(wrong.right(), Some(vec![false, false]));
    assert!(Scored::new(&task(Kind::Difference), Some(&two), Answers::Values(&nan), None).is_err());
}

#[test]
fn the_same_answer_is_that_of_the_task() {
    let same = |kind: Kind, one: f32, other: f32| {
        same_answers(&task(kind), Answers::Values(&[vec![one]]), Answers::Values(&[vec![other]])).unwrap()[0]
    };
    assert!(same(Kind::Binary, 0.1, 5.0) && !same(Kind::Binary, 0.1, -0.1));
    assert!(same(Kind::Regression, 1.0, 1.0005) && !same(Kind::Regression, 1.0, 1.1));
    // A quiet output: differences of rounding are no differences.
    assert!(same(Kind::Difference, 1e-8, 4e-7) && !same(Kind::Difference, 1.0, f32::NAN));
    assert!(!same(Kind::Label, 1.0, 2.0));
}

proptest! {
    /// Opposite and constant answers are never better than right ones, and leaving out samples never panics.
    #[test]
    fn right_answers_are_the_best(labels in proptest::collection::vec(any::<bool>(), 2..40), without in 0usize..40) {
        let truth = truth(1, &labels.iter().map(|yes| f64::from(*yes)).collect::<Vec<_>>());
        for kind in [Kind::Binary, Kind::Regression, Kind::Label, Kind::MultiLabel] {
            let quality = |answers: &dyn Fn(bool) -> f32| {
                let answers: Vec<Vec<f32>> = labels.iter().map(|yes| vec![answers(*yes)]).collect();
                let scored = Scored::new(&task(kind), Some(&truth), Answers::Values(&answers), None).unwrap();
                scored.quality_of(|index| index != without);
                scored.quality().unwrap()
            };
            let right = quality(&|yes| f32::from(u8::from(yes)));
            let opposite = quality(&|yes| f32::from(u8::from(!yes)));
            prop_assert_eq!(right, 1.0);
            prop_assert!(opposite <= 0.0 || kind == Kind::MultiLabel && labels.iter().all(|yes| *yes), "{:?}", kind);
        }
    }
}
