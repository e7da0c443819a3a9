//! Estimators for times and for paired right-or-wrong answers. Pure: numbers in, numbers out.
//!
//! The unit of a statement about time is the *invocation*: single inferences of one process are not independent.
//! So intervals come from the spread between invocations, on the logarithm of each invocation's time.
//! What cannot be estimated is an [`Unfit`], never a zero.

mod autocorrelation;
mod change_points;
mod cusum;
mod interval;
mod jackknife;
mod levels;
mod many;
mod mcnemar;
mod proportion;
mod quantile;
mod ratio;
mod separation;
mod sequential;
mod signed_rank;
mod spending;
mod states;
mod steady;
mod student;
mod trend;
mod unfit;

#[cfg(test)]
mod noise;

pub use autocorrelation::autocorrelation;
pub use change_points::{ChangePoint, ChangePoints, Level};
pub use cusum::{Cusum, CusumStep};
pub use interval::{Interval, log_sd, mean, sd, t_interval};
pub use jackknife::{MetricDrop, metric_drop};
pub use levels::{Levels, variance_levels};
pub use many::{Pooled, benjamini_hochberg, pooled, sign_test};
pub use mcnemar::{mcnemar_one_sided, mcnemar_two_sided};
pub use proportion::{PairedDrop, paired_drop};
pub use quantile::{clustered_quantile, median, quantile_interval, quantile_of_sorted, quantile_r8, sorted};
pub use ratio::{geometric_mean, geometric_mean_interval, paired_ratio};
pub use separation::{Separation, Tolerance, separation, separation_chance};
pub use sequential::{Design, Look, Margins, Outcome};
pub use signed_rank::hodges_lehmann;
pub use states::{States, fisher_exact, two_states};
pub use steady::{BatchDrift, batch_drift, steady_from};
pub use student::t_p_value;
pub use trend::{Step, Trend, mann_kendall, pettitt};
pub use unfit::Unfit;
