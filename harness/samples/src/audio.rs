//! WAV files as numbers from -1 to 1: one channel, of one length.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hound::{SampleFormat, WavReader};
use serde::Deserialize;

use crate::{model_input::ModelInput, value::Value};

/// How recordings become numbers. Several channels become their mean.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Audio {
    /// In samples a second. Files of another rate are refused: they are not resampled.
    pub rate: Option<u32>,
    /// In samples: longer files are cut at the end, shorter ones filled with silence. By default the model's last axis.
    pub length: Option<u64>,
}

/// A recording may not be longer, in samples.
const LONGEST: u64 = 1 << 28;

/// [`Audio`] with all that was open decided.
#[derive(Debug)]
pub struct Decoder {
    rate: Option<u32>,
    length: u64,
    /// The axes between batch and time, all of length 1.
    before: Vec<u64>,
}

impl Decoder {
    /// # Errors
    /// The model's input is no recording, or has a length that neither it nor `audio` tells.
    pub fn new(audio: &Audio, input: Option<&ModelInput>) -> Result<Decoder> {
        let (before, last) = match input.and_then(|input| input.axes.as_deref()) {
            Some([_, before @ .., last]) => {
                ensure!(
                    before.iter().all(|axis| axis.fixed().is_none_or(|axis| axis == 1)),
                    "the model's input is no recording: more than one of its axes is longer than 1"
                );
                (vec![1; before.len()], last.fixed())
            }
            Some(_) => bail!("the model's input has no axis for the time of a recording"),
            None => (Vec::new(), None),
        };
        let length = audio.length.or(last);
        let length = length.context("the model takes recordings of any length: set `audio.length`, in samples")?;
        ensure!(
            (1..=LONGEST).contains(&length),
            "`audio.length` is {length}; it has to be from 1 to {LONGEST} samples"
        );
        Ok(Decoder { rate: audio.rate, length, before })
    }

    /// One sample, without the batch axis.
    pub fn decode(&self, path: &Path) -> Result<Value> {
        let reader = WavReader::open(path).context("it is no WAV file that can be read")?;
        let spec = reader.spec();
        if let Some(rate) = self.rate {
            ensure!(
                spec.sample_rate == rate,
                "it has {} samples a second, `audio.rate` is {rate}: convert it first, e.g. with `sox`",
                spec.sample_rate
            );
        }
        let channels = usize::from(spec.channels).max(1);
        let most = usize::try_from(self.length)?.saturating_mul(channels);
        let full = 2f32.powi(i32::from(spec.bits_per_sample) - 1);
        let raw: Vec<f32> = match spec.sample_format {
            SampleFormat::Float => reader.into_samples::<f32>().take(most).collect::<Result<_, _>>()?,
            SampleFormat::Int => {
                let numbers = reader.into_samples::<i32>().take(most);
                numbers.map(|number| Ok(number? as f32 / full)).collect::<Result<_, hound::Error>>()?
            }
        };
        let mut values: Vec<f32> =
            raw.chunks_exact(channels).map(|all| all.iter().sum::<f32>() / channels as f32).collect();
        values.resize(usize::try_from(self.length)?, 0.0);
        Ok(Value { shape: [&self.before[..], &[self.length]].concat(), values })
    }
}
