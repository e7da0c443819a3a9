//! A gate on devices: is a candidate worse than its baseline?
//!
//! The candidate is the current state: its runner is built, its variants are pruned. The baseline comes out of the
//! store by hash. What is compared and judged is decided in `espalier_gate`.

mod arms;
mod controls;
mod drill;
mod measure;
mod replay;
mod request;
mod results;

use anyhow::Result;
use clap::{Args, builder::PossibleValuesParser};
use espalier_gate::profile::Profile;

pub use self::{
    arms::{calibration_file, read_calibration},
    controls::{Controls, read_controls},
    drill::Drill,
    measure::seed,
    replay::replay,
    request::Request,
    results::{Exports, judge_again, today},
};
use crate::context::usage;

/// How strictly to judge.
#[derive(Args, Clone)]
pub struct Strictness {
    /// nightly, release, or coarse for pull requests
    #[arg(
        long,
        default_value = "nightly",
        value_parser = PossibleValuesParser::new(Profile::ALL.map(|profile| profile.name))
    )]
    pub profile: String,
}

impl Strictness {
    /// # Errors
    /// An unknown name, which clap has refused already.
    pub fn profile(&self) -> Result<Profile> {
        Profile::named(&self.profile).ok_or_else(|| usage(format!("`{}` is no profile", self.profile)))
    }
}
