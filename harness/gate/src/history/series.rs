//! Entries in tracks: one [`Track`] a case, criterion and baseline. A new baseline begins a new track, because both of
//! its series have another reference then.

use serde::Serialize;

use super::HistoryEntry;
use crate::Criterion;
use espalier_bench::record::Case;

/// Which of a track's two series, and thus what changed.
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

    /// The entry's value and its standard error, as logarithms.
    pub fn value(self, entry: &HistoryEntry) -> (f64, f64) {
        match self {
            Subject::Code => (entry.log_ratio, entry.se),
            Subject::Device => (entry.anchor_ns.ln(), entry.anchor_se),
        }
    }
}

/// The entries of one case, criterion and baseline, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    pub case: Case,
    pub criterion: Criterion,
    pub baseline: String,
    pub entries: Vec<HistoryEntry>,
    /// Another baseline took over: this one has not been used for `TAKEN_OVER` entries, and its open points
    /// are no longer reported.
    pub is_past: bool,
}

impl Track {
    const TAKEN_OVER: usize = 5;
    /// Hollow entries in a row after which a device is not fit for the case.
    const UNFIT: usize = 5;

    /// The number of hollow entries at the end, where there are so many that the device is not fit for this case.
    pub fn unfit_entries(&self) -> Option<usize> {
        let hollow = self.entries.iter().rev().take_while(|entry| entry.is_hollow()).count();
        (hollow >= Track::UNFIT && !self.is_past).then_some(hollow)
    }

    /// Indexes of the entries that are not hollow.
    pub fn solid(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|&index| !self.entries[index].is_hollow()).collect()
    }
}

/// In the order in which they first appear. `entries` are in the order of time.
pub fn tracks(entries: &[HistoryEntry]) -> Vec<Track> {
    let mut tracks: Vec<Track> = Vec::new();
    for entry in entries {
        let same_case = |track: &Track| track.case == entry.case && track.criterion == entry.criterion;
        match tracks.iter_mut().find(|track| same_case(track) && track.baseline == entry.baseline) {
            Some(track) => track.entries.push(entry.clone()),
            None => tracks.push(Track {
                case: entry.case.clone(),
                criterion: entry.criterion,
                baseline: entry.baseline.clone(),
                entries: vec![entry.clone()],
                is_past: false,
            }),
        }
    }
    let past = |track: &Track| {
        let last = track.entries.last().map_or("", |entry| &entry.time);
        let since = entries.iter().filter(|entry| {
            entry.case == track.case && entry.criterion == track.criterion && entry.time.as_str() > last
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
    fn five_entries_without_a_verdict_are_reported() {
        let row = |verdicts: &[Verdict]| {
            let entry = |(index, verdict): (usize, &Verdict)| HistoryEntry {
                verdict: *verdict,
                ..fixture::entry(index as u32, 0.0, 1e7)
            };
            tracks(&verdicts.iter().enumerate().map(entry).collect::<Vec<HistoryEntry>>())[0].unfit_entries()
        };
        use Verdict::{Inconclusive, Pass};
        assert_eq!(row(&[Pass, Inconclusive, Inconclusive, Inconclusive, Inconclusive]), None);
        assert_eq!(row(&[Pass, Inconclusive, Inconclusive, Inconclusive, Inconclusive, Inconclusive]), Some(5));
        assert_eq!(row(&[Inconclusive, Inconclusive, Inconclusive, Inconclusive, Inconclusive, Pass]), None);
    }

    #[test]
    fn a_new_baseline_begins_a_new_track() {
        let of = |baseline: &str, entries: std::ops::Range<u32>| -> Vec<HistoryEntry> {
            let entry = |entry| HistoryEntry { baseline: baseline.into(), ..fixture::entry(entry, 0.0, 1e7) };
            entries.map(entry).collect()
        };
        let shape = |entries: &[HistoryEntry]| -> Vec<(String, usize, bool)> {
            tracks(entries).iter().map(|track| (track.baseline.clone(), track.entries.len(), track.is_past)).collect()
        };
        let entries = [of("one", 0..7), of("two", 7..12)].concat();
        assert_eq!(shape(&entries), [("one".into(), 7, true), ("two".into(), 5, false)]);
        assert_eq!(
            shape(&entries[..11]),
            [("one".into(), 7, false), ("two".into(), 4, false)],
            "four entries are no week"
        );
        // An entry now and then against an old release goes on beside the other.
        let both = [entries, of("one", 20..21)].concat();
        assert_eq!(shape(&both), [("one".into(), 8, false), ("two".into(), 5, false)]);
        let mut other = of("one", 0..2);
        other[1].criterion = Criterion::P99;
        assert_eq!(tracks(&other).len(), 2);
    }

    #[test]
    fn hollow_entries_are_no_part_of_the_series() {
        let mut entries: Vec<HistoryEntry> = (0..5).map(|entry| fixture::entry(entry, 0.0, 1e7)).collect();
        entries[1].verdict = Verdict::Inconclusive;
        entries[2].tags = vec!["invalid: throttled".into()];
        entries[3].tags = vec!["drift z=4.1".into()];
        entries[4].verdict = Verdict::Regressed;
        assert_eq!(tracks(&entries)[0].solid(), [0, 3, 4]);
    }
}
