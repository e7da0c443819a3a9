//! The recipe of each step of a schedule, and the share of the epochs that it gets. Ratios are of the dense model.

use espalier_recipe::{Schedule, Unit};

use crate::Recipe;

/// The recipe of each step. Where the unit fixes the ratio (`2:4`), fewer and fewer of a group stay; steps that would
/// keep as many as the one before are left out.
pub fn recipes(schedule: Schedule, recipe: &Recipe, steps: usize) -> Vec<Recipe> {
    let Unit::NOfM { keep, of } = recipe.unit else {
        return schedule.ratios(recipe.ratio, steps).into_iter().map(|ratio| Recipe { ratio, ..*recipe }).collect();
    };
    let all = 1.0 - f64::from(keep) / f64::from(of);
    let mut kept: Vec<u32> = schedule
        .ratios(all, steps)
        .into_iter()
        .map(|ratio| ((1.0 - ratio) * f64::from(of)).round().max(f64::from(keep)) as u32)
        .filter(|kept| *kept < of)
        .collect();
    kept.dedup();
    kept.into_iter().map(|kept| recipe.keeping(kept, of)).collect()
}

/// `epochs` over `steps`, evenly, but about twice as many for the last, after which nothing more is removed.
pub fn share(epochs: usize, steps: usize) -> Vec<usize> {
    let before = steps.saturating_sub(1);
    let each = ((epochs as f64 / (steps + 1) as f64).round() as usize).min(epochs / steps.max(1));
    (0..steps).map(|step| if step == before { epochs - each * before } else { each }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights removed of 1000 after each step.
    #[track_caller]
    fn check(schedule: Schedule, ratio: f64, steps: usize, expected: &[u64]) {
        let recipes = recipes(schedule, &Recipe::magnitude(ratio), steps);
        assert_eq!(recipes.iter().map(|recipe| recipe.removed(1000)).collect::<Vec<_>>(), expected);
        assert_eq!(recipes.last().unwrap().ratio, ratio);
    }

    #[test]
    fn counts_of_each_step() {
        check(Schedule::OneShot, 0.9, 5, &[900]);
        check(Schedule::Geometric, 0.9, 1, &[900]);
        // 1 - 0.1^(1/3) = 0.5358, 1 - 0.1^(2/3) = 0.7846.
        check(Schedule::Geometric, 0.9, 3, &[536, 785, 900]);
        // 0.9 (1 - (2/3)^3) = 0.6333, 0.9 (1 - (1/3)^3) = 0.8667.
        check(Schedule::Cubic, 0.9, 3, &[633, 867, 900]);
        check(Schedule::Cubic, 0.5, 4, &[289, 438, 492, 500]);
        check(Schedule::Geometric, 0.0, 2, &[0, 0]);
        check(Schedule::Geometric, 0.9, 0, &[900]);
    }

    #[test]
    fn groups_keep_fewer_and_fewer() {
        let recipe = Recipe { unit: "2:8".parse().unwrap(), ratio: 0.75, ..Recipe::magnitude(0.0) };
        let units = |steps| {
            let recipes = recipes(Schedule::Geometric, &recipe, steps);
            recipes.iter().map(|recipe| (recipe.unit.to_string(), recipe.ratio)).collect::<Vec<_>>()
        };
        assert_eq!(units(3), [("5:8".into(), 0.375), ("3:8".into(), 0.625), ("2:8".into(), 0.75)]);
        assert_eq!(units(1), [("2:8".into(), 0.75)]);
        assert_eq!(units(50).len(), 6);
    }

    #[test]
    fn epochs_are_shared() {
        assert_eq!(share(15, 1), [15]);
        assert_eq!(share(16, 3), [4, 4, 8]);
        assert_eq!(share(15, 3), [4, 4, 7]);
        assert_eq!(share(20, 5), [3, 3, 3, 3, 8]);
        assert_eq!(share(2, 3), [0, 0, 2]);
        assert_eq!(share(0, 2), [0, 0]);
    }
}
