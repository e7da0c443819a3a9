//! `selftest`: whether Espalier's own promises hold.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Comparison, Criterion, Role, Verdict,
    judge::LatencyJudge,
    outcome,
    profile::{Profile, Terms},
    session,
    simulate::{self, Goal, Tally, Unit, Wanted},
};

use crate::{
    context::{Context, usage},
    gating::{Controls, Drill, Strictness},
    progress::{Progress, stop_on_signal},
    selection::Selection,
};

#[derive(Subcommand)]
pub enum Test {
    /// How often the gate is wrong
    Gate(GateFlags),
}

#[derive(Args)]
pub struct GateFlags {
    /// Judge N simulated sessions of each true effect, and print the figures promised beside the ones found
    #[arg(long, value_name = "N", conflicts_with_all = ["device", "model"])]
    simulate: Option<usize>,
    /// Run the controls on a device: what is here now against itself, and against itself made slower
    #[arg(short, long, value_name = "NAME", required_unless_present = "simulate")]
    device: Option<String>,
    /// The model whose dense variant is run [default: the first in models/]
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
    /// How much slower the second arm of the positive control is made, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    slow_down: f64,
    /// Gates of each control, each with sessions of its own
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "simulate")]
    repeat: usize,
    /// Only one of the two controls
    #[arg(long, value_enum, conflicts_with = "simulate")]
    only: Option<Which>,
    /// Judge an emulated device too
    #[arg(long)]
    emulated: bool,
    #[command(flatten)]
    strictness: Strictness,
    /// Same seed, same sessions; on a device, the same orders
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Negative,
    Positive,
}

pub fn run(test: Test) -> Result<ExitStatus> {
    let Test::Gate(flags) = test;
    match flags.simulate {
        Some(sessions) => simulate(flags.strictness.profile()?, sessions, flags.seed),
        None => on_device(&flags),
    }
}

/// The whole path on a real device, with outcomes that are known beforehand. Ok only where each came out so.
fn on_device(flags: &GateFlags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let controls = Controls {
        negative: flags.only != Some(Which::Positive),
        positive: (flags.only != Some(Which::Negative)).then_some(flags.slow_down),
        devices: None,
    };
    let device = flags.device.clone().into_iter().collect();
    let selection = Selection { device, all_devices: false, model: flags.model.clone().into_iter().collect() };
    let drill = Drill {
        profile: flags.strictness.profile()?,
        selection,
        controls,
        emulated: flags.emulated,
        seed: flags.seed,
        repeat: flags.repeat,
    };
    let mut wrong = 0;
    let mut tally: Vec<(Role, Verdict)> = Vec::new();
    let mut blocks = Vec::new();
    drill.carry_out(&context, &progress, &cancel, &mut |number, results| {
        for comparison in &results.comparisons {
            let Comparison { role, verdict, reason, .. } = comparison;
            let alarm = outcome::alarm(comparison);
            wrong += usize::from(alarm.is_some());
            tally.push((*role, *verdict));
            blocks.extend(session::effect(comparison).map(|effect| (*role, effect.blocks)));
            let numbers = session::effect(comparison).map_or_else(String::new, |effect| {
                let percent = |ratio: f64| (ratio - 1.0) * 100.0;
                format!(
                    "{:+.2} % [{:+.2}, {:+.2}], {} blocks, pairs spread by {:.2} %",
                    percent(effect.ratio),
                    percent(effect.low),
                    percent(effect.high),
                    effect.blocks,
                    effect.pair_sd * 100.0
                )
            });
            let control = if *role == Role::NegativeControl { "itself" } else { "itself, slowed" };
            let criterion = comparison.criterion.name();
            println!("{:>3} {control:<14} {criterion:<8} {:<13} {numbers}; {reason}", number + 1, verdict.name());
            for tag in &comparison.tags {
                println!("    {tag}");
            }
            if let Some(alarm) = alarm {
                println!("    ALARM: {alarm}");
            }
        }
        Ok(())
    })?;
    for role in [Role::NegativeControl, Role::PositiveControl] {
        let count = |wanted: Verdict| tally.iter().filter(|(of, verdict)| (*of, *verdict) == (role, wanted)).count();
        let [pass, regressed, open] = [Verdict::Pass, Verdict::Regressed, Verdict::Inconclusive].map(count);
        let used: Vec<f64> = blocks.iter().filter(|(of, _)| *of == role).map(|(_, blocks)| *blocks as f64).collect();
        if pass + regressed + open > 0 {
            let what = match role {
                Role::NegativeControl => "against itself".to_owned(),
                _ => format!("against itself made slower by {} %", flags.slow_down),
            };
            let mean = used.iter().sum::<f64>() / used.len().max(1) as f64;
            println!("{what}: {pass} pass, {regressed} regressed, {open} inconclusive; {mean:.1} blocks a gate");
        }
    }
    Ok(if cancel.is_requested() || wrong > 0 || tally.is_empty() { ExitStatus::Failed } else { ExitStatus::Ok })
}

/// `sessions` of each effect. Ok only where every goal is met.
fn simulate(profile: Profile, sessions: usize, seed: u64) -> Result<ExitStatus> {
    let latency = LatencyJudge::new(&profile, Criterion::P50, Terms::ALONE).ok_or_else(|| usage("no latency"))?;
    let (mut tallies, mut judging, mut seed) = (Vec::new(), Duration::ZERO, seed);
    for effect in simulate::effects(&profile) {
        let mut tally = Tally::of(effect);
        for _ in 0..sessions {
            let session = simulate::session(simulate::splitmix(&mut seed), effect, profile.most_blocks());
            let blocks = session.blocks();
            let started = Instant::now();
            let decision = latency.judge_all(&blocks)?;
            judging += started.elapsed();
            tally.add(&decision);
        }
        tallies.push(tally);
    }

    println!("profile {}, {sessions} simulated sessions of each effect", profile.name);
    let spread = |q| tallies[0].pair_sd(q).unwrap_or(f64::NAN) * 100.0;
    println!(
        "boards: pairs spread by {:.1} / {:.1} / {:.1} % (10, 50, 90 of 100 boards)",
        spread(0.1),
        spread(0.5),
        spread(0.9)
    );
    println!("{:>8} {:>8} {:>8} {:>14} {:>12}", "effect", "PASS", "FAIL", "INCONCLUSIVE", "mean blocks");
    for tally in &tallies {
        let (pass, fail) = (tally.pass_share() * 100.0, tally.fail_share() * 100.0);
        let (effect, neither) = (tally.effect * 100.0, (100.0 - pass - fail).max(0.0));
        println!("{effect:>+7.0}% {pass:>7.1}% {fail:>7.1}% {neither:>13.1}% {:>12.1}", tally.mean_blocks());
    }
    println!();
    let goals = simulate::goals(&profile, &tallies);
    for goal in &goals {
        println!("{}", told(goal));
    }
    let count = tallies.iter().map(|tally| tally.sessions).sum::<usize>();
    println!(
        "statistics: {:.2} s for {count} sessions of up to {} blocks",
        judging.as_secs_f64(),
        profile.most_blocks()
    );
    Ok(if goals.iter().all(Goal::is_met) { ExitStatus::Ok } else { ExitStatus::Failed })
}

fn told(goal: &Goal) -> String {
    let number = |value: f64| match goal.unit {
        Unit::Share => format!("{:.2} %", value * 100.0),
        Unit::Blocks => format!("{value:.1} blocks"),
    };
    let wanted = match goal.wanted {
        Wanted::AtMost(limit) => format!("at most {}", number(limit)),
        Wanted::AtLeast(limit) => format!("at least {}", number(limit)),
    };
    let met = if goal.is_met() { "ok" } else { "MISSED" };
    format!("{:<24} {:>12}   {wanted:<20} {met}", goal.what, number(goal.got))
}
