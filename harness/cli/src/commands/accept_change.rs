//! `accept-change`: somebody answers for a change point. Adds an entry to `reports/changes.toml`, which is committed; a person may edit it.

use anyhow::Result;
use clap::Args;
use espalier_bench::{exit::ExitStatus, record::Case};
use espalier_gate::{
    Criterion,
    history::{Acknowledged, History, Point, Subject, Track, changes},
};

use crate::{
    context::{Context, usage},
    history_file::{self, CHANGES},
    output, run_file,
};

#[derive(Args)]
pub struct Flags {
    /// Such as 'digits-cnn@0.5 on pi4'
    #[arg(value_parser = Case::parse)]
    case: Case,
    #[arg(long, value_name = "NAME", value_parser = history_file::criterion)]
    criterion: Criterion,
    /// Of the first night at the new level, as `history` shows it; its beginning is enough. Where that names several nights: the gate's id
    #[arg(long)]
    commit: String,
    /// Why this may be so, for whoever reads the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who says so [default: the user of this session]
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
    let history = history_file::read(&context.root)?;
    let (track, point) = flags.find(&history)?;
    let state = if flags.noise { Acknowledged::Noise } else { Acknowledged::Accepted };
    let by = flags.by.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    if by.trim().is_empty() {
        return Err(usage("nobody answers for it: say who with `--by`"));
    }
    if flags.reason.trim().is_empty() {
        return Err(usage("`--reason` is empty: say why, for whoever reads the history"));
    }
    let (today, _) = run_file::now()?;
    let change = point.acknowledge(track, state, by.trim(), flags.reason.trim(), today.get(..10).unwrap_or(&today));
    let (mut text, _) = history_file::changes(&context.root)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&change.to_toml());
    // What was added is read like anything else in there.
    history_file::parse_changes(&text)?;
    output::write(&context.root.join(CHANGES), text.trim_start_matches('\n'))?;
    println!(
        "{} ({}, {}) at commit {}: {}; commit `{CHANGES}`",
        change.case,
        change.criterion.name(),
        change.subject.name(),
        change.commit,
        change.state.name()
    );
    Ok(ExitStatus::Ok)
}

fn subject(text: &str) -> Result<Subject, String> {
    let found = Subject::ALL.into_iter().find(|subject| subject.name() == text);
    found.ok_or_else(|| format!("`{}` is neither `code` nor `device`", text.escape_debug()))
}

impl Flags {
    /// The one open point that is meant.
    fn find<'a>(&self, history: &'a History) -> Result<(&'a Track, &'a Point)> {
        let tracks = history
            .rows
            .iter()
            .filter(|row| !row.track.is_past && row.track.case == self.case && row.track.criterion == self.criterion);
        let points = tracks
            .flat_map(|row| row.lines().into_iter().flat_map(|line| &line.points).map(|point| (&row.track, point)));
        let wanted = |point: &Point| self.series.is_none_or(|series| series == point.subject);
        let points: Vec<(&Track, &Point)> = points.filter(|(_, point)| wanted(point)).collect();
        let (open, answered): (Vec<_>, Vec<_>) = points.into_iter().partition(|(_, point)| point.is_open());
        // Creep goes by the night on which it was noticed; the commit with which it began is what a person would name.
        let named = |(track, point): &&(&Track, &Point)| {
            let nights = [point.night, point.first_bad].map(|night| &track.nights[night]);
            nights.iter().any(|night| changes::is_commit(&self.commit, night) || night.gate == self.commit)
        };
        let here: Vec<&(&Track, &Point)> = open.iter().filter(named).collect();
        let title = format!("{} ({})", self.case, self.criterion.name());
        match here.as_slice() {
            [only] => Ok(**only),
            [] if answered.iter().any(|point| named(&point)) => Err(usage(format!(
                "somebody answers for the change of {title} at commit {} already: see `{CHANGES}`",
                self.commit
            ))),
            [] => {
                let there: Vec<String> = open.iter().map(|(track, point)| name(track, point)).collect();
                let there = if there.is_empty() {
                    "there is none".to_owned()
                } else {
                    format!("there are: {}", there.join(", "))
                };
                Err(usage(format!("{title} has no open change at commit `{}`; {there}", self.commit)))
            }
            several => {
                let there: Vec<String> = several.iter().map(|(track, point)| name(track, point)).collect();
                let which = format!("{title} has several changes there: {}", there.join(", "));
                Err(usage(format!("{which}; name one with `--series`, or by its gate in the place of its commit")))
            }
        }
    }
}

/// `c00028 (code, 2026-01-29, gate 20260129T020000Z-91c2)`
fn name(track: &Track, point: &Point) -> String {
    let night = &track.nights[point.night];
    format!("{} ({}, {}, gate {})", night.name(), point.subject.name(), night.day(), night.gate)
}
