//! The rows of the results page: one pruned variant of a network each, beside what it is compared with. Where several
//! runs have the same network pruned in the same way on the same device, the newest counts; every row is of one run.

use std::collections::BTreeMap;

use espalier_bench::{
    engine::Engine,
    markdown::escape,
    metric::{Estimate, Nanoseconds},
    record::{DeviceInfo, ModelInfo, Run},
    sheet,
    summary::{CaseSummary, summarise},
};
use espalier_inventory::Source;

/// The networks on the page, in its order: names as in `models/`, and titles.
pub const NETWORKS: [(&str, &str); 6] = [
    ("resnet50", "ResNet50"),
    ("mobilenetv2", "MobileNetV2"),
    ("bert-base", "BERT-base"),
    ("bert-large", "BERT-large"),
    ("lstm", "LSTM"),
    // A small network for keyword spotting; not in the article.
    ("ds-cnn", "DS-CNN"),
];

/// The place in [`NETWORKS`] of a network that was built, or of a user's own export of that name.
fn network(model: &ModelInfo) -> Option<usize> {
    let name = match Source::parse(&model.source) {
        Source::Build { net, .. } => net,
        Source::File(_) => model.name.clone(),
    };
    NETWORKS.iter().position(|(known, _)| *known == name)
}

/// One pruned variant and what it is compared with.
pub struct Row<'a> {
    pub title: &'static str,
    pub run: &'a Run,
    pub model: &'a ModelInfo,
    pub device: &'a DeviceInfo,
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

    pub fn other(&self, engine: Engine) -> Option<&(Engine, CaseSummary, CaseSummary)> {
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

/// By device, network, recipe and ratio.
pub fn rows(runs: &[Run]) -> Vec<Row<'_>> {
    let mut newest: BTreeMap<(&str, usize, &str), (&Run, &ModelInfo, &DeviceInfo)> = BTreeMap::new();
    let mut by_age: Vec<&Run> = runs.iter().collect();
    by_age.sort_by(|one, other| one.header.id.cmp(&other.header.id));
    for run in by_age.into_iter().filter(|run| run.header.engines.contains(&Engine::default())) {
        for (model, network) in run.header.models.iter().filter_map(|model| Some((model, network(model)?))) {
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
            let (_, title) = NETWORKS[network];
            rows.push(Row { title, run, model, device, dense, pruned, others });
        }
    }
    rows
}

pub fn how(row: &Row<'_>) -> String {
    format!("{} % by {}", row.pruned.case.ratio * 100.0, escape(&sheet::short(&row.model.recipe)))
}

pub fn nanoseconds(case: &CaseSummary) -> Option<f64> {
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
