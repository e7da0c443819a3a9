//! Comparisons whose outcome is known beforehand, and the file that remembers them.

use anyhow::Result;
use espalier_gate::{
    Comparison, Role,
    controls::{self, Control},
    file::GateHeader,
    session::{ArmPlan, CasePlan},
};
use espalier_protocol::Job;

use crate::{
    context::{Context, usage},
    run_file,
};

/// From the repository's root.
const FILE: &str = "reports/controls.jsonl";

#[derive(Clone, Debug, Default)]
pub struct Controls {
    /// The baseline against itself.
    pub negative: bool,
    /// The candidate against itself made slower by so many per cent.
    pub positive: Option<f64>,
    /// The devices the positive one is for; `None`: all.
    pub devices: Option<Vec<String>>,
}

impl Controls {
    /// Made of the first case, so that no other files are needed on the board. The candidate's program is in both arms
    /// of the slowed one, because a baseline's may be too old to be slowed.
    pub fn cases(&self, like: &CasePlan) -> Vec<CasePlan> {
        let only_latency = |role: Role, arms: [ArmPlan; 2]| CasePlan {
            role,
            arms,
            criteria: like.criteria.iter().copied().filter(|of| of.quantile().is_some()).take(1).collect(),
            ..like.clone()
        };
        let plain = |arm: &ArmPlan| ArmPlan { slow_down_percent: None, ..arm.clone() };
        let negative = self.negative.then(|| {
            let base = plain(&like.arms[0]);
            only_latency(Role::NegativeControl, [base.clone(), base])
        });
        let is_due = self.devices.as_ref().is_none_or(|devices| devices.contains(&like.case.device));
        let positive = self.positive.filter(|_| is_due).map(|percent| {
            let candidate = plain(&like.arms[1]);
            let slow = ArmPlan { slow_down_percent: Some(percent), ..candidate.clone() };
            only_latency(Role::PositiveControl, [candidate, slow])
        });
        negative.into_iter().chain(positive).collect()
    }
}

/// # Errors
/// No runner can be made slower by so much.
pub fn check_slow_down(percent: f64) -> Result<()> {
    if percent > 0.0 && percent <= Job::MOST_SLOW_DOWN {
        return Ok(());
    }
    Err(usage(format!("a slow-down of {percent} %: more than 0 and at most {} are possible", Job::MOST_SLOW_DOWN)))
}

/// Adds a gate's controls to their own file: whether the gate can be believed shows over many gates.
pub fn append(context: &Context, header: &GateHeader, comparisons: &[Comparison]) -> Result<()> {
    let day = &header.started[..header.started.len().min(10)];
    let controls = comparisons.iter().filter_map(|comparison| Control::of(&header.id, day, comparison));
    let lines: String = controls.map(|control| control.to_line()).collect();
    run_file::append(&context.root.join(FILE), &lines)
}

/// The controls of all gates so far.
pub fn read_controls(context: &Context) -> Result<Vec<Control>> {
    let text = context.source(FILE)?.map(|source| source.text).unwrap_or_default();
    controls::parse(&text).map_err(|error| usage(format!("`{FILE}` cannot be used: {error}")))
}
