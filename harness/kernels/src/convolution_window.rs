//! Where a convolution's outputs find their inputs, axis by axis.

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    pub input: usize,
    pub output: usize,
    /// Taps of the window.
    pub kernel: usize,
    pub stride: usize,
    /// From one tap to the next.
    pub dilation: usize,
    /// Zeros before the first input. Those after the last follow from `output`.
    pub before: usize,
}

impl Axis {
    /// The input that the `output`-th output finds under a tap. Outside of `0..input` it is one of the zeros.
    #[inline(always)]
    pub fn at(&self, output: usize, tap: usize) -> isize {
        (output * self.stride + tap * self.dilation) as isize - self.before as isize
    }
}

/// The window of a convolution over planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub height: Axis,
    pub width: Axis,
}

impl Axis {
    /// How far inputs, zeros and taps reach. `None` where a size is 0, or the result is larger than memory.
    fn extent(&self) -> Option<usize> {
        let Axis { input, output, kernel, stride, dilation, before } = *self;
        if [input, output, kernel, stride, dilation].contains(&0) {
            return None;
        }
        let taps = output.checked_mul(stride)?.checked_add(kernel.checked_mul(dilation)?)?;
        Some(taps.max(input.checked_add(before)?))
    }
}

impl Window {
    /// Whether no size is 0 and places within a plane can be counted with 32 bits. The constructors of kernels refuse
    /// every other window, because kernels compute places without checks for overflow.
    pub fn is_countable(&self) -> bool {
        // With a margin for what kernels round up to.
        const MOST: usize = i32::MAX as usize / 16;
        let plane = || self.height.extent()?.checked_mul(self.width.extent()?);
        plane().is_some_and(|plane| plane <= MOST)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convolution::{Convolution, ConvolutionForm, ConvolutionShape},
        depthwise::Depthwise,
        pool::MaxPool,
        simd::Isa,
    };

    /// Before windows were checked, sizes wrapped around, buffers were too short for them, and reads went beyond.
    #[test]
    fn windows_that_cannot_be_counted_are_refused() {
        let plain = Axis { input: 8, output: 6, kernel: 3, stride: 1, dilation: 1, before: 0 };
        assert!(Window { height: plain, width: plain }.is_countable());
        let half = 1usize << (usize::BITS / 2);
        for width in [
            Axis { kernel: half, dilation: half, ..plain },
            Axis { output: half, stride: half, ..plain },
            Axis { input: usize::MAX, before: 2, ..plain },
            Axis { input: 1 << 30, ..plain },
            Axis { stride: 0, ..plain },
            Axis { output: 0, ..plain },
            Axis { input: 0, ..plain },
        ] {
            let (window, clamp) = (Window { height: plain, width }, (f32::NEG_INFINITY, f32::INFINITY));
            assert!(!window.is_countable(), "{width:?}");
            assert!(MaxPool::new(Isa::best(), window).is_none(), "{width:?}");
            assert!(Depthwise::new(Isa::best(), window, Vec::new(), Vec::new(), clamp).is_none(), "{width:?}");
            let shape = ConvolutionShape { channels: 1, filters: 0, groups: 1, window };
            assert!(!Convolution::suits_tiles(&window), "{width:?}");
            let convolution = Convolution::new(Isa::best(), shape, ConvolutionForm::Dense, &[], Vec::new(), clamp);
            assert!(convolution.is_none(), "{width:?}");
        }
    }
}
