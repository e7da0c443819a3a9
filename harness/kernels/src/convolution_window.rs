//! Where a convolution's outputs find their inputs, axis by axis.

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    pub input: usize,
    pub output: usize,
    /// How many taps the window has.
    pub kernel: usize,
    pub stride: usize,
    /// From one tap to the next.
    pub dilation: usize,
    /// As many zeros stand before the first input. Those after the last follow from `output`.
    pub before: usize,
}

impl Axis {
    /// Which input the `output`-th output finds under a tap: outside of `0..input` it is one of the zeros.
    #[inline(always)]
    pub fn at(&self, output: usize, tap: usize) -> isize {
        (output * self.stride + tap * self.dilation) as isize - self.before as isize
    }

    /// Nothing but a copy: one tap, one step, no zeros.
    pub fn is_plain(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.input == self.output
    }
}

/// The window of a convolution over planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub height: Axis,
    pub width: Axis,
}

impl Window {
    pub fn taps(&self) -> usize {
        self.height.kernel * self.width.kernel
    }

    /// Values in a plane of the input.
    pub fn inputs(&self) -> usize {
        self.height.input * self.width.input
    }

    /// Values in a plane of the output.
    pub fn outputs(&self) -> usize {
        self.height.output * self.width.output
    }
}
