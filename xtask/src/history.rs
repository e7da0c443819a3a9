//! `cargo xtask history`: what the gate's nights say one after another. Reads `reports/history.jsonl`, which the gate adds to with
//! [`append`], and `reports/changes.toml`, which `accept-change` adds to; the command itself changes neither.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Criterion,
    history::{self, Change, History, Night, changes, data, night, render},
};
use espalier_inventory::{Problem, SourceFile, UnknownName};

use crate::{
    context::{Context, usage},
    report, run_file,
};

/// One line a criterion, case and gate.
pub const NIGHTS: &str = "reports/history.jsonl";
/// What people said of change points.
pub const CHANGES: &str = "reports/changes.toml";

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
    /// Nights, levels and change points, for a page
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let mut history = read(&context.root)?;
    if history.rows.is_empty() {
        eprintln!(
            "error: there is no night yet in `{NIGHTS}`: `cargo xtask nightly` writes one, `cargo xtask gate --history` too"
        );
        return Ok(ExitStatus::Inconclusive);
    }
    let whole = flags.device.is_empty() && flags.model.is_empty() && flags.criterion.is_empty();
    let notes = if whole { render::unmatched(&history.unmatched) } else { Vec::new() };
    flags.select(&mut history)?;
    let columns = console::Term::stdout().size_checked().map_or(100, |(_, columns)| usize::from(columns));
    print!("{}", render::render(&history, columns));
    let open = history.suspects().count();
    if open > 0 {
        println!(
            "{open} to be looked into; `cargo xtask accept-change CASE --criterion C --commit COMMIT --reason TEXT` answers for one"
        );
    }
    for note in notes {
        eprintln!("note: `{CHANGES}`: {note}");
    }
    if let Some(path) = &flags.export_json {
        report::write(path, &data::render(&history))?;
    }
    Ok(ExitStatus::Ok)
}

/// One line for each change that nobody answers for; none where there is no history yet.
pub fn suspects(context: &Context) -> Result<Vec<String>> {
    Ok(render::suspects(&read(&context.root)?))
}

/// Adds to the history, in one write. A last line that was cut off is taken away first: what is added to it would be lost with it.
///
/// # Errors
/// A night that no later reader could use; then nothing is added.
pub fn append(root: &Path, nights: &[Night]) -> Result<()> {
    let lines: Vec<String> =
        nights.iter().map(Night::to_line).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    run_file::append(&root.join(NIGHTS), &lines.concat())
}

/// # Errors
/// Either file is there and cannot be read, or says what cannot be.
pub fn read(root: &Path) -> Result<History> {
    Ok(history::history(&nights(root)?, &changes(root)?.1))
}

fn nights(root: &Path) -> Result<Vec<Night>> {
    let text = read_or_empty(root, NIGHTS)?;
    night::parse(&text).map_err(|error| usage(format!("`{NIGHTS}`: {error}")))
}

/// The text of the file, and what it says.
pub fn changes(root: &Path) -> Result<(String, Vec<Change>)> {
    let text = read_or_empty(root, CHANGES)?;
    let changes = parse_changes(&text)?;
    Ok((text, changes))
}

/// # Errors
/// All mistakes, one a line.
pub fn parse_changes(text: &str) -> Result<Vec<Change>> {
    changes::parse(&SourceFile::new(CHANGES, text)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        usage(format!("the answers to changes have mistakes:\n{}", lines.join("\n")))
    })
}

fn read_or_empty(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// As files have it.
pub fn criterion(text: &str) -> Result<Criterion, String> {
    let names = Criterion::ALL.map(Criterion::name);
    let found = Criterion::ALL.into_iter().find(|criterion| criterion.name() == text);
    found.ok_or_else(|| UnknownName::new("criterion", text, names.into_iter()).to_string())
}

impl Flags {
    fn select(&self, history: &mut History) -> Result<()> {
        let known = |wanted: &[String], kind: &'static str, name: fn(&history::Track) -> &str| -> Result<()> {
            let mut names: Vec<&str> = history.rows.iter().map(|row| name(&row.track)).collect();
            names.sort_unstable();
            names.dedup();
            match wanted.iter().find(|wanted| !names.contains(&wanted.as_str())) {
                Some(unknown) => {
                    let error = UnknownName::new(kind, unknown, names.iter().copied());
                    Err(usage(format!("the history has nothing of it: {error}")))
                }
                None => Ok(()),
            }
        };
        known(&self.device, "device", |track| &track.case.device)?;
        known(&self.model, "model", |track| &track.case.model)?;
        let among = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
        history.rows.retain(|row| {
            let track = &row.track;
            among(&self.device, &track.case.device)
                && among(&self.model, &track.case.model)
                && (self.criterion.is_empty() || self.criterion.contains(&track.criterion))
        });
        if history.rows.is_empty() {
            return Err(usage("the history has nothing of all that together: leave out a flag"));
        }
        Ok(())
    }
}
