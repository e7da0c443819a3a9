//! One `models/<name>.toml`: where a trained model is, how it is pruned, what it may lose.

use super::{
    Budget, Method, Model, Recipe, Scope, Unit,
    document::{Table, Value, Wrong},
    names, values,
};

/// Paths in the file are relative to `folder`, which is empty or ends in `/`.
pub fn read_model(name: &str, folder: &str, mut table: Table<'_, '_>, exists: &dyn Fn(&str) -> bool) -> Model {
    let path = |value: Value<'_, '_>| value.parse(|text| existing(folder, text, exists));
    let source = table.require("source", "\"my-model/dense.onnx\"").and_then(path);
    let eval = table.take("eval").and_then(path);
    let calibration = table.take("calibration").and_then(path);
    let recipe = table.take("prune").and_then(|value| value.table()).map(read_recipe);
    let budget = table.take("budget").and_then(|value| value.table()).map(read_budget);
    table.close();
    Model {
        name: name.to_owned(),
        source: source.unwrap_or_default(),
        eval,
        calibration,
        recipe: recipe.unwrap_or_default(),
        budget: budget.unwrap_or_default(),
    }
}

fn existing(folder: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Result<String, Wrong> {
    let text = values::filled("the path", text)?;
    let path = if text.starts_with('/') { text } else { format!("{folder}{text}") };
    if exists(&path) { Ok(path) } else { Err(Wrong::new(format!("there is no file `{path}`"))) }
}

fn read_recipe(mut table: Table<'_, '_>) -> Recipe {
    let default = Recipe::default();
    let method = table.take("method").and_then(|value| {
        let known = [
            ("magnitude", Some(Method::Magnitude)),
            ("gradient", None),
            ("taylor", None),
            ("activation", None),
            ("random", None),
        ];
        value.parse(|text| available("method", text, &known))
    });
    let scope = table.take("scope").and_then(|value| {
        let known = [("global", Some(Scope::Global)), ("local", None)];
        value.parse(|text| available("scope", text, &known))
    });
    let unit = table.take("unit").and_then(|value| {
        let known = [
            ("weight", Some(Unit::Weight)),
            ("block-4x1", None),
            ("2:4", None),
            ("channel", None),
            ("head", None),
            ("layer", None),
        ];
        value.parse(|text| available("unit", text, &known))
    });
    let ratios = table.take("ratios").map(read_ratios);
    table.close();
    Recipe {
        method: method.unwrap_or(default.method),
        scope: scope.unwrap_or(default.scope),
        unit: unit.unwrap_or(default.unit),
        ratios: ratios.unwrap_or(default.ratios),
    }
}

/// One of the names of which some are only planned: those are told from slips.
fn available<T: Copy>(what: &str, text: &str, known: &[(&str, Option<T>)]) -> Result<T, Wrong> {
    values::choose(what, text, known)?.ok_or_else(|| {
        let ready = known.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name);
        Wrong::new(format!("the {what} `{text}` is not available yet, only {}", names::list(ready)))
    })
}

/// Ascending and distinct as written, with 0 in front: every ratio is compared with the dense variant.
fn read_ratios(value: Value<'_, '_>) -> Vec<f64> {
    let mut ratios: Vec<f64> = Vec::new();
    for value in value.items("numbers") {
        let rule = "at least 0 and less than 1, the fraction of the weights that is removed";
        let Some(ratio) = value.number(rule, |ratio| (0.0..1.0).contains(&ratio)) else { continue };
        match ratios.last() {
            Some(&last) if last == ratio => {
                value.wrong(Wrong::new(format!("the ratio {ratio} is already in the list")))
            }
            Some(&last) if last > ratio => {
                value.wrong(Wrong::new(format!("ratios must ascend, but {ratio} follows {last}")));
            }
            _ => ratios.push(ratio),
        }
    }
    if ratios.first() != Some(&0.0) {
        ratios.insert(0, 0.0);
    }
    ratios
}

fn read_budget(mut table: Table<'_, '_>) -> Budget {
    let fraction = |drop: f64| (0.0..=1.0).contains(&drop);
    let max_accuracy_drop = table
        .take("max-accuracy-drop")
        .and_then(|value| value.number("a fraction from 0 to 1 (0.01 is one point)", fraction));
    table.close();
    Budget { max_accuracy_drop }
}
