//! `memory` jobs: the kernel's high-water mark of resident memory (`VmHWM`) by phase, and the program's own count.

use std::{fs, hint::black_box};

use anyhow::{Context, Result};
use espalier_protocol::{Job, Line, Memory, MemoryPhase, Stage};

use crate::{allocated, model, report::Reporter};

/// Inferences per job. Memory does not grow after these with tract.
const INFERENCES: usize = 3;

pub fn measure(reporter: &Reporter, job: &Job) -> Result<()> {
    allocated::start_counting();
    let mut phases = vec![phase("start", false)?];
    let reset = reset_high_water();
    let mut ready = model::load(reporter, job, false)?;
    phases.push(phase("load", reset)?);
    reporter.enter(Stage::Memory, INFERENCES as u64);
    let reset = reset_high_water();
    for index in 0..INFERENCES {
        black_box(ready.run(index)?);
        reporter.step();
    }
    phases.push(phase("infer", reset)?);
    let mut memory = summary(phases);
    // Writing the line may touch new pages. The line is then repeated until the kernel reports the same value
    // afterwards.
    for _ in 0..4 {
        reporter.emit(&Line::Memory(memory.clone()));
        let after = high_water()?;
        let last = memory.phases.last_mut().expect("three phases");
        if after == last.peak_rss {
            break;
        }
        last.peak_rss = after;
        memory = summary(memory.phases);
    }
    if std::env::var_os("ESPALIER_HOLD").is_some() {
        // For a test that reads `/proc/PID/status` of this process: waits for a line on stdin.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
    Ok(())
}

fn summary(phases: Vec<MemoryPhase>) -> Memory {
    let peak_rss = phases.iter().map(|phase| phase.peak_rss).max().unwrap_or(0);
    Memory { phases, peak_rss, peak_allocated: allocated::peak() }
}

fn phase(name: &str, reset: bool) -> Result<MemoryPhase> {
    Ok(MemoryPhase { name: name.into(), peak_rss: high_water()?, allocated: allocated::now(), reset })
}

/// `VmHWM` in bytes.
fn high_water() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read `/proc/self/status`")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("`/proc/self/status` has no `VmHWM`")? * 1024)
}

/// Resets the mark to what is resident now, by `5` in `clear_refs` (Linux 4.0 and later with
/// `CONFIG_PROC_PAGE_MONITOR`).
fn reset_high_water() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}
