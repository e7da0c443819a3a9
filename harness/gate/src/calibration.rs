//! The calibration of a device: how long its processes warm up, how many inferences an invocation needs, and which of
//! its numbers vary little enough to be judged. Written by `cargo xtask calibrate` to `devices/calibration/NAME.toml`.

pub mod decide;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Criterion, profile::Profile};
use espalier_bench::plan::Effort;

/// Raised when a stored field changes its meaning.
pub const FORMAT: u32 = 1;

/// Values of an invocation below which a p95 or p99 is not judged.
pub const TAIL_ITERATIONS: u32 = 300;

/// The spread between builds where none was measured: twice this is the lower margin of the gate, 0.5 %.
pub const LAYOUT_SD: f64 = 0.0025;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Calibration {
    pub format: u32,
    pub device: String,
    /// RFC 3339, UTC.
    pub measured: String,
    /// SHA-256 of the runner it was measured with.
    pub runner: String,
    /// Standard deviation of the logarithm of the time between builds of the same code; `None` if it was not measured.
    pub layout_sd: Option<f64>,
    /// By the model's name.
    pub model: BTreeMap<String, ModelCalibration>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelCalibration {
    /// Untimed inferences at the start of each invocation.
    pub warmup: u32,
    /// Timed inferences and milliseconds of an invocation, at least.
    pub iterations: u32,
    pub min_time_ms: u64,
    /// The quantile that is judged: `p50`, or `fastest` where the median jumps.
    pub judged: Criterion,
    /// The tail that can be judged as well, if any.
    pub tail: Option<Criterion>,
    /// Standard deviation of the difference of two neighbouring invocations' logarithms, by criterion.
    pub pair_sd: BTreeMap<Criterion, f64>,
    pub fit: Fit,
}

/// What a device is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Pairs spread by at most 2 %.
    Release,
    /// By at most 4.5 %: a slow-down of 5 % is found in one session.
    Nightly,
    /// By more: its conditions must be improved first.
    Unfit,
}

/// What each invocation does, and which latencies are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judging {
    pub effort: Effort,
    pub latencies: Vec<Criterion>,
    /// What a reader should know of it.
    pub note: Option<String>,
}

impl Calibration {
    /// # Errors
    /// A sentence with the line.
    pub fn parse(text: &str, file: &str) -> Result<Calibration, String> {
        let calibration: Calibration = toml::from_str(text).map_err(|error| format!("`{file}`: {error}"))?;
        if calibration.format != FORMAT {
            let format = calibration.format;
            return Err(format!("`{file}` has format {format}, this espalier reads {FORMAT}: calibrate again"));
        }
        if let Some(sd) = calibration.layout_sd.filter(|sd| !is_spread(*sd)) {
            return Err(format!("`{file}`: `layout-sd = {sd}` is no spread: at least 0 and below 1"));
        }
        for (name, model) in &calibration.model {
            model.check().map_err(|error| format!("`{file}`, model `{name}`: {error}"))?;
        }
        Ok(calibration)
    }

    /// Models of an earlier calibration stay where they were not measured again, and so does the spread between builds.
    #[must_use]
    pub fn over(mut self, earlier: Option<Calibration>) -> Calibration {
        if let Some(earlier) = earlier {
            self.layout_sd = self.layout_sd.or(earlier.layout_sd);
            for (name, model) in earlier.model {
                self.model.entry(name).or_insert(model);
            }
        }
        self
    }

    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("names and numbers always encode");
        format!(
            "# Written by `cargo xtask calibrate --device {}`; to be committed with the device's file.\n{body}",
            self.device
        )
    }
}

impl ModelCalibration {
    /// People edit the file.
    fn check(&self) -> Result<(), String> {
        if self.iterations == 0 && self.min_time_ms == 0 {
            return Err("an invocation does nothing: `iterations` and `min-time-ms` are both 0".to_owned());
        }
        if let Some(of) = [self.judged].into_iter().chain(self.tail).find(|of| of.quantile().is_none()) {
            return Err(format!("`{}` is no latency: `fastest`, `p50`, `p95` or `p99` can be judged", of.name()));
        }
        match self.pair_sd.iter().find(|(_, sd)| !(sd.is_finite() && **sd >= 0.0)) {
            Some((of, sd)) => Err(format!("`{} = {sd}` in `pair-sd` is no spread", of.name())),
            None => Ok(()),
        }
    }
}

fn is_spread(sd: f64) -> bool {
    (0.0..1.0).contains(&sd)
}

/// How a model is judged on a device that was calibrated, or was not.
pub fn judging(calibration: Option<&Calibration>, device: &str, model: &str, profile: &Profile) -> Judging {
    match calibration.and_then(|calibration| calibration.model.get(model)) {
        Some(known) => Judging {
            effort: Effort { warmup: known.warmup, iterations: known.iterations, min_time_ms: known.min_time_ms },
            latencies: [known.judged].into_iter().chain(known.tail).collect(),
            note: match known.fit {
                Fit::Unfit => {
                    Some(format!("`{device}` is not fit to judge {model}: its pairs spread by more than 4.5 %"))
                }
                Fit::Nightly if *profile == Profile::RELEASE => Some(format!(
                    "`{device}` is fit for nightly runs of {model}, not for release: its pairs spread by more than 2 %"
                )),
                Fit::Release | Fit::Nightly => None,
            },
        },
        None => Judging {
            effort: Effort { warmup: 10, iterations: TAIL_ITERATIONS, min_time_ms: 500 },
            latencies: vec![Criterion::P50, Criterion::P95],
            note: Some(format!(
                "`{device}` is not calibrated for {model}: usual warm-up and iterations \
                 (`cargo xtask calibrate --device {device}`)"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        let model = |judged, tail, fit| ModelCalibration {
            warmup: 12,
            iterations: 480,
            min_time_ms: 0,
            judged,
            tail,
            pair_sd: [(Criterion::Fastest, 0.0079), (Criterion::P50, 0.012_345_678_9), (Criterion::P95, 0.05)].into(),
            fit,
        };
        Calibration {
            format: FORMAT,
            device: "pi4".into(),
            measured: "2026-11-23T19:15:00Z".into(),
            runner: "ab".repeat(32),
            layout_sd: Some(0.0031),
            model: [
                ("digits-cnn".to_owned(), model(Criterion::P50, Some(Criterion::P95), Fit::Release)),
                ("resnet 18".to_owned(), model(Criterion::Fastest, None, Fit::Nightly)),
            ]
            .into(),
        }
    }

    #[test]
    fn a_file_gives_back_what_was_written() {
        for layout_sd in [None, Some(0.0), Some(0.0031)] {
            let written = Calibration { layout_sd, ..calibration() };
            let text = written.to_toml();
            assert_eq!(Calibration::parse(&text, "f").as_ref(), Ok(&written), "{text}");
        }
        let text = calibration().to_toml();
        for line in
            ["[model.digits-cnn]", "judged = \"p50\"", "fastest = 0.0079", "fit = \"release\"", "layout-sd = 0.0031"]
        {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[track_caller]
    fn check_refused(from: &str, to: &str, parts: &[&str]) {
        let text = calibration().to_toml();
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text);
        let error = Calibration::parse(&broken, "devices/calibration/pi4.toml").unwrap_err();
        for part in parts.iter().chain(&["`devices/calibration/pi4.toml`"]) {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        // The first line is a remark.
        check_refused("format = 1\n", "format = 1\nwarm-up = 3\n", &["line 3", "warm-up"]);
        check_refused("format = 1", "format = 2", &["format 2", "calibrate again"]);
        check_refused("layout-sd = 0.0031", "layout-sd = -0.1", &["layout-sd"]);
        check_refused("layout-sd = 0.0031", "layout-sd = nan", &["layout-sd"]);
        check_refused("iterations = 480", "iterations = 0", &["digits-cnn", "iterations"]);
        check_refused("judged = \"p50\"", "judged = \"accuracy\"", &["digits-cnn", "accuracy", "no latency"]);
        check_refused("judged = \"p50\"", "judged = \"p51\"", &["line", "p51"]);
        check_refused("fastest = 0.0079", "fastest = inf", &["fastest", "no spread"]);
    }

    #[test]
    fn what_was_not_measured_again_stays() {
        let mut new = Calibration { layout_sd: None, measured: "later".into(), ..calibration() };
        new.model.remove("resnet 18");
        new.model.get_mut("digits-cnn").unwrap().iterations = 99;
        let merged = new.over(Some(calibration()));
        assert_eq!((merged.layout_sd, &*merged.measured), (Some(0.0031), "later"));
        assert_eq!((merged.model["digits-cnn"].iterations, merged.model["resnet 18"].iterations), (99, 480));
        let measured = Calibration { layout_sd: Some(0.5), ..calibration() };
        assert_eq!(measured.clone().over(Some(calibration())).layout_sd, Some(0.5));
        assert_eq!(measured.clone().over(None), measured);
    }
}
