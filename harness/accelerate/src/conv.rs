//! Passes for convolutions. None yet.

use crate::Pass;

pub const TYPED: &[Pass] = &[];
pub const DECLUTTERED: &[Pass] = &[];
