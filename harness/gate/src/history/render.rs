//! A history as text: for each case both series as sparklines, and every change point with its state. Foreign text
//! (commits, reasons) is put on one line and sanitised.

use super::{Change, History, Line, Point, PointKind, Row, State, Stretch, Subject, Track, sparkline::sparkline};
use crate::Criterion;
use espalier_bench::{
    metric::Unit,
    sheet::{both, short},
};

/// Below a sparkline: an open change, and an acknowledged one.
const OPEN: char = '▲';
const ACKNOWLEDGED: char = '△';
/// Before a sparkline.
const INDENT: &str = "          ";
/// Columns of a sparkline: a year of entries still shows its months.
const WIDEST: usize = 90;

/// The history, at most `width` columns where it is drawn; a baseline that is no longer used is left out.
pub fn render(history: &History, width: usize) -> String {
    let mut out = String::new();
    let mut marked = false;
    for row in history.rows.iter().filter(|row| !row.track.is_past) {
        out.push_str(&title(&row.track));
        for line in row.lines() {
            out.push_str(&drawn(row, line, width));
            marked |= !line.points.is_empty();
        }
        for point in row.lines().into_iter().flat_map(|line| &line.points) {
            out.push_str(&format!("  {}\n", describe(&row.track, point)));
            out.push_str(&format!("    {}\n", levels(&row.track, point)));
        }
        out.push('\n');
    }
    if marked {
        out.push_str(&format!(
            "{OPEN} changed here, {ACKNOWLEDGED} changed and acknowledged; · left out: inconclusive or invalid\n"
        ));
    }
    out
}

/// One line for each open point, and for each case that was inconclusive too often in a row.
pub fn suspects(history: &History) -> Vec<String> {
    let unfit = history.rows.iter().filter_map(|row| {
        let (entries, device) = (row.track.unfit_entries()?, &row.track.case.device);
        Some(format!(
            "{}: inconclusive for {entries} entries: the device is not fit for it \
             (`cargo xtask calibrate --device {device}`)",
            title_of(&row.track)
        ))
    });
    let line = |(track, point): (&Track, &Point)| {
        format!("{}: {}; {}", title_of(track), describe(track, point), levels(track, point))
    };
    history.suspects().map(line).chain(unfit).collect()
}

/// One line for each acknowledgement that matches no point.
pub fn unmatched(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let Change { case, criterion, subject, commit, .. } = change;
        let (criterion, subject) = (criterion.name(), subject.name());
        format!("the change at commit {} for {case} ({criterion}, {subject}) matches no point now", short(commit))
    };
    changes.iter().map(|change| one_line(&line(change))).collect()
}

fn title_of(track: &Track) -> String {
    one_line(&format!("{}, {}", short(&track.case.to_string()), track.criterion.name()))
}

fn title(track: &Track) -> String {
    let (count, hollow) = (track.entries.len(), track.entries.len() - track.solid().len());
    let days = match (track.entries.first(), track.entries.last()) {
        (Some(first), Some(last)) => format!("{} to {}", first.day(), last.day()),
        _ => "no entry".to_owned(),
    };
    let hollow = if hollow > 0 { format!(", {hollow} left out") } else { String::new() };
    let baseline = one_line(&short(&track.baseline));
    format!("{} against {baseline}: {} from {days}{hollow}\n", title_of(track), entries(count))
}

fn drawn(row: &Row, line: &Line, width: usize) -> String {
    let track = &row.track;
    let value = |entry: &super::HistoryEntry| (!entry.is_hollow()).then(|| line.subject.value(entry).0);
    let values: Vec<Option<f64>> = track.entries.iter().map(value).collect();
    let mark = |point: &Point| (point.entry, if point.is_open() { OPEN } else { ACKNOWLEDGED });
    // An open point must not be hidden by an acknowledged one.
    let (open, acknowledged): (Vec<&Point>, Vec<&Point>) = line.points.iter().partition(|point| point.is_open());
    let marks: Vec<(usize, char)> = open.into_iter().chain(acknowledged).map(mark).collect();
    let name = line.subject.name();
    let Some(spark) = sparkline(&values, &marks, width.saturating_sub(INDENT.len()).clamp(10, WIDEST)) else {
        return format!("  {name:<8}every entry was left out\n");
    };
    let mut out = format!("  {name:<8}{}\n", spark.line);
    if !spark.marks.is_empty() {
        out.push_str(&format!("{INDENT}{}\n", spark.marks));
    }
    if let Some(last) = track.entries.iter().rev().find(|entry| !entry.is_hollow()) {
        let (value, error) = line.subject.value(last);
        let [low, high] = pair(track.criterion, line.subject, spark.low, spark.high);
        let [value, _] = pair(track.criterion, line.subject, value, spark.high);
        let error = 1.96 * error * 100.0;
        out.push_str(&format!("{INDENT}{low} to {high}, last {value} ± {error:.1} %\n"));
    }
    out
}

/// `code slower by 3.1 % since 2026-02-01, commits (c00030, c00031], 30 entries: confirmed`
fn describe(track: &Track, point: &Point) -> String {
    let entry = |index: usize| &track.entries[index];
    let what = direction(track.criterion, point.change);
    let change = point.magnitude().abs() * 100.0;
    let change = if change >= 9.95 { format!("{change:.0} %") } else { format!("{change:.1} %") };
    let commits = format!("commits ({}, {}]", entry(point.last_good).name(), entry(point.first_bad).name());
    let noticed = match point.kind {
        PointKind::Step => String::new(),
        PointKind::Creep => format!(", noticed on {} (commit {})", entry(point.entry).day(), entry(point.entry).name()),
    };
    let verb = match point.kind {
        PointKind::Step => "",
        PointKind::Creep => "creeping ",
    };
    let state = match &point.state {
        State::Acknowledged(change) => {
            format!("{} by {} on {}: {}", point.state.name(), change.by, change.date, change.reason)
        }
        state => state.name().to_owned(),
    };
    let since = entry(point.first_bad).day();
    let (subject, count) = (point.subject.name(), entries(point.entries_after));
    one_line(&short(&format!("{subject} {verb}{what} by {change} since {since}, {commits}{noticed}, {count}: {state}")))
}

/// `from +0.0 % ± 0.1 % to +3.1 % ± 0.2 %, p = 2e-31`
fn levels(track: &Track, point: &Point) -> String {
    let [before, after] = pair(track.criterion, point.subject, point.before.mean, point.after.mean);
    let error = |stretch: &Stretch| match stretch.bounds {
        Some([low, high]) => format!(" ± {:.1} %", (high - low) / 2.0 * 100.0),
        None => String::new(),
    };
    let p = point.p_value.map(|p| if p < 1e-3 { format!(", p = {p:.0e}") } else { format!(", p = {p:.3}") });
    let (before_error, after_error) = (error(&point.before), error(&point.after));
    format!("from {before}{before_error} to {after}{after_error}{}", p.unwrap_or_default())
}

/// Two logarithms as people read them: the ratio as a change in per cent, the baseline's value with its unit.
fn pair(criterion: Criterion, subject: Subject, one: f64, other: f64) -> [String; 2] {
    match subject {
        // Without the sign of minus zero.
        Subject::Code => [one, other].map(|log| format!("{:+.1} %", (log.exp_m1() * 1000.0).round() / 10.0 + 0.0)),
        Subject::Device => both(one.exp(), other.exp(), unit(criterion)),
    }
}

/// Of the baseline's own value.
pub(super) fn unit(criterion: Criterion) -> Unit {
    match criterion {
        Criterion::PeakRss | Criterion::PeakAllocated | Criterion::RunnerSize | Criterion::ModelSize => Unit::Bytes,
        Criterion::Accuracy => Unit::Fraction,
        _ => Unit::Nanoseconds,
    }
}

/// What it means that the logarithm went up or down.
pub(super) fn direction(criterion: Criterion, change: f64) -> &'static str {
    let up = change > 0.0;
    match unit(criterion) {
        Unit::Nanoseconds if up => "slower",
        Unit::Nanoseconds => "faster",
        Unit::Bytes if up => "larger",
        Unit::Bytes => "smaller",
        _ if up => "higher",
        _ => "lower",
    }
}

fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

fn one_line(text: &str) -> String {
    espalier_protocol::text::sanitise(text).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Verdict,
        history::{Acknowledged, HistoryEntry, fixture, history},
    };

    fn entries_with_a_step() -> Vec<HistoryEntry> {
        let mut entries = fixture::entries(40, 5, |entry| if entry >= 28 { 0.03 } else { 0.0 }, |_| 0.0);
        entries[7].verdict = Verdict::Inconclusive;
        entries
    }

    #[test]
    fn a_history_for_a_terminal() {
        let text = render(&history(&entries_with_a_step(), &[]), 80);
        let expected = "\
digits-cnn@0.5 on pi4, p50 against release-1.4: 40 entries from 2026-01-01 to 2026-02-09, 1 left out
  code    ▁▁▁▂▂▁▁·▁▂▂▂▂▁▂▃▂▂▁▂▁▂▁▂▂▂▂▃██▇████▇█▇▇▇
                                      ▲
          -0.6 % to +3.6 %, last +2.7 % ± 0.6 %
  device  ▄▂▃▃▂▅▅·▄▆▂▁▃▂▅▄▄█▆▆▂▂▃▂▆▁▂▃▆▄▁▆▂█▁▆▁▁▂▂
          9.972 ms to 10.046 ms, last 9.990 ms ± 0.4 %
  code slower by 3.1 % since 2026-01-29, commits (c00027, c00028], 12 entries: confirmed
    from +0.0 % ± 0.1 % to +3.1 % ± 0.2 %, p = 6e-25

▲ changed here, △ changed and acknowledged; · left out: inconclusive or invalid
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_foreign_acts_on_no_terminal() {
        let mut entries = entries_with_a_step();
        entries.iter_mut().for_each(|entry| entry.commit = entry.commit.take().map(|commit| commit + "\u{1b}[2J\n"));
        entries.iter_mut().for_each(|entry| entry.baseline.push_str("\u{1b}]0;x\u{7}"));
        let name = entries[28].name().to_owned();
        let mut change = fixture::change(&name, Acknowledged::Noise);
        change.reason = "one\ntwo\u{1b}[31m".into();
        let unknown = Change { commit: "feed\u{1b}[2J".into(), ..change.clone() };
        let history = history(&entries, &[change, unknown]);
        let text = render(&history, 80) + &unmatched(&history.unmatched).concat();
        assert!(text.contains("one two") && text.contains("feed"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn drawn_lines_fit() {
        for width in [20, 40, 80, 200] {
            let text = render(&history(&fixture::entries(300, 1, |_| 0.0, |_| 0.0), &[]), width);
            for line in text.lines().filter(|line| line.contains('▁')) {
                assert!(line.chars().count() <= width.max(20), "{width}: {line}");
            }
        }
    }

    #[test]
    fn directions_of_every_criterion() {
        let directions = Criterion::ALL.map(|criterion| direction(criterion, 0.1));
        assert!(directions.iter().all(|direction| ["slower", "larger", "higher"].contains(direction)));
        assert_eq!((direction(Criterion::P99, -0.1), direction(Criterion::PeakRss, -0.1)), ("faster", "smaller"));
    }

    #[test]
    fn nothing_to_show() {
        assert_eq!(render(&history(&[], &[]), 80), "");
        let mut entries = fixture::entries(3, 1, |_| 0.0, |_| 0.0);
        entries.iter_mut().for_each(|entry| entry.verdict = Verdict::Inconclusive);
        let text = render(&history(&entries, &[]), 80);
        assert!(
            text.contains("3 entries from 2026-01-01 to 2026-01-03, 3 left out\n  code    every entry was left out\n"),
            "{text}"
        );
    }
}
