//! What is left to be sped up: the layers of a dense and a pruned variant by what they compute, from the profiles of the runs that have them.

use std::collections::BTreeMap;

use espalier_protocol::LayerTime;

use super::{Row, how, ms};
use crate::{markdown::escape, sheet};

/// Kinds of layers that are shown; the others are added up.
const MOST: usize = 6;

/// Empty where no run was made with `--profile`.
pub(super) fn section(rows: &[Row<'_>]) -> String {
    let profiled: Vec<&Row<'_>> =
        rows.iter().filter(|row| !row.dense.profile.is_empty() && !row.pruned.profile.is_empty()).collect();
    if profiled.is_empty() {
        return String::new();
    }
    let mut out = "\n## Where the time goes\n\n\
        By what the layers compute, dense and pruned; what stays dense is what bounds the rest. Layers are timed one by one, in a pass of their own: \
        their sum is not quite an inference's time.\n"
        .to_owned();
    for row in profiled {
        out += &format!("\n**{}**, {}\n\n", row.system.title(), how(row));
        out += "| layers | dense, ms | pruned, ms | share of pruned, % | kernels, pruned |\n| :--- | ---: | ---: | ---: | :--- |\n";
        let total: u64 = row.pruned.profile.iter().map(|layer| layer.median_ns).sum();
        let (kinds, rest) = kinds(&row.dense.profile, &row.pruned.profile);
        for (name, kind) in
            kinds.iter().map(|(name, kind)| (name.as_str(), kind)).chain(rest.iter().map(|kind| ("others", kind)))
        {
            let share = 100.0 * kind.pruned as f64 / total.max(1) as f64;
            let kernels: Vec<String> =
                kind.kernels.iter().map(|(kernel, count)| format!("{kernel} ×{count}")).collect();
            out += &format!(
                "| {} | {} | {} | {share:.0} | {} |\n",
                escape(&sheet::short(name)),
                ms(kind.dense as f64),
                ms(kind.pruned as f64),
                escape(&sheet::short(&kernels.join(", ")))
            );
        }
    }
    out
}

#[derive(Default)]
struct Kind {
    dense: u64,
    pruned: u64,
    /// Of the pruned variant, with the number of layers.
    kernels: BTreeMap<String, u64>,
}

/// The largest of the pruned variant first.
fn kinds(dense: &[LayerTime], pruned: &[LayerTime]) -> (Vec<(String, Kind)>, Option<Kind>) {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for layer in dense {
        kinds.entry(layer.op.clone()).or_default().dense += layer.median_ns;
    }
    for layer in pruned {
        let kind = kinds.entry(layer.op.clone()).or_default();
        kind.pruned += layer.median_ns;
        *kind.kernels.entry(layer.kernel.clone()).or_default() += 1;
    }
    let mut kinds: Vec<(String, Kind)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.pruned));
    let rest = kinds.split_off(MOST.min(kinds.len()));
    let rest = rest.into_iter().map(|(_, kind)| kind).reduce(|mut sum, kind| {
        sum.dense += kind.dense;
        sum.pruned += kind.pruned;
        sum.kernels.clear();
        sum
    });
    (kinds, rest)
}
