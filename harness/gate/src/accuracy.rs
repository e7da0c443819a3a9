//! Accuracy: both arms answered the same samples, so only answers that changed carry information (McNemar). Two margins
//! as for times: regressed is a drop shown to exist and larger than the lower margin, a pass a drop shown to be smaller
//! than the upper one.
//!
//! A candidate that answers NaN where the baseline answers a number is regressed, whatever the labels say; one that is
//! newly infinite is at most inconclusive, since a masked value may well be. NaN is never a right answer. What is not
//! finite in both arms alike is told and judged like everything else.
//!
//! Outputs that are equal bit by bit need no statistics and no labels. Equal classes need no labels either, since
//! nothing was lost or won, but they are judged by the limit like everything else: a small eval set shows little.

use espalier_protocol::{NotFinite, Predictions};
use espalier_stats::{MetricDrop, mcnemar_one_sided, metric_drop, paired_drop};
use espalier_tasks::{Answers, Kind, Measure, Scored, Task, Truth, Unit, same_answers};

use crate::{Finding, Judged, Verdict};
use espalier_bench::{record::ModelInfo, sheet::percent, summary::answers};

/// How the answers of a model are judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub task: Option<Task>,
    pub truth: Option<Truth>,
}

impl Expected {
    pub fn of(model: &ModelInfo) -> Expected {
        Expected { task: model.task.clone(), truth: model.truth() }
    }

    pub fn task(&self) -> Task {
        self.task.clone().unwrap_or_else(Task::classes_of_first)
    }
}

/// Drops of accuracy as fractions: 0.01 is one percentage point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// An observed drop up to this is no regression, however certain it is.
    pub lower: f64,
    /// A drop that is certainly below this passes.
    pub upper: f64,
    /// A budget on the eval set itself: an observed drop above this is a regression whatever the statistics say.
    pub max_drop: Option<f64>,
}

impl Default for Margins {
    fn default() -> Margins {
        Margins { lower: 0.002, upper: 0.01, max_drop: None }
    }
}

/// Of the limit that a pass needs, one-sided.
const CONFIDENCE: f64 = 0.95;

/// `alpha`: how often a candidate that is as good may be called regressed by the statistics.
pub fn judge_accuracy(
    expected: &Expected,
    base: &Predictions,
    candidate: &Predictions,
    alpha: f64,
    margins: Margins,
) -> Judged {
    let nothing = |reason: String| (Verdict::Inconclusive, Finding::Nothing, reason);
    let (task, truth) = (expected.task(), expected.truth.as_ref());
    let count = answers(base).len();
    let given = answers(candidate).len();
    if count == 0 || given != count {
        return nothing(format!("no comparison: {count} answers of the baseline and {given} of the candidate"));
    }
    if let Some(truth) = truth.filter(|truth| truth.samples() != count) {
        return nothing(format!("no comparison: {count} answers for {} labels", truth.samples()));
    }
    let (was, is) = (base.not_finite(), candidate.not_finite());
    let shared = shared(&was, &is, count);
    let with_shared = |(verdict, finding, reason): Judged| (verdict, finding, reason + &shared);
    if same_outputs(base, candidate) {
        return with_shared(same(count as u64));
    }
    let new_nan: Vec<u64> = is.nan.difference(&was.nan).copied().collect();
    if let [first, ..] = new_nan[..] {
        let new = new_nan.len();
        let reason = format!("the candidate answers NaN for {new} of {count} samples, the first of them {first}, ");
        return with_shared((Verdict::Regressed, Finding::Nothing, reason + "and the baseline answers numbers"));
    }
    let Some(same) = same_answers(&task, answers(base), answers(candidate)) else {
        return nothing("no comparison: the arms' answers are of different kinds".to_owned());
    };
    let changed = same.iter().filter(|same| !**same).count() as u64;
    let is_compared = task.kind == Kind::Embedding && truth.is_none();
    let judged = if truth.is_some() && task.kind != Kind::Difference || is_compared {
        judge_scores(&task, truth, [base, candidate], changed, alpha, margins)
    } else if changed == 0 {
        judge_counts(0, 0, 0, count as u64, alpha, margins)
    } else {
        return nothing(format!(
            "{changed} of {count} answers changed; which were right takes an eval set with labels, and a known task"
        ));
    };
    let judged = match judged {
        // An eval set with few samples of one kind may not show what is lost.
        (Verdict::Pass, finding, reason)
            if is_constant(candidate) && !is_constant(base) && truth.is_none_or(varies) =>
        {
            let why = "the candidate gives every sample the same answer, the baseline does not";
            (Verdict::Inconclusive, finding, format!("{reason}; but {why}"))
        }
        judged => judged,
    };
    let new_infinite = is.infinite.iter().filter(|index| !was.infinite.contains(index) && !was.nan.contains(index));
    match (judged, new_infinite.count()) {
        ((Verdict::Pass, finding, reason), new @ 1..) => {
            let overflow = format!(
                "; no pass, because the candidate alone answers an infinite value for {new} of {count} samples"
            );
            with_shared((Verdict::Inconclusive, finding, reason + &overflow))
        }
        (judged, _) => with_shared(judged),
    }
}

/// What both arms answer that is no finite number, to follow a reason.
fn shared(was: &NotFinite, is: &NotFinite, answers: usize) -> String {
    let of = |count: usize, what: &str| match count {
        0 => String::new(),
        count => format!("; both answer {what} for {count} of {answers} samples"),
    };
    of(was.nan.intersection(&is.nan).count(), "NaN")
        + &of(was.infinite.intersection(&is.infinite).count(), "infinite values")
}

fn judge_scores(
    task: &Task,
    truth: Option<&Truth>,
    arms: [&Predictions; 2],
    changed: u64,
    alpha: f64,
    margins: Margins,
) -> Judged {
    let nothing = |verdict: Verdict, reason: String| (verdict, Finding::Nothing, reason);
    let [base, candidate] = arms.map(|arm| Scored::new(task, truth, answers(arm), Some(answers(arms[0]))));
    let (base, candidate) = match (base, candidate) {
        (Err(why), _) => return nothing(Verdict::Inconclusive, format!("the baseline's answers: {why}")),
        (_, Err(why)) => return nothing(Verdict::Regressed, format!("the candidate's answers: {why}")),
        (Ok(base), Ok(candidate)) => (base, candidate),
    };
    if let (Some(base), Some(candidate)) = (base.right(), candidate.right()) {
        let count = |was: bool| base.iter().zip(&candidate).filter(|(b, c)| **b == was && **c != was).count() as u64;
        return judge_counts(count(true), count(false), changed, base.len() as u64, alpha, margins);
    }
    let drop_of = |keep: &dyn Fn(usize) -> bool| Some(base.quality_of(keep)? - candidate.quality_of(keep)?);
    let measures = |scored: &Scored| scored.measures().into_iter().next();
    match (metric_drop(base.samples(), drop_of), measures(&base), measures(&candidate)) {
        (Ok(drop), Some(base), Some(candidate)) => judge_drop(drop, &base, &candidate, alpha, margins),
        (Err(error), ..) => nothing(Verdict::Inconclusive, format!("no comparison: {error}")),
        _ => nothing(Verdict::Inconclusive, "no comparison: the metric is no number".to_owned()),
    }
}

/// By the paired interval of a metric that is made of all samples together.
fn judge_drop(drop: MetricDrop, base: &Measure, candidate: &Measure, alpha: f64, margins: Margins) -> Judged {
    let (p_value, observed, drop_high) = (drop.p_value(), drop.observed, drop.upper(CONFIDENCE));
    let amount = |value: f64| match base.unit {
        Unit::Fraction => format!("{} pp", percent(value, 4)),
        Unit::Number => format!("{value:.4}"),
    };
    let value = |measure: &Measure| match measure.unit {
        Unit::Fraction => format!("{:.2} %", measure.value * 100.0),
        Unit::Number => format!("{:.4}", measure.value),
    };
    let name = &base.name;
    let numbers = format!(
        "{name} {} of the baseline, {} of the candidate: drop {}, below {} at {} %",
        value(base),
        value(candidate),
        amount(observed),
        amount(drop_high),
        CONFIDENCE * 100.0
    );
    let (verdict, why) = match margins.max_drop {
        Some(budget) if observed > budget + 1e-9 => {
            (Verdict::Regressed, format!("over the budget of {} on this eval set", amount(budget)))
        }
        _ if p_value < alpha && observed > margins.lower => {
            (Verdict::Regressed, format!("a drop, p {p_value:.1e}, and above {}", amount(margins.lower)))
        }
        _ if drop_high < margins.upper => (Verdict::Pass, format!("surely below {}", amount(margins.upper))),
        _ => {
            let margin = amount(margins.upper);
            (Verdict::Inconclusive, format!("neither a drop nor surely below {margin}: a larger eval set may tell"))
        }
    };
    let finding = Finding::Score {
        metric: name.clone(),
        unit: base.unit,
        base: base.value,
        candidate: candidate.value,
        p_value,
        drop: observed,
        drop_high,
    };
    (verdict, finding, format!("{numbers}; {why}"))
}

/// Whether samples differ in their right answers.
fn varies(truth: &Truth) -> bool {
    (1..truth.samples()).any(|sample| truth.of_sample(sample) != truth.of_sample(0))
}

/// Whether all samples have one and the same answer, and there are several.
fn is_constant(predictions: &Predictions) -> bool {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let same = |values: &[Vec<f32>]| values.windows(2).all(|pair| bits(&pair[0]) == bits(&pair[1]));
    match answers(predictions) {
        Answers::Classes(classes) => classes.len() > 1 && classes.windows(2).all(|pair| pair[0] == pair[1]),
        Answers::Values(values) => values.len() > 1 && same(values),
    }
}

fn judge_counts(lost: u64, won: u64, changed: u64, total: u64, alpha: f64, margins: Margins) -> Judged {
    let drop = match paired_drop(lost, won, total) {
        Ok(drop) => drop,
        Err(error) => return (Verdict::Inconclusive, Finding::Nothing, error.to_string()),
    };
    let (p_value, observed, drop_high) = (mcnemar_one_sided(lost, won), drop.observed, drop.upper(CONFIDENCE));
    let numbers = format!(
        "{changed} of {total} answers changed, {lost} for the worse and {won} for the better: \
         drop {:.2} pp, below {:.2} pp at {} %",
        observed * 100.0,
        drop_high * 100.0,
        CONFIDENCE * 100.0
    );
    // Counts over a total: an excess of less than a thousandth of an answer is rounding.
    let above = |margin: f64| observed > margin + 1e-3 / total as f64;
    let points = |margin: f64| format!("{} pp", percent(margin, 6));
    let (verdict, why) = match margins.max_drop {
        Some(budget) if above(budget) => {
            (Verdict::Regressed, format!("over the budget of {} on this eval set", points(budget)))
        }
        _ if p_value < alpha && above(margins.lower) => {
            (Verdict::Regressed, format!("a drop, p {p_value:.1e}, and above {}", points(margins.lower)))
        }
        _ if drop_high < margins.upper => (Verdict::Pass, format!("surely below {}", points(margins.upper))),
        _ => {
            let margin = points(margins.upper);
            (Verdict::Inconclusive, format!("neither a drop nor surely below {margin}: a larger eval set may tell"))
        }
    };
    let finding = Finding::Accuracy { lost, won, total, p_value, drop: observed, drop_high, same_outputs: false };
    (verdict, finding, format!("{numbers}; {why}"))
}

fn same(total: u64) -> Judged {
    let finding =
        Finding::Accuracy { lost: 0, won: 0, total, p_value: 1.0, drop: 0.0, drop_high: 0.0, same_outputs: true };
    (Verdict::Pass, finding, format!("the outputs for all {total} samples are equal bit by bit"))
}

/// Bit by bit. Values that were not sent are not known to be equal.
fn same_outputs(base: &Predictions, candidate: &Predictions) -> bool {
    let bits = |predictions: &Predictions| -> Vec<Vec<u32>> {
        predictions.values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
    };
    let complete = base.values.len() == answers(base).len() && base.values.iter().all(|values| !values.is_empty());
    complete && base.start == candidate.start && base.classes == candidate.classes && bits(base) == bits(candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALPHA: f64 = 0.001;

    fn answers(classes: Vec<u32>, value: f32) -> Predictions {
        let values = classes.iter().map(|class| vec![*class as f32, value]).collect();
        Predictions { classes, values, ..Predictions::default() }
    }

    fn of_labels(labels: &[i64]) -> Expected {
        Expected { truth: Some(Truth::of_labels(labels)), ..Expected::default() }
    }

    /// Labels, and arms of which the baseline alone is right on the first `lost` of `total` and the candidate alone on
    /// the next `won`.
    fn arms(lost: usize, won: usize, total: usize) -> (Vec<i64>, Predictions, Predictions) {
        let class = |wrong: std::ops::Range<usize>| (0..total).map(|i| u32::from(wrong.contains(&i))).collect();
        (vec![0; total], answers(class(lost..lost + won), 1.0), answers(class(0..lost), 2.0))
    }

    fn judge(lost: usize, won: usize, total: usize, max_drop: Option<f64>) -> (Verdict, Finding, String) {
        let (labels, base, candidate) = arms(lost, won, total);
        judge_accuracy(&of_labels(&labels), &base, &candidate, ALPHA, Margins { max_drop, ..Margins::default() })
    }

    #[test]
    fn verdicts_and_their_words() {
        for (lost, won, total, max_drop, verdict, reason) in [
            (
                60,
                10,
                4000,
                None,
                Verdict::Regressed,
                "70 of 4000 answers changed, 60 for the worse and 10 for the better: drop 1.25 pp, below 1.59 pp at \
                 95 %; \
                 a drop, p 4.0e-10, and above 0.2 pp",
            ),
            (
                20,
                8,
                497,
                None,
                Verdict::Inconclusive,
                "28 of 497 answers changed, 20 for the worse and 8 for the better: drop 2.41 pp, below 4.16 pp at 95 \
                 %; \
                 neither a drop nor surely below 1 pp: a larger eval set may tell",
            ),
            (
                20,
                8,
                497,
                Some(0.01),
                Verdict::Regressed,
                "28 of 497 answers changed, 20 for the worse and 8 for the better: drop 2.41 pp, below 4.16 pp at 95 \
                 %; \
                 over the budget of 1 pp on this eval set",
            ),
            (
                60,
                40,
                10_000,
                Some(0.01),
                Verdict::Pass,
                "100 of 10000 answers changed, 60 for the worse and 40 for the better: drop 0.20 pp, below 0.36 pp at \
                 95 %; \
                 surely below 1 pp",
            ),
        ] {
            let (got, finding, text) = judge(lost, won, total, max_drop);
            assert_eq!((got, text.as_str()), (verdict, reason));
            let Finding::Accuracy { lost: l, won: w, total: t, same_outputs, .. } = finding else {
                panic!("{finding:?}")
            };
            assert_eq!((l, w, t, same_outputs), (lost as u64, won as u64, total as u64, false));
        }
    }

    /// p = 5e-6 that there is no drop, but it is one of 0.19 pp: too small to report. And exactly as much as the
    /// contract allows is within it.
    #[test]
    fn margins() {
        assert_eq!(judge(29, 4, 13_000, None).0, Verdict::Pass);
        assert_eq!(judge(29, 3, 13_000, None).0, Verdict::Pass);
        assert_eq!(judge(29, 2, 13_000, None).0, Verdict::Regressed);
        assert_eq!(judge(30, 0, 3000, Some(0.01)).0, Verdict::Regressed);
        assert_eq!(judge(3, 0, 300, Some(0.01)).0, Verdict::Inconclusive);
        assert_eq!(judge(4, 0, 300, Some(0.01)).0, Verdict::Regressed);
    }

    #[test]
    fn equal_outputs_need_nothing_else() {
        let (_, base, _) = arms(3, 2, 10);
        let (verdict, finding, reason) =
            judge_accuracy(&Expected::default(), &base, &base.clone(), ALPHA, Margins::default());
        assert_eq!((verdict, reason.as_str()), (Verdict::Pass, "the outputs for all 10 samples are equal bit by bit"));
        assert!(matches!(finding, Finding::Accuracy { same_outputs: true, drop_high: 0.0, .. }), "{finding:?}");
        // Not a number is equal to itself bit by bit; 0 and −0 are not.
        let of = |value: f32| Predictions { classes: vec![0], values: vec![vec![value]], ..Predictions::default() };
        let nan = of(f32::NAN);
        assert!(same_outputs(&nan, &nan.clone()));
        assert!(!same_outputs(&of(0.0), &of(-0.0)));
        let unknown = Predictions { classes: vec![0], ..Predictions::default() };
        assert!(!same_outputs(&unknown, &unknown.clone()));
    }

    #[test]
    fn what_is_not_finite() {
        let finite = answers(vec![1; 497], 1.0);
        let with = |value: f32, indices: std::ops::Range<usize>| {
            let mut predictions = answers(vec![1; 497], 2.0);
            predictions.values[indices].iter_mut().for_each(|values| values[1] = value);
            predictions
        };
        let judge = |base: &Predictions, candidate: &Predictions| {
            let (verdict, _, reason) =
                judge_accuracy(&of_labels(&[1; 497]), base, candidate, ALPHA, Margins::default());
            (verdict, reason)
        };
        assert_eq!(judge(&finite, &with(0.0, 0..0)).0, Verdict::Pass);
        let (verdict, reason) = judge(&finite, &with(f32::NAN, 3..5));
        assert_eq!(verdict, Verdict::Regressed);
        assert_eq!(
            reason,
            "the candidate answers NaN for 2 of 497 samples, the first of them 3, and the baseline answers numbers"
        );
        // Where values are not sent the runner says which.
        let reported = Predictions { values: vec![vec![]; 497], nan: vec![9], ..with(0.0, 0..0) };
        assert_eq!(judge(&finite, &reported).0, Verdict::Regressed);
        let (verdict, reason) = judge(&finite, &with(f32::INFINITY, 0..1));
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(
            reason.ends_with("no pass, because the candidate alone answers an infinite value for 1 of 497 samples")
        );
        // A masked logit of both arms; other values differ, so that statistics decide.
        let mut other = with(f32::NEG_INFINITY, 0..497);
        other.values[0][0] = 1.5;
        let (verdict, reason) = judge(&with(f32::NEG_INFINITY, 0..497), &other);
        assert_eq!(verdict, Verdict::Pass);
        assert!(reason.ends_with("; both answer infinite values for 497 of 497 samples"), "{reason}");
        // As many right answers by luck of the index are lost where both say NaN.
        let (verdict, reason) = judge(&with(f32::NAN, 0..5), &with(f32::NAN, 0..5));
        assert_eq!(verdict, Verdict::Pass);
        assert!(reason.ends_with("; both answer NaN for 5 of 497 samples"), "{reason}");
    }

    #[test]
    fn without_labels() {
        let judge = |classes: Vec<u32>, other: Vec<u32>| {
            judge_accuracy(
                &Expected::default(),
                &answers(classes, 1.0),
                &answers(other, 2.0),
                ALPHA,
                Margins::default(),
            )
        };
        assert_eq!(judge(vec![1; 497], vec![1; 497]).0, Verdict::Pass);
        // 230 equal answers do not show that less than one in a hundred changes: 1.645 · √2 / 232 is 1.0027 %.
        assert_eq!(judge(vec![1; 231], vec![1; 231]).0, Verdict::Pass);
        assert_eq!(judge(vec![1; 230], vec![1; 230]).0, Verdict::Inconclusive);
        let mut other = vec![1; 497];
        other[7] = 2;
        let (verdict, finding, reason) = judge(vec![1; 497], other);
        assert_eq!((verdict, finding), (Verdict::Inconclusive, Finding::Nothing));
        assert_eq!(
            reason,
            "1 of 497 answers changed; which were right takes an eval set with labels, and a known task"
        );
    }

    #[test]
    fn lengths_must_agree() {
        let (labels, base, candidate) = arms(3, 2, 10);
        for (labels, base, candidate, expected) in [
            (&labels[..9], &base, &candidate, "no comparison: 10 answers for 9 labels"),
            (
                &labels,
                &answers(vec![], 1.0),
                &candidate,
                "no comparison: 0 answers of the baseline and 10 of the candidate",
            ),
            (
                &labels,
                &base,
                &answers(vec![1; 9], 1.0),
                "no comparison: 10 answers of the baseline and 9 of the candidate",
            ),
        ] {
            let (verdict, finding, reason) =
                judge_accuracy(&of_labels(labels), base, candidate, ALPHA, Margins::default());
            assert_eq!((verdict, finding, reason.as_str()), (Verdict::Inconclusive, Finding::Nothing, expected));
        }
    }

    fn of(kind: Kind, truth: Vec<f64>, width: u64) -> Expected {
        let shape = if width == 1 { Vec::new() } else { vec![width] };
        let truth = Truth { shape, integers: kind != Kind::Regression, values: truth };
        Expected { task: Some(Task { kind, ..Task::classes_of_first() }), truth: Some(truth) }
    }

    fn values(values: Vec<Vec<f32>>) -> Predictions {
        Predictions { values, ..Predictions::default() }
    }

    /// Opposite and constant answers, and none, of every kind: never a pass. The same answers with other numbers: one.
    #[test]
    fn what_is_wrong_never_passes() {
        let count = 600usize;
        for kind in Kind::ALL {
            let width = if matches!(kind, Kind::Classes | Kind::Binary) { 1 } else { 4 };
            let wide = if kind == Kind::Classes { 2 } else { width };
            // Rare ones: an answer that never changes is nearly always right.
            let yes = |sample: usize, at: usize| (sample + at).is_multiple_of(300);
            let truth = (0..count * width).map(|at| f64::from(yes(at / width, at % width))).collect();
            let arm = |answer: &dyn Fn(bool) -> f32| {
                let of_sample = |sample: usize| match kind {
                    Kind::Classes => vec![answer(!yes(sample, 0)), answer(yes(sample, 0))],
                    _ => (0..wide).map(|at| answer(yes(sample, at))).collect(),
                };
                values((0..count).map(of_sample).collect())
            };
            let expected = of(kind, truth, width as u64);
            let [right, opposite]: [fn(bool) -> f32; 2] = match kind {
                Kind::Binary | Kind::MultiLabel | Kind::Classes => {
                    [|yes| if yes { 3.0 } else { -3.0 }, |yes| if yes { -3.0 } else { 3.0 }]
                }
                _ => [|yes| f32::from(u8::from(yes)), |yes| f32::from(u8::from(!yes))],
            };
            let base = arm(&right);
            let judge =
                |candidate: &Predictions| judge_accuracy(&expected, &base, candidate, ALPHA, Margins::default());
            let zero = values(vec![vec![-1.0; wide]; count]);
            for wrong in [arm(&opposite), zero, values(base.values[..count - 1].to_vec()), values(vec![])] {
                let (verdict, _, reason) = judge(&wrong);
                assert!(verdict != Verdict::Pass, "{kind:?}: {reason}");
            }
            let nearly = match kind {
                Kind::Binary | Kind::MultiLabel | Kind::Classes => arm(&|yes| if yes { 2.0 } else { -2.5 }),
                Kind::Regression | Kind::Embedding | Kind::Difference => arm(&|yes| if yes { 1.0001 } else { 0.0 }),
                Kind::Label | Kind::Tokens | Kind::Segments => base.clone(),
            };
            let (verdict, _, reason) = judge(&nearly);
            assert_eq!(verdict, Verdict::Pass, "{kind:?}: {reason}");
            let nan = arm(&|_| f32::NAN);
            assert!(judge(&nan).0 != Verdict::Pass, "{kind:?}: {}", judge(&nan).2);
        }
    }

    #[test]
    fn a_metric_of_all_samples_has_a_paired_interval() {
        let truth: Vec<f64> = (0..600).map(|sample| f64::from(sample % 10)).collect();
        let arm = |off: f32| {
            values(truth.iter().enumerate().map(|(at, y)| vec![*y as f32 + off * (at % 3) as f32]).collect())
        };
        let expected = of(Kind::Regression, truth.clone(), 1);
        let judge = |off: f32, max_drop| {
            judge_accuracy(&expected, &arm(0.01), &arm(off), ALPHA, Margins { max_drop, ..Margins::default() })
        };
        let (verdict, finding, reason) = judge(0.02, None);
        assert_eq!(verdict, Verdict::Pass, "{reason}");
        assert!(matches!(finding, Finding::Score { drop, .. } if drop > 0.0 && drop < 0.001), "{finding:?}");
        let (verdict, _, reason) = judge(1.0, None);
        assert_eq!(verdict, Verdict::Regressed);
        assert!(
            reason.starts_with("R2 1.0000 of the baseline, 0.7980 of the candidate: drop 0.2020, below"),
            "{reason}"
        );
        assert_eq!(judge(0.4, Some(0.01)).0, Verdict::Regressed);
    }

    proptest! {
        #[test]
        fn exchanging_the_arms(lost in 0usize..80, won in 0usize..80, same in 1usize..4000) {
            let total = lost + won + same;
            let (there, back) = (judge(lost, won, total, Some(0.02)), judge(won, lost, total, Some(0.02)));
            prop_assert!((there.0, back.0) != (Verdict::Regressed, Verdict::Regressed));
            if let (Finding::Accuracy { drop: one, .. }, Finding::Accuracy { drop: other, .. }) = (there.1, back.1) {
                prop_assert_eq!(one, -other);
            }
        }

        /// More losses never turn a regression into anything better.
        #[test]
        fn worse_is_not_better(lost in 0usize..80, won in 0usize..80, same in 100usize..4000) {
            let total = lost + won + same;
            let rank = |lost: usize| match judge(lost, won, total, Some(0.02)).0 {
                Verdict::Pass => 0,
                Verdict::Inconclusive => 1,
                Verdict::Regressed => 2,
            };
            // Between 19 and 20 changed answers the standard error changes its formula.
            prop_assume!(lost + won != 19);
            prop_assert!(rank(lost + 1) >= rank(lost));
        }
    }
}
