//! What commands with results share: tables, exports, atomically written files, the exit code of a run.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::{
    exit::ExitStatus,
    export, markdown,
    record::{Outcome, Run},
    sheet::Sheet,
    summary::CaseSummary,
    table::{self, Look},
};

use crate::{context::usage, terminal::print};

#[derive(Args)]
#[command(next_help_heading = "Exports")]
pub struct Exports {
    /// Everything, with units and intervals
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
    /// One row a case
    #[arg(long, value_name = "FILE")]
    export_csv: Option<PathBuf>,
    /// For a pull request or a job summary
    #[arg(long, value_name = "FILE")]
    export_markdown: Option<PathBuf>,
    /// hyperfine's JSON; times are the medians of invocations
    #[arg(long, value_name = "FILE")]
    export_hyperfine: Option<PathBuf>,
    /// Bencher Metric Format
    #[arg(long, value_name = "FILE")]
    export_bencher: Option<PathBuf>,
    /// github-action-benchmark, `customSmallerIsBetter`; `customBiggerIsBetter` goes to FILE with `-bigger`
    #[arg(long, value_name = "FILE")]
    export_action: Option<PathBuf>,
}

/// # Errors
/// As [`print()`].
pub fn print_sheet(sheet: &Sheet) -> Result<()> {
    print(table::render_sheet(sheet, look(120)))
}

/// # Errors
/// As [`print()`].
pub fn print_table(run: &Run, summaries: &[CaseSummary]) -> Result<()> {
    if run.tally().measured == 0 {
        return print(nothing_measured(run));
    }
    print(table::render(run, summaries, look(160)))
}

/// In place of a table without a number: why there is none, for each model on each device.
fn nothing_measured(run: &Run) -> String {
    let mut text = String::new();
    for (model, device) in run.header.models.iter().flat_map(|model| run.header.devices.iter().map(move |d| (model, d)))
    {
        text += &format!("{} on {}\n  nothing was measured\n", model.name, device.name);
        let mut reasons: Vec<String> = Vec::new();
        for record in
            run.records.iter().filter(|record| record.case.model == model.name && record.case.device == device.name)
        {
            let Outcome::Failed(failure) = &record.outcome else { continue };
            let why = format!("  at {}: {}\n", failure.stage.name(), failure.message);
            if !reasons.contains(&why) {
                reasons.push(why);
            }
        }
        text += &reasons.concat();
    }
    text
}

/// As wide as the terminal, or `columns` without one.
pub fn look(columns: usize) -> Look {
    let width = console::Term::stdout().size_checked().map_or(columns, |(_, columns)| usize::from(columns));
    Look { width, colour: console::colors_enabled() }
}

impl Exports {
    /// # Errors
    /// A file that cannot be written there: asked before anything is measured.
    pub fn check(&self) -> Result<()> {
        let Exports { export_json, export_csv, export_markdown, export_hyperfine, export_bencher, export_action } =
            self;
        let all = [export_json, export_csv, export_markdown, export_hyperfine, export_bencher, export_action];
        all.into_iter().flatten().try_for_each(|path| check(path))
    }

    pub fn write(&self, run: &Run, summaries: &[CaseSummary]) -> Result<()> {
        let to = |path: &Option<PathBuf>, render: &dyn Fn() -> String| match path {
            Some(path) => write(path, &render()),
            None => Ok(()),
        };
        to(&self.export_json, &|| export::json::render(run, summaries))?;
        to(&self.export_csv, &|| export::csv::render(summaries))?;
        to(&self.export_markdown, &|| markdown::render(run, summaries))?;
        to(&self.export_hyperfine, &|| export::hyperfine::render(summaries))?;
        to(&self.export_bencher, &|| export::bencher::render(summaries))?;
        if let Some(path) = &self.export_action {
            let files = export::action::render(summaries);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let bigger = match path.extension() {
                Some(ending) => format!("{stem}-bigger.{}", ending.to_string_lossy()),
                None => format!("{stem}-bigger"),
            };
            write(path, &files.smaller_is_better)?;
            write(&path.with_file_name(bigger), &files.bigger_is_better)?;
        }
        Ok(())
    }
}

/// Whether a file can be written there, asked before the work that fills it.
///
/// # Errors
/// Its folder is missing or no folder, or it is a folder itself.
pub fn check(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(usage(format!("cannot write `{}`: it is a folder; add the file's name", path.display())));
    }
    if !folder.is_dir() {
        return Err(usage(format!(
            "cannot write `{}`: there is no folder `{}`; make it first",
            path.display(),
            folder.display()
        )));
    }
    Ok(())
}

/// # Errors
/// The file is one of those that are read, by whatever name: it would be lost.
pub fn check_apart(output: &Path, inputs: &[&Path]) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    let same = |input: &&&Path| identity(output).is_some_and(|output| identity(input) == Some(output));
    match inputs.iter().find(same) {
        Some(_) => Err(usage(format!(
            "`{}` is what is read: it would be overwritten; write to another file",
            output.display()
        ))),
        None => Ok(()),
    }
}

/// Writes a file completely or not at all. A device or a pipe (`/dev/stdout`) is written to directly: renaming would
/// replace it by a file.
pub fn write(path: &Path, content: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    write_with(path, |out| out.write_all(content.as_ref()))
}

/// Writes a file completely or not at all, and only where there is none: of several processes one succeeds.
///
/// # Errors
/// There is one (false), or nothing can be written.
pub fn write_new(path: &Path, content: &str) -> Result<bool> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".part-{:016x}", RandomState::new().build_hasher().finish()));
    // A rename would replace what is there, a link does not.
    let written = fs::write(&part, content).and_then(|()| fs::hard_link(&part, path));
    let _ = fs::remove_file(&part);
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot write `{}`", path.display())),
    }
}

/// The same for content that is written piece by piece.
pub fn write_with(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let is_special = fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir());
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let to = |path: &Path| {
        let mut out = BufWriter::with_capacity(256 * 1024, File::create(path)?);
        content(&mut out)?;
        out.flush()
    };
    let written = if is_special {
        to(path)
    } else {
        let part = Path::new(&part);
        to(part).and_then(|()| fs::rename(part, path)).inspect_err(|_| drop(fs::remove_file(part)))
    };
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// The exit code of a run: a device's failure outweighs a job's, and a run with missing jobs is no success.
pub fn status(run: &Run) -> ExitStatus {
    let failed = |device: bool| {
        run.records.iter().any(|record| match &record.outcome {
            Outcome::Failed(failure) => failure.stage.is_device() == device,
            Outcome::Measured(_) => false,
        })
    };
    if failed(true) {
        ExitStatus::Device
    } else if failed(false) {
        ExitStatus::Failed
    } else if run.tally().missing > 0 {
        ExitStatus::Inconclusive
    } else {
        ExitStatus::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four `accept --name X` at once all said that they had made the baseline.
    #[test]
    fn of_many_writers_of_a_new_file_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let wrote: Vec<bool> = std::thread::scope(|scope| {
            let write = |n: usize| write_new(&path.with_file_name("x.toml"), &format!("of {n}\n")).unwrap();
            let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || write(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winner = wrote.iter().position(|wrote| *wrote).unwrap();
        assert_eq!(wrote.iter().filter(|wrote| **wrote).count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("of {winner}\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
