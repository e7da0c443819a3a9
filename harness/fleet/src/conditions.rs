//! The state a board must be in while it is measured: set, read back, put back.
//!
//! Everything goes through the board's shell, because only there `sudo -n` may be allowed for these files. What cannot be set is told, never ignored;
//! what it really was stands in every measurement, as the runner read it.

use std::time::{Duration, Instant};

use espalier_inventory::Conditions;

use crate::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};

/// The way to the board these functions go: its shell, and how long it may take.
pub struct Shell<'a> {
    pub transport: &'a mut Transport,
    pub limits: Limits,
    pub cancel: &'a Cancel,
}

impl Shell<'_> {
    fn ask(&mut self, script: &str) -> Result<String, TransportError> {
        Ok(self.transport.shell(script, self.limits, self.cancel)?.stdout)
    }
}

/// How a board was found; [`Found::restore`] puts it back.
#[derive(Debug, Default)]
pub struct Found {
    /// Governor files and what they said.
    governors: Vec<(String, String)>,
    /// What could not be set, in words.
    pub notes: Vec<String>,
}

const LIST: &str = r#"for f in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do [ -r "$f" ] && echo "$f $(cat "$f")"; done; true"#;

const HOTTEST: &str = r#"for f in /sys/class/thermal/thermal_zone*/temp; do [ -r "$f" ] && cat "$f"; done; true"#;

/// Longest wait for a board to cool down before an invocation.
const COOL_DOWN: Duration = Duration::from_secs(300);

impl Found {
    /// Sets what is wanted. After an error, too, what was set before it is to be put back.
    pub fn prepare(&mut self, shell: &mut Shell, wanted: &Conditions) -> Result<(), TransportError> {
        let Some(governor) = &wanted.governor else { return Ok(()) };
        self.governors = governors(shell)?;
        if self.governors.is_empty() {
            self.notes.push(format!("governor `{governor}` was asked for, but the board has none to set"));
        }
        for (file, _) in &self.governors {
            write(shell, file, governor)?;
        }
        for (file, now) in governors(shell)? {
            if now != *governor {
                self.notes.push(format!(
                    "governor `{governor}` was asked for, but `{file}` stays at `{now}`: let the ssh user write it (`sudo -n tee`)"
                ));
            }
        }
        Ok(())
    }

    /// Best effort: a board that is gone cannot be put back, and says so elsewhere.
    pub fn restore(&self, shell: &mut Shell) -> Result<(), TransportError> {
        for (file, before) in &self.governors {
            write(shell, file, before)?;
        }
        Ok(())
    }
}

/// Waits until the board is at most this warm. Returns a note if it stayed warmer or does not tell.
pub fn cool_down(shell: &mut Shell, celsius: f64) -> Result<Option<String>, TransportError> {
    let start = Instant::now();
    loop {
        let told = shell.ask(HOTTEST)?;
        let hottest = told
            .lines()
            .filter_map(|line| line.trim().parse::<f64>().ok())
            .fold(None, |hottest, now| Some(hottest.map_or(now / 1000.0, |before: f64| before.max(now / 1000.0))));
        match hottest {
            None => return Ok(Some("a highest start temperature was asked for, but the board tells none".into())),
            Some(now) if now <= celsius => return Ok(None),
            Some(now) if start.elapsed() > COOL_DOWN => {
                return Ok(Some(format!(
                    "started at {now:.1} °C: it did not cool down to {celsius:.1} °C within {} s",
                    COOL_DOWN.as_secs()
                )));
            }
            Some(_) if shell.cancel.is_requested() => return Err(TransportError::Cancelled),
            Some(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn governors(shell: &mut Shell) -> Result<Vec<(String, String)>, TransportError> {
    let told = shell.ask(LIST)?;
    Ok(told.lines().filter_map(|line| line.split_once(' ')).map(|(file, now)| (file.into(), now.into())).collect())
}

fn write(shell: &mut Shell, file: &str, value: &str) -> Result<(), TransportError> {
    let (file, value) = (espalier_bench::command::shell_quote(file), espalier_bench::command::shell_quote(value));
    let script =
        format!("{{ echo {value} > {file}; }} 2>/dev/null || echo {value} | sudo -n tee {file} >/dev/null 2>&1; true");
    shell.ask(&script).map(drop)
}
