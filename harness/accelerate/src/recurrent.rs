//! Passes for LSTM and GRU. None yet.

use crate::Pass;

pub const TYPED: &[Pass] = &[];
pub const DECLUTTERED: &[Pass] = &[];
