//! What is measured of a case, in which unit, and whether smaller is better. The enum knows; nothing is guessed from a
//! name.
//!
//! Numbers are kept in the base units (ns, bytes, fractions) everywhere; only `sheet` rescales them for people.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoseconds(pub f64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A value and, where it could be estimated, its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate<T> {
    pub value: T,
    pub bounds: Option<Bounds<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds<T> {
    pub low: T,
    pub high: T,
}

impl<T> Estimate<T> {
    pub fn exact(value: T) -> Estimate<T> {
        Estimate { value, bounds: None }
    }

    pub fn map<U>(self, change: impl Fn(T) -> U) -> Estimate<U> {
        let bounds = self.bounds.map(|bounds| Bounds { low: change(bounds.low), high: change(bounds.high) });
        Estimate { value: change(self.value), bounds }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
    /// Of things: weights, multiply-accumulates.
    Count,
    /// 0 to 1.
    Fraction,
    /// How many times as fast.
    Times,
}

impl Unit {
    /// As exports write it.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Bytes => "B",
            Unit::Count => "count",
            Unit::Fraction => "fraction",
            Unit::Times => "x",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    WeightsKept,
    MacsExecuted,
    MacsNonzero,
    File,
    /// Size as a lossless pack.
    Packed,
    /// Size as a pack with a bitmap and a codebook.
    PackedCodebook,
    Load,
    First,
    P50,
    P90,
    P99,
    SpeedUp,
    PeakRss,
    PeakAllocated,
    Accuracy,
    /// How many times as fast as another engine runs the dense variant.
    VsTract,
    VsOnnxruntime,
}

impl Metric {
    pub const ALL: [Metric; 17] = [
        Metric::WeightsKept,
        Metric::MacsExecuted,
        Metric::MacsNonzero,
        Metric::File,
        Metric::Packed,
        Metric::PackedCodebook,
        Metric::Load,
        Metric::First,
        Metric::P50,
        Metric::P90,
        Metric::P99,
        Metric::SpeedUp,
        Metric::PeakRss,
        Metric::PeakAllocated,
        Metric::Accuracy,
        Metric::VsTract,
        Metric::VsOnnxruntime,
    ];

    /// Lower case with dashes; the key in exports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::WeightsKept => "weights-kept",
            Metric::MacsExecuted => "macs-executed",
            Metric::MacsNonzero => "macs-nonzero",
            Metric::File => "file",
            Metric::Packed => "packed",
            Metric::PackedCodebook => "packed-codebook",
            Metric::Load => "load",
            Metric::First => "first",
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
            Metric::SpeedUp => "speed-up",
            Metric::PeakRss => "peak-rss",
            Metric::PeakAllocated => "peak-allocated",
            Metric::Accuracy => "accuracy",
            Metric::VsTract => "vs-tract",
            Metric::VsOnnxruntime => "vs-onnxruntime",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Metric::WeightsKept | Metric::MacsExecuted | Metric::MacsNonzero => Unit::Count,
            Metric::File | Metric::Packed | Metric::PackedCodebook | Metric::PeakRss | Metric::PeakAllocated => {
                Unit::Bytes
            }
            Metric::Load | Metric::First | Metric::P50 | Metric::P90 | Metric::P99 => Unit::Nanoseconds,
            Metric::SpeedUp | Metric::VsTract | Metric::VsOnnxruntime => Unit::Times,
            Metric::Accuracy => Unit::Fraction,
        }
    }

    pub fn smaller_is_better(self) -> bool {
        !matches!(self, Metric::SpeedUp | Metric::Accuracy | Metric::VsTract | Metric::VsOnnxruntime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_exportable() {
        let mut names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert!(
            names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
