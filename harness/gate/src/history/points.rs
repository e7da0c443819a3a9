//! The change points of a history: detected, sized, and matched with acknowledgements.
//!
//! A step is what [`ChangePoints::nightly`] finds. Creep is what CUSUM finds after the last step: each entry against
//! the mean of the entries before it since that step (Hawkins 1987, self-starting CUSUM), because the level a series
//! should have is not known, only that it should stay. Points move by an entry or two as data arrive: an
//! acknowledgement therefore holds for the nearest point within [`TOLERANCE`] entries of the one it names, and for no
//! second one.

use espalier_stats::{ChangePoint, ChangePoints, Cusum, Level, mean, median, t_interval};
use serde::Serialize;

use super::{Acknowledged, Change, HistoryEntry, Subject, Track, series};

/// Entries by which a point may have moved since it was acknowledged.
pub const TOLERANCE: usize = 2;
/// A point is confirmed from so many entries at the new level, the first included.
pub const CONFIRMED: usize = 5;
/// The smallest change that is reported, as a fraction; with much noise it is three standard errors of an entry.
const SMALLEST: f64 = 0.01;

/// Every track with its points.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub rows: Vec<Row>,
    /// Acknowledgements that match no point now.
    pub unmatched: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub track: Track,
    pub code: Line,
    pub device: Line,
}

impl Row {
    pub fn lines(&self) -> [&Line; 2] {
        [&self.code, &self.device]
    }
}

/// One series of a track. All indexes are of the track's entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub subject: Subject,
    /// The smallest change that is reported, as a logarithm.
    pub min_magnitude: f64,
    pub stretches: Vec<Stretch>,
    pub points: Vec<Point>,
    /// First entries of changes just below the limit.
    pub weak: Vec<usize>,
}

/// Entries at one level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stretch {
    pub first: usize,
    pub last: usize,
    /// A logarithm: of the ratio, or of the baseline's value in ns or bytes.
    pub mean: f64,
    /// Its 95 % limits; `None` for a single entry.
    pub bounds: Option<[f64; 2]>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub subject: Subject,
    pub kind: PointKind,
    /// The first entry at the new level, or the entry on which creep was noticed.
    pub entry: usize,
    /// The last entry before the change.
    pub last_good: usize,
    /// The first after it: `entry`, or where the creep probably began.
    pub first_bad: usize,
    pub before: Stretch,
    pub after: Stretch,
    /// From before to after, as a logarithm: above 0 is slower or larger.
    pub change: f64,
    /// Of a step.
    pub p_value: Option<f64>,
    /// Solid entries from `entry` on, itself included.
    pub entries_after: usize,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointKind {
    Step,
    Creep,
}

impl PointKind {
    pub fn name(self) -> &'static str {
        match self {
            PointKind::Step => "step",
            PointKind::Creep => "creep",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    New,
    Confirmed,
    /// Accepted or noise: no longer reported.
    Acknowledged(Change),
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            State::New => "new",
            State::Confirmed => "confirmed",
            State::Acknowledged(change) => change.state.name(),
        }
    }
}

impl Point {
    /// Whether it is not acknowledged yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::New | State::Confirmed)
    }

    /// As a fraction: 0.03 is 3 % slower or larger.
    pub fn magnitude(&self) -> f64 {
        self.change.exp_m1()
    }

    /// The acknowledgement of this point.
    pub fn acknowledge(&self, track: &Track, state: Acknowledged, by: &str, reason: &str, date: &str) -> Change {
        let entry = &track.entries[self.entry];
        Change {
            case: track.case.clone(),
            criterion: track.criterion,
            subject: self.subject,
            commit: entry.name().to_owned(),
            gate: Some(entry.gate.clone()),
            state,
            by: by.to_owned(),
            reason: reason.to_owned(),
            date: date.to_owned(),
        }
    }
}

/// `entries` in the order of time, as [`super::entry::parse`] gives them.
pub fn history(entries: &[HistoryEntry], changes: &[Change]) -> History {
    let mut used = vec![false; changes.len()];
    let mut rows = Vec::new();
    for track in series::tracks(entries) {
        let [code, device] = Subject::ALL.map(|subject| line(&track, subject, changes, &mut used));
        rows.push(Row { track, code, device });
    }
    let unmatched = changes.iter().zip(used).filter(|(_, used)| !used).map(|(change, _)| change.clone()).collect();
    History { rows, unmatched }
}

impl History {
    /// Open points, of baselines in use.
    pub fn suspects(&self) -> impl Iterator<Item = (&Track, &Point)> {
        let current = self.rows.iter().filter(|row| !row.track.is_past);
        current.flat_map(|row| {
            let points = row.lines().into_iter().flat_map(|line| &line.points);
            points.filter(|point| point.is_open()).map(|point| (&row.track, point))
        })
    }
}

/// A series without its hollow entries.
struct Solid {
    /// Of the track's entries.
    entries: Vec<usize>,
    values: Vec<f64>,
    errors: Vec<f64>,
    min_magnitude: f64,
}

impl Solid {
    fn of(track: &Track, subject: Subject) -> Solid {
        let entries = track.solid();
        let (values, errors): (Vec<f64>, Vec<f64>) =
            entries.iter().map(|&entry| subject.value(&track.entries[entry])).unzip();
        let min_magnitude = SMALLEST.ln_1p().max(3.0 * median(&errors).unwrap_or(0.0));
        Solid { entries, values, errors, min_magnitude }
    }

    fn detect(&self, known: &[usize]) -> Vec<ChangePoint> {
        let settings = ChangePoints::nightly(self.min_magnitude);
        settings.detect_beside(&self.values, known).expect("entries are checked when they are read")
    }

    fn stretch(&self, level: &Level) -> Stretch {
        Stretch {
            first: self.entries[level.start],
            last: self.entries[level.end - 1],
            mean: level.mean,
            bounds: level.interval.map(|interval| [interval.low, interval.high]),
        }
    }

    fn plain_stretch(&self, start: usize, end: usize) -> Stretch {
        let values = &self.values[start..end];
        let interval = t_interval(values, 0.95).ok();
        let mean = mean(values).unwrap_or(f64::NAN);
        self.stretch(&Level { start, end, mean, interval })
    }
}

fn line(track: &Track, subject: Subject, changes: &[Change], used: &mut [bool]) -> Line {
    let solid = Solid::of(track, subject);
    let mine =
        |change: &Change| change.case == track.case && change.criterion == track.criterion && change.subject == subject;
    // The place of each acknowledgement: nearest to the points without any of them.
    let free = detected(&solid, &solid.detect(&[]), &[]);
    let place = |change: &Change| if mine(change) { place(track, &solid, change, &free) } else { None };
    let places: Vec<Option<usize>> = changes.iter().map(place).collect();
    let accepted = places.iter().zip(changes).filter(|(_, change)| change.state == Acknowledged::Accepted);
    let accepted: Vec<usize> = accepted.filter_map(|(place, _)| *place).collect();
    // Creep that is accepted is no step: no level begins there.
    let is_creep = |place: usize| {
        let near = free.iter().min_by_key(|found| found.index.abs_diff(place));
        near.is_some_and(|found| found.kind == PointKind::Creep && found.index.abs_diff(place) <= TOLERANCE)
    };
    let (creeps, known): (Vec<usize>, Vec<usize>) = accepted.into_iter().partition(|&place| is_creep(place));
    let steps = solid.detect(&known);

    let mut points = Vec::new();
    let all = detected(&solid, &steps, &creeps);
    let mut owners: Vec<Option<usize>> = vec![None; all.len()];
    for (number, place) in places.iter().enumerate() {
        let Some(place) = *place else { continue };
        let near = (0..all.len()).filter(|&at| owners[at].is_none() && all[at].index.abs_diff(place) <= TOLERANCE);
        if let Some(nearest) = near.min_by_key(|&at| all[at].index.abs_diff(place)) {
            owners[nearest] = Some(number);
            used[number] = true;
        }
    }
    for (found, owner) in all.iter().zip(owners) {
        let entries_after = solid.values.len() - found.index;
        let state = match owner {
            Some(number) => State::Acknowledged(changes[number].clone()),
            None if entries_after >= CONFIRMED => State::Confirmed,
            None => State::New,
        };
        points.push(Point {
            subject,
            kind: found.kind,
            entry: solid.entries[found.index],
            last_good: solid.entries[found.first_bad - 1],
            first_bad: solid.entries[found.first_bad],
            before: found.before,
            after: found.after,
            change: found.after.mean - found.before.mean,
            p_value: found.p_value,
            entries_after,
            state,
        });
    }
    let firm: Vec<&ChangePoint> = steps.iter().filter(|step| !step.weak).collect();
    let mut stretches: Vec<Stretch> = firm.iter().map(|step| solid.stretch(&step.before)).collect();
    match firm.last() {
        Some(last) => stretches.push(solid.stretch(&last.after)),
        None if !solid.values.is_empty() => stretches.push(solid.plain_stretch(0, solid.values.len())),
        None => {}
    }
    let weak = steps.iter().filter(|step| step.weak).map(|step| solid.entries[step.index]).collect();
    Line { subject, min_magnitude: solid.min_magnitude, stretches, points, weak }
}

/// A point before acknowledgements are matched; indexes are of the solid entries.
struct Detected {
    kind: PointKind,
    index: usize,
    first_bad: usize,
    before: Stretch,
    after: Stretch,
    p_value: Option<f64>,
}

/// The firm steps, and creep after the last of them; where that is accepted, detection restarts behind it.
fn detected(solid: &Solid, steps: &[ChangePoint], accepted: &[usize]) -> Vec<Detected> {
    let firm = steps.iter().filter(|step| !step.weak);
    let mut all: Vec<Detected> = firm
        .map(|step| Detected {
            kind: PointKind::Step,
            index: step.index,
            first_bad: step.index,
            before: solid.stretch(&step.before),
            after: solid.stretch(&step.after),
            p_value: Some(step.p_value),
        })
        .collect();
    let mut start = all.last().map_or(0, |last| last.index);
    while let Some((noticed, since)) = creep(&solid.values[start..], &solid.errors[start..], solid.min_magnitude) {
        let index = start + noticed;
        all.push(Detected {
            kind: PointKind::Creep,
            index,
            first_bad: start + since,
            before: solid.plain_stretch(start, start + since),
            after: solid.plain_stretch(start + since, solid.values.len()),
            p_value: None,
        });
        if !accepted.iter().any(|place| place.abs_diff(index) <= TOLERANCE) {
            break;
        }
        start = index;
    }
    all
}

/// The solid entry that an acknowledgement names. A commit may have many entries: then the one nearest to a point, else
/// the first.
fn place(track: &Track, solid: &Solid, change: &Change, free: &[Detected]) -> Option<usize> {
    let named = (0..track.entries.len()).filter(|&entry| change.names(&track.entries[entry]));
    let places = named.map(|entry| solid.entries.partition_point(|&other| other < entry));
    let distance = |place: usize| free.iter().map(|found| found.index.abs_diff(place)).min().unwrap_or(usize::MAX);
    places.min_by_key(|&place| match distance(place) {
        near if near <= TOLERANCE => near,
        _ => usize::MAX,
    })
}

/// Entries from which the level is known well enough to detect deviations.
const BASE: usize = 5;
/// Deviations of a single entry are cut off at so many standard deviations.
const LARGEST_Z: f64 = 4.0;

/// The entry on which a slow change was noticed, and the one on which it began. It is noticed when a sum of deviations
/// is over the limit and the last entries are further from the level before than `min_magnitude`: at k = ½ and h = 5
/// alone, fifty cases would have a false alarm a week.
fn creep(values: &[f64], errors: &[f64], min_magnitude: f64) -> Option<(usize, usize)> {
    let (first, _) = values.split_at_checked(BASE)?;
    // Entries differ by more than their own errors: sessions have an error too. Differences of neighbours hide slow
    // changes.
    let differences: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let between = 1.4826 * median(&differences).ok()? / std::f64::consts::SQRT_2;
    let mut level = median(first).ok()?;
    let mut deviations = vec![0.0; BASE];
    for (index, (value, error)) in values.iter().zip(errors).enumerate().skip(BASE) {
        let n = index as f64;
        let spread = error.max(between).max(f64::MIN_POSITIVE);
        let z = ((value - level) / (spread * (1.0 + 1.0 / n).sqrt())).clamp(-LARGEST_Z, LARGEST_Z);
        deviations.push(z);
        level += z * spread / (n + 1.0);
    }
    let cusum = Cusum::default();
    let moved = |since: usize, index: usize, sign: f64| {
        let (before, now) = (mean(&values[..since]), mean(&values[index + 1 - BASE..=index]));
        matches!((before, now), (Ok(before), Ok(now)) if sign * (now - before) >= min_magnitude)
    };
    let latest = values.len() - 1;
    cusum.run(&deviations).iter().enumerate().skip(BASE).find_map(|(index, step)| {
        let sides = [(step.up, step.up_since, 1.0), (step.down, step.down_since, -1.0)];
        let noticed = sides.into_iter().find(|&(sum, since, sign)| {
            cusum.is_alarm(sum) && since > 0 && index + 1 - since >= BASE && moved(since, index, sign)
                // And still is: a change that was undone is over.
                && moved(since, latest, sign)
        });
        noticed.map(|(_, since, _)| (index, since))
    })
}

#[cfg(test)]
mod tests;
