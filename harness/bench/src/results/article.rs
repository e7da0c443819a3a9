//! The figures of the article that Espalier set out from, and what can be said of them: how many times as fast they say a pruned network is, how many
//! multiply-accumulates are left to explain that, and what was measured here.

use super::{Row, System, millions, ms, times};

/// Multiply-accumulates that an engine carries out whether their weights are zero or not: in MobileNetV2 the depthwise layers (20.7 M), whose nine weights a
/// channel are too few to skip among, and the first layer (10.8 M), which has three channels to read.
fn stays_dense(system: System) -> f64 {
    if system == System::MobileNetV2 { 31.5e6 } else { 0.0 }
}

/// All, and those that are left to be carried out.
fn left(row: &Row<'_>) -> Option<(f64, f64)> {
    let (all, nonzero) = row.macs()?;
    let stays = stays_dense(row.system).min(all);
    Some((all, stays + (all - stays) * nonzero / all))
}

/// Milliseconds before and after pruning, as the article has them. It names neither engine nor machine.
const FIGURES: [(System, f64, f64); 3] =
    [(System::MobileNetV2, 18.3, 2.1), (System::BertLarge, 125.2, 22.7), (System::Lstm, 15.3, 3.2)];

/// The share of weights that goes in the article.
const RATIO: f64 = 0.9;

/// What may be read off too exactly: a claim this much above what is left to compute is still put down to rounding.
const SLACK: f64 = 1.05;

pub(super) fn section(rows: &[Row<'_>]) -> String {
    let mut out = "\n## The article's own figures\n\n\
        Milliseconds of another machine cannot be compared, ratios can. What pruning alone can explain is bounded by what is left to compute: a program \
        that did nothing but the multiply-accumulates that are left, each as quickly as before, would be as much faster as there are fewer of them. Left are those \
        whose weight is not zero, and those of layers that no engine gains from zeros in. Where memory is what limits, as in a recurrent layer that reads each weight once a step, the bound is the bytes that are left, and an engine \
        whose dense kernels are slow leaves more room than either.\n\n\
        | network | article | times as fast | MACs, all / left at 0.9 | bound | here, over dense onnxruntime | over dense tract | over our own dense |\n\
        | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let mut sentences = Vec::new();
    for (system, before, after) in FIGURES {
        let claim = before / after;
        let row = best(rows, system);
        let left = row.and_then(left);
        let bound = left.map(|(all, left)| all / left);
        let macs = left.map(|(all, left)| format!("{} / {}", millions(all), millions(left)));
        let missing = || "—".to_owned();
        out += &format!(
            "| {} | {before} → {after} ms | {claim:.1} | {} | {} | {} | {} | {} |\n",
            system.title(),
            macs.unwrap_or_else(missing),
            bound.map_or_else(missing, |bound| format!("{bound:.1}")),
            times(row.and_then(|row| row.vs_onnxruntime())),
            times(row.and_then(|row| row.vs_tract())),
            times(row.and_then(|row| row.pruned.speed_up)),
        );
        sentences.push(format!("- {}", reading(system, claim, bound, row)));
    }
    out + "\n" + &sentences.join("\n") + "\n"
}

/// The fastest at the article's ratio in which no tensor shrank: the article sets weights to zero.
fn best<'r, 'a>(rows: &'r [Row<'a>], system: System) -> Option<&'r Row<'a>> {
    let comparable = rows.iter().filter(|row| row.system == system && row.pruned.case.ratio == RATIO && !row.shrank());
    comparable
        .filter(|row| row.p50().is_some())
        .min_by(|one, other| one.p50().unwrap_or(f64::MAX).total_cmp(&other.p50().unwrap_or(f64::MAX)))
}

fn reading(system: System, claim: f64, bound: Option<f64>, row: Option<&Row<'_>>) -> String {
    let title = system.title();
    let Some(bound) = bound else { return format!("{title}: {claim:.1} times is said; not measured here.") };
    let verdict = if claim > bound * SLACK {
        let stays = match system {
            System::MobileNetV2 => {
                " (its depthwise layers and its first layer, a tenth of all, run dense whatever their weights are)"
            }
            _ => "",
        };
        format!(
            "more than is left to explain: the multiply-accumulates allow {bound:.1} times{stays}. Something else differs between both figures as well: the \
             engine, the precision, the number of threads, or a dense measurement with a slow engine"
        )
    } else {
        format!("within what is left to explain: the multiply-accumulates allow {bound:.1} times")
    };
    format!("{title}: {claim:.1} times is {verdict}{}.", row.map_or(String::new(), here))
}

/// What was measured, over each dense engine there is.
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
