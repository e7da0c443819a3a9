//! What is measured of a case, in which unit, and whether smaller is better.
//!
//! Numbers are kept in the base units (ns, bytes, fractions) everywhere; only `sheet` rescales them for people.

use espalier_protocol::float::{self, Floats};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoseconds(#[serde(with = "float")] pub f64);

impl Floats for Nanoseconds {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nanoseconds, D::Error> {
        f64::read(deserializer).map(Nanoseconds)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A value and, where it could be estimated, its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Floats", deserialize = "T: Floats"))]
pub struct Estimate<T> {
    #[serde(with = "float")]
    pub value: T,
    pub bounds: Option<Bounds<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Floats", deserialize = "T: Floats"))]
pub struct Bounds<T> {
    #[serde(with = "float")]
    pub low: T,
    #[serde(with = "float")]
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

/// Makes [`Metric`] of rows: variant, name, unit, and whether smaller is better.
macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident, $name:literal, $unit:ident, $smaller:literal;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric {
            $($(#[$doc])* $metric),+
        }

        impl Metric {
            pub const ALL: [Metric; [$($name),+].len()] = [$(Metric::$metric),+];

            /// Lower case with dashes; the key in exports.
            pub fn name(self) -> &'static str {
                match self { $(Metric::$metric => $name),+ }
            }

            pub fn unit(self) -> Unit {
                match self { $(Metric::$metric => Unit::$unit),+ }
            }

            pub fn smaller_is_better(self) -> bool {
                match self { $(Metric::$metric => $smaller),+ }
            }
        }
    };
}

metrics! {
    WeightsKept, "weights-kept", Count, true;
    MacsExecuted, "macs-executed", Count, true;
    MacsNonzero, "macs-nonzero", Count, true;
    File, "file", Bytes, true;
    /// Size as a lossless pack.
    Packed, "packed", Bytes, true;
    /// Size as a pack with a bitmap and a codebook.
    PackedCodebook, "packed-codebook", Bytes, true;
    Load, "load", Nanoseconds, true;
    First, "first", Nanoseconds, true;
    P50, "p50", Nanoseconds, true;
    P90, "p90", Nanoseconds, true;
    P99, "p99", Nanoseconds, true;
    SpeedUp, "speed-up", Times, false;
    PeakRss, "peak-rss", Bytes, true;
    PeakAllocated, "peak-allocated", Bytes, true;
    Accuracy, "accuracy", Fraction, false;
    /// How many times as fast as another engine runs the dense variant.
    VsTract, "vs-tract", Times, false;
    VsOnnxruntime, "vs-onnxruntime", Times, false;
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
