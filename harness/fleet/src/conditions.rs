//! The state a board must be in while it is measured: set, read back, restored.
//!
//! Everything goes through the board's shell, because only there `sudo -n` may be allowed for these files. A setting
//! that fails becomes a note, never silence; every measurement holds the actual state, as the runner reads it.

use std::time::{Duration, Instant};

use espalier_bench::command::shell_quote;
use espalier_inventory::Conditions;

use crate::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};

/// The board's shell, and how long a script may take.
pub struct Shell<'a> {
    pub transport: &'a mut Transport,
    pub limits: Limits,
    pub cancel: &'a Cancel,
}

impl Shell<'_> {
    fn output(&mut self, script: &str) -> Result<String, TransportError> {
        Ok(self.transport.shell(script, self.limits, self.cancel)?.stdout)
    }
}

/// The governors of a board before [`SavedGovernors::set`] changed them.
#[derive(Debug, Default)]
pub struct SavedGovernors {
    /// Files in `/sys` and their values.
    files: Vec<(String, String)>,
    /// For people: what could not be set.
    pub notes: Vec<String>,
}

const GOVERNORS: &str = r#"for f in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
    [ -r "$f" ] && echo "$f $(cat "$f")"
done
true"#;

const TEMPERATURES: &str = r#"for f in /sys/class/thermal/thermal_zone*/temp; do [ -r "$f" ] && cat "$f"; done; true"#;

/// Longest wait for a board to cool down before an invocation.
const COOL_DOWN: Duration = Duration::from_secs(300);

impl SavedGovernors {
    /// Sets the governor that the device file names. After an error too, restore the ones that were set before it.
    pub fn set(&mut self, shell: &mut Shell, conditions: &Conditions) -> Result<(), TransportError> {
        let Some(governor) = &conditions.governor else { return Ok(()) };
        self.files = governors(shell)?;
        if self.files.is_empty() {
            self.notes.push(format!("governor `{governor}` is configured, but the board has none to set"));
        }
        for (file, _) in &self.files {
            write(shell, file, governor)?;
        }
        for (file, now) in governors(shell)? {
            if now != *governor {
                self.notes.push(format!(
                    "governor `{governor}` is configured, but `{file}` stays at `{now}`: let the ssh user write it \
                     (`sudo -n tee`)"
                ));
            }
        }
        Ok(())
    }

    /// Best effort: a board that is gone cannot be restored, and is reported elsewhere.
    pub fn restore(&self, shell: &mut Shell) -> Result<(), TransportError> {
        for (file, before) in &self.files {
            write(shell, file, before)?;
        }
        Ok(())
    }
}

/// Waits until the board is at most this warm. Returns a note if it stays warmer or has no thermometer.
pub fn cool_down(shell: &mut Shell, celsius: f64) -> Result<Option<String>, TransportError> {
    let start = Instant::now();
    loop {
        let temperatures = shell.output(TEMPERATURES)?;
        let millidegrees = temperatures.lines().filter_map(|line| line.trim().parse::<f64>().ok());
        let hottest = millidegrees.reduce(f64::max).map(|hottest| hottest / 1000.0);
        match hottest {
            None => {
                return Ok(Some("a highest start temperature is configured, but the board has no thermometer".into()));
            }
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
    let lines = shell.output(GOVERNORS)?;
    Ok(lines.lines().filter_map(|line| line.split_once(' ')).map(|(file, now)| (file.into(), now.into())).collect())
}

fn write(shell: &mut Shell, file: &str, value: &str) -> Result<(), TransportError> {
    let (file, value) = (shell_quote(file), shell_quote(value));
    let script =
        format!("{{ echo {value} > {file}; }} 2>/dev/null || echo {value} | sudo -n tee {file} >/dev/null 2>&1; true");
    shell.output(&script).map(drop)
}
