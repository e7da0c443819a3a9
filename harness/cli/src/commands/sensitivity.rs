//! `sensitivity`: the accuracy each tensor costs when it alone is pruned, at several ratios and without fine-tuning.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use espalier_bench::{
    exit::ExitStatus,
    sheet::{Cell, Column, Sheet, Tone},
};
use espalier_inventory::Method;
use espalier_prune::{
    Amount, Bytes, PruneError, Samples, importance,
    onnx::Model,
    tune::{self, Scan, Watch},
};

use crate::{
    context::{Context, usage},
    output,
    progress::{Progress, stop_on_signal},
    pruning,
    pruning::refused,
    recipe_flags::{Subject, method},
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// Ratios to prune each tensor at, each in [0, 1)
    #[arg(short, long, value_delimiter = ',', default_values_t = [0.5, 0.8, 0.9, 0.95])]
    ratios: Vec<f64>,
    /// How the importance of a weight is judged [default: the model's, else magnitude]
    #[arg(long, value_parser = method())]
    method: Option<Method>,
    /// Samples to judge by, an `.npz`; without labels agreement with the dense model is shown [default: the model's]
    #[arg(long, value_name = "FILE.npz")]
    calibration: Option<PathBuf>,
    /// Seed of random scores
    #[arg(long)]
    seed: Option<u64>,
    /// One row a tensor and ratio
    #[arg(long, value_name = "FILE")]
    export_csv: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    for path in [&flags.export_csv, &flags.export_json].into_iter().flatten() {
        output::check(path)?;
    }
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let subject = Subject::find(&context, &flags.model, &progress)?;
    for ratio in &flags.ratios {
        Amount::Ratio(*ratio).check().map_err(refused)?;
    }
    let dense = espalier_prune::file::read(&subject.source).map_err(usage)?;
    let failed = || format!("failed to scan `{}`", subject.source.display());
    let inspection = espalier_prune::inspect(&dense).map_err(refused).with_context(failed)?;
    if inspection.prunable == 0 {
        let why = "it has no weights to prune: `cargo xtask inspect` shows what it has".to_owned();
        return Err(refused(PruneError::NothingPrunable { why })).with_context(failed);
    }
    let own = |model: &espalier_inventory::Model| model.calibration.as_ref().or(model.train.as_ref()).cloned();
    let samples =
        subject.samples("calibration set", flags.calibration.as_ref(), own, &inspection)?.ok_or_else(|| {
            usage("there are no samples to judge by: name an `.npz` with `--calibration`; labels are optional")
        })?;
    let mut recipe = subject.recipe();
    recipe.method = flags.method.unwrap_or(recipe.method);
    recipe.seed = flags.seed.or(recipe.seed);

    let cancel = stop_on_signal(&progress)?;
    let task = progress.task("sensitivity", None);
    let mut watch =
        Watch { on_event: &mut |event| pruning::show(&task, "", false, &event), stop: &|| cancel.is_requested() };
    let run = pruning::one_run(&recipe, Amount::Ratio(0.0));
    let scan = scan(&dense, &run, &flags.ratios, &samples, &mut watch).map_err(refused).with_context(failed)?;
    task.done();
    if let Some(path) = &flags.export_csv {
        output::write(path, &csv(&scan))?;
    }
    if let Some(path) = &flags.export_json {
        output::write(path, &json(&scan, recipe.method.name(), &samples)?)?;
    }
    let sheet = sheet(&flags.model, recipe.method.name(), &flags.ratios, &scan, &samples);
    output::print_sheet(&sheet)?;
    ensure!(!scan.stopped, "stopped; missing tensors were not scanned");
    Ok(ExitStatus::Ok)
}

fn scan(
    dense: &Bytes,
    recipe: &espalier_prune::Recipe,
    ratios: &[f64],
    samples: &Samples,
    watch: &mut Watch<'_>,
) -> Result<Scan, PruneError> {
    let model = Model::decode(dense)?;
    let survey = espalier_prune::survey(&model)?;
    let scores = importance::scores(&model, &survey, recipe.method, Some(samples), recipe.batch, recipe.seed)?;
    tune::sensitivity(dense, &scores, ratios, samples, watch)
}

/// A row a tensor, a column a ratio: points of accuracy lost, or of agreement with the dense model without labels.
fn sheet(model: &str, method: &str, ratios: &[f64], scan: &Scan, samples: &Samples) -> Sheet {
    let mut names: Vec<(&str, u64)> = scan.rows.iter().map(|row| (row.tensor.as_str(), row.weights)).collect();
    names.dedup();
    let column =
        |name: &'static str, unit: String, rank: u8, cells: Vec<Cell>| Column { name, unit, rank, cells, legend: "" };
    let plain = |text: String| Cell { text, tone: Tone::Plain };
    let mut columns = vec![
        column("tensor", String::new(), 0, names.iter().map(|(name, _)| plain((*name).to_owned())).collect()),
        column("weights", String::new(), 2, names.iter().map(|(_, weights)| plain(weights.to_string())).collect()),
    ];
    for ratio in ratios {
        let cell = |(name, _): &(&str, u64)| {
            let row = scan.rows.iter().find(|row| row.tensor == *name && row.ratio == *ratio);
            row.map_or(plain("—".to_owned()), |row| {
                // Two decimals, for a sample in ten thousand; `+ 0.0` removes the sign of minus zero.
                let points = (100.0 * (row.evaluation.accuracy - scan.dense.accuracy) * 100.0).round() / 100.0 + 0.0;
                let tone = if points < -1.0 { Tone::Bad } else { Tone::Plain };
                Cell { text: format!("{points:+.2}"), tone }
            })
        };
        columns.push(column("pp at ratio", ratio.to_string(), 1, names.iter().map(cell).collect()));
    }
    let judged = match samples.labels {
        Some(_) => format!("accuracy of dense {:.2} %", 100.0 * scan.dense.accuracy),
        None => "no labels: agreement with dense instead of accuracy".to_owned(),
    };
    Sheet {
        title: format!("sensitivity of {model}"),
        facts: vec![format!("weights removed by {method}"), format!("{} samples", samples.len()), judged],
        columns,
        notes: vec![
            "one tensor pruned at a time, nothing fine-tuned; pp: points of accuracy gained or lost".to_owned(),
        ],
    }
}

fn csv(scan: &Scan) -> String {
    let mut text = "tensor,weights,ratio,removed,accuracy,accuracy_drop,loss,agreement\r\n".to_owned();
    for row in &scan.rows {
        // Names are untrusted.
        let name = row.tensor.replace('"', "\"\"").replace(|c: char| c.is_control(), "?");
        let drop = scan.dense.accuracy - row.evaluation.accuracy;
        text += &format!(
            "\"{name}\",{},{},{},{},{drop},{},{}\r\n",
            row.weights, row.ratio, row.removed, row.evaluation.accuracy, row.evaluation.loss, row.agreement
        );
    }
    text
}

fn json(scan: &Scan, method: &str, samples: &Samples) -> Result<String> {
    let rows = scan.rows.iter().map(|row| {
        serde_json::json!({
            "tensor": row.tensor, "weights": row.weights, "ratio": row.ratio, "removed": row.removed,
            "accuracy": row.evaluation.accuracy, "accuracy_drop": scan.dense.accuracy - row.evaluation.accuracy,
            "loss": row.evaluation.loss, "agreement": row.agreement,
        })
    });
    let document = serde_json::json!({
        "kind": "espalier-sensitivity", "method": method, "samples": samples.len(), "labels": samples.labels.is_some(),
        "dense": { "accuracy": scan.dense.accuracy, "loss": scan.dense.loss },
        "complete": !scan.stopped, "rows": rows.collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
