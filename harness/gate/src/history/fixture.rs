//! Synthetic entries for tests: one commit an entry, one entry a day.

use super::{Acknowledged, Change, HistoryEntry, Subject};
use crate::{Criterion, Verdict};
use espalier_bench::record::Case;

pub fn case() -> Case {
    Case::new("digits-cnn", 0.5, "pi4")
}

/// The `number`th entry of 2026, from 0.
pub fn entry(number: u32, log_ratio: f64, anchor_ns: f64) -> HistoryEntry {
    const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (mut month, mut day) = (0, number);
    while day >= LENGTHS[month] {
        day -= LENGTHS[month];
        month += 1;
    }
    HistoryEntry {
        gate: format!("g{number}"),
        time: format!("2026-{:02}-{:02}T02:00:00Z", month + 1, day + 1),
        commit: Some(format!("c{number:05}")),
        baseline: "release-1.4".into(),
        case: case(),
        criterion: Criterion::P50,
        log_ratio,
        se: 0.003,
        pairs: 24,
        anchor_ns,
        anchor_se: 0.002,
        verdict: Verdict::Pass,
        tags: Vec::new(),
    }
}

pub fn file(entries: &[HistoryEntry]) -> String {
    entries.iter().map(|entry| entry.to_line().unwrap()).collect()
}

pub fn change(commit: &str, state: Acknowledged) -> Change {
    Change {
        case: case(),
        criterion: Criterion::P50,
        subject: Subject::Code,
        commit: commit.into(),
        gate: None,
        state,
        by: "Jana".into(),
        reason: "as decided".into(),
        date: "2026-11-23".into(),
    }
}

/// Noise of a standard deviation of 1, the same every time for a seed.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

/// Entries with 0.3 % of noise in the ratio and 0.2 % in the anchor of 10 ms; `code` and `device` are levels by entry,
/// as logarithms.
pub fn entries(count: u32, seed: u64, code: impl Fn(u32) -> f64, device: impl Fn(u32) -> f64) -> Vec<HistoryEntry> {
    let mut noise = Noise(seed);
    let one = |number| {
        entry(number, code(number) + 0.003 * noise.next(), 1e7 * (device(number) + 0.002 * noise.next()).exp())
    };
    (0..count).map(one).collect()
}
