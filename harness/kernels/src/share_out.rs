//! Output shared out among threads.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use crate::threads::Threads;

/// Calls `work` with ranges of the units that `output` consists of, each of `unit` values but perhaps the last, and the part of the output that is theirs:
/// all at once for one thread, else so many ranges that all threads have something to do until the end.
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
        let range = units * task / tasks..units * (task + 1) / tasks;
        let (part, others) = rest.split_at_mut((range.len() * unit).min(rest.len()));
        parts.push((range, Mutex::new(part)));
        rest = others;
    }
    threads.run(tasks, &|task| {
        let (range, part) = &parts[task];
        work(range.clone(), &mut part.lock().unwrap_or_else(PoisonError::into_inner));
    });
}
