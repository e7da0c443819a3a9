//! Progress on stderr: bars on a terminal, a line at each milestone elsewhere (a log of a nightly job is read by people too).

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use anyhow::Result;
use espalier_fleet::cancel::Cancel;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    quiet: bool,
}

/// One thing that goes on: a build, a push, a device's jobs.
pub struct Task {
    bar: Option<ProgressBar>,
    name: String,
    quiet: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Progress { bars, quiet }
    }

    /// `steps` known beforehand give a bar, none a spinner.
    pub fn task(&self, name: &str, steps: Option<u64>) -> Task {
        let bar = self.bars.as_ref().map(|bars| {
            let (bar, template) = match steps {
                Some(steps) => (ProgressBar::new(steps), "{prefix:>20} [{bar:28}] {pos}/{len} {elapsed} {wide_msg}"),
                None => (ProgressBar::new_spinner(), "{prefix:>20} {spinner} {elapsed} {wide_msg}"),
            };
            bar.set_style(
                ProgressStyle::with_template(template).expect("the templates are constant").progress_chars("=> "),
            );
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bars.add(bar)
        });
        Task { bar, name: name.to_owned(), quiet: self.quiet }
    }

    /// A line that stays.
    pub fn emit(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None if self.quiet => {}
            None => eprintln!("{text}"),
        }
    }
}

impl Task {
    /// What is being done now. Only on a terminal: elsewhere it would be a flood.
    pub fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// What is being done now, worth a line of a log.
    pub fn milestone(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.quiet => {}
            None => eprintln!("{}: {text}", self.name),
        }
    }

    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The first Ctrl-C (or SIGTERM, as a job's runner sends it) stops tidily, a second one at once. One for the whole program: a command that is made of
/// others is stopped as one.
pub fn stop_on_signal(progress: &Progress) -> Result<Cancel> {
    static CANCEL: OnceLock<Cancel> = OnceLock::new();
    if let Some(cancel) = CANCEL.get() {
        return Ok(cancel.clone());
    }
    let cancel = CANCEL.get_or_init(Cancel::default).clone();
    let (asked, progress) = (cancel.clone(), progress.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                if asked.is_requested() {
                    std::process::exit(130);
                }
                asked.request();
                progress
                    .emit("stopping tidily: what was begun is ended, what was done is kept (Ctrl-C again: at once)");
            }
        });
    });
    Ok(cancel)
}
