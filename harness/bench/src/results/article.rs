//! The figures of the article that Espalier set out from, and what can be said of them: how many times as fast they say a pruned network is, how many
//! multiply-accumulates are left to explain that, and what was measured here.

use super::{Row, System, millions, ms, times};

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
        that did nothing but the multiply-accumulates whose weight is not zero, each as quickly as before, would be as much faster as there are fewer of \
        them. Where memory is what limits, as in a recurrent layer that reads each weight once a step, the bound is the bytes that are left, and an engine \
        whose dense kernels are slow leaves more room than either.\n\n\
        | network | article | times as fast | MACs, all / left at 0.9 | bound | here, over dense onnxruntime | over dense tract | over our own dense |\n\
        | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let mut sentences = Vec::new();
    for (system, before, after) in FIGURES {
        let claim = before / after;
        let row = best(rows, system);
        let left = row.and_then(Row::macs);
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
                " (depthwise layers and the stem stay dense, they have hardly any weights to remove)"
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
    let here = row.map_or(String::new(), |row| {
        let pruned = row.p50().map_or(String::new(), |ns| format!(" ({} ms)", ms(ns)));
        match (row.vs_onnxruntime(), row.pruned.speed_up) {
            (Some(peer), Some(own)) => format!(
                ". Here the pruned network{pruned} is {:.1} times as fast as dense onnxruntime and {:.1} times as fast as our own dense kernels",
                peer.value, own.value
            ),
            (None, Some(own)) => format!(". Here the pruned network{pruned} is {:.1} times as fast as our own dense kernels", own.value),
            _ => String::new(),
        }
    });
    format!("{title}: {claim:.1} times is {verdict}{here}.")
}
