//! `history`: the gate's history entry by entry, and where a level changed. Reads `reports/history.jsonl`, which the
//! gate adds to, and `reports/changes.toml`, which `accept-change` adds to; the command itself changes neither.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Criterion,
    history::{self, History, data, render},
};
use espalier_inventory::UnknownName;

use crate::{
    context::{Context, Exit, usage},
    history_file::{CHANGES, HISTORY, criterion, read},
    output,
    program::Program,
    terminal::{note, print, say},
};

#[derive(Args)]
pub struct Flags {
    /// Of this device only; may be repeated
    #[arg(short, long, value_name = "NAME")]
    device: Vec<String>,
    /// Of this model only; may be repeated
    #[arg(short, long, value_name = "NAME")]
    model: Vec<String>,
    /// Of this criterion only, e.g. p50; may be repeated
    #[arg(short, long, value_name = "NAME", value_parser = criterion)]
    criterion: Vec<Criterion>,
    /// Entries, levels and change points, for a page
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    flags.export_json.as_deref().map_or(Ok(()), output::check)?;
    let context = Context::open()?;
    let mut history = read(&context)?;
    if history.rows.is_empty() {
        let message =
            format!("`{HISTORY}` has no entry yet: `cargo xtask nightly` writes one, `cargo xtask gate --history` too");
        return Err(anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message }));
    }
    let all = flags.device.is_empty() && flags.model.is_empty() && flags.criterion.is_empty();
    let notes = if all { render::unmatched(&history.unmatched) } else { Vec::new() };
    flags.select(&mut history)?;
    if let Some(path) = &flags.export_json {
        output::write(path, &data::render(&history))?;
    }
    print(render::render(&history, output::look(100).width))?;
    let open = history.suspects().count();
    if open > 0 {
        say(format_args!(
            "{open} to be looked into; \
             `{} accept-change CASE --criterion C --commit COMMIT --reason TEXT` acknowledges one",
            Program::current().call
        ))?;
    }
    for remark in notes {
        note(format_args!("note: `{CHANGES}`: {remark}"));
    }
    Ok(ExitStatus::Ok)
}

impl Flags {
    fn select(&self, history: &mut History) -> Result<()> {
        let check = |names: &[String], kind: &'static str, name: fn(&history::Track) -> &str| -> Result<()> {
            let mut known: Vec<&str> = history.rows.iter().map(|row| name(&row.track)).collect();
            known.sort_unstable();
            known.dedup();
            match names.iter().find(|name| !known.contains(&name.as_str())) {
                Some(unknown) => {
                    let error = UnknownName::new(kind, unknown, known.iter().copied());
                    Err(usage(format!("the history has no such entries: {error}")))
                }
                None => Ok(()),
            }
        };
        check(&self.device, "device", |track| &track.case.device)?;
        check(&self.model, "model", |track| &track.case.model)?;
        let among = |names: &[String], name: &String| names.is_empty() || names.contains(name);
        history.rows.retain(|row| {
            let track = &row.track;
            among(&self.device, &track.case.device)
                && among(&self.model, &track.case.model)
                && (self.criterion.is_empty() || self.criterion.contains(&track.criterion))
        });
        if history.rows.is_empty() {
            return Err(usage("the history has no entries for all of that together: leave out a flag"));
        }
        Ok(())
    }
}
