//! One `models/<name>.toml`: where a trained model is, or which is to be made; how it is pruned, what it may lose.

use super::{
    Budget, Distillation, Method, Model, Recipe, Schedule, Scope, Source, Unit,
    document::{Place, Table, Value, Wrong},
    is_pack_form,
    task::read_task,
    values,
};

/// What `build` may name: the same as `cargo xtask model build`, which a test of `xtask` holds it to.
pub const BUILT: [&str; 6] = ["resnet50", "mobilenetv2", "bert-base", "bert-large", "lstm", "ds-cnn"];

/// Paths in the file are relative to `folder`, which is empty or ends in `/`.
pub fn read_model(name: &str, folder: &str, mut table: Table<'_, '_>, exists: &dyn Fn(&str) -> bool) -> Model {
    let path = |value: Value<'_, '_>| value.parse(|text| existing(folder, text, exists));
    let build = table.take("build");
    let is_built = build.is_some();
    let source = match build {
        Some(build) => read_build(build, &mut table),
        None => table.require("source", "\"my-model/dense.onnx\"").and_then(path).map(Source::File),
    };
    let eval = table.take("eval");
    let (calibration, train) = (table.take("calibration"), table.take("train"));
    // A file that is misspelled is no reason to say that none is given.
    let has_samples = calibration.is_some() || train.is_some();
    let recipe = table.take("prune").and_then(|value| value.table()).map(|table| read_recipe(table, has_samples));
    let task = table.take("task").and_then(|value| value.table()).map(read_task);
    let budget = table.take("budget");
    if is_built {
        let truth = [&eval, &budget].into_iter().flatten();
        truth
            .for_each(|value| value.wrong(Wrong::new("the weights of what is built are random: there is no accuracy")));
    } else if let Some(samples) = table.take("samples") {
        samples.wrong(Wrong::new("samples are synthetic for what is built; `eval` names those of a model's own"));
    }
    let in_all = table.take("in-all").and_then(|value| value.flag()).unwrap_or(true);
    let model = Model {
        name: name.to_owned(),
        source: source.unwrap_or(Source::File(String::new())),
        eval: eval.and_then(path),
        calibration: calibration.and_then(path),
        train: train.and_then(path),
        recipe: recipe.unwrap_or_default(),
        task: task.unwrap_or_default(),
        budget: budget.and_then(|value| value.table()).map(read_budget).unwrap_or_default(),
        in_all,
    };
    table.close();
    model
}

fn read_build(build: Value<'_, '_>, table: &mut Table<'_, '_>) -> Option<Source> {
    let net = build.parse(|text| values::choose("network", text, &BUILT.map(|net| (net, net))));
    if let Some(source) = table.take("source") {
        source.wrong(Wrong::new("`source` and `build` exclude each other: a file that is there, or one that is made"));
    }
    let samples = table.take("samples").map_or(Some(Source::SAMPLES), |value| value.integer(1, 4096));
    Some(Source::Build { net: net?.to_owned(), samples: samples? })
}

fn existing(folder: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Result<String, Wrong> {
    let text = values::filled("the path", text)?;
    let path = if text.starts_with('/') { text } else { format!("{folder}{text}") };
    if exists(&path) { Ok(path) } else { Err(Wrong::new(format!("there is no file `{path}`"))) }
}

fn read_recipe(table: Table<'_, '_>, has_samples: bool) -> Recipe {
    let default = Recipe::default();
    let mut keys = Keys { table, places: Vec::new(), wrong: false };
    let method = keys.read("method", |value| value.parse(|text| named("method", text, Method::ALL, Method::name)));
    let scope = keys.read("scope", |value| value.parse(|text| named("scope", text, Scope::ALL, Scope::name)));
    let unit = keys.read("unit", |value| {
        value.parse(|text| text.parse().map_err(|_| Wrong::unknown("unit", text, Unit::NAMES.into_iter())))
    });
    let ratios = keys.read("ratios", |value| Some(read_ratios(value)));
    let steps = keys.read("steps", |value| value.integer(1, 100));
    let schedule =
        keys.read("schedule", |value| value.parse(|text| named("schedule", text, Schedule::ALL, Schedule::name)));
    let finetune = keys.read("finetune", |value| value.integer(0, 10_000));
    let distil = keys.read("distil", read_distil);
    let rate = keys.read("rate", |value| value.number("more than 0 and at most 1", |rate| rate > 0.0 && rate <= 1.0));
    let batch = keys.read("batch", |value| value.integer(1, 1 << 16));
    let seed = keys.read("seed", |value| value.count());
    let round_to = keys.read("round-to", |value| value.integer(1, 1024));
    let min_keep =
        keys.read("min-keep", |value| value.number("a fraction from 0 to 1", |keep| (0.0..=1.0).contains(&keep)));
    let soft = keys.read("soft", |value| value.flag());
    let pack = keys.read("pack", |value| value.parse(pack_form));
    let unit = unit.unwrap_or(default.unit);
    let steps = steps.unwrap_or(default.steps);
    let recipe = Recipe {
        method: method.unwrap_or(default.method),
        scope: scope.unwrap_or(default.scope),
        unit,
        ratios: ratios.unwrap_or_else(|| unit.only_ratio().map_or(default.ratios, |only| vec![0.0, only])),
        steps,
        schedule: schedule.unwrap_or(Schedule::of(steps)),
        finetune: finetune.unwrap_or(default.finetune),
        distil: distil.unwrap_or(default.distil),
        rate,
        batch,
        seed,
        round_to: round_to.unwrap_or(default.round_to),
        min_keep: min_keep.unwrap_or(default.min_keep),
        soft: soft.unwrap_or(default.soft),
        pack,
    };
    // What stands in for a mistake may seem to contradict other values.
    if !keys.wrong {
        for conflict in recipe.conflicts(has_samples) {
            keys.wrong_at(conflict.key, Wrong::new(conflict.message));
        }
    }
    keys.table.close();
    recipe
}

/// A table's values, each with its place: a conflict between two is known only when all are read.
struct Keys<'d, 'f> {
    table: Table<'d, 'f>,
    places: Vec<(&'static str, Place<'d, 'f>)>,
    wrong: bool,
}

impl<'d, 'f> Keys<'d, 'f> {
    fn read<T>(&mut self, key: &'static str, read: impl FnOnce(Value<'d, 'f>) -> Option<T>) -> Option<T> {
        let value = self.table.take(key)?;
        self.places.push((key, value.place()));
        let read = read(value);
        self.wrong |= read.is_none();
        read
    }

    fn wrong_at(&self, key: &str, wrong: Wrong) {
        match self.places.iter().find(|(name, _)| *name == key) {
            Some((_, place)) => place.wrong(wrong),
            None => self.table.wrong(wrong),
        }
    }
}

fn named<T: Copy, const N: usize>(
    what: &str,
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, Wrong> {
    values::choose(what, text, &all.map(|one| (name(one), one)))
}

/// `false`, `true` (which is `"labels"`), `"labels"` or `"free"`.
fn read_distil(value: Value<'_, '_>) -> Option<Distillation> {
    if value.is_flag() {
        return value.flag().map(|flag| if flag { Distillation::Labels } else { Distillation::Not });
    }
    value.parse(|text| values::choose("way to distil", text, &Distillation::NAMES))
}

fn pack_form(text: &str) -> Result<String, Wrong> {
    if is_pack_form(text) {
        return Ok(text.to_owned());
    }
    let message = format!(
        "`{text}` is no packed form: a layout (`dense`, `csr`, `block-csr-4x1`, `bitmap`) and a kind of \
                           values (`f32`, `f16`, `int8`, `codebook`), e.g. `bitmap-codebook`"
    );
    Err(Wrong::new(message))
}

/// Ascending and distinct as written, with 0 in front: every ratio is compared with the dense variant.
fn read_ratios(value: Value<'_, '_>) -> Vec<f64> {
    let mut ratios: Vec<f64> = Vec::new();
    for value in value.items("numbers") {
        let rule = "at least 0 and less than 1, the fraction of the units that is removed";
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
    // A drop of 1 would allow every answer to be wrong.
    let fraction = |drop: f64| (0.0..1.0).contains(&drop);
    let max_accuracy_drop = table
        .take("max-accuracy-drop")
        .and_then(|value| value.number("a fraction from 0 and below 1 (0.01 is one point)", fraction));
    table.close();
    Budget { max_accuracy_drop }
}
