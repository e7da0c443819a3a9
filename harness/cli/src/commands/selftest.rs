//! `selftest`: whether Espalier keeps its own promises.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Comparison, Criterion, Role, Verdict,
    judge::LatencyJudge,
    outcome,
    profile::{Profile, Terms},
    random::splitmix,
    simulate::{self, Goal, GoalUnit, Limit, SessionTally},
};

use crate::{
    context::{Context, usage},
    gating::{Controls, Drill, Strictness},
    progress::{Progress, stop_on_signal},
    selection::Selection,
    terminal::say,
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

/// A gate on a real device whose outcomes are known beforehand. Ok only where each is as expected.
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
    let mut comparisons: Vec<Comparison> = Vec::new();
    drill.run(&context, &progress, &cancel, &mut |number, results| {
        comparisons.extend(results.comparisons.iter().cloned());
        results.comparisons.iter().try_for_each(|comparison| print_control(number, comparison))
    })?;
    for role in [Role::NegativeControl, Role::PositiveControl] {
        let of_role: Vec<&Comparison> = comparisons.iter().filter(|comparison| comparison.role == role).collect();
        if of_role.is_empty() {
            continue;
        }
        let count = |verdict: Verdict| of_role.iter().filter(|comparison| comparison.verdict == verdict).count();
        let [pass, regressed, open] = [Verdict::Pass, Verdict::Regressed, Verdict::Inconclusive].map(count);
        let blocks: Vec<f64> = of_role
            .iter()
            .filter_map(|comparison| comparison.finding.effect())
            .map(|effect| effect.blocks as f64)
            .collect();
        let what = match role {
            Role::NegativeControl => "against itself".to_owned(),
            _ => format!("against itself made slower by {} %", flags.slow_down),
        };
        let mean = blocks.iter().sum::<f64>() / blocks.len().max(1) as f64;
        say(format_args!("{what}: {pass} pass, {regressed} regressed, {open} inconclusive; {mean:.1} blocks a gate"))?;
    }
    let wrong = comparisons.iter().any(|comparison| outcome::alarm(comparison).is_some());
    Ok(if cancel.is_requested() || wrong || comparisons.is_empty() { ExitStatus::Failed } else { ExitStatus::Ok })
}

fn print_control(number: usize, comparison: &Comparison) -> Result<()> {
    let Comparison { criterion, role, verdict, finding, reason, tags, .. } = comparison;
    let numbers = finding.effect().map_or_else(String::new, |effect| {
        let [ratio, low, high] = [effect.ratio, effect.low, effect.high].map(|ratio| (ratio - 1.0) * 100.0);
        let (blocks, pair_sd) = (effect.blocks, effect.pair_sd * 100.0);
        format!("{ratio:+.2} % [{low:+.2}, {high:+.2}], {blocks} blocks, pairs spread by {pair_sd:.2} %")
    });
    let control = if *role == Role::NegativeControl { "itself" } else { "itself, slowed" };
    let (number, criterion, verdict) = (number + 1, criterion.name(), verdict.name());
    say(format_args!("{number:>3} {control:<14} {criterion:<8} {verdict:<13} {numbers}; {reason}"))?;
    tags.iter().try_for_each(|tag| say(format_args!("    {tag}")))?;
    if let Some(alarm) = outcome::alarm(comparison) {
        say(format_args!("    ALARM: {alarm}"))?;
    }
    Ok(())
}

/// `sessions` of each effect. Ok only where every goal is met.
fn simulate(profile: Profile, sessions: usize, seed: u64) -> Result<ExitStatus> {
    let latency = LatencyJudge::new(&profile, Criterion::P50, Terms::ALONE).ok_or_else(|| usage("no latency"))?;
    let (mut tallies, mut judging, mut seed) = (Vec::new(), Duration::ZERO, seed);
    for effect in simulate::effects(&profile) {
        let mut tally = SessionTally::of(effect);
        for _ in 0..sessions {
            let session = simulate::session(splitmix(&mut seed), effect, profile.most_blocks());
            let blocks = session.blocks();
            let started = Instant::now();
            let decision = latency.judge_all(&blocks)?;
            judging += started.elapsed();
            tally.add(&decision);
        }
        tallies.push(tally);
    }

    say(format_args!("profile {}, {sessions} simulated sessions of each effect", profile.name))?;
    let [low, middle, high] = [0.1, 0.5, 0.9].map(|q| tallies[0].pair_sd(q).unwrap_or(f64::NAN) * 100.0);
    say(format_args!("boards: pairs spread by {low:.1} / {middle:.1} / {high:.1} % (10, 50, 90 of 100 boards)"))?;
    say(format_args!(
        "{:>8} {:>8} {:>10} {:>14} {:>12}",
        "effect", "pass", "regressed", "inconclusive", "mean blocks"
    ))?;
    for tally in &tallies {
        let (pass, regressed) = (tally.pass_share() * 100.0, tally.regressed_share() * 100.0);
        let (effect, neither) = (tally.effect * 100.0, (100.0 - pass - regressed).max(0.0));
        say(format_args!(
            "{effect:>+7.0}% {pass:>7.1}% {regressed:>9.1}% {neither:>13.1}% {:>12.1}",
            tally.mean_blocks()
        ))?;
    }
    say("")?;
    let goals = simulate::goals(&profile, &tallies);
    goals.iter().try_for_each(print_goal)?;
    let count = tallies.iter().map(|tally| tally.sessions).sum::<usize>();
    let (seconds, blocks) = (judging.as_secs_f64(), profile.most_blocks());
    say(format_args!("statistics: {seconds:.2} s for {count} sessions of up to {blocks} blocks"))?;
    Ok(if goals.iter().all(Goal::is_met) { ExitStatus::Ok } else { ExitStatus::Failed })
}

fn print_goal(goal: &Goal) -> Result<()> {
    let number = |value: f64| match goal.unit {
        GoalUnit::Share => format!("{:.2} %", value * 100.0),
        GoalUnit::Blocks => format!("{value:.1} blocks"),
    };
    let limit = match goal.limit {
        Limit::AtMost(limit) => format!("at most {}", number(limit)),
        Limit::AtLeast(limit) => format!("at least {}", number(limit)),
    };
    let met = if goal.is_met() { "ok" } else { "MISSED" };
    say(format_args!("{:<24} {:>12}   {limit:<20} {met}", goal.name, number(goal.value)))
}
