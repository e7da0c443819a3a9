//! What several commands take: a model by name or an ONNX file, samples, and a recipe. A model's own recipe is the
//! default, flags override it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use espalier_inventory::{self as inventory, Distillation, Method, Model, Recipe, Schedule, Scope, Unit};
use espalier_prune::{Inspection, Samples};

use crate::{
    context::{Context, usage},
    networks::dense_file,
    progress::Progress,
    samples,
};

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Recipe")]
pub struct RecipeFlags {
    /// How the importance of a weight is judged [default: the model's, else magnitude]
    #[arg(long, value_parser = method())]
    pub method: Option<Method>,
    /// What units compete with: all of the model, or those of the same tensor [default: the model's, else global]
    #[arg(long, value_parser = scope())]
    pub scope: Option<Scope>,
    /// What is removed together: weight, N:M as 2:4, block-RxC as block-4x1; channel, neuron, head, hidden, layer or
    /// structure (all but layers) make tensors shrink [default: the model's, else weight]
    #[arg(long, value_parser = unit)]
    pub unit: Option<Unit>,
    /// Fine-tune for so many epochs, of all steps together; 0 for not at all
    #[arg(long, value_name = "EPOCHS")]
    pub finetune: Option<u32>,
    /// Learn from the dense model's answers too: beside labels, or in place of them (free)
    #[arg(long, visible_alias = "distill", value_name = "labels|free", num_args = 0..=1)]
    #[arg(default_missing_value = "labels", value_parser = distil)]
    pub distil: Option<Distillation>,
    /// Reach the ratio in so many steps, each judged anew and fine-tuned
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: Option<u32>,
    /// How fast the steps go on [default: geometric, where there are steps]
    #[arg(long, value_parser = schedule())]
    pub schedule: Option<Schedule>,
    /// Let removed weights come back between steps
    #[arg(long)]
    pub soft: bool,
    /// Highest learning rate of fine-tuning [default: 0.002]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,
    /// Samples a gradient is taken of at a time [default: 32 to fine-tune, 8 to judge importance]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: Option<u32>,
    /// Of whatever is drawn at random; the same seed gives the same bytes
    #[arg(long)]
    pub seed: Option<u64>,
    /// Round what stays of a dimension up to a multiple of it, with units that make tensors shrink
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub round_to: Option<u32>,
    /// Keep at least this fraction of each dimension, with units that make tensors shrink
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub min_keep: Option<f64>,
    /// Samples importance is judged on, an `.npz` [default: the model's]
    #[arg(long, value_name = "FILE.npz")]
    pub calibration: Option<PathBuf>,
    /// Samples to fine-tune with, an `.npz` [default: the model's; else those of --calibration]
    #[arg(long, value_name = "FILE.npz")]
    pub train: Option<PathBuf>,
}

impl RecipeFlags {
    /// `base` with what the flags say. What only made sense with a value that is overridden goes with it.
    pub fn over(&self, base: Recipe) -> Recipe {
        let mut recipe = base;
        recipe.method = self.method.unwrap_or(recipe.method);
        recipe.scope = self.scope.unwrap_or(recipe.scope);
        if let Some(unit) = self.unit {
            recipe.unit = unit;
            if !unit.is_structured() {
                (recipe.round_to, recipe.min_keep) = (1, 0.0);
            }
        }
        if let Some(steps) = self.steps {
            recipe.steps = steps;
            if steps == 1 || recipe.schedule == Schedule::OneShot {
                recipe.schedule = Schedule::of(steps);
            }
            recipe.soft &= steps > 1;
        }
        if let Some(epochs) = self.finetune {
            recipe.finetune = epochs;
            if epochs == 0 {
                (recipe.distil, recipe.rate, recipe.soft) = (Distillation::Not, None, false);
            }
        }
        recipe.schedule = self.schedule.unwrap_or(recipe.schedule);
        recipe.distil = self.distil.unwrap_or(recipe.distil);
        recipe.soft |= self.soft;
        recipe.rate = self.rate.or(recipe.rate);
        recipe.batch = self.batch.or(recipe.batch);
        recipe.seed = self.seed.or(recipe.seed);
        recipe.round_to = self.round_to.unwrap_or(recipe.round_to);
        recipe.min_keep = self.min_keep.unwrap_or(recipe.min_keep);
        recipe
    }
}

/// Whether this names an ONNX file rather than a model of models/: by its ending, in whatever case, or a folder in it.
pub fn is_onnx(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".onnx") || name.contains(std::path::MAIN_SEPARATOR)
}

/// What a command works on.
pub struct Subject {
    /// The ONNX file.
    pub source: PathBuf,
    /// Where it was given by its name in models/.
    pub model: Option<Model>,
    root: PathBuf,
}

impl Subject {
    /// # Errors
    /// There is neither such a file nor such a model, or it cannot be made.
    pub fn find(context: &Context, name: &str, progress: &Progress) -> Result<Subject> {
        let root = context.root.clone();
        if Path::new(name).is_file() {
            return Ok(Subject { source: name.into(), model: None, root });
        }
        if is_onnx(name) {
            return Err(usage(format!("there is no file `{name}`")));
        }
        let inventory = context.inventory(&|file| file == format!("models/{name}.toml"))?;
        let model = inventory.model(name).map_err(|error| usage(error.to_string()))?;
        let source = dense_file(context, &model.source, progress)?;
        Ok(Subject { source, model: Some(model.clone()), root })
    }

    pub fn recipe(&self) -> Recipe {
        self.model.as_ref().map_or_else(Recipe::default, |model| model.recipe.clone())
    }

    /// A flag's file, or else the model's own.
    pub fn samples(
        &self,
        what: &str,
        flag: Option<&PathBuf>,
        own: impl Fn(&Model) -> Option<String>,
        inspection: &Inspection,
    ) -> Result<Option<Samples>> {
        let own = self.model.as_ref().and_then(own).map(|path| self.root.join(path));
        let path = flag.cloned().or(own);
        path.map(|path| samples::read(what, &path, inspection)).transpose()
    }
}

fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name)).map(move |text| {
        all.into_iter().find(|one| name(*one) == text).expect("clap gives one of the values it was given")
    })
}

pub fn method() -> impl TypedValueParser<Value = Method> {
    named(Method::ALL, Method::name)
}

fn scope() -> impl TypedValueParser<Value = Scope> {
    named(Scope::ALL, Scope::name)
}

fn schedule() -> impl TypedValueParser<Value = Schedule> {
    named(Schedule::ALL, Schedule::name)
}

pub fn unit(text: &str) -> Result<Unit, String> {
    text.parse().map_err(|_| match inventory::suggest(text, Unit::NAMES.into_iter()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known are {}", Unit::NAMES.join(", ")),
    })
}

fn distil(text: &str) -> Result<Distillation, String> {
    let known = Distillation::NAMES.into_iter().find(|(name, _)| *name == text);
    known.map(|(_, distil)| distil).ok_or_else(|| "it is `labels` (which may be left out) or `free`".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 1.0);
    rate.ok_or_else(|| "a learning rate is more than 0 and at most 1".to_owned())
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse::<f64>().ok().filter(|fraction| (0.0..=1.0).contains(fraction));
    fraction.ok_or_else(|| "a fraction is from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned() -> Recipe {
        Recipe {
            steps: 3,
            schedule: Schedule::Cubic,
            finetune: 15,
            distil: Distillation::Free,
            rate: Some(0.1),
            soft: true,
            ..Recipe::default()
        }
    }

    #[test]
    fn flags_override_and_take_along_what_hung_on_it() {
        let over = |flags: RecipeFlags, base: Recipe| {
            let recipe = flags.over(base);
            assert_eq!(recipe.conflicts(true), [], "{recipe:?}");
            recipe
        };
        let none = RecipeFlags::default;
        assert_eq!(over(none(), tuned()), tuned());
        let once = over(RecipeFlags { steps: Some(1), ..none() }, tuned());
        assert_eq!((once.schedule, once.soft, once.finetune), (Schedule::OneShot, false, 15));
        let untuned = over(RecipeFlags { finetune: Some(0), ..none() }, tuned());
        assert_eq!((untuned.distil, untuned.rate, untuned.soft, untuned.steps), (Distillation::Not, None, false, 3));
        let more = over(RecipeFlags { steps: Some(5), finetune: Some(2), soft: true, ..none() }, Recipe::default());
        assert_eq!((more.schedule, more.soft), (Schedule::Geometric, true));
        let channels = Recipe { unit: "channel".parse().unwrap(), round_to: 8, min_keep: 0.1, ..Recipe::default() };
        let weights = over(RecipeFlags { unit: Some(Unit::Weight), ..none() }, channels);
        assert_eq!((weights.round_to, weights.min_keep), (1, 0.0));
    }

    /// What contradicts itself within the flags is not quietly put right.
    #[test]
    fn what_is_said_in_flags_is_kept() {
        let flags = RecipeFlags { finetune: Some(0), distil: Some(Distillation::Free), ..RecipeFlags::default() };
        assert_eq!(flags.over(tuned()).conflicts(true)[0].key, "distil");
        let flags = RecipeFlags { steps: Some(1), schedule: Some(Schedule::Cubic), ..RecipeFlags::default() };
        assert_eq!(flags.over(tuned()).conflicts(true)[0].key, "schedule");
    }
}
