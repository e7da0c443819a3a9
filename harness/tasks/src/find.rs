//! Finds the task from the shapes and types of outputs and right answers, where a person has not said it.
//!
//! Axes of length 1 tell nothing apart and are looked through: a batch of one, a channel of one, `y` of shape `[N, 1]`.
//! The first output that the right answers fit is the one that answers.

use crate::{Kind, OutputName, Scale, Spec, Task, Truth, check};

/// An output as it is for one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    /// Whether its values are floats; classes and positions are whole numbers.
    pub floats: bool,
    /// With the batch, which is 1. `None` where it is not known.
    pub shape: Option<Vec<u64>>,
    /// Whether a sigmoid or a softmax made it, so that its values are probabilities.
    pub sigmoid: bool,
    pub softmax: bool,
}

/// PyTorch's `CrossEntropyLoss` leaves out positions with this label, and so do data sets of tokens.
const IGNORED: i64 = -100;

/// # Errors
/// What is said contradicts the model or the right answers, in words that complete "the task of the model: ".
pub fn find(spec: &Spec, outputs: &[Output], truth: Option<&Truth>) -> Result<Task, String> {
    let candidates = candidates(spec, outputs)?;
    let (index, found) = match spec.kind {
        Some(kind) => (candidates[0], said(kind, spec, &outputs[candidates[0]], truth)?),
        None => {
            let fits = candidates.iter().find_map(|index| Some((*index, fitting(&outputs[*index], truth)?)));
            fits.unwrap_or_else(|| (candidates[0], unknown(outputs, truth)))
        }
    };
    let output = &outputs[index];
    let axis = match spec.axis {
        Some(axis) => Some(said_axis(axis, output)?),
        None => found.axis,
    };
    let length = |axis: u32| output.shape.as_ref().and_then(|shape| shape.get(axis as usize).copied());
    let is_scaled = matches!(found.kind, Kind::Binary | Kind::MultiLabel);
    let scale = if output.sigmoid || output.softmax { Scale::Probability } else { Scale::Logit };
    let by_position = matches!(found.kind, Kind::Tokens | Kind::Segments);
    let task = Task {
        kind: found.kind,
        output: index as u32,
        name: output.name.clone(),
        axis,
        classes: match found.kind {
            Kind::Classes => output.shape.as_ref().map(|shape| shape.iter().product()),
            Kind::Tokens | Kind::Segments => axis.and_then(length),
            _ => None,
        },
        top: spec.top.unwrap_or(1),
        scale: is_scaled.then(|| spec.scale.unwrap_or(scale)),
        ignore: spec.ignore.or(by_position.then_some(IGNORED)),
        from: found.from,
    };
    if by_position && task.axis.is_none() {
        return Err(format!(
            "kind `{}`: the axis of the classes in output `{}` cannot be found; say `axis`",
            task.kind.name(),
            task.name
        ));
    }
    if let Some(truth) = truth {
        check(&task, output.shape.as_deref(), truth)?;
    }
    Ok(task)
}

struct Found {
    kind: Kind,
    axis: Option<u32>,
    from: String,
}

fn candidates(spec: &Spec, outputs: &[Output]) -> Result<Vec<usize>, String> {
    let names = || outputs.iter().map(|output| format!("`{}`", output.name)).collect::<Vec<_>>().join(", ");
    let index = match &spec.output {
        None if outputs.is_empty() => return Err("the model has no output".to_owned()),
        None => return Ok((0..outputs.len()).collect()),
        Some(OutputName::Index(index)) => Some(*index as usize).filter(|index| *index < outputs.len()),
        Some(OutputName::Name(name)) => outputs.iter().position(|output| output.name == *name),
    };
    let said = || match &spec.output {
        Some(OutputName::Name(name)) => format!("`{name}`"),
        Some(OutputName::Index(index)) => index.to_string(),
        None => String::new(),
    };
    index.map(|index| vec![index]).ok_or_else(|| format!("there is no output {}; there are {}", said(), names()))
}

fn said_axis(axis: i32, output: &Output) -> Result<u32, String> {
    let Some(shape) = &output.shape else {
        return u32::try_from(axis).map_err(|_| "an axis from the end needs an output of known shape".to_owned());
    };
    let from_start = if axis < 0 { i64::from(axis) + shape.len() as i64 } else { i64::from(axis) };
    u32::try_from(from_start)
        .ok()
        .filter(|axis| (*axis as usize) < shape.len())
        .ok_or_else(|| format!("there is no axis {axis} in output `{}` of shape {shape:?}", output.name))
}

fn said(kind: Kind, spec: &Spec, output: &Output, truth: Option<&Truth>) -> Result<Found, String> {
    if kind != Kind::Label && !output.floats && kind.is_decided() {
        return Err(format!(
            "kind `{}` takes an output of floats; `{}` has whole numbers: is it `label`?",
            kind.name(),
            output.name
        ));
    }
    let only = [
        (spec.top.is_some() && kind != Kind::Classes, "top", "classes"),
        (spec.scale.is_some() && !matches!(kind, Kind::Binary | Kind::MultiLabel), "scale", "binary, multi-label"),
        (spec.axis.is_some() && !matches!(kind, Kind::Tokens | Kind::Segments), "axis", "tokens, segments"),
        (
            spec.ignore.is_some() && !matches!(kind, Kind::Tokens | Kind::Segments | Kind::Label),
            "ignore",
            "tokens, segments, label",
        ),
    ];
    if let Some((_, key, kinds)) = only.into_iter().find(|(wrong, ..)| *wrong) {
        return Err(format!("`{key}` is for the kinds {kinds}, not for `{}`", kind.name()));
    }
    let positions = matches!(kind, Kind::Tokens | Kind::Segments);
    let axis = match (&output.shape, truth) {
        (Some(shape), Some(truth)) if positions => class_axis(shape, truth),
        // Channels come first in planes, last in sequences.
        (Some(shape), None) if positions => match kind {
            Kind::Segments => Some(1).filter(|_| shape.len() > 2),
            _ => shape.len().checked_sub(1).map(|axis| axis as u32),
        },
        _ => None,
    };
    Ok(Found { kind, axis, from: "the model's file".to_owned() })
}

fn unknown(outputs: &[Output], truth: Option<&Truth>) -> Found {
    let from = match truth {
        None => "nothing: there are no labels".to_owned(),
        Some(truth) => {
            let shapes = outputs.iter().map(describe).collect::<Vec<_>>().join(", ");
            format!("nothing: `y` ({}) fits no output ({shapes}); `[task]` in the model's file says it", of_y(truth))
        }
    };
    Found { kind: Kind::Difference, axis: None, from }
}

fn describe(output: &Output) -> String {
    let shape = output.shape.as_ref().map_or("of unknown shape".to_owned(), |shape| format!("{shape:?}"));
    format!("`{}` {shape} of {}", output.name, if output.floats { "floats" } else { "integers" })
}

fn of_y(truth: &Truth) -> String {
    format!("{:?} of {}", truth.shape, if truth.integers { "integers" } else { "floats" })
}

/// What the right answers make of an output; `None` where they do not fit.
fn fitting(output: &Output, truth: Option<&Truth>) -> Option<Found> {
    let (shape, truth) = (output.shape.as_ref()?, truth?);
    let (one, right) = (without_ones(shape), without_ones(&truth.shape));
    let whole = truth.values.iter().all(|value| value.fract() == 0.0);
    let yes_no = truth.values.iter().all(|value| [0.0, 1.0].contains(value));
    let (kind, axis) = match () {
        () if !output.floats && truth.integers && one == right => (Kind::Label, None),
        () if !output.floats => return None,
        () if one.is_empty() && right.is_empty() && whole && yes_no => (Kind::Binary, None),
        () if one.is_empty() && right.is_empty() => (Kind::Regression, None),
        () if one.len() == 1 && right.is_empty() && truth.integers => (Kind::Classes, None),
        () if one == right && yes_no && one.len() == 1 && is_one_hot(truth) && !output.sigmoid => (Kind::Classes, None),
        () if one == right && yes_no && one.len() == 1 => (Kind::MultiLabel, None),
        () if one == right && !truth.integers => (Kind::Regression, None),
        () if truth.integers => {
            let axis = class_axis(shape, truth)?;
            (if right.len() > 1 { Kind::Segments } else { Kind::Tokens }, Some(axis))
        }
        () => return None,
    };
    Some(Found { kind, axis, from: format!("{} and `y` {}", describe(output), of_y(truth)) })
}

/// Whether each sample has exactly one yes.
pub(crate) fn is_one_hot(truth: &Truth) -> bool {
    truth.width() > 1 && truth.values.chunks_exact(truth.width()).all(|row| row.iter().sum::<f64>() == 1.0)
}

/// The axis without which the output's shape is that of the right answers. Of several, the second in planes, where
/// channels come first, and the last in sequences.
fn class_axis(shape: &[u64], truth: &Truth) -> Option<u32> {
    let right = without_ones(&truth.shape);
    let fits = |axis: &usize| {
        let rest: Vec<u64> = shape.iter().enumerate().filter(|(at, _)| at != axis).map(|(_, len)| *len).collect();
        shape[*axis] > 1 && without_ones(&rest) == right
    };
    let mut axes = (0..shape.len()).filter(fits);
    let axis = if right.len() > 1 { axes.next() } else { axes.next_back() };
    axis.map(|axis| axis as u32)
}

fn without_ones(shape: &[u64]) -> Vec<u64> {
    shape.iter().copied().filter(|len| *len != 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, floats: bool, shape: &[u64]) -> Output {
        Output { name: name.into(), floats, shape: Some(shape.to_vec()), sigmoid: false, softmax: false }
    }

    fn truth(shape: &[u64], integers: bool, values: &[f64]) -> Truth {
        Truth { shape: shape.to_vec(), integers, values: values.to_vec() }
    }

    #[track_caller]
    fn found(outputs: &[Output], truth: Option<&Truth>) -> (Kind, u32, Option<u32>, Option<Scale>) {
        let task = find(&Spec::default(), outputs, truth).unwrap();
        (task.kind, task.output, task.axis, task.scale)
    }

    #[test]
    fn shapes_and_types_say_it() {
        let (classes, one) = (output("o", true, &[1, 3]), output("o", true, &[1, 1]));
        let labels = truth(&[], true, &[0.0, 2.0, 1.0]);
        let yes_no = truth(&[], true, &[0.0, 1.0, 1.0]);
        assert_eq!(found(std::slice::from_ref(&classes), Some(&labels)), (Kind::Classes, 0, None, None));
        let column = truth(&[1], true, &[0.0, 2.0, 1.0]);
        assert_eq!(found(&[output("o", true, &[1, 3, 1, 1])], Some(&column)).0, Kind::Classes);
        assert_eq!(found(std::slice::from_ref(&one), Some(&yes_no)), (Kind::Binary, 0, None, Some(Scale::Logit)));
        let sigmoid = Output { sigmoid: true, ..one.clone() };
        assert_eq!(found(&[sigmoid], Some(&yes_no)).3, Some(Scale::Probability));
        assert_eq!(found(std::slice::from_ref(&one), Some(&truth(&[], false, &[0.5, 2.0]))).0, Kind::Regression);
        // Whole numbers that are no yes or no, for one float.
        assert_eq!(found(&[one], Some(&labels)).0, Kind::Regression);
        let rows = truth(&[3], true, &[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(found(std::slice::from_ref(&classes), Some(&rows)).0, Kind::MultiLabel);
        let hot = truth(&[3], true, &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(found(std::slice::from_ref(&classes), Some(&hot)).0, Kind::Classes);
        let sigmoids = Output { sigmoid: true, ..classes.clone() };
        assert_eq!(found(&[sigmoids], Some(&hot)).0, Kind::MultiLabel);
        assert_eq!(
            found(std::slice::from_ref(&classes), Some(&truth(&[3], false, &[0.5, 1.0, 2.0]))).0,
            Kind::Regression
        );
        assert_eq!(found(&[classes], None).0, Kind::Difference);
    }

    #[test]
    fn positions_have_an_axis_of_classes() {
        let words = truth(&[5], true, &[0.0; 10]);
        let of = |shape: &[u64], truth: &Truth| {
            let (kind, _, axis, _) = found(&[output("o", true, shape)], Some(truth));
            (kind, axis)
        };
        assert_eq!(of(&[1, 5, 7], &words), (Kind::Tokens, Some(2)));
        assert_eq!(of(&[1, 7, 5], &words), (Kind::Tokens, Some(1)));
        // Time first, as CRNNs have it; and as many classes as positions.
        assert_eq!(of(&[5, 1, 7], &words), (Kind::Tokens, Some(2)));
        assert_eq!(of(&[1, 5, 5], &words), (Kind::Tokens, Some(2)));
        let plane = truth(&[4, 4], true, &[0.0; 32]);
        assert_eq!(of(&[1, 4, 4, 4], &plane), (Kind::Segments, Some(1)));
        assert_eq!(of(&[1, 4, 4, 3], &plane), (Kind::Segments, Some(3)));
        assert_eq!(of(&[1, 8, 6], &words), (Kind::Difference, None));
    }

    #[test]
    fn the_output_that_labels_fit_answers() {
        let labels = truth(&[], true, &[0.0, 2.0]);
        let (label, rows) = (output("label", false, &[1]), output("probabilities", true, &[1, 3]));
        assert_eq!(found(&[label.clone(), rows.clone()], Some(&labels)).0, Kind::Label);
        let ids = output("ids", false, &[1, 8]);
        assert_eq!(found(&[ids, rows.clone()], Some(&labels)), (Kind::Classes, 1, None, None));
        let second = Spec { output: Some(OutputName::Name("probabilities".into())), ..Spec::default() };
        assert_eq!(find(&second, &[label, rows], Some(&labels)).unwrap().kind, Kind::Classes);
    }

    #[test]
    fn what_is_said_must_fit() {
        let outputs = [output("logits", true, &[1, 3])];
        let said = |spec: Spec, truth: &Truth| find(&spec, &outputs, Some(truth)).unwrap_err();
        let labels = truth(&[], true, &[0.0, 3.0]);
        let kind = |kind: Kind| Spec { kind: Some(kind), ..Spec::default() };
        assert_eq!(
            said(kind(Kind::Classes), &labels),
            "the labels `y` have class 3 (sample 1), output `logits` tells 3 classes apart, from 0"
        );
        let missing = Spec { output: Some(OutputName::Name("probs".into())), ..Spec::default() };
        assert_eq!(said(missing, &labels), "there is no output `probs`; there are `logits`");
        let top = Spec { top: Some(2), ..kind(Kind::Regression) };
        assert_eq!(said(top, &labels), "`top` is for the kinds classes, not for `regression`");
        assert_eq!(said(kind(Kind::Binary), &labels), "kind `binary` takes one number a sample; output `logits` has 3");
    }
}
