//! Where the time of an inference goes: one sheet a pruned variant, layer by layer beside the dense one. The shortest
//! layers share a row, so that the table of a large network stays readable.

use std::collections::HashMap;

use espalier_protocol::{LayerTime, text::sanitise};

use super::{Cell, Column, MISSING, Scale, Sheet, TIMES, Tone, cell, peers, short};
use crate::{
    metric::{Estimate, Nanoseconds},
    record::Run,
    summary::CaseSummary,
};

/// A layer has a row of its own from this share of either inference on.
const LEAST_SHARE: f64 = 0.005;

/// The most characters of a layer's name.
const NAME: usize = 44;

pub(super) fn sheets(run: &Run, summaries: &[CaseSummary]) -> Vec<Sheet> {
    let mut sheets = Vec::new();
    for dense in summaries.iter().filter(|case| case.is_dense() && !case.profile.is_empty()) {
        let same = |case: &&CaseSummary| {
            let (case, dense) = (&case.case, &dense.case);
            (&case.model, &case.device, case.engine) == (&dense.model, &dense.device, dense.engine)
        };
        let of_series = || summaries.iter().filter(same);
        let pruned: Vec<&CaseSummary> =
            of_series().filter(|case| !case.is_dense() && !case.profile.is_empty()).collect();
        match pruned.as_slice() {
            [] => sheets.push(sheet(run, dense, None)),
            pruned => sheets.extend(pruned.iter().map(|pruned| sheet(run, dense, Some(pruned)))),
        }
    }
    sheets
}

/// A layer in one or both of the variants.
#[derive(Default)]
struct Row<'a> {
    dense: Option<&'a LayerTime>,
    pruned: Option<&'a LayerTime>,
}

impl Row<'_> {
    fn layer(&self) -> Option<&LayerTime> {
        self.dense.or(self.pruned)
    }
}

fn dense_ns(row: &Row<'_>) -> Option<u64> {
    Some(row.dense?.median_ns)
}

fn pruned_ns(row: &Row<'_>) -> Option<u64> {
    Some(row.pruned?.median_ns)
}

fn sheet(run: &Run, dense: &CaseSummary, pruned: Option<&CaseSummary>) -> Sheet {
    let (rows, others) = rows(&dense.profile, pruned.map_or(&[], |pruned| &pruned.profile));
    let all = |profile: &[LayerTime]| profile.iter().map(|layer| layer.median_ns).sum::<u64>();
    let sum_of = |rows: &[Row<'_>], of: fn(&Row<'_>) -> Option<u64>| rows.iter().filter_map(of).sum::<u64>();
    let totals = (all(&dense.profile), pruned.map(|pruned| all(&pruned.profile)));

    // Each column: the layers, what is left, the sum.
    let text = |of: &dyn Fn(&LayerTime) -> String| -> Vec<Cell> {
        let cells = rows.iter().filter_map(Row::layer).map(|layer| plain(of(layer)));
        cells.chain(ends(&others, String::new(), String::new())).collect()
    };
    let kernel = |of: fn(&Row<'_>) -> Option<String>| -> Vec<Cell> {
        let cells = rows.iter().map(|row| plain(of(row).unwrap_or_else(|| MISSING.to_owned())));
        cells.chain(ends(&others, String::new(), String::new())).collect()
    };
    let scale = Scale::new([totals.0, totals.1.unwrap_or(0)].map(|ns| ns as f64 / 50.0).into_iter(), TIMES);
    let times = |of: fn(&Row<'_>) -> Option<u64>, total: u64| -> Vec<Cell> {
        let text = |ns: u64| scale.text(ns as f64);
        let cells = rows.iter().map(|row| plain(of(row).map_or(MISSING.to_owned(), text)));
        cells.chain(ends(&others, text(sum_of(&others, of)), text(total))).collect()
    };
    let name = |layer: &LayerTime| {
        if layer.calls == 1 { end_of(&layer.name) } else { format!("{} ×{}", end_of(&layer.name), layer.calls) }
    };
    let mut names = text(&name);
    let count = names.len();
    names[count - 1] = plain("all".into());
    if !others.is_empty() {
        let layers = if others.len() == 1 { "other" } else { "others" };
        names[count - 2] = plain(format!("({} {layers})", others.len()));
    }
    let mut columns =
        vec![Column::new("layer", "", 0, names), Column::new("op", "", 4, text(&|layer| short(&layer.op)))];
    let kernel_of = |name, rank, of| Column::new(name, "", rank, kernel(of));
    let shares = |of: fn(&Row<'_>) -> Option<u64>, total: u64| {
        let percent = |ns: u64| format!("{:.1}", 100.0 * ns as f64 / total.max(1) as f64);
        let cells = rows.iter().map(|row| plain(of(row).map_or(MISSING.to_owned(), percent)));
        Column::new("share", "%", 3, cells.chain(ends(&others, percent(sum_of(&others, of)), percent(total))).collect())
    };
    match totals.1 {
        None => columns.extend([
            kernel_of("kernel", 5, |row| row.dense.map(|layer| short(&layer.kernel))),
            Column::new("time", scale.unit, 1, times(dense_ns, totals.0)),
            shares(dense_ns, totals.0),
        ]),
        Some(total) => {
            let gain = rows.iter().map(|row| gain(dense_ns(row), pruned_ns(row)));
            let rest = gain_of_sums(sum_of(&others, dense_ns), sum_of(&others, pruned_ns));
            let gains: Vec<Cell> = gain.map(plain).chain(ends(&others, rest, gain_of_sums(totals.0, total))).collect();
            columns.extend([
                kernel_of("kernel, dense", 6, |row| row.dense.map(|layer| short(&layer.kernel))),
                kernel_of("kernel, pruned", 5, |row| row.pruned.map(|layer| short(&layer.kernel))),
                Column::new("dense", scale.unit, 1, times(dense_ns, totals.0)),
                Column::new("pruned", scale.unit, 1, times(pruned_ns, total)),
                Column::new("gain", "×", 2, gains),
                shares(pruned_ns, total),
            ]);
        }
    }
    let case = pruned.unwrap_or(dense);
    let mut notes = vec![
        "layers are timed one by one in a separate pass: their sum differs a little from an inference's time"
            .to_owned(),
    ];
    notes.extend(inference(dense, pruned));
    let by = if peers::are_named(run) { format!(" by {}", case.case.engine.name()) } else { String::new() };
    let variant = format!("{}@{} on {}{by}", case.case.model, case.case.ratio, case.case.device);
    Sheet {
        title: sanitise(&format!("Layers of {variant}")),
        facts: case.engine_version.as_deref().map(short).into_iter().collect(),
        columns,
        notes,
    }
}

/// Rows in the dense variant's order, then layers that only the pruned one has; and those too short for a row.
fn rows<'a>(dense: &'a [LayerTime], pruned: &'a [LayerTime]) -> (Vec<Row<'a>>, Vec<Row<'a>>) {
    let mut rows: Vec<Row<'_>> = dense.iter().map(|layer| Row { dense: Some(layer), pruned: None }).collect();
    // Names may repeat: the first layer of a name is paired with the first.
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, layer) in dense.iter().enumerate().rev() {
        places.entry(&layer.name).or_default().push(index);
    }
    for layer in pruned {
        match places.get_mut(&*layer.name).and_then(Vec::pop) {
            Some(index) => rows[index].pruned = Some(layer),
            None => rows.push(Row { dense: None, pruned: Some(layer) }),
        }
    }
    let least = |layers: &[LayerTime]| LEAST_SHARE * layers.iter().map(|layer| layer.median_ns as f64).sum::<f64>();
    let (least_dense, least_pruned) = (least(dense), least(pruned));
    let counts = |layer: Option<&LayerTime>, least: f64| layer.is_some_and(|layer| layer.median_ns as f64 >= least);
    rows.into_iter().partition(|row| counts(row.dense, least_dense) || counts(row.pruned, least_pruned))
}

/// The last cells of a column: one for the layers that share a row, where there are any, and the sum.
fn ends(others: &[Row<'_>], rest: String, sum: String) -> impl Iterator<Item = Cell> {
    let rest = (!others.is_empty()).then(|| plain(rest));
    rest.into_iter().chain([plain(sum)])
}

fn gain(dense: Option<u64>, pruned: Option<u64>) -> String {
    match (dense, pruned) {
        (Some(dense), Some(pruned)) => gain_of_sums(dense, pruned),
        _ => MISSING.to_owned(),
    }
}

fn gain_of_sums(dense: u64, pruned: u64) -> String {
    if dense == 0 || pruned == 0 { MISSING.to_owned() } else { format!("{:.2}", dense as f64 / pruned as f64) }
}

/// The time of an inference without profiling.
fn inference(dense: &CaseSummary, pruned: Option<&CaseSummary>) -> Option<String> {
    let p50 = |case: &CaseSummary| case.p50.map(|Estimate { value: Nanoseconds(ns), .. }| ns);
    let dense = p50(dense)?;
    let text = |ns: f64| {
        let scale = Scale::new([ns].into_iter(), TIMES);
        format!("{} {}", scale.text(ns), scale.unit)
    };
    Some(match pruned.and_then(p50) {
        Some(pruned) => format!("an inference without profiling: {} dense, {} pruned", text(dense), text(pruned)),
        None => format!("an inference without profiling: {} dense", text(dense)),
    })
}

/// The end of a long name: exporters put what distinguishes layers there.
fn end_of(name: &str) -> String {
    let name = short(name);
    let length = name.chars().count();
    if length <= NAME {
        return name;
    }
    std::iter::once('…').chain(name.chars().skip(length - NAME + 1)).collect()
}

fn plain(text: String) -> Cell {
    cell(text, Tone::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        summary::summarise,
        table::{self, Look},
    };

    #[test]
    fn dense_beside_pruned() {
        let run = fixture::run_with_peers();
        let found = sheets(&run, &summarise(&run));
        assert_eq!(found.len(), 1);
        let got = table::render_sheet(&found[0], Look { width: 120, colour: false });
        let expected = r"
Layers of digits-cnn@0.5 on local by espalier
espalier 0.1.0 (tract 0.23.9)
╭───────────┬──────────┬───────────────┬────────────────┬─────────┬────────┬──────┬───────╮
│   layer   ┆    op    ┆ kernel, dense ┆ kernel, pruned ┆  dense  ┆ pruned ┆ gain ┆ share │
│           ┆          ┆               ┆                ┆    µs   ┆   µs   ┆   ×  ┆   %   │
╞═══════════╪══════════╪═══════════════╪════════════════╪═════════╪════════╪══════╪═══════╡
│     conv1 ┆ conv 3x3 ┆         dense ┆          dense ┆  200.00 ┆ 200.00 ┆ 1.00 ┆  43.4 │
│     conv2 ┆ conv 1x1 ┆         dense ┆      block 4x1 ┆  600.00 ┆ 150.00 ┆ 4.00 ┆  32.6 │
│ fc|\u{1b} ┆   matmul ┆         dense ┆      block 4x1 ┆  199.00 ┆  49.75 ┆ 4.00 ┆  10.8 │
│   softmax ┆  softmax ┆             — ┆          tract ┆       — ┆  60.00 ┆    — ┆  13.0 │
│ (1 other) ┆          ┆               ┆                ┆    1.00 ┆   1.00 ┆ 1.00 ┆   0.2 │
│       all ┆          ┆               ┆                ┆ 1000.00 ┆ 460.75 ┆ 2.17 ┆ 100.0 │
╰───────────┴──────────┴───────────────┴────────────────┴─────────┴────────┴──────┴───────╯
layers are timed one by one in a separate pass: their sum differs a little from an inference's time
an inference without profiling: 1.00 ms dense, 800 µs pruned
";
        assert!(got == expected.trim_start_matches('\n'), "{got}");
    }

    #[test]
    fn the_dense_variant_alone() {
        let mut run = fixture::run_with_peers();
        run.header.models[0].variants.truncate(1);
        let found = sheets(&run, &summarise(&run));
        assert_eq!(found[0].title, "Layers of digits-cnn@0 on local by espalier");
        let names: Vec<&str> = found[0].columns.iter().map(|column| column.name).collect();
        assert_eq!(names, ["layer", "op", "kernel", "time", "share"]);
        assert!(found[0].columns.iter().all(|column| column.cells.len() == 5));
    }

    #[test]
    fn layers_of_one_name_keep_their_order() {
        let layer = |name: &str, median_ns: u64| LayerTime {
            name: name.into(),
            op: "".into(),
            kernel: "".into(),
            calls: 1,
            median_ns,
        };
        let (dense, pruned) =
            ([layer("a", 10), layer("a", 20), layer("b", 30)], [layer("a", 1), layer("a", 2), layer("a", 3)]);
        let (rows, others) = rows(&dense, &pruned);
        let times: Vec<_> =
            rows.iter().map(|row| [row.dense, row.pruned].map(|layer| layer.map(|layer| layer.median_ns))).collect();
        assert_eq!(times, [[Some(10), Some(1)], [Some(20), Some(2)], [Some(30), None], [None, Some(3)]]);
        assert!(others.is_empty());
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(end_of("fc"), "fc");
        let long = format!("{}/query/MatMul", "/encoder".repeat(9));
        let shown = end_of(&long);
        assert!(shown.starts_with('…') && shown.ends_with("/query/MatMul") && shown.chars().count() == NAME, "{shown}");
    }
}
