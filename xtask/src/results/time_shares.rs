//! Where the time goes: the layers of a dense and a pruned variant, grouped by operator, from runs with `--profile`.

use std::collections::BTreeMap;

use espalier_bench::{markdown::escape, sheet};
use espalier_protocol::LayerTime;

use super::rows::{Row, how, ms};

/// Operators with a row of their own; the others share one.
const MOST: usize = 6;

/// Empty where no run was made with `--profile`.
pub fn section(rows: &[Row<'_>]) -> String {
    let profiled: Vec<&Row<'_>> =
        rows.iter().filter(|row| !row.dense.profile.is_empty() && !row.pruned.profile.is_empty()).collect();
    if profiled.is_empty() {
        return String::new();
    }
    let mut out = "\n## Where the time goes\n\n\
        Layers by what they compute, dense and pruned; what stays dense bounds the rest. Layers are timed one by one \
        in \
        a separate pass: their sum differs a little from an inference's time.\n"
        .to_owned();
    for row in profiled {
        out += &format!("\n**{}**, {}\n\n", row.title, how(row));
        out += "| layers | dense, ms | pruned, ms | share of pruned, % | kernels, pruned |\n\
                | :--- | ---: | ---: | ---: | :--- |\n";
        let total: u64 = row.pruned.profile.iter().map(|layer| layer.median_ns).sum();
        for (name, sums) in sums_by_op(&row.dense.profile, &row.pruned.profile) {
            let share = 100.0 * sums.pruned as f64 / total.max(1) as f64;
            let kernels: Vec<String> =
                sums.kernels.iter().map(|(kernel, count)| format!("{kernel} ×{count}")).collect();
            out += &format!(
                "| {} | {} | {} | {share:.0} | {} |\n",
                escape(&sheet::short(&name)),
                ms(sums.dense as f64),
                ms(sums.pruned as f64),
                escape(&sheet::short(&kernels.join(", ")))
            );
        }
    }
    out
}

/// The layers of one operator; times in ns.
#[derive(Default)]
struct OpSums {
    dense: u64,
    pruned: u64,
    /// Kernels of the pruned variant with their numbers of layers.
    kernels: BTreeMap<String, u64>,
}

/// The operator that takes most of the pruned variant's time first, `others` last.
fn sums_by_op(dense: &[LayerTime], pruned: &[LayerTime]) -> Vec<(String, OpSums)> {
    let mut by_op: BTreeMap<String, OpSums> = BTreeMap::new();
    for layer in dense {
        by_op.entry(layer.op.to_string()).or_default().dense += layer.median_ns;
    }
    for layer in pruned {
        let sums = by_op.entry(layer.op.to_string()).or_default();
        sums.pruned += layer.median_ns;
        *sums.kernels.entry(layer.kernel.to_string()).or_default() += 1;
    }
    let mut sorted: Vec<(String, OpSums)> = by_op.into_iter().collect();
    sorted.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.pruned));
    let rest = sorted.split_off(MOST.min(sorted.len())).into_iter().reduce(|(_, sum), (_, next)| {
        let (dense, pruned) = (sum.dense + next.dense, sum.pruned + next.pruned);
        (String::new(), OpSums { dense, pruned, kernels: BTreeMap::new() })
    });
    sorted.extend(rest.map(|(_, sums)| ("others".to_owned(), sums)));
    sorted
}
