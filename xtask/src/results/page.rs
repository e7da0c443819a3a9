//! The results page: what stored runs show of the article's networks, as one Markdown document. It is a function of the
//! records alone. Where several runs have the same network pruned in the same way on the same device, the newest
//! counts; every row is of one run.

use std::collections::{BTreeMap, BTreeSet};

use espalier_bench::{
    command::CommandLine,
    engine::Engine,
    markdown::escape,
    metric::{Estimate, Nanoseconds},
    record::{DeviceInfo, ModelInfo, Outcome, Run, RunHeader},
    sanitise::sanitise,
    sheet,
    summary::{CaseSummary, Trust, summarise},
};
use espalier_inventory::Source;

use super::{article, time_shares};

/// The networks on the page, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    ResNet50,
    MobileNetV2,
    BertBase,
    BertLarge,
    Lstm,
    /// A small network for keyword spotting; not in the article.
    DsCnn,
}

impl Network {
    const ALL: [Network; 6] =
        [Network::ResNet50, Network::MobileNetV2, Network::BertBase, Network::BertLarge, Network::Lstm, Network::DsCnn];

    pub fn title(self) -> &'static str {
        match self {
            Network::ResNet50 => "ResNet50",
            Network::MobileNetV2 => "MobileNetV2",
            Network::BertBase => "BERT-base",
            Network::BertLarge => "BERT-large",
            Network::Lstm => "LSTM",
            Network::DsCnn => "DS-CNN",
        }
    }

    /// Its name in `models/` and in `cargo xtask model build`.
    fn name(self) -> &'static str {
        match self {
            Network::ResNet50 => "resnet50",
            Network::MobileNetV2 => "mobilenetv2",
            Network::BertBase => "bert-base",
            Network::BertLarge => "bert-large",
            Network::Lstm => "lstm",
            Network::DsCnn => "ds-cnn",
        }
    }

    /// A network that was built, or a user's own export of that name.
    fn of(model: &ModelInfo) -> Option<Network> {
        let name = match Source::parse(&model.source) {
            Source::Build { net, .. } => net,
            Source::File(_) => model.name.clone(),
        };
        Network::ALL.into_iter().find(|network| network.name() == name)
    }
}

/// One pruned variant and what it is compared with.
pub struct Row<'a> {
    pub network: Network,
    run: &'a Run,
    model: &'a ModelInfo,
    device: &'a DeviceInfo,
    /// Both by the default engine.
    pub dense: CaseSummary,
    pub pruned: CaseSummary,
    /// The dense and the pruned variant by other engines.
    others: Vec<(Engine, CaseSummary, CaseSummary)>,
}

impl Row<'_> {
    /// The pruned variant's median time in ns.
    pub fn p50(&self) -> Option<f64> {
        nanoseconds(&self.pruned)
    }

    fn other(&self, engine: Engine) -> Option<&(Engine, CaseSummary, CaseSummary)> {
        self.others.iter().find(|(other, ..)| *other == engine)
    }

    pub fn vs_onnxruntime(&self) -> Option<Estimate<f64>> {
        self.pruned.against(Engine::Onnxruntime)?.dense
    }

    pub fn vs_tract(&self) -> Option<Estimate<f64>> {
        self.pruned.against(Engine::Tract)?.dense
    }

    /// Multiply-accumulates of the dense variant, and those of the pruned one whose weight is not zero.
    pub fn macs(&self) -> Option<(f64, f64)> {
        let (all, left) = (self.dense.macs?.executed as f64, self.pruned.macs?.nonzero as f64);
        (all > 0.0 && left > 0.0).then_some((all, left))
    }

    /// Whether pruning made tensors smaller instead of setting weights to zero.
    pub fn shrank(&self) -> bool {
        self.pruned.variant.parameters_left.is_some()
    }
}

/// # Errors
/// No run has any of the networks.
pub fn render(runs: &[Run]) -> Result<String, String> {
    let rows = rows(runs);
    if rows.is_empty() {
        let names: Vec<&str> = Network::ALL.into_iter().map(Network::name).collect();
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

/// By device, network, recipe and ratio.
fn rows(runs: &[Run]) -> Vec<Row<'_>> {
    let mut newest: BTreeMap<(&str, Network, &str), (&Run, &ModelInfo, &DeviceInfo)> = BTreeMap::new();
    let mut by_age: Vec<&Run> = runs.iter().collect();
    by_age.sort_by(|one, other| one.header.id.cmp(&other.header.id));
    for run in by_age.into_iter().filter(|run| run.header.engines.contains(&Engine::default())) {
        for (model, network) in run.header.models.iter().filter_map(|model| Some((model, Network::of(model)?))) {
            for device in run.header.devices.iter().filter(|device| !device.emulated) {
                newest.insert((&device.name, network, &model.recipe), (run, model, device));
            }
        }
    }
    let mut summaries: BTreeMap<&str, Vec<CaseSummary>> = BTreeMap::new();
    let mut rows = Vec::new();
    for ((_, network, _), (run, model, device)) in newest {
        let all = summaries.entry(&run.header.id).or_insert_with(|| summarise(run));
        let of = |engine: Engine, ratio: f64| {
            let is = |summary: &&CaseSummary| {
                let case = &summary.case;
                (&case.model, &case.device, case.engine, case.ratio) == (&model.name, &device.name, engine, ratio)
            };
            all.iter().find(is).cloned()
        };
        for variant in model.variants.iter().filter(|variant| variant.ratio > 0.0) {
            let own = Engine::default();
            let (Some(dense), Some(pruned)) = (of(own, 0.0), of(own, variant.ratio)) else { continue };
            let others = run.header.engines.iter().filter(|engine| **engine != own);
            let others =
                others.filter_map(|engine| Some((*engine, of(*engine, 0.0)?, of(*engine, variant.ratio)?))).collect();
            rows.push(Row { network, run, model, device, dense, pruned, others });
        }
    }
    rows
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
    let random: BTreeSet<&str> =
        rows.iter().filter(|row| is_random(row.model)).map(|row| row.network.title()).collect();
    if !random.is_empty() {
        out += &format!(
            "\nThe weights of {} are random, scaled as in training. Times, sizes and memory are those of trained \
             networks. There is no accuracy, only whether the pruned network still predicts what the dense one does. \
             [pruning.md](pruning.md) shows what pruning costs trained networks.\n",
            random.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    let missing = Network::ALL.into_iter().filter(|network| *network != Network::DsCnn);
    let missing: Vec<&str> =
        missing.filter(|network| rows.iter().all(|row| row.network != *network)).map(Network::title).collect();
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
            row.network.title(),
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

pub fn how(row: &Row<'_>) -> String {
    format!("{} % by {}", row.pruned.case.ratio * 100.0, escape(&sheet::short(&row.model.recipe)))
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
            row.network.title().to_owned(),
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

fn nanoseconds(case: &CaseSummary) -> Option<f64> {
    case.p50.map(|Estimate { value: Nanoseconds(ns), .. }| ns)
}

pub fn millions(count: f64) -> String {
    format!("{} M", three_digits(count / 1e6))
}

pub fn ms(ns: f64) -> String {
    three_digits(ns / 1e6)
}

fn three_digits(number: f64) -> String {
    let decimals = if number > 0.0 { (2 - number.log10().floor() as i32).clamp(0, 4) as usize } else { 0 };
    format!("{number:.decimals$}")
}

pub fn times(estimate: Option<Estimate<f64>>) -> String {
    match estimate {
        None => "—".to_owned(),
        Some(Estimate { value, bounds: None }) => format!("{value:.2}"),
        Some(Estimate { value, bounds: Some(bounds) }) => {
            format!("{value:.2} \\[{:.2}–{:.2}\\]", bounds.low, bounds.high)
        }
    }
}
