//! What a sheet shows of several engines: their names, their times beside each other's, and whether they agree.

use espalier_protocol::LayerKernel;

use super::{Cell, Column, MISSING, Tone, cell, cells, interval, name_of, short};
use crate::{
    engine::Engine,
    record::{DeviceInfo, Outcome, Run},
    summary::{CaseSummary, Trust},
};

/// Whether rows name their engine.
pub fn are_named(run: &Run) -> bool {
    !crate::engine::are_default(&run.header.engines)
}

/// The versions of the engines that ran on the device, as they reported them, each once.
pub fn versions(run: &Run, device: &DeviceInfo) -> Vec<String> {
    let version = |engine: &Engine| {
        if let Some(peer) = run.header.peers.iter().find(|peer| peer.engine == *engine) {
            return Some(short(&peer.versions));
        }
        let of_engine = |case: &crate::record::Case| case.device == device.name && case.engine == *engine;
        run.records.iter().filter(|record| of_engine(&record.case)).find_map(|record| match &record.outcome {
            Outcome::Measured(measured) => Some(short(&measured.hello.engine)),
            Outcome::Failed(_) => None,
        })
    };
    let mut versions: Vec<String> = Vec::new();
    for version in run.header.engines.iter().filter_map(version) {
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    versions
}

/// The rows that the accuracy budget is judged by: those of the default engine, else of the first.
pub(super) fn judged<'a>(run: &Run, cases: &[&'a CaseSummary]) -> Vec<&'a CaseSummary> {
    let engines = &run.header.engines;
    let judged = engines.iter().find(|engine| engine.is_default()).or(engines.first()).copied().unwrap_or_default();
    cases.iter().copied().filter(|case| case.case.engine == judged).collect()
}

pub(super) fn engine_column(cases: &[&CaseSummary]) -> Column {
    Column::new("engine", "", 0, cells(cases, |case| Some(case.case.engine.name().to_owned())))
}

/// How fast a row is over other engines' dense variants, and whether it computes what espalier does.
pub(super) fn columns(run: &Run, cases: &[&CaseSummary]) -> Vec<Column> {
    if run.header.engines.len() < 2 {
        return Vec::new();
    }
    let has = |engine: Engine| run.header.engines.contains(&engine);
    let mut others = vec![Engine::Onnxruntime, Engine::Tract];
    // What skipping gains over the runner without it.
    others.extend(has(Engine::Skipping).then_some(Engine::Espalier));
    let speed = |engine: Engine| {
        let (name, rank) = match engine {
            Engine::Onnxruntime => ("vs onnxruntime dense", 2),
            Engine::Tract => ("vs tract dense", 5),
            Engine::Espalier | Engine::Skipping => ("vs espalier dense", 5),
        };
        Column::new(name, "× [95 %]", rank, cases.iter().map(|case| speed_cell(case, engine)).collect())
    };
    let mut columns: Vec<Column> = others.into_iter().filter(|engine| has(*engine)).map(speed).collect();
    if has(Engine::Espalier) {
        let agreement =
            Column::new("same as espalier", "class, output", 4, cases.iter().map(|case| same(case)).collect());
        let legend = "same as espalier: samples of the same class, largest difference of an output";
        columns.push(Column { legend, ..agreement });
    }
    columns
}

fn speed_cell(case: &CaseSummary, engine: Engine) -> Cell {
    let estimate = if case.case.engine == engine {
        if case.is_dense() {
            return cell(if case.p50.is_some() { "1 (dense)" } else { MISSING }, Tone::Plain);
        }
        case.speed_up
    } else {
        case.against(engine).and_then(|against| against.dense)
    };
    let Some(estimate) = estimate else { return cell(MISSING, Tone::Plain) };
    let tone = match estimate.bounds {
        _ if case.trust == Some(Trust::Emulated) => Tone::Plain,
        Some(bounds) if bounds.low > 1.0 => Tone::Good,
        Some(bounds) if bounds.high < 1.0 => Tone::Bad,
        _ => Tone::Plain,
    };
    cell(interval(estimate.value, estimate.bounds, |value| format!("{value:.2}")), tone)
}

fn same(case: &CaseSummary) -> Cell {
    let Some(same) = case.same_as_espalier else { return cell(MISSING, Tone::Plain) };
    let mut text = format!("{}/{}", same.equal, same.total);
    if let Some(difference) = same.largest_difference {
        text.push_str(&format!(" {difference:.0e}"));
    }
    if same.is_same() { cell(text, Tone::Plain) } else { cell(format!("{text} (!)"), Tone::Bad) }
}

/// A variant that is slower than plain tract by more than this factor gets a note.
const NEVER_SLOWER: f64 = 1.05;

pub(super) fn notes(run: &Run, cases: &[&CaseSummary]) -> Vec<String> {
    let mut notes = Vec::new();
    for case in cases {
        if let Some(same) = case.same_as_espalier.filter(|same| !same.is_same()) {
            let mut note = format!(
                "(!) {}: not what espalier computes: {} of {} samples have the same class",
                name_of(run, case),
                same.equal,
                same.total
            );
            if let (Some(difference), Some(relative)) = (same.largest_difference, same.relative_difference()) {
                note.push_str(&format!(", outputs differ by up to {difference:.1e} ({relative:.1e} of the largest)"));
            }
            notes.push(note);
        }
        let over_tract = case.against(Engine::Tract).and_then(|against| against.same);
        if let Some(estimate) =
            over_tract.filter(|_| case.case.engine.is_default() && case.trust != Some(Trust::Emulated))
            && estimate.value < 1.0 / NEVER_SLOWER
            && estimate.bounds.is_none_or(|bounds| bounds.high < 1.0)
        {
            let times = 1.0 / estimate.value;
            notes.push(format!("{}: plain tract runs the same variant {times:.2} times as fast", name_of(run, case)));
        }
        if !case.kernels.is_empty() {
            let origin = origin(&case.kernels);
            notes.push(format!("kernels at {}: {}{origin}", name_of(run, case), kernels(&case.kernels)));
            notes.extend(unsure(&case.kernels).map(|what| format!("at {}: {what}", name_of(run, case))));
            let why = |note: &str| format!("at {}: {}", name_of(run, case), short(note));
            notes.extend(reasons(&case.kernels).into_iter().map(|(note, layers)| format!("{layers} {}", why(note))));
        }
    }
    if run.header.peers.iter().any(|peer| peer.engine == Engine::Onnxruntime) {
        notes.push("peak RSS of onnxruntime has Python in it".to_owned());
    }
    notes
}

/// Kernels with their numbers of layers, in the order of their first layer.
fn kernels(layers: &[LayerKernel]) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for layer in layers {
        match counts.iter_mut().find(|(kernel, _)| *kernel == layer.kernel) {
            Some((_, count)) => *count += 1,
            None => counts.push((&layer.kernel, 1)),
        }
    }
    short(&counts.iter().map(|(kernel, count)| format!("{kernel} ×{count}")).collect::<Vec<String>>().join(", "))
}

/// Where choices of kernels come from, unless all were measured in this run.
fn origin(layers: &[LayerKernel]) -> String {
    let measured = layers.iter().filter(|layer| !layer.candidates.is_empty()).count();
    match layers.iter().filter(|layer| layer.cached).count() {
        0 => String::new(),
        stored if stored == measured => " (chosen by stored times)".to_owned(),
        stored => format!(" ({stored} of {measured} chosen by stored times)"),
    }
}

/// How many choices of kernels are in doubt.
fn unsure(layers: &[LayerKernel]) -> Option<String> {
    let measured = layers.iter().filter(|layer| !layer.candidates.is_empty()).count();
    let unsure = layers.iter().filter(|layer| layer.unsure).count();
    (unsure > 0).then(|| {
        format!(
            "{unsure} of {measured} choices of kernels were measured beside other programs: they are measured again \
             when the model is next loaded"
        )
    })
}

/// Why layers stay with tract, and how many do for each reason; only the first few, since large networks have many.
fn reasons(layers: &[LayerKernel]) -> Vec<(&str, String)> {
    const MOST: usize = 4;
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for note in layers.iter().filter_map(|layer| layer.note.as_deref()) {
        match counts.iter_mut().find(|(known, _)| *known == note) {
            Some((_, count)) => *count += 1,
            None => counts.push((note, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let layers = |count: u64| if count == 1 { "1 layer stays".to_owned() } else { format!("{count} layers stay") };
    counts.into_iter().take(MOST).map(|(note, count)| (note, format!("{} with tract", layers(count)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        metric::{Bounds, Estimate},
        sheet::{Sheet, sheets},
        summary::summarise,
    };

    fn sheet() -> Sheet {
        let run = fixture::run_with_peers();
        sheets(&run, &summarise(&run)).remove(0)
    }

    fn column(sheet: &Sheet, name: &str) -> Vec<String> {
        let column = sheet.columns.iter().find(|column| column.name == name).unwrap();
        column.cells.iter().map(|cell| cell.text.clone()).collect()
    }

    #[test]
    fn engines_are_groups_of_rows() {
        let sheet = sheet();
        let engines = ["espalier", "tract", "onnxruntime"].map(|engine| [engine; 3]).concat();
        assert_eq!(column(&sheet, "engine"), engines);
        assert_eq!(column(&sheet, "ratio"), ["0", "0.5", "0.9 (0.895)"].repeat(3));
        let vs = column(&sheet, "vs onnxruntime dense");
        assert!(vs[0].starts_with("1.50 [") && vs[1].starts_with("1.88 [") && vs[2] == MISSING, "{vs:?}");
        assert!(vs[3].starts_with("0.75 [") && vs[6] == "1 (dense)" && vs[7].starts_with("1.25 ["), "{vs:?}");
        let versions =
            ["espalier 0.1.0 (tract 0.23.9)", "tract 0.23.9", "onnxruntime 1.32.0, numpy 2.4.0, Python 3.11.7"];
        assert!(versions.iter().all(|version| sheet.facts.iter().any(|fact| fact == version)), "{:?}", sheet.facts);
    }

    #[test]
    fn a_disagreement_is_marked() {
        let sheet = sheet();
        let same = sheet.columns.iter().find(|column| column.name == "same as espalier").unwrap();
        let cells: Vec<(&str, Tone)> = same.cells.iter().map(|cell| (cell.text.as_str(), cell.tone)).collect();
        assert_eq!(
            cells[..4],
            [(MISSING, Tone::Plain), (MISSING, Tone::Plain), (MISSING, Tone::Plain), ("200/200 0e0", Tone::Plain)]
        );
        assert_eq!(cells[6..8], [("200/200 1e-7", Tone::Plain), ("199/200 1e-7 (!)", Tone::Bad)]);
        let expected = "(!) ratio 0.5 by onnxruntime: not what espalier computes: 199 of 200 samples have the same \
                        class, outputs differ by up to 1.2e-7 (1.2e-7 of the largest)";
        assert!(sheet.notes.iter().any(|note| note == expected), "{:?}", sheet.notes);
    }

    #[test]
    fn kernels_are_counted_and_slowness_is_said() {
        let run = fixture::run_with_peers();
        let mut summaries = summarise(&run);
        let notes = |summaries: &[CaseSummary]| notes(&run, &summaries.iter().collect::<Vec<_>>());
        let before = notes(&summaries);
        assert!(
            before.iter().any(|note| note == "kernels at ratio 0.5 by espalier: dense ×1, block 4x1 ×2"),
            "{before:?}"
        );
        let slower = Estimate { value: 0.8, bounds: Some(Bounds { low: 0.7, high: 0.9 }) };
        summaries[1].against[0].same = Some(slower);
        summaries[1].kernels[0].note = Some("its padding differs".into());
        summaries[1].kernels[2].note = Some("its padding differs".into());
        let expected = "ratio 0.5 by espalier: plain tract runs the same variant 1.25 times as fast";
        assert!(!before.iter().any(|note| note == expected));
        let after = notes(&summaries);
        assert!(after.iter().any(|note| note == expected));
        let time = |kernel: &str| espalier_protocol::CandidateTime { kernel: kernel.into(), ns: 1 };
        summaries[1].kernels.iter_mut().for_each(|layer| layer.candidates = vec![time("dense"), time("tract")]);
        summaries[1].kernels[1].cached = true;
        summaries[1].kernels[2].unsure = true;
        let told = notes(&summaries).join("\n");
        assert!(told.contains("block 4x1 ×2 (1 of 3 chosen by stored times)"), "{told}");
        assert!(told.contains("at ratio 0.5 by espalier: 1 of 3 choices of kernels were measured beside"), "{told}");
        let reason = "2 layers stay with tract at ratio 0.5 by espalier: its padding differs";
        assert!(after.iter().any(|note| note == reason), "{after:?}");
    }

    #[test]
    fn the_default_engine_alone_is_not_named() {
        let run = fixture::run();
        let sheet = sheets(&run, &summarise(&run)).remove(0);
        let names: Vec<&str> = sheet.columns.iter().map(|column| column.name).collect();
        assert!(
            !names.iter().any(|name| *name == "engine" || name.starts_with("vs ") && *name != "vs dense"),
            "{names:?}"
        );
        let mut run = fixture::run_with_peers();
        run.header.engines = vec![Engine::Onnxruntime];
        run.records.retain(|record| record.case.engine == Engine::Onnxruntime);
        let sheet = sheets(&run, &summarise(&run)).remove(0);
        assert_eq!(column(&sheet, "engine"), ["onnxruntime"; 3]);
        assert!(!sheet.columns.iter().any(|column| column.name == "same as espalier"));
    }
}
