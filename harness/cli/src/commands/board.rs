//! `board`: emulated boards, for the tests and for people without boards.

use std::str::FromStr;

use anyhow::Result;
use clap::Subcommand;
use espalier_bench::exit::ExitStatus;
use espalier_fleet::boards::{self, BoardKind, BoardState, Options};

use crate::{
    context::{Context, usage},
    progress::{Progress, stop_on_signal},
    terminal::say,
};

#[derive(Subcommand)]
pub enum Action {
    /// Boot boards and wait until they answer [default: all]
    Up { names: Vec<String> },
    /// Switch boards off [default: all]
    Down { names: Vec<String> },
    /// Which boards there are, and which are on
    List,
}

pub fn run(action: Action) -> Result<ExitStatus> {
    let context = Context::open()?;
    match action {
        Action::Up { names } => {
            let progress = Progress::new(false);
            let cancel = stop_on_signal(&progress)?;
            for kind in kinds(&names)? {
                let task = progress.task(kind.name(), None);
                let board =
                    boards::up(&context.cache, kind, &Options::default(), &|text| task.milestone(text), &cancel)?;
                task.done();
                let how = match board.boot {
                    Some(boot) => format!("up after {:.1} s", boot.as_secs_f64()),
                    None => "was up already".to_owned(),
                };
                say(format_args!("{kind}: {how}; `ssh -F {} {kind}`", board.ssh_config.display()))?;
            }
        }
        Action::Down { names } => {
            for kind in kinds(&names)? {
                let was_on = boards::down(&context.cache, kind)?;
                say(format_args!("{kind}: {}", if was_on { "down" } else { "was not up" }))?;
            }
        }
        Action::List => {
            for status in boards::list(&context.cache)? {
                let state = match status.state {
                    BoardState::Off => "off",
                    BoardState::Running => "on",
                    BoardState::Frozen => "frozen",
                };
                let mut line = format!("{:<14} {state}", status.kind.name());
                if let (Some(pid), Some(port)) = (status.pid, status.port) {
                    line += &format!("  process {pid}, port {port}");
                }
                if let Some(bytes) = status.resident_bytes {
                    line += &format!(", {:.0} MB", bytes as f64 / 1e6);
                }
                if let Some(uptime) = status.uptime {
                    line += &format!(", for {} s", uptime.as_secs());
                }
                say(format_args!("{line}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

fn kinds(names: &[String]) -> Result<Vec<BoardKind>> {
    if names.is_empty() {
        return Ok(BoardKind::ALL.to_vec());
    }
    let known: Vec<&str> = BoardKind::ALL.iter().map(|kind| kind.name()).collect();
    names
        .iter()
        .map(|name| {
            BoardKind::from_str(name).map_err(|_| {
                usage(espalier_inventory::UnknownName::new("board", name, known.iter().copied()).to_string())
            })
        })
        .collect()
}
