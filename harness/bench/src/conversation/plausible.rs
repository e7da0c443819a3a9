//! Numbers that cannot be: counts against what was requested, times against this host's clock, sizes against the
//! board's own. Each bound is far from what any real board reports, so that only a broken or hostile one is refused. A
//! number inside the bounds may still be wrong; the statistics are for those.

use std::time::Duration;

use espalier_protocol::{Macs, Memory, Mode};

use super::{Requested, implausible};
use crate::record::{Failure, Measurement};

/// The shortest inference: the clock alone takes a good part of it.
const SHORTEST_NS: u64 = 100;
/// How much longer the board's clock may say that something took than this host's.
const CLOCKS_APART: f64 = 1.1;
const CLOCK_SLACK_NS: u128 = 100_000_000;
/// The longest time of a kernel that another invocation may have measured.
const LONGEST_KERNEL_NS: u64 = 3_600_000_000_000;
/// Multiply-accumulates a second that no processor reaches.
const FASTEST_MACS: f64 = 1e15;
/// The largest memory of a board that says nothing (possible) about its own: 16 TiB.
const LARGEST_MEMORY: u64 = 1 << 44;
/// The largest that a board may say it has: 1 PiB.
const LARGEST_TOTAL: u64 = 1 << 50;
const MOST_CALLS: u64 = 1_000_000_000;

/// # Errors
/// The number, and the bound it is beyond.
pub(super) fn check(measurement: &Measurement, requested: &Requested, wall: Duration) -> Result<(), Failure> {
    match requested.mode {
        Mode::Time => times(&measurement.timed_ns, requested)?,
        Mode::Score => predictions(measurement, requested)?,
        Mode::Memory | Mode::Profile => {}
    }
    durations(measurement, wall)?;
    measurement.loaded.macs.map_or(Ok(()), |macs| multiply_accumulates(macs, measurement, wall))?;
    let loaded = measurement.loaded.ratios.iter().map(|fact| fact.ratio);
    for ratio in loaded.chain(measurement.switched.iter().map(|switched| switched.ratio)) {
        ensure((0.0..=1.0).contains(&ratio), || format!("a ratio of {ratio}, and ratios are from 0 to 1"))?;
    }
    match &measurement.memory {
        Some(memory) => sizes(memory, measurement),
        None => Ok(()),
    }
}

fn times(timed_ns: &[u64], requested: &Requested) -> Result<(), Failure> {
    let (count, least) = (timed_ns.len(), requested.iterations as usize);
    ensure(count >= least, || format!("{count} times, where at least {least} were asked for"))?;
    if let Some(shortest) = timed_ns.iter().copied().min() {
        ensure(shortest >= SHORTEST_NS, || {
            format!(
                "an inference of {shortest} ns, and {SHORTEST_NS} ns is less than reading the clock and a call take"
            )
        })?;
    }
    if count > least.max(1) {
        // It goes on only while the time is not up.
        let before_last: u128 = timed_ns[..count - 1].iter().copied().map(u128::from).sum();
        ensure(before_last < u128::from(requested.min_time_ms) * 1_000_000, || {
            format!("{count} times, where {least} in at least {} ms were asked for", requested.min_time_ms)
        })?;
    }
    Ok(())
}

fn predictions(measurement: &Measurement, requested: &Requested) -> Result<(), Failure> {
    let count = measurement.predictions.as_ref().map_or(0, |predictions| predictions.values.len() as u64);
    let is_requested = requested.samples.is_empty() || requested.samples.contains(&count);
    ensure(is_requested, || format!("{count} predictions for {} samples", requested.samples[0]))
}

/// Everything that happened within the invocation, against its whole wall time.
fn durations(measurement: &Measurement, wall: Duration) -> Result<(), Failure> {
    let most = (wall.as_nanos() as f64 * CLOCKS_APART) as u128 + CLOCK_SLACK_NS;
    let check = |what: &str, ns: u128| {
        ensure(ns <= most, || format!("{what} of {ns} ns, and the whole invocation took {} ms here", wall.as_millis()))
    };
    let loaded = &measurement.loaded;
    let timed = measurement.timed_ns.iter().chain(measurement.first_ns.iter());
    let switches = measurement.switched.iter().map(|switched| &switched.ns);
    let all = timed.chain(switches).chain([&loaded.parse_ns, &loaded.optimise_ns]).copied().map(u128::from).sum();
    check("times", all)?;
    check("times by layer", measurement.profile.iter().map(|layer| u128::from(layer.median_ns)).sum())?;
    for layer in &measurement.profile {
        ensure(layer.calls <= MOST_CALLS, || {
            format!("{} calls of a layer, and {MOST_CALLS} is more than any network has", layer.calls)
        })?;
    }
    for candidate in measurement.kernels.iter().flat_map(|layer| &layer.candidates) {
        ensure(candidate.ns <= LONGEST_KERNEL_NS, || {
            format!("a kernel's time of {} ns, and an hour is {LONGEST_KERNEL_NS} ns", candidate.ns)
        })?;
    }
    let timed = measurement.timed_ns.len() as u64;
    for switched in &measurement.switched {
        ensure(switched.after <= timed, || format!("a switch after {} of {timed} inferences", switched.after))?;
    }
    Ok(())
}

/// Those of one inference: the invocation ran at least one.
fn multiply_accumulates(macs: Macs, measurement: &Measurement, wall: Duration) -> Result<(), Failure> {
    let Macs { executed, nonzero } = macs;
    ensure(nonzero <= executed, || format!("{nonzero} multiply-accumulates without zeros of {executed} in all"))?;
    let runs = measurement.predictions.as_ref().map_or(1, |predictions| predictions.values.len().max(1)) as f64;
    let most = FASTEST_MACS * (wall.as_secs_f64() + 1.0);
    ensure(executed as f64 * runs <= most, || {
        format!(
            "{executed} multiply-accumulates in an inference, {runs} of which took {} ms here: no processor does \
             {:.0e} a second",
            wall.as_millis(),
            FASTEST_MACS
        )
    })
}

fn sizes(memory: &Memory, measurement: &Measurement) -> Result<(), Failure> {
    let said = measurement.before.memory_total.filter(|total| (1..=LARGEST_TOTAL).contains(total));
    let (most, whose) = match said {
        Some(total) => (total, "the board says it has"),
        None => (LARGEST_MEMORY, "no board has more than"),
    };
    ensure(memory.peak_rss > 0, || "a peak RSS of 0 bytes, and every process has some".to_owned())?;
    let peaks = memory.phases.iter().map(|phase| phase.peak_rss).chain([memory.peak_rss]);
    for peak in peaks {
        ensure(peak <= most, || format!("a peak RSS of {peak} bytes, and {whose} {most}"))?;
    }
    let ratios = measurement.loaded.ratios.iter().filter_map(|fact| fact.bytes);
    let allocated = memory.phases.iter().map(|phase| phase.allocated).chain(ratios).chain([memory.peak_allocated]);
    for bytes in allocated {
        // More may be allocated than there is, as long as it is not used.
        ensure(bytes <= LARGEST_MEMORY, || format!("{bytes} bytes allocated, and {LARGEST_MEMORY} are too many"))?;
    }
    Ok(())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(implausible(what())) }
}
