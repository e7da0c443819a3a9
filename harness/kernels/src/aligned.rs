//! Values that begin at the start of a cache line: a vector of 64 bytes then never lies in two of them.

use std::{fmt, ops::Deref};

const VALUES: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; VALUES]);

/// As many values as were asked for, rounded up to whole lines. What is not set is zero.
#[derive(Clone, Default)]
pub(crate) struct Aligned(Vec<Line>);

impl Aligned {
    pub fn zeros(values: usize) -> Aligned {
        Aligned(vec![Line([0.0; VALUES]); values.div_ceil(VALUES)])
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: a line is 16 values and nothing else.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * VALUES) }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is 16 values and nothing else.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * VALUES) }
    }
}

impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.len())
    }
}
