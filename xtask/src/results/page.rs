//! The results page: what stored runs show of the article's networks, as one Markdown document.

use std::collections::BTreeSet;

use espalier_bench::{
    command::CommandLine,
    engine::Engine,
    markdown::escape,
    record::{ModelInfo, Outcome, Run, RunHeader},
    sheet,
    summary::{CaseSummary, Trust},
};
use espalier_inventory::Source;
use espalier_protocol::text::sanitise;

use super::{
    article,
    rows::{NETWORKS, Row, how, millions, ms, nanoseconds, rows, times},
    time_shares,
};

/// # Errors
/// No run has any of the networks.
pub fn render(runs: &[Run]) -> Result<String, String> {
    let rows = rows(runs);
    if rows.is_empty() {
        let names = NETWORKS.map(|(name, _)| name);
        return Err(format!("no run has a pruned variant of {} on a device that is not emulated", names.join(", ")));
    }
    let introduction = "# Results\n\n\
        <!-- Written by `cargo xtask results` from the records of runs; not by hand. -->\n\n\
        What this project measures of the networks in the article that it started from: original, pruned, inference \
        time. The article is a survey-style text on pruning neural networks for edge devices, with tables of its own; \
        its address is not known here, so [its figures](#the-articles-own-figures) are quoted below. Times are medians \
        over fresh processes, with variants and engines interleaved; 95 % intervals are in brackets. `espalier` is the \
        runner with its own kernels, `tract` the same program without them, `onnxruntime` a separate process that gets \
        the same files and inputs.\n";
    let sections = [
        machines(&rows),
        overview(&rows),
        engines(&rows),
        article::section(&rows),
        time_shares::section(&rows),
        provenance(&rows),
    ];
    Ok(wrapped(&(introduction.to_owned() + &sections.concat())))
}

/// Lines of at most 120 columns; continued list items are indented. Rows of tables stay in one piece.
fn wrapped(page: &str) -> String {
    let mut out = String::new();
    for line in page.lines() {
        let indent = if line.starts_with("- ") { "  " } else { "" };
        let mut length = 0;
        for (index, word) in line.split(' ').enumerate() {
            let wide = length + 1 + word.chars().count() > 120 && !line.starts_with('|');
            let before = match index {
                0 => "",
                _ if wide => &format!("\n{indent}"),
                _ => " ",
            };
            length = if wide { indent.len() } else { length + before.len() } + word.chars().count();
            out.extend([before, word]);
        }
        out.push('\n');
    }
    out
}

fn machines(rows: &[Row<'_>]) -> String {
    let mut out = String::new();
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        if seen.contains(&row.device.name.as_str()) {
            continue;
        }
        seen.push(&row.device.name);
        let measurement = row.run.records.iter().find_map(|record| match &record.outcome {
            Outcome::Measured(measured) if record.case.device == row.device.name => Some(measured),
            _ => None,
        });
        let Some(measurement) = measurement else { continue };
        let mut facts = sheet::board(&measurement.before);
        facts.push(match row.device.threads {
            1 => "one thread".to_owned(),
            threads => format!("{threads} threads"),
        });
        if !measurement.hello.cpu_features.is_empty() {
            facts.push(sheet::short(&measurement.hello.cpu_features.join(" ")));
        }
        out += &format!("\nMeasured on `{}`: {}.\n", escape(&row.device.name), escape(&facts.join(", ")));
    }
    let random: BTreeSet<&str> = rows.iter().filter(|row| is_random(row.model)).map(|row| row.title).collect();
    if !random.is_empty() {
        out += &format!(
            "\nThe weights of {} are random, scaled as in training. Times, sizes and memory are those of trained \
             networks. There is no accuracy, only whether the pruned network still predicts what the dense one does. \
             [README](../README.md) has the table of a trained network.\n",
            random.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    let missing =
        NETWORKS.into_iter().filter(|(name, title)| *name != "ds-cnn" && rows.iter().all(|row| row.title != *title));
    let missing: Vec<&str> = missing.map(|(_, title)| title).collect();
    if !missing.is_empty() {
        out += &format!("\nNot measured: {}.\n", missing.join(", "));
    }
    out
}

fn is_random(model: &ModelInfo) -> bool {
    matches!(Source::parse(&model.source), Source::Build { .. })
}

/// The article's own table and what it leaves out: how a network was pruned, and what that costs.
fn overview(rows: &[Row<'_>]) -> String {
    let mut out = "\n## Original, pruned, inference time\n\n\
        | network | original | pruned | how | inference time | times as fast | answers |\n\
        | :--- | ---: | ---: | :--- | ---: | ---: | :--- |\n"
        .to_owned();
    for row in rows {
        let (dense, pruned) = (&row.dense, &row.pruned);
        // Without Espalier a user would run the better of two dense engines.
        let onnxruntime = row.other(Engine::Onnxruntime).and_then(|(_, dense, _)| nanoseconds(dense));
        let (before, than, gain) = match onnxruntime {
            Some(before) => (Some(before), "onnxruntime", row.vs_onnxruntime()),
            None => (nanoseconds(dense), "espalier", pruned.speed_up),
        };
        let time = |ns: Option<f64>| ns.map_or("—".to_owned(), ms);
        out += &format!(
            "| {} | {} | {} | {} | {} ({than}) → {} ms | {} | {} |\n",
            row.title,
            size(dense, dense),
            size(dense, pruned),
            how(row),
            time(before),
            time(nanoseconds(pruned)),
            times(gain),
            answers(row)
        );
    }
    out
}

/// Parameters and, where known, multiply-accumulates.
fn size(dense: &CaseSummary, case: &CaseSummary) -> String {
    let variant = &case.variant;
    let parameters = variant.parameters_left.unwrap_or_else(|| variant.parameters.saturating_sub(variant.removed));
    let mut text = format!("{} parameters", millions(parameters as f64));
    if let (Some(all), Some(macs)) = (dense.macs, case.macs) {
        let left = if case.is_dense() { all.executed } else { macs.nonzero };
        text.push_str(&format!(", {} MACs", millions(left as f64)));
    }
    text
}

fn answers(row: &Row<'_>) -> String {
    match (row.pruned.accuracy, row.pruned.change, row.pruned.same_as_dense) {
        (Some(accuracy), Some(change), _) => {
            format!("{:.2} % right ({:+.2} pp)", accuracy.fraction() * 100.0, change.fraction() * 100.0)
        }
        (_, _, Some(same)) => format!("{} of {} as dense", same.equal, same.total),
        _ => "—".to_owned(),
    }
}

/// The times behind the ratios.
fn engines(rows: &[Row<'_>]) -> String {
    let mut out = "\n## Beside other engines\n\n\
        Times in ms. The `vs` columns show how many times as fast the pruned variant is as each engine's dense one.\n\n\
        | network | how | onnxruntime dense | tract dense | espalier dense | onnxruntime pruned | tract pruned \
        | espalier pruned | vs onnxruntime dense | vs tract dense | vs own dense | peak RSS, dense → pruned | checked \
        |\n\
        | :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | :--- |\n"
        .to_owned();
    for row in rows {
        let time = |case: Option<&CaseSummary>| case.map_or("—".to_owned(), marked);
        let dense = |engine| row.other(engine).map(|(_, dense, _)| dense);
        let pruned = |engine| row.other(engine).map(|(_, _, pruned)| pruned);
        let memory = match (row.dense.peak_rss, row.pruned.peak_rss) {
            (Some(dense), Some(pruned)) => format!("{} → {}", sheet::size(dense.0), sheet::size(pruned.0)),
            _ => "—".to_owned(),
        };
        let cells = [
            row.title.to_owned(),
            how(row),
            time(dense(Engine::Onnxruntime)),
            time(dense(Engine::Tract)),
            time(Some(&row.dense)),
            time(pruned(Engine::Onnxruntime)),
            time(pruned(Engine::Tract)),
            time(Some(&row.pruned)),
            times(row.vs_onnxruntime()),
            times(row.vs_tract()),
            times(row.pruned.speed_up),
            memory,
            checked(row),
        ];
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out + "\nchecked: whether onnxruntime computes the same outputs from the same pruned file, and the largest \
           difference relative to the largest output; (!) marks outputs that differ. Times marked `noisy` or \
           `throttled` are less reliable.\n"
}

fn marked(case: &CaseSummary) -> String {
    match (nanoseconds(case), case.trust) {
        (None, _) => "—".to_owned(),
        (Some(ns), None | Some(Trust::Ok)) => ms(ns),
        (Some(ns), Some(trust)) => format!("{} ({})", ms(ns), trust.name()),
    }
}

fn checked(row: &Row<'_>) -> String {
    let same = row.other(Engine::Onnxruntime).and_then(|(_, _, pruned)| pruned.same_as_espalier);
    let Some(same) = same else { return "—".to_owned() };
    let difference = same.relative_difference().map_or(String::new(), |difference| format!(", {difference:.0e}"));
    let mark = if same.is_same() { "" } else { " (!)" };
    format!("{}/{}{difference}{mark}", same.equal, same.total)
}

fn provenance(rows: &[Row<'_>]) -> String {
    let mut out = "\n## Where the numbers come from\n\n".to_owned();
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        let RunHeader { id, started, provenance, protocol, .. } = &row.run.header;
        if seen.contains(&id.as_str()) {
            continue;
        }
        seen.push(id);
        let mut facts = sheet::peers::versions(row.run, row.device);
        facts.push(format!("revision {}", provenance.revision.as_deref().unwrap_or("unknown")));
        facts.extend(row.device.runner.as_ref().map(|runner| format!("built by {}", runner.builder)));
        facts.push(format!(
            "{} fresh processes a variant and engine, each {} inferences to warm up, then at least {} and {} ms",
            protocol.runs, protocol.warmup, protocol.iterations, protocol.min_time_ms
        ));
        let command = CommandLine { env: Vec::new(), argv: provenance.command.clone() };
        out += &format!(
            "- run {} of {}: {}; by {}\n",
            escape(id),
            escape(started),
            escape(&sanitise(&facts.join(", "))),
            escape(&sanitise(&command.to_string()))
        );
    }
    out
}
