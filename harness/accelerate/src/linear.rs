//! Passes for products with constant weights, and what stands between them. None yet.

use crate::Pass;

pub const TYPED: &[Pass] = &[];
pub const DECLUTTERED: &[Pass] = &[];
