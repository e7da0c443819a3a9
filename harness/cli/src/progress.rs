//! Progress on stderr: bars on a terminal, a line at each milestone in logs.

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use anyhow::Result;
use espalier_fleet::cancel::Cancel;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    program::Program,
    terminal::{clean, note},
};

#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    quiet: bool,
}

/// One activity: a build, a push, a device's jobs.
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

    /// A bar where the number of steps is known, else a spinner.
    pub fn task(&self, name: &str, steps: Option<u64>) -> Task {
        let bar = self.bars.as_ref().map(|bars| {
            let (bar, template) = match steps {
                Some(steps) => (ProgressBar::new(steps), "{prefix:>20} [{bar:28}] {pos}/{len} {elapsed} {wide_msg}"),
                None => (ProgressBar::new_spinner(), "{prefix:>20} {spinner} {elapsed} {wide_msg}"),
            };
            // Before it draws anything: a bar of its own would leave its first frame on the screen.
            let bar = bars.add(bar);
            bar.set_style(
                ProgressStyle::with_template(template).expect("the templates are constant").progress_chars("=> "),
            );
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Task { bar, name: name.to_owned(), quiet: self.quiet }
    }

    /// A permanent line.
    pub fn emit(&self, text: &str) {
        let text = Program::current().text(text);
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(clean(&text));
            }
            None if self.quiet => {}
            None => note(format_args!("{text}")),
        }
    }
}

impl Task {
    /// The current step, on a terminal only.
    pub fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(clean(text).replace('\n', " "));
        }
    }

    /// The current step, with a line in logs.
    pub fn milestone(&self, text: &str) {
        let text = Program::current().text(text);
        match &self.bar {
            Some(bar) => bar.set_message(clean(&text).replace('\n', " ")),
            None if self.quiet => {}
            None => note(format_args!("{}: {text}", self.name)),
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

/// The first Ctrl-C (or SIGTERM, which CI sends, or SIGHUP, when the terminal closes) stops after the current work, a
/// second one at once. There is one for the program, so that a command with several parts stops as one. Under `nohup`
/// SIGHUP stays ignored.
pub fn stop_on_signal(progress: &Progress) -> Result<Cancel> {
    static CANCEL: OnceLock<Cancel> = OnceLock::new();
    if let Some(cancel) = CANCEL.get() {
        return Ok(cancel.clone());
    }
    let cancel = CANCEL.get_or_init(Cancel::default).clone();
    let (requested, progress) = (cancel.clone(), progress.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut hang_up) = {
        let _entered = runtime.enter();
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        (signal(SignalKind::terminate())?, hang_up)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                    _ = async { hang_up.as_mut()?.recv().await }, if hang_up.is_some() => {}
                }
                if requested.is_requested() {
                    std::process::exit(130);
                }
                requested.request();
                progress.emit("stopping tidily: running jobs end, results are kept (Ctrl-C again stops at once)");
            }
        });
    });
    Ok(cancel)
}

/// Whether this process was started to ignore SIGHUP, the first of the signals in the mask.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
