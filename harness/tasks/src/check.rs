//! Whether right answers fit a task: their shape, their type, and classes that the output tells apart.

use crate::{Kind, Task, Truth, find::is_one_hot};

/// `shape`: of the task's output for one sample, where it is known.
///
/// # Errors
/// What does not fit, with the sample, from 0.
pub fn check(task: &Task, shape: Option<&[u64]>, truth: &Truth) -> Result<(), String> {
    let name = &task.name;
    let values = shape.map(|shape| shape.iter().product::<u64>());
    let kind = task.kind.name();
    if let Some(index) = truth.values.iter().position(|value| !value.is_finite()) {
        return Err(format!("the labels `y` have {} (sample {})", truth.values[index], index / truth.width()));
    }
    let as_many = |of: &str, needed: u64| {
        let given = truth.width() as u64;
        let text = format!("kind `{kind}` takes {needed} {of} in `y`, as output `{name}` has; `y` has {given}");
        if given == needed { Ok(()) } else { Err(text) }
    };
    match task.kind {
        Kind::Difference => Ok(()),
        Kind::Classes => {
            if !is_one_hot(truth) {
                one_a_sample(kind, truth)?;
                within(truth, values, name, None)?;
            } else if let Some(values) = values {
                as_many("numbers a sample", values)?;
            }
            Ok(())
        }
        Kind::Binary => {
            if let Some(values) = values.filter(|values| *values != 1) {
                return Err(format!("kind `binary` takes one number a sample; output `{name}` has {values}"));
            }
            one_a_sample(kind, truth)?;
            yes_or_no(truth)
        }
        Kind::MultiLabel => {
            values.map_or(Ok(()), |values| as_many("labels a sample", values))?;
            yes_or_no(truth)
        }
        Kind::Regression | Kind::Embedding => values.map_or(Ok(()), |values| as_many("numbers a sample", values)),
        Kind::Label => {
            whole(truth)?;
            values.map_or(Ok(()), |values| as_many("classes a sample", values))
        }
        Kind::Tokens | Kind::Segments => {
            let classes = task.classes.unwrap_or(u64::MAX);
            values.map_or(Ok(()), |values| as_many("classes a sample", values / classes.max(1)))?;
            within(truth, task.classes, name, task.ignore)
        }
    }
}

fn one_a_sample(kind: &str, truth: &Truth) -> Result<(), String> {
    if truth.width() == 1 {
        return whole(truth);
    }
    Err(format!("kind `{kind}` takes one label a sample; `y` has {:?} of each", truth.shape))
}

fn whole(truth: &Truth) -> Result<(), String> {
    match truth.values.iter().position(|value| value.fract() != 0.0) {
        Some(at) => Err(format!("the labels `y` have {} (sample {}): no class", truth.values[at], at / truth.width())),
        None => Ok(()),
    }
}

fn within(truth: &Truth, classes: Option<u64>, name: &str, ignore: Option<i64>) -> Result<(), String> {
    whole(truth)?;
    let ignored = |value: f64| ignore.is_some_and(|ignore| value == ignore as f64);
    let outside =
        |value: &f64| !ignored(*value) && (*value < 0.0 || classes.is_some_and(|classes| *value >= classes as f64));
    match truth.values.iter().position(outside) {
        Some(at) => {
            let apart =
                classes.map_or("classes from 0 on".into(), |classes| format!("{classes} classes apart, from 0"));
            let (class, sample) = (truth.values[at], at / truth.width());
            Err(format!("the labels `y` have class {class} (sample {sample}), output `{name}` tells {apart}"))
        }
        None => Ok(()),
    }
}

/// 0 and 1, or -1 and 1.
fn yes_or_no(truth: &Truth) -> Result<(), String> {
    let either = |no: f64| truth.values.iter().all(|value| [no, 1.0].contains(value));
    if either(0.0) || either(-1.0) {
        return Ok(());
    }
    let at = truth.values.iter().position(|value| ![0.0, 1.0].contains(value)).unwrap_or(0);
    Err(format!(
        "yes and no are 1 and 0 (or 1 and -1); the labels `y` have {} (sample {})",
        truth.values[at],
        at / truth.width()
    ))
}
