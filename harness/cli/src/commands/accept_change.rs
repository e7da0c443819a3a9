//! `accept-change`: acknowledges a change point. Adds an entry to `reports/changes.toml`, which is committed; people
//! may edit it.

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, record::Case};
use espalier_gate::{
    Criterion,
    history::{Acknowledged, History, Point, Row, Subject, Track, changes},
};

use crate::{
    context::{Context, usage},
    history_file::{self, CHANGES},
    output, run_file,
    terminal::say,
};

#[derive(Args)]
pub struct Flags {
    /// Such as 'digits-cnn@0.5 on pi4'
    #[arg(value_parser = Case::parse)]
    case: Case,
    #[arg(long, value_name = "NAME", value_parser = history_file::criterion)]
    criterion: Criterion,
    /// Of the first entry at the new level, as `history` shows it; its beginning is enough. Where that names several
    /// entries: the gate's id
    #[arg(long)]
    commit: String,
    /// Why this may be so, for whoever reads the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who acknowledges it [default: the user of this session]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Which of the two series changed: code or device [default: the one that has a change there]
    #[arg(long, value_parser = subject)]
    series: Option<Subject>,
    /// There is no change, only noise
    #[arg(long)]
    noise: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let history = history_file::read(&context)?;
    let (track, point) = flags.find(&history)?;
    let state = if flags.noise { Acknowledged::Noise } else { Acknowledged::Accepted };
    let by = flags.by.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    if by.trim().is_empty() {
        return Err(usage("there is no user: say who acknowledges it with `--by`"));
    }
    if flags.reason.trim().is_empty() {
        return Err(usage("`--reason` is empty: say why, for whoever reads the history"));
    }
    let (today, _) = run_file::now()?;
    let change = point.acknowledge(track, state, by.trim(), flags.reason.trim(), today.get(..10).unwrap_or(&today));
    let mut file = history_file::changes(&context)?;
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        file.text.push('\n');
    }
    file.text.push_str(&change.to_toml());
    // What was added must be readable.
    history_file::parse_changes(&file)?;
    output::write(&context.root.join(CHANGES), file.text.trim_start_matches('\n'))?;
    say(format_args!(
        "{} ({}, {}) at commit {}: {}; commit `{CHANGES}`",
        change.case,
        change.criterion.name(),
        change.subject.name(),
        change.commit,
        change.state.name()
    ))?;
    Ok(ExitStatus::Ok)
}

fn subject(text: &str) -> Result<Subject, String> {
    let found = Subject::ALL.into_iter().find(|subject| subject.name() == text);
    found.ok_or_else(|| format!("`{}` is neither `code` nor `device`", text.escape_debug()))
}

impl Flags {
    /// The one open point that the flags name.
    fn find<'a>(&self, history: &'a History) -> Result<(&'a Track, &'a Point)> {
        let is_named =
            |row: &&Row| !row.track.is_past && row.track.case == self.case && row.track.criterion == self.criterion;
        let points = history.rows.iter().filter(is_named).flat_map(|row| {
            let points = row.lines().into_iter().flat_map(|line| &line.points);
            points.map(|point| (&row.track, point))
        });
        let of_series = points.filter(|(_, point)| self.series.is_none_or(|series| series == point.subject));
        let (open, acknowledged): (Vec<_>, Vec<_>) = of_series.partition(|(_, point)| point.is_open());
        // Of creep a person may name the entry on which it was noticed or the one with which it began.
        let is_here = |(track, point): &&(&Track, &Point)| {
            let entries = [point.entry, point.first_bad].map(|index| &track.entries[index]);
            entries.iter().any(|entry| changes::is_commit(&self.commit, entry) || entry.gate == self.commit)
        };
        let here: Vec<(&Track, &Point)> = open.iter().filter(is_here).copied().collect();
        let (title, commit) = (format!("{} ({})", self.case, self.criterion.name()), &self.commit);
        let names = |points: &[(&Track, &Point)]| {
            points.iter().map(|(track, point)| name(track, point)).collect::<Vec<String>>().join(", ")
        };
        match here.as_slice() {
            [only] => Ok(*only),
            [] if acknowledged.iter().any(|point| is_here(&point)) => {
                Err(usage(format!("the change of {title} at commit {commit} is acknowledged already: see `{CHANGES}`")))
            }
            [] if open.is_empty() => {
                Err(usage(format!("{title} has no open change at commit `{commit}`; there is none")))
            }
            [] => Err(usage(format!("{title} has no open change at commit `{commit}`; there are: {}", names(&open)))),
            several => Err(usage(format!(
                "{title} has several changes there: {}; name one with `--series`, or by its gate in the place of its \
                 commit",
                names(several)
            ))),
        }
    }
}

/// `c00028 (code, 2026-01-29, gate 20260129T020000Z-91c2)`
fn name(track: &Track, point: &Point) -> String {
    let entry = &track.entries[point.entry];
    format!("{} ({}, {}, gate {})", entry.name(), point.subject.name(), entry.day(), entry.gate)
}
