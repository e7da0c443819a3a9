//! Times a year of nightly values: `cargo run --release -p espalier-stats --example change_points`. The limit is 50 ms.
#![expect(clippy::disallowed_macros, clippy::disallowed_types, reason = "it times and prints")]

use std::{hint::black_box, time::Instant};

use espalier_stats::ChangePoints;

fn main() {
    for (name, steps) in [("without a change", 0.0), ("a change every month", 0.03)] {
        let series = year(steps);
        for (how, settings) in [("as Otava", ChangePoints::otava()), ("nightly", ChangePoints::nightly(0.01))] {
            const TIMES: u32 = 200;
            let start = Instant::now();
            for _ in 0..TIMES {
                black_box(settings.detect(black_box(&series)).expect("the values are finite"));
            }
            let found = settings.detect(&series).expect("the values are finite");
            let firm = found.iter().filter(|point| !point.weak).count();
            let each = start.elapsed() / TIMES;
            println!("365 values {name}, {how}: {each:?}, {firm} points and {} weak ones", found.len() - firm);
        }
    }
}

/// 1 % of noise, up and down by `step` every 30 values.
fn year(step: f64) -> Vec<f64> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    (0..365).map(|day| 0.01 * normal() + if !(day / 30u32).is_multiple_of(2) { step } else { 0.0 }).collect()
}
