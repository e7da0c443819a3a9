//! Windows that slide over the last one or two axes of a tensor, for convolutions and pools. A single axis is treated
//! as two, the first of length 1.

use super::{Attributes, support};

/// The attributes of a node that describe windows.
#[derive(Clone, Debug)]
pub struct Window {
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    padding: Padding,
    ceil: bool,
}

#[derive(Clone, Debug)]
enum Padding {
    /// The padding before each axis, then after each.
    Explicit(Option<Vec<usize>>),
    SameUpper,
    SameLower,
}

impl Window {
    /// # Errors
    /// Strides, dilations or kernels of 0, negative pads.
    pub fn parse(node: &Attributes) -> Result<Window, String> {
        let list = |name: &str, least: i64| -> Result<Option<Vec<usize>>, String> {
            let Some(values) = node.ints(name) else { return Ok(None) };
            let fitting = |value: &i64| (least..=i64::from(i32::MAX)).contains(value).then_some(*value as usize);
            let fits: Option<Vec<usize>> = values.iter().map(fitting).collect();
            fits.map(Some).ok_or_else(|| format!("`{name}` is {values:?}, each must be at least {least}"))
        };
        let pads = list("pads", 0)?;
        let padding = match node.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => Padding::Explicit(pads),
            "VALID" => Padding::Explicit(None),
            "SAME_UPPER" => Padding::SameUpper,
            "SAME_LOWER" => Padding::SameLower,
            other => return Err(format!("`auto_pad` is `{other}`, which does not exist")),
        };
        Ok(Window {
            kernel: list("kernel_shape", 1)?,
            strides: list("strides", 1)?,
            dilations: list("dilations", 1)?,
            padding,
            ceil: node.int("ceil_mode", 0) != 0,
        })
    }

    /// The kernel a pool must have.
    ///
    /// # Errors
    /// Where there is none.
    pub fn kernel(&self) -> Result<&[usize], String> {
        self.kernel.as_deref().ok_or_else(|| "`kernel_shape` is missing".to_owned())
    }

    /// The windows over an input of shape `[batch, channels, ..]`.
    ///
    /// # Errors
    /// Other than one or two axes; attributes that do not fit them; no room for a single window.
    pub fn place(&self, input: &[usize], kernel: &[usize]) -> Result<Windows, String> {
        let sides = self.sides(input, kernel)?;
        let axes = sides.len();
        let windows = Windows::of(sides.into_iter().map(|side| self.filled(side)).collect::<Result<_, _>>()?);
        support::elements(&windows.output_shape(input[0], input[1], axes))?;
        Ok(windows)
    }

    /// The windows of which `input` is the output: those of a transposed convolution. `padding` is its
    /// `output_padding`, `shape` its `output_shape`.
    ///
    /// # Errors
    /// As [`Window::place`].
    pub fn place_transposed(
        &self,
        input: &[usize],
        kernel: &[usize],
        (padding, shape): (Option<&[i64]>, Option<&[i64]>),
    ) -> Result<Windows, String> {
        let sides = self.sides(input, kernel)?;
        let axes = sides.len();
        let given = |name: &str, values: Option<&[i64]>, axis: usize| -> Result<Option<usize>, String> {
            let Some(values) = values else { return Ok(None) };
            // An output shape may have batch and channels before its axes.
            let from = values.len().checked_sub(axes).ok_or_else(|| format!("`{name}` is {values:?}"))?;
            support::size(values[from + axis], name).map(Some)
        };
        let transposed = |(axis, mut side): (usize, Side)| -> Result<Side, String> {
            let misfit = || format!("windows of {kernel:?} do not lie side by side in {input:?}");
            let padding = given("output_padding", padding, axis)?.unwrap_or(0);
            if padding > 0 && padding >= side.stride.max(side.dilation) {
                return Err(format!("`output_padding` = {padding} is no less than stride and dilation"));
            }
            let reach = side.reach().ok_or_else(misfit)?;
            let last = side.input.checked_sub(1).and_then(|last| last.checked_mul(side.stride));
            let full = last.and_then(|last| last.checked_add(reach)?.checked_add(padding)).ok_or_else(misfit)?;
            let same = matches!(self.padding, Padding::SameUpper | Padding::SameLower);
            let required = given("output_shape", shape, axis)?.or_else(|| same.then(|| side.input * side.stride));
            if let Some(required) = required {
                // Beyond the reach of the windows the output is empty, and nothing is padded.
                let total = full.saturating_sub(required);
                (side.before, side.after) = (total - total / 2, total / 2);
                if matches!(self.padding, Padding::SameUpper) {
                    std::mem::swap(&mut side.before, &mut side.after);
                }
            }
            let len = full.checked_sub(side.before).and_then(|len| len.checked_sub(side.after));
            (side.output, side.input) = (side.input, required.or(len).filter(|len| *len > 0).ok_or_else(misfit)?);
            Ok(side)
        };
        Ok(Windows::of(sides.into_iter().enumerate().map(transposed).collect::<Result<_, _>>()?))
    }

    /// Each axis with its kernel, stride, dilation and explicit padding, still without the number of windows.
    fn sides(&self, input: &[usize], kernel: &[usize]) -> Result<Vec<Side>, String> {
        let spatial = match input {
            [_, _, spatial @ ..] if matches!(spatial.len(), 1 | 2) => spatial,
            _ => return Err(format!("windows over one or two axes are supported, the input has shape {input:?}")),
        };
        let axes = spatial.len();
        let fitting = |name: &str, values: Option<&[usize]>, default: usize, len: usize| match values {
            None => Ok(vec![default; len]),
            Some(values) if values.len() == len => Ok(values.to_vec()),
            Some(values) => Err(format!("`{name}` is {values:?} for {axes} axes")),
        };
        fitting("kernel_shape", Some(kernel), 1, axes)?;
        if self.kernel.as_deref().is_some_and(|stated| stated != kernel) {
            return Err(format!("`kernel_shape` is {:?}, the weights are for {kernel:?}", self.kernel()?));
        }
        if kernel.contains(&0) {
            return Err(format!("a kernel of shape {kernel:?} has nothing in it"));
        }
        let strides = fitting("strides", self.strides.as_deref(), 1, axes)?;
        let dilations = fitting("dilations", self.dilations.as_deref(), 1, axes)?;
        let pads = match &self.padding {
            Padding::Explicit(pads) => fitting("pads", pads.as_deref(), 0, 2 * axes)?,
            _ => vec![0; 2 * axes],
        };
        let side = |axis: usize| Side {
            input: spatial[axis],
            output: 0,
            kernel: kernel[axis],
            stride: strides[axis],
            dilation: dilations[axis],
            before: pads[axis],
            after: pads[axes + axis],
        };
        Ok((0..axes).map(side).collect())
    }

    fn filled(&self, mut side: Side) -> Result<Side, String> {
        let reach =
            side.reach().ok_or_else(|| format!("a kernel of {} dilated {}-fold", side.kernel, side.dilation))?;
        if matches!(self.padding, Padding::SameUpper | Padding::SameLower) {
            side.output = side.input.div_ceil(side.stride);
            // An empty axis is not padded.
            let last = side.output.saturating_sub(1).saturating_mul(side.stride);
            let total = last.saturating_add(reach).saturating_sub(side.input);
            (side.before, side.after) = (total / 2, total - total / 2);
            if matches!(self.padding, Padding::SameLower) {
                std::mem::swap(&mut side.before, &mut side.after);
            }
            return Ok(side);
        }
        let padded = side.input.saturating_add(side.before).saturating_add(side.after);
        let room = padded.checked_sub(reach).ok_or_else(|| {
            format!("a window of {reach} has no room on an axis of {} padded to {padded}", side.input)
        })?;
        side.output = room / side.stride + 1;
        if self.ceil && room % side.stride != 0 {
            // One more, unless it would begin after the input's end.
            let start = side.output.saturating_mul(side.stride);
            side.output += usize::from(start < side.input.saturating_add(side.before));
        }
        Ok(side)
    }
}

/// Windows along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
    pub after: usize,
}

impl Side {
    const SINGLE: Side = Side { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };

    /// The distance from the first to the last place of a kernel, both included.
    fn reach(&self) -> Option<usize> {
        (self.kernel - 1).checked_mul(self.dilation)?.checked_add(1)
    }

    /// Where the window `output` has the kernel's element `tap`; `None` in the padding.
    pub fn at(&self, output: usize, tap: usize) -> Option<usize> {
        (output * self.stride + tap * self.dilation).checked_sub(self.before).filter(|at| *at < self.input)
    }

    /// The elements of the kernel that are inside the input for the window `output`.
    pub fn taps(&self, output: usize) -> std::ops::Range<usize> {
        let shift = output * self.stride;
        let from = self.before.saturating_sub(shift).div_ceil(self.dilation).min(self.kernel);
        let until = (self.input + self.before).saturating_sub(shift).div_ceil(self.dilation).min(self.kernel);
        from..until.max(from)
    }

    /// How many elements of the kernel are inside the padded input for the window `output`.
    pub fn padded_taps(&self, output: usize) -> usize {
        let room = (self.input + self.before + self.after).saturating_sub(output * self.stride);
        room.div_ceil(self.dilation).min(self.kernel)
    }

    /// The windows that have the kernel's element `tap` inside the input.
    pub fn inside(&self, tap: usize) -> std::ops::Range<usize> {
        let shift = tap * self.dilation;
        let from = self.before.saturating_sub(shift).div_ceil(self.stride).min(self.output);
        let until = (self.input + self.before).saturating_sub(shift).div_ceil(self.stride).min(self.output);
        from..until.max(from)
    }
}

/// All windows over one plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    pub rows: Side,
    pub columns: Side,
}

impl Windows {
    fn of(sides: Vec<Side>) -> Windows {
        match sides[..] {
            [only] => Windows { rows: Side::SINGLE, columns: only },
            _ => Windows { rows: sides[0], columns: sides[1] },
        }
    }

    pub fn input(&self) -> usize {
        self.rows.input * self.columns.input
    }

    pub fn output(&self) -> usize {
        self.rows.output * self.columns.output
    }

    pub fn kernel(&self) -> usize {
        self.rows.kernel * self.columns.kernel
    }

    pub fn output_shape(&self, batch: usize, channels: usize, axes: usize) -> Vec<usize> {
        [&[batch, channels][..], &[self.rows.output, self.columns.output][2 - axes..]].concat()
    }

    pub fn input_shape(&self, batch: usize, channels: usize, axes: usize) -> Vec<usize> {
        [&[batch, channels][..], &[self.rows.input, self.columns.input][2 - axes..]].concat()
    }

    /// Whether each window is one place of the input, in order.
    pub fn pointwise(&self) -> bool {
        let trivial = |side: Side| {
            (side.kernel, side.stride, side.before, side.after) == (1, 1, 0, 0) && side.input == side.output
        };
        trivial(self.rows) && trivial(self.columns)
    }
}

/// The sizes of one convolution. Channels are those of one group.
#[derive(Clone, Copy)]
pub struct Layout {
    pub batch: usize,
    pub groups: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub windows: Windows,
}
