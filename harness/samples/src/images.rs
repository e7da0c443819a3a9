//! JPEG and PNG files as numbers: cut to shape, resized, normalised and laid out as the model takes them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use image::{DynamicImage, ImageReader, Limits, imageops::FilterType};
use serde::Deserialize;

use crate::{
    model_input::{ModelAxis, ModelInput},
    value::Value,
};

/// How images become numbers: (pixel - `mean`) · `scale`, pixels from 0 to 255.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Images {
    /// Height and width; by default the model's.
    pub size: Option<[u32; 2]>,
    #[serde(default)]
    pub fit: Fit,
    /// By default where the model's input has an axis of 1 or 3.
    pub layout: Option<Layout>,
    /// By default grey for one channel, red, green and blue for three.
    pub colour: Option<Colour>,
    pub mean: Option<Channels>,
    /// By default 1/255.
    pub scale: Option<Channels>,
}

/// What happens to an image of another shape than the model's.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Its largest centred part of that shape.
    #[default]
    Crop,
    /// All of it, out of proportion.
    Stretch,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Nchw,
    Nhwc,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    Grey,
    Rgb,
    Bgr,
}

/// One number for all channels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Channels {
    All(f32),
    Each(Vec<f32>),
}

impl Channels {
    fn of(&self, key: &str, channels: usize) -> Result<Vec<f32>> {
        match self {
            Channels::All(number) => Ok(vec![*number; channels]),
            Channels::Each(numbers) => {
                let count = numbers.len();
                ensure!(count == channels, "`images.{key}` has {count} numbers for images of {channels} channels");
                Ok(numbers.clone())
            }
        }
    }
}

/// An image may not be larger, in pixels: a small file can unpack to very many.
const LARGEST_SIDE: u32 = 32_768;
/// What decoding one image may take, in bytes.
const MEMORY: u64 = 1 << 30;

/// [`Images`] with all that was open decided.
#[derive(Debug)]
pub struct Decoder {
    size: [u32; 2],
    fit: Fit,
    layout: Layout,
    colour: Colour,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Decoder {
    /// # Errors
    /// The model's input is no image, or has a size that neither it nor `images` tells.
    pub fn new(images: &Images, input: Option<&ModelInput>) -> Result<Decoder> {
        let axes: Vec<Option<u64>> = match input.and_then(|input| input.axes.as_ref()) {
            Some(axes) => axes.iter().map(ModelAxis::fixed).collect(),
            None => vec![None; 4],
        };
        let &[_, first, second, last] = axes.as_slice() else {
            bail!("the model's input has {} axes; images take 4: batch, channels, height, width", axes.len());
        };
        let is_channels = |axis: Option<u64>| axis.is_none_or(|axis| axis == 1 || axis == 3);
        let layout = match images.layout {
            Some(layout) => layout,
            None if is_channels(first) => Layout::Nchw,
            None if is_channels(last) => Layout::Nhwc,
            None => bail!("the model's input has no axis of 1 or 3 channels, as images have"),
        };
        let (channels, height, width) = match layout {
            Layout::Nchw => (first, second, last),
            Layout::Nhwc => (last, first, second),
        };
        let colour = match (images.colour, channels) {
            (Some(colour), _) => colour,
            (None, Some(1)) => Colour::Grey,
            (None, _) => Colour::Rgb,
        };
        let count = if colour == Colour::Grey { 1 } else { 3 };
        let side = |axis: Option<u64>| axis.and_then(|axis| u32::try_from(axis).ok());
        let size = images.size.or(side(height).zip(side(width)).map(|(height, width)| [height, width]));
        let size = size.context("the model takes images of any size: set `images.size = [height, width]`")?;
        ensure!(
            size.iter().all(|side| (1..=LARGEST_SIDE).contains(side)),
            "`images.size` is {size:?}; each side has to be from 1 to {LARGEST_SIDE} pixels"
        );
        let mean = images.mean.as_ref().unwrap_or(&Channels::All(0.0)).of("mean", count)?;
        let scale = images.scale.as_ref().unwrap_or(&Channels::All(1.0 / 255.0)).of("scale", count)?;
        Ok(Decoder { size, fit: images.fit, layout, colour, mean, scale })
    }

    /// One sample, without the batch axis.
    pub fn decode(&self, path: &Path) -> Result<Value> {
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
        limits.max_alloc = Some(MEMORY);
        reader.limits(limits);
        let image = self.resized(reader.decode().context("it is no JPEG or PNG image that can be read")?);
        let (pixels, channels) = match self.colour {
            Colour::Grey => (image.into_luma8().into_raw(), 1),
            Colour::Rgb | Colour::Bgr => (image.into_rgb8().into_raw(), 3),
        };
        let of = |pixel: &[u8], channel: usize| {
            let place = if self.colour == Colour::Bgr { 2 - channel } else { channel };
            (f32::from(pixel[place]) - self.mean[channel]) * self.scale[channel]
        };
        let [height, width] = self.size.map(u64::from);
        let pixels = pixels.chunks_exact(channels);
        Ok(match self.layout {
            Layout::Nchw => Value {
                shape: vec![channels as u64, height, width],
                values: (0..channels).flat_map(|channel| pixels.clone().map(move |pixel| of(pixel, channel))).collect(),
            },
            Layout::Nhwc => Value {
                shape: vec![height, width, channels as u64],
                values: pixels.flat_map(|pixel| (0..channels).map(move |channel| of(pixel, channel))).collect(),
            },
        })
    }

    /// Linear, over all pixels that fall on one (as Pillow's `BILINEAR`).
    fn resized(&self, image: DynamicImage) -> DynamicImage {
        let [height, width] = self.size;
        if (image.height(), image.width()) == (height, width) {
            return image;
        }
        let image = match self.fit {
            Fit::Stretch => image,
            Fit::Crop => {
                let (across, down) = (u64::from(image.width()), u64::from(image.height()));
                let part = |side: u64, other: u64, target: u32, other_target: u32| {
                    side.min(other * u64::from(target) / u64::from(other_target)).max(1) as u32
                };
                let (cut_width, cut_height) = (part(across, down, width, height), part(down, across, height, width));
                let (left, top) = ((image.width() - cut_width) / 2, (image.height() - cut_height) / 2);
                image.crop_imm(left, top, cut_width, cut_height)
            }
        };
        image.resize_exact(width, height, FilterType::Triangle)
    }
}
