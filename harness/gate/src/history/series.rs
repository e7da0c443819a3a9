//! Nights put in rows: one [`Track`] a case, criterion and baseline. A new baseline begins a new track, because both of its series mean something else
//! then.

use serde::Serialize;

use super::Night;
use crate::Criterion;
use espalier_bench::record::Case;

/// Which of a track's two series, and so what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Log ratio of candidate to baseline.
    Code,
    /// Logarithm of the baseline's own value: an update, dried paste, another clock.
    Device,
}

impl Subject {
    pub const ALL: [Subject; 2] = [Subject::Code, Subject::Device];

    pub fn name(self) -> &'static str {
        match self {
            Subject::Code => "code",
            Subject::Device => "device",
        }
    }

    /// The night's value and its standard error, as logarithms.
    pub fn value(self, night: &Night) -> (f64, f64) {
        match self {
            Subject::Code => (night.log_ratio, night.se),
            Subject::Device => (night.anchor_ns.ln(), night.anchor_se),
        }
    }
}

/// The nights of one case, criterion and baseline, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    pub case: Case,
    pub criterion: Criterion,
    pub baseline: String,
    pub nights: Vec<Night>,
    /// Another baseline took over: this one has not been used for [`Track::TAKEN_OVER`] nights. What was known of it then is taken for granted now.
    pub is_past: bool,
}

impl Track {
    const TAKEN_OVER: usize = 5;
    /// Hollow nights in a row after which a device is not fit for what is asked of it.
    pub const RESTLESS: usize = 5;

    /// Hollow nights at the end, where there are enough of them to say that the device is not fit for this case.
    pub fn restless(&self) -> Option<usize> {
        let hollow = self.nights.iter().rev().take_while(|night| night.is_hollow()).count();
        (hollow >= Track::RESTLESS && !self.is_past).then_some(hollow)
    }

    /// Indexes of the nights that are not hollow.
    pub fn solid(&self) -> Vec<usize> {
        (0..self.nights.len()).filter(|&index| !self.nights[index].is_hollow()).collect()
    }
}

/// In the order in which they first appear. `nights` are in the order of time.
pub fn tracks(nights: &[Night]) -> Vec<Track> {
    let mut tracks: Vec<Track> = Vec::new();
    for night in nights {
        let same_case = |track: &Track| track.case == night.case && track.criterion == night.criterion;
        match tracks.iter_mut().find(|track| same_case(track) && track.baseline == night.baseline) {
            Some(track) => track.nights.push(night.clone()),
            None => tracks.push(Track {
                case: night.case.clone(),
                criterion: night.criterion,
                baseline: night.baseline.clone(),
                nights: vec![night.clone()],
                is_past: false,
            }),
        }
    }
    let past = |track: &Track| {
        let last = track.nights.last().map_or("", |night| &night.time);
        let since = nights.iter().filter(|night| {
            night.case == track.case && night.criterion == track.criterion && night.time.as_str() > last
        });
        since.count() >= Track::TAKEN_OVER
    };
    let past: Vec<bool> = tracks.iter().map(past).collect();
    tracks.iter_mut().zip(past).for_each(|(track, past)| track.is_past = past);
    tracks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Verdict, history::fixture};

    #[test]
    fn five_nights_without_a_verdict_are_told() {
        let row = |verdicts: &[Verdict]| {
            let night = |(index, verdict): (usize, &Verdict)| Night {
                verdict: *verdict,
                ..fixture::night(index as u32, 0.0, 1e7)
            };
            tracks(&verdicts.iter().enumerate().map(night).collect::<Vec<Night>>())[0].restless()
        };
        use Verdict::{Inconclusive, Pass};
        assert_eq!(row(&[Pass, Inconclusive, Inconclusive, Inconclusive, Inconclusive]), None);
        assert_eq!(row(&[Pass, Inconclusive, Inconclusive, Inconclusive, Inconclusive, Inconclusive]), Some(5));
        assert_eq!(row(&[Inconclusive, Inconclusive, Inconclusive, Inconclusive, Inconclusive, Pass]), None);
    }

    #[test]
    fn a_new_baseline_begins_a_new_track() {
        let of = |baseline: &str, nights: std::ops::Range<u32>| -> Vec<Night> {
            let night = |night| Night { baseline: baseline.into(), ..fixture::night(night, 0.0, 1e7) };
            nights.map(night).collect()
        };
        let shape = |nights: &[Night]| -> Vec<(String, usize, bool)> {
            tracks(nights).iter().map(|track| (track.baseline.clone(), track.nights.len(), track.is_past)).collect()
        };
        let nights = [of("one", 0..7), of("two", 7..12)].concat();
        assert_eq!(shape(&nights), [("one".into(), 7, true), ("two".into(), 5, false)]);
        assert_eq!(
            shape(&nights[..11]),
            [("one".into(), 7, false), ("two".into(), 4, false)],
            "four nights are no week"
        );
        // A night now and then against an old release goes on beside the other.
        let both = [nights, of("one", 20..21)].concat();
        assert_eq!(shape(&both), [("one".into(), 8, false), ("two".into(), 5, false)]);
        let mut other = of("one", 0..2);
        other[1].criterion = Criterion::P99;
        assert_eq!(tracks(&other).len(), 2);
    }

    #[test]
    fn hollow_nights_are_no_part_of_the_series() {
        let mut nights: Vec<Night> = (0..5).map(|night| fixture::night(night, 0.0, 1e7)).collect();
        nights[1].verdict = Verdict::Inconclusive;
        nights[2].tags = vec!["invalid: throttled".into()];
        nights[3].tags = vec!["drift z=4.1".into()];
        nights[4].verdict = Verdict::Regressed;
        assert_eq!(tracks(&nights)[0].solid(), [0, 3, 4]);
    }
}
