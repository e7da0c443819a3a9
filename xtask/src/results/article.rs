//! The figures of the article that Espalier started from: how many times as fast a pruned network is according to it,
//! how many multiply-accumulates are left to explain that, and what was measured here.
//!
//! The article is a survey-style text on pruning for edge devices with tables of its own. Its address is not known
//! here, so the figures are quoted in full.

use super::rows::{Row, millions, ms, times};

/// Multiply-accumulates that an engine runs whatever their weights: in MobileNetV2 those of the depthwise layers (20.7
/// M), with nine weights a channel, and of the first layer (10.8 M), with three input channels.
fn stays_dense(title: &str) -> f64 {
    if title == "MobileNetV2" { 31.5e6 } else { 0.0 }
}

/// All multiply-accumulates, and those left after pruning.
fn left(row: &Row<'_>) -> Option<(f64, f64)> {
    let (all, nonzero) = row.macs()?;
    let stays = stays_dense(row.title).min(all);
    Some((all, stays + (all - stays) * nonzero / all))
}

/// Milliseconds before and after pruning, from the article. It names neither engine nor machine.
const FIGURES: [(&str, f64, f64); 3] = [("MobileNetV2", 18.3, 2.1), ("BERT-large", 125.2, 22.7), ("LSTM", 15.3, 3.2)];

/// The ratio in the article.
const RATIO: f64 = 0.9;

/// A claim above the bound by less than this factor is attributed to rounding.
const SLACK: f64 = 1.05;

pub fn section(rows: &[Row<'_>]) -> String {
    let mut out = "\n## The article's own figures\n\n\
        Milliseconds of another machine cannot be compared, ratios can. The multiply-accumulates that are left bound \
        what pruning alone can explain: a program that ran only those, each as fast as before, would be faster by the \
        ratio of their numbers. Those with a weight that is not zero are left, and those of layers in which no engine \
        gains from zeros. Where memory is the limit, as in a recurrent layer that reads each weight once a step, the \
        bytes left are the bound. An engine with slow dense kernels leaves more room than either.\n\n\
        | network | article | times as fast | MACs, all / left at 0.9 | bound | here, over dense onnxruntime \
        | over dense tract | over our own dense |\n\
        | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let mut sentences = Vec::new();
    for (title, before, after) in FIGURES {
        let claim = before / after;
        let row = best(rows, title);
        let left = row.and_then(left);
        let bound = left.map(|(all, left)| all / left);
        let macs = left.map(|(all, left)| format!("{} / {}", millions(all), millions(left)));
        let missing = || "—".to_owned();
        out += &format!(
            "| {} | {before} → {after} ms | {claim:.1} | {} | {} | {} | {} | {} |\n",
            title,
            macs.unwrap_or_else(missing),
            bound.map_or_else(missing, |bound| format!("{bound:.1}")),
            times(row.and_then(|row| row.vs_onnxruntime())),
            times(row.and_then(|row| row.vs_tract())),
            times(row.and_then(|row| row.pruned.speed_up)),
        );
        sentences.push(format!("- {}", reading(title, claim, bound, row)));
    }
    out + "\n" + &sentences.join("\n") + "\n"
}

/// The fastest variant at the article's ratio without smaller tensors: the article sets weights to zero.
fn best<'r, 'a>(rows: &'r [Row<'a>], title: &str) -> Option<&'r Row<'a>> {
    let comparable = rows.iter().filter(|row| row.title == title && row.pruned.case.ratio == RATIO && !row.shrank());
    comparable
        .filter(|row| row.p50().is_some())
        .min_by(|one, other| one.p50().unwrap_or(f64::MAX).total_cmp(&other.p50().unwrap_or(f64::MAX)))
}

fn reading(title: &str, claim: f64, bound: Option<f64>, row: Option<&Row<'_>>) -> String {
    let Some(bound) = bound else { return format!("{title}: the article claims {claim:.1} times; not measured here.") };
    let verdict = if claim > bound * SLACK {
        let stays = if stays_dense(title) > 0.0 {
            " (its depthwise layers and its first layer, a tenth of all, run dense whatever their weights are)"
        } else {
            ""
        };
        format!(
            "more than pruning explains: the multiply-accumulates left allow {bound:.1} times{stays}. Its two times \
             differ in something else as well: the engine, the precision, the number of threads, or a slow dense engine"
        )
    } else {
        format!("within what pruning explains: the multiply-accumulates left allow {bound:.1} times")
    };
    format!("{title}: {claim:.1} times is {verdict}{}.", row.map_or(String::new(), here))
}

/// The measured speed-up over each dense engine.
fn here(row: &Row<'_>) -> String {
    let over = [
        (row.vs_onnxruntime(), "dense onnxruntime"),
        (row.vs_tract(), "dense tract"),
        (row.pruned.speed_up, "our own dense kernels"),
    ];
    let over = over.into_iter().filter_map(|(gain, than)| Some(format!("{:.1} times as fast as {than}", gain?.value)));
    let over: Vec<String> = over.collect();
    match row.p50() {
        Some(ns) if !over.is_empty() => format!(". Here the pruned network ({} ms) is {}", ms(ns), over.join(", ")),
        _ => String::new(),
    }
}
