//! Work shared out among threads.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use crate::threads::Threads;

/// The `index`-th of `parts` parts of `0..count`, all of about the same length.
pub(crate) fn part(count: usize, index: usize, parts: usize) -> Range<usize> {
    count * index / parts..count * (index + 1) / parts
}

/// Calls `work` with ranges that together are `0..count`: one range for one thread, else some more ranges than threads,
/// so that no thread waits long for another.
pub(crate) fn in_parts(threads: &Threads, count: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
    let tasks = if threads.count() == 1 { 1 } else { count.clamp(1, 4 * threads.count()) };
    threads.run(tasks, &|task| work(part(count, task, tasks)));
}

/// As [`in_parts`], with the units of `unit` values that `output` consists of (the last may be shorter): `work` also
/// gets the part of the output that belongs to its range.
pub(crate) fn share_out(
    threads: &Threads,
    output: &mut [f32],
    unit: usize,
    work: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
) {
    let units = output.len().div_ceil(unit.max(1));
    if threads.count() == 1 || units < 2 {
        return work(0..units, output);
    }
    let tasks = (4 * threads.count()).min(units);
    let mut parts = Vec::with_capacity(tasks);
    let mut rest = output;
    for task in 0..tasks {
        let range = part(units, task, tasks);
        let (own, others) = rest.split_at_mut((range.len() * unit).min(rest.len()));
        parts.push((range, Mutex::new(own)));
        rest = others;
    }
    threads.run(tasks, &|task| {
        let (range, own) = &parts[task];
        work(range.clone(), &mut own.lock().unwrap_or_else(PoisonError::into_inner));
    });
}
