//! How long the statistics of a gate take: 1000 sessions that go to their last look of 32 blocks. `cargo run --release
//! -p espalier-bench --example judging`.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a benchmark needs a clock, and prints what it says"
)]

use std::{error::Error, time::Instant};

use espalier_gate::{
    Criterion,
    judge::{Block, LatencyJudge},
    profile::{Profile, Terms},
    simulate,
};

const SESSIONS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let judge = LatencyJudge::new(&Profile::NIGHTLY, Criterion::P50, Terms::ALONE).ok_or("no latency")?;
    let blocks = Profile::NIGHTLY.most_blocks();
    let mut sessions: Vec<Vec<Block>> = Vec::new();
    // Between the margins many sessions stay open to the end.
    for seed in 0.. {
        let session = simulate::session(seed, 0.02, blocks).blocks();
        if judge.judge_all(&session)?.blocks_used == blocks {
            sessions.push(session);
        }
        if sessions.len() == SESSIONS {
            break;
        }
    }
    let start = Instant::now();
    for session in &sessions {
        judge.judge_all(session)?;
    }
    println!("{SESSIONS} sessions of {blocks} blocks: {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}
