//! What the steps of the suite found, and the summary printed at its end.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use espalier_bench::exit::ExitStatus;
use espalier_cli::terminal::{note, print, say};

/// What the whole suite may take on two cores with a cold cache; printed beside what it took.
const BUDGET: Duration = Duration::from_secs(90 * 60);

/// Tests that passed, failed or were skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: Vec<String>,
    /// Each with its reason.
    pub skipped: Vec<String>,
}

impl Counts {
    pub fn passed() -> Counts {
        Counts { passed: 1, ..Counts::default() }
    }

    pub fn failed(what: impl Into<String>) -> Counts {
        Counts { failed: vec![what.into()], ..Counts::default() }
    }

    pub fn skipped(what: impl Into<String>) -> Counts {
        Counts { skipped: vec![what.into()], ..Counts::default() }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

struct Step {
    name: String,
    counts: Counts,
    took: Duration,
}

/// All steps so far.
pub struct Report {
    start: Instant,
    deny_skips: bool,
    steps: Vec<Step>,
}

impl Report {
    /// With `deny_skips` a skipped test counts as a failure.
    pub fn new(deny_skips: bool) -> Report {
        Report { start: Instant::now(), deny_skips, steps: Vec::new() }
    }

    /// Announces a step on stderr, with the time since the suite began.
    pub fn announce(&self, what: &str) {
        let since = self.start.elapsed().as_secs();
        note(format_args!("[{:>2}:{:02}] {what}", since / 60, since % 60));
    }

    /// Announces and runs a step. An error of the step itself is a failure.
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Counts>) {
        self.announce(name);
        let start = Instant::now();
        let counts = run().unwrap_or_else(|error| Counts::failed(format!("{error:#}")));
        self.add(name, counts, start.elapsed());
    }

    pub fn add(&mut self, name: &str, mut counts: Counts, took: Duration) {
        if self.deny_skips {
            counts.failed.extend(counts.skipped.drain(..).map(|skipped| format!("skipped: {skipped}")));
        }
        self.steps.push(Step { name: name.to_owned(), counts, took });
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// No test ran at all.
    pub fn summarise(self) -> Result<ExitStatus> {
        print(&self)?;
        let mut all = Counts::default();
        for step in self.steps {
            all += step.counts;
        }
        // In this form, since continuous integration reads it.
        say(format_args!("{} passed, {} failed, {} skipped", all.passed, all.failed.len(), all.skipped.len()))?;
        if all.passed == 0 {
            bail!("no test ran");
        }
        Ok(if all.failed.is_empty() { ExitStatus::Ok } else { ExitStatus::Failed })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(out, "\n{:<34} {:>7} {:>7} {:>8} {:>9}", "step", "passed", "failed", "skipped", "time")?;
        for Step { name, counts, took } in &self.steps {
            let (failed, skipped) = (counts.failed.len(), counts.skipped.len());
            writeln!(out, "{name:<34} {:>7} {failed:>7} {skipped:>8} {:>7.1} s", counts.passed, took.as_secs_f64())?;
        }
        for skipped in self.steps.iter().flat_map(|step| &step.counts.skipped) {
            writeln!(out, "skipped: {skipped}")?;
        }
        for step in &self.steps {
            for failed in &step.counts.failed {
                writeln!(out, "failed: {}: {failed}", step.name)?;
            }
        }
        let (took, budget) = (self.start.elapsed().as_secs(), BUDGET.as_secs() / 60);
        writeln!(out, "took {} min {} s of a budget of {budget} min", took / 60, took % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_skip_is_a_failure_with_its_name() {
        let outcome = |deny| {
            let mut report = Report::new(deny);
            report.step("unit tests", || Ok(Counts { passed: 2, ..Counts::skipped("sshd: not installed") }));
            (report.to_string(), report.summarise().unwrap())
        };
        let (text, status) = outcome(false);
        assert!(text.contains("\nskipped: sshd: not installed\n"), "{text}");
        assert_eq!(status, ExitStatus::Ok);
        let (text, status) = outcome(true);
        assert!(text.contains("\nfailed: unit tests: skipped: sshd: not installed\n"), "{text}");
        assert_eq!(status, ExitStatus::Failed);
    }

    #[test]
    fn a_step_that_cannot_run_has_failed_and_no_test_is_an_error() {
        let mut report = Report::new(false);
        report.step("build", || bail!("no compiler"));
        assert!(report.to_string().contains("failed: build: no compiler"));
        assert!(report.summarise().is_err());
    }
}
