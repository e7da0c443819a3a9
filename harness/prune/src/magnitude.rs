//! Importance by absolute value: the weights nearest to zero go first.

use crate::{
    PruneError,
    select::{Cut, key},
    tensor::Values,
};

/// The importance of a weight as a key that [`Cut`] compares.
pub fn importance(weight: f32) -> u32 {
    key(weight.abs())
}

/// The cut that removes exactly the `k` least important of all weights; `k` may be at most their number.
///
/// # Errors
/// [`PruneError::NotANumber`]: a NaN would sort last and so be the most important weight of all.
pub fn cut<'a>(weights: &[(&'a str, Values<'a>)], k: u64) -> Result<Cut, PruneError> {
    for (tensor, values) in weights {
        let (mut index, mut first) = (0u64, None);
        values.for_each(|value| {
            if value.is_nan() && first.is_none() {
                first = Some(index);
            }
            index += 1;
        });
        if let Some(index) = first {
            return Err(PruneError::NotANumber { tensor: (*tensor).to_owned(), index });
        }
    }
    let cut = Cut::smallest(k, |visit| {
        for (_, values) in weights {
            values.for_each(|value| visit(importance(value)));
        }
    });
    Ok(cut.expect("no more are removed than there are"))
}
