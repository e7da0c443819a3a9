//! From importance to a mask: exactly `round(ratio * n)` of the `n` units that compete are removed, whatever the ties.
//!
//! Importance is computed tensor by tensor, maybe several times, so that a model's scores need not be in memory at
//! once. Removed weights stay removed: masks only grow.

use std::{borrow::Cow, cell::RefCell};

use crate::{
    Amount, Mask, PruneError, Scope, Scores, Unit,
    prunable::{Survey, Weight},
    recipe,
};
use cut::Cut;
use units::Units;

pub mod cut;
mod units;

/// The importance of the weights of one tensor of a survey, by index; the same at every call.
pub type Importance<'a> = dyn Fn(usize) -> Result<Cow<'a, [f32]>, PruneError> + 'a;

/// What is removed of one tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// By weight.
    pub removed: Vec<bool>,
    /// How many units the tensor has, and how many of them are removed.
    pub units: u64,
    pub removed_units: u64,
}

/// The mask that [`Selection`] gives, for all tensors at once.
///
/// # Errors
/// An amount or unit that contradicts itself, scores or masks of another survey.
pub fn mask(
    scores: &Scores,
    survey: &Survey,
    scope: Scope,
    unit: Unit,
    amount: impl Into<Amount>,
    already: Option<&Mask>,
) -> Result<Mask, PruneError> {
    if scores.0.len() != survey.weights.len() {
        let why = format!("{} tensors, {} prunable ones", scores.0.len(), survey.weights.len());
        return Err(PruneError::Mismatch { what: "scores", why });
    }
    let importance = |tensor: usize| Ok(Cow::Borrowed(scores.0[tensor].as_slice()));
    let mut selection = Selection::new(survey, scope, unit, amount.into(), &importance, already)?;
    (0..survey.weights.len()).map(|tensor| Ok(selection.tensor(tensor)?.removed)).collect::<Result<_, _>>().map(Mask)
}

/// A selection over all tensors of a survey, given out tensor by tensor.
pub struct Selection<'a, 's> {
    survey: &'a Survey,
    unit: Unit,
    importance: &'a Importance<'s>,
    already: Option<&'a Mask>,
    /// One for all tensors, or one each.
    cuts: Vec<Cut>,
}

impl<'a, 's> Selection<'a, 's> {
    /// Reads every score, with no more in memory than one tensor's.
    ///
    /// # Errors
    /// Those of [`Amount::check`] and [`Amount::check_unit`]; importance that is NaN.
    pub fn new(
        survey: &'a Survey,
        scope: Scope,
        unit: Unit,
        amount: Amount,
        importance: &'a Importance<'s>,
        already: Option<&'a Mask>,
    ) -> Result<Selection<'a, 's>, PruneError> {
        amount.check()?;
        amount.check_unit(unit)?;
        if let Some(already) = already {
            fits(already, survey)?;
        }
        let mut selection = Selection { survey, unit, importance, already, cuts: Vec::new() };
        if matches!(unit, Unit::NOfM { .. }) {
            if !amount.is_nothing() {
                selection.cuts = vec![Cut::NOTHING];
            }
            return Ok(selection);
        }
        let all: Vec<usize> = (0..survey.weights.len()).collect();
        let scopes: Vec<&[usize]> = match scope {
            Scope::Global => vec![&all],
            Scope::Local => all.chunks(1).collect(),
        };
        selection.cuts = scopes.into_iter().map(|tensors| selection.cut(tensors, amount)).collect::<Result<_, _>>()?;
        Ok(selection)
    }

    /// Has to be called once for every tensor, in order: of equal scores the first ones are removed.
    ///
    /// # Errors
    /// Those of the importance.
    pub fn tensor(&mut self, tensor: usize) -> Result<Removal, PruneError> {
        let weight = &self.survey.weights[tensor];
        let already = self.already(tensor);
        let mut removed = already.map_or_else(|| vec![false; weight.count as usize], <[bool]>::to_vec);
        let units = Units::of(weight, self.unit);
        let scores = self.scores(tensor)?;
        let index = if self.cuts.len() == 1 { 0 } else { tensor };
        let removed_units = match (&units, self.cuts.get_mut(index)) {
            (_, None) => 0,
            (Units::Groups { .. }, Some(_)) => units.mark_groups(&scores, &mut removed),
            (_, Some(cut)) => {
                let mut goes = Vec::with_capacity(units.count() as usize);
                units.keys(&scores, already, |key| goes.push(cut.removes(key)));
                units.mark(&mut removed, goes)
            }
        };
        Ok(Removal { removed, units: units.count(), removed_units })
    }

    fn already(&self, tensor: usize) -> Option<&'a [bool]> {
        self.already.map(|mask| mask.0[tensor].as_slice())
    }

    fn scores(&self, tensor: usize) -> Result<Cow<'s, [f32]>, PruneError> {
        let weight = &self.survey.weights[tensor];
        let scores = (self.importance)(tensor)?;
        if scores.len() as u64 != weight.count {
            let why = format!("{} for the {} weights of `{}`", scores.len(), weight.count, weight.name);
            return Err(PruneError::Mismatch { what: "scores", why });
        }
        match scores.iter().position(|score| score.is_nan()) {
            Some(index) => Err(PruneError::NotAScore { tensor: weight.name.clone(), index: index as u64 }),
            None => Ok(scores),
        }
    }

    /// The cut through the units of `tensors`, which compete with one another.
    fn cut(&self, tensors: &[usize], amount: Amount) -> Result<Cut, PruneError> {
        let failed = RefCell::new(None);
        let visit = |show: &mut dyn FnMut(u32)| {
            for tensor in tensors {
                match self.scores(*tensor) {
                    Ok(scores) => {
                        let units = Units::of(&self.survey.weights[*tensor], self.unit);
                        units.keys(&scores, self.already(*tensor), &mut *show);
                    }
                    Err(error) => {
                        failed.borrow_mut().get_or_insert(error);
                    }
                }
            }
        };
        let mut already = 0;
        if self.already.is_some() {
            visit(&mut |key| already += u64::from(key == units::REMOVED));
        }
        let cut = match amount {
            Amount::Ratio(ratio) => {
                let of = |tensor: &usize| units(&self.survey.weights[*tensor], self.unit);
                let k = recipe::removed(ratio, tensors.iter().map(of).sum()).max(already);
                Cut::smallest(k, visit)
            }
            Amount::Threshold(threshold) => {
                let mut most = units::REMOVED;
                visit(&mut |key| most = most.max(key));
                let most = cut::score(most);
                let limit = if most > 0.0 { (threshold * f64::from(most)) as f32 } else { 0.0 };
                Some(Cut::below(cut::key(limit)))
            }
        };
        match failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(cut.expect("no more are removed than there are")),
        }
    }
}

/// How many units a tensor has; 0 where the unit does not fit it.
pub fn units(weight: &Weight, unit: Unit) -> u64 {
    Units::of(weight, unit).count()
}

fn fits(mask: &Mask, survey: &Survey) -> Result<(), PruneError> {
    let same = mask.0.len() == survey.weights.len()
        && mask.0.iter().zip(&survey.weights).all(|(mask, weight)| mask.len() as u64 == weight.count);
    if same {
        return Ok(());
    }
    let why = format!("it has {} tensors, {} are prunable", mask.0.len(), survey.weights.len());
    Err(PruneError::Mismatch { what: "removed weights", why })
}
