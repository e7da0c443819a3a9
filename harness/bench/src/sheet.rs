//! The text of one table, whatever it is rendered to. The one place where numbers become strings and get the units
//! people read; every column has one unit and one number of decimals, so that its cells can be compared.

mod answers;
mod layers;
pub mod peers;

use espalier_protocol::{BoardState, Mode, text::sanitise};

use crate::{
    metric::{Bounds, Estimate, Metric, Unit},
    record::{DeviceInfo, ModelInfo, Outcome, Run},
    summary::{CaseSummary, NOISY_LOG_SD, NotFiniteCount, Trust},
};
use espalier_inventory::Source;

#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// `digits-cnn on pi4`.
    pub title: String,
    /// Short phrases needed to read the numbers. Free of control characters, otherwise as the board sent them.
    pub facts: Vec<String>,
    pub columns: Vec<Column>,
    /// Shown below the table; without a full stop.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: &'static str,
    /// May be empty.
    pub unit: String,
    /// Of columns that do not fit, the highest rank is left out first.
    pub rank: u8,
    /// One a row.
    pub cells: Vec<Cell>,
    /// Explains the heading; may be empty.
    pub legend: &'static str,
}

impl Column {
    pub fn new(name: &'static str, unit: impl Into<String>, rank: u8, cells: Vec<Cell>) -> Column {
        Column { name, unit: unit.into(), rank, cells, legend: "" }
    }
}

/// The legends of the visible columns, as one line.
pub fn legend<'a>(columns: impl Iterator<Item = &'a Column>) -> Option<String> {
    let legends: Vec<&str> = columns.map(|column| column.legend).filter(|legend| !legend.is_empty()).collect();
    (!legends.is_empty()).then(|| legends.join("; "))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Doubtful,
}

/// Stands for "not measured", which is not zero.
pub const MISSING: &str = "—";

/// One sheet for each model on each device, in the header's order, then those of layers with `--profile`.
pub fn sheets(run: &Run, summaries: &[CaseSummary]) -> Vec<Sheet> {
    let mut sheets = Vec::new();
    for model in &run.header.models {
        for device in &run.header.devices {
            let of_sheet =
                |summary: &&CaseSummary| summary.case.model == model.name && summary.case.device == device.name;
            let cases: Vec<&CaseSummary> = summaries.iter().filter(of_sheet).collect();
            sheets.push(Sheet {
                title: sanitise(&format!("{} on {}", model.name, device.name)),
                facts: facts(run, model, device),
                columns: columns(run, model, &cases),
                notes: notes(run, model, device, &cases),
            });
        }
    }
    sheets.extend(layers::sheets(run, summaries));
    sheets
}

fn facts(run: &Run, model: &ModelInfo, device: &DeviceInfo) -> Vec<String> {
    let header = &run.header;
    let measured = run.records.iter().filter(|record| record.case.device == device.name).find_map(|record| {
        let Outcome::Measured(measured) = &record.outcome else { return None };
        Some(&**measured)
    });
    let mut facts = vec![format!("target {} ({})", device.target, device.triple)];
    facts.extend(measured.map(|measured| board(&measured.before)).unwrap_or_default());
    facts.push(match &device.runner {
        Some(runner) => {
            let sha: String = runner.sha256.chars().take(8).collect();
            format!("runner {sha}, {}, {}", size(runner.bytes), runner.builder)
        }
        None => "no runner".to_owned(),
    });
    facts.extend(peers::versions(run, device));
    if device.threads > 1 {
        facts.push(format!("{} threads", device.threads));
    }
    let revision = header.provenance.revision.as_deref();
    facts.push(format!("espalier {}, revision {}", header.provenance.espalier, revision.unwrap_or("unknown")));
    facts.push(format!("pruned by {}", model.recipe));
    facts.extend(answers::fact(model));
    let unnamed = model.labels.as_ref().filter(|_| model.task.is_none());
    facts.extend(unnamed.map(|labels| format!("accuracy on {} samples", labels.len())));
    if matches!(Source::parse(&model.source), Source::Build { .. }) {
        // Agreement must not be mistaken for accuracy, neither where it is high nor where it is low.
        facts.push(
            "random weights, synthetic samples: how many classes are as dense says nothing about trained weights"
                .to_owned(),
        );
    }
    if header.nested {
        facts.push("one pack of all ratios".to_owned());
    }
    facts.extend(header.skip_below.map(|bound| format!("skipping leaves out activations up to {bound}")));
    let protocol = &header.protocol;
    facts.push(format!("{} fresh processes a variant", protocol.runs));
    let (warmup, iterations, min_time) = (protocol.warmup, protocol.iterations, protocol.min_time_ms);
    facts.push(format!("each {warmup} inferences to warm up, then at least {iterations} and {min_time} ms"));
    facts.push(format!("run {} of {}", header.id, header.started));
    facts.iter().map(|fact| sanitise(fact)).collect()
}

/// What a board reported of itself, as short phrases.
pub fn board(state: &BoardState) -> Vec<String> {
    let mut facts = Vec::new();
    facts.extend(state.cpu.as_ref().map(|cpu| format!("cpu {}", short(cpu))));
    facts.extend(state.cpus.map(|cpus| format!("{cpus} CPU{}", if cpus == 1 { "" } else { "s" })));
    facts.extend(state.kernel.as_ref().map(|kernel| format!("kernel {}", short(kernel))));
    facts.extend(state.governor.as_ref().map(|governor| format!("governor {}", short(governor))));
    facts
}

fn columns(run: &Run, model: &ModelInfo, cases: &[&CaseSummary]) -> Vec<Column> {
    // Without p99: a few interrupted inferences must not cost the others digits.
    let times = [Metric::P50, Metric::P90];
    let mut columns: Vec<Column> = peers::are_named(run).then(|| peers::engine_column(cases)).into_iter().collect();
    columns.extend([
        ratios(cases),
        numbers("weights", " kept", 11, cases, Metric::WeightsKept, &[Metric::WeightsKept]),
        macs(cases),
        numbers("file", "", 8, cases, Metric::File, &[Metric::File]),
    ]);
    columns.extend(packed(cases));
    columns.extend([
        numbers("load", "", 14, cases, Metric::Load, &[Metric::Load]),
        numbers("first", "", 9, cases, Metric::First, &[Metric::First]),
        numbers("p50 [95 %]", "", 1, cases, Metric::P50, &times),
        numbers("p90", "", 15, cases, Metric::P90, &times),
        numbers("p99", "", 7, cases, Metric::P99, &[Metric::P99]),
        speed_up(cases),
    ]);
    columns.extend(peers::columns(run, cases));
    columns.push(numbers("peak RSS", "", 6, cases, Metric::PeakRss, &[Metric::PeakRss]));
    columns.extend(answers::columns(model, cases));
    columns.push(Column::new("trust", "", 4, cases.iter().map(|case| trust(case)).collect()));
    columns
}

fn cells(cases: &[&CaseSummary], text: impl Fn(&CaseSummary) -> Option<String>) -> Vec<Cell> {
    cases.iter().map(|case| cell(text(case).unwrap_or_else(|| MISSING.to_owned()), Tone::Plain)).collect()
}

pub fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

/// The requested ratio and, where it differs by three decimals, the effective one.
fn ratios(cases: &[&CaseSummary]) -> Column {
    let differs = |case: &CaseSummary| {
        case.effective_ratio.filter(|effective| format!("{effective:.3}") != format!("{:.3}", case.case.ratio))
    };
    let text = |case: &CaseSummary| {
        let requested = case.case.ratio;
        Some(differs(case).map_or(requested.to_string(), |effective| format!("{requested} ({effective:.3})")))
    };
    let any_differs = cases.iter().any(|case| differs(case).is_some());
    let legend = if any_differs { "ratio: requested (and effective)" } else { "" };
    Column { legend, ..Column::new("ratio", "", 0, cells(cases, text)) }
}

/// A metric's column, with a unit that suits all metrics of `scaled_with`.
fn numbers(
    name: &'static str,
    unit_suffix: &str,
    rank: u8,
    cases: &[&CaseSummary],
    metric: Metric,
    scaled_with: &[Metric],
) -> Column {
    let scale = Scale::of_metrics(cases, scaled_with);
    let text = |case: &CaseSummary| {
        let estimate = case.value(metric)?;
        // The table has room for the median's interval only; the exports have the others.
        let bounds = estimate.bounds.filter(|_| metric == Metric::P50);
        Some(interval(estimate.value, bounds, |value| scale.text(value)))
    };
    Column::new(name, format!("{}{unit_suffix}", scale.unit), rank, cells(cases, text))
}

fn macs(cases: &[&CaseSummary]) -> Column {
    let scale = Scale::of_metrics(cases, &[Metric::MacsExecuted]);
    let text = |case: &CaseSummary| {
        let macs = case.macs?;
        Some(format!("{}/{}", scale.text(macs.executed as f64), scale.text(macs.nonzero as f64)))
    };
    let column = Column::new("MACs/≠0", scale.unit, 12, cells(cases, text));
    Column { legend: "MACs/≠0: multiply-accumulates run, and those whose weight is not zero", ..column }
}

/// The file's size as a pack; no column in runs without it.
fn packed(cases: &[&CaseSummary]) -> Option<Column> {
    cases.iter().find(|case| case.variant.packed.is_some())?;
    let scale = Scale::of_metrics(cases, &[Metric::Packed, Metric::PackedCodebook]);
    let size = |case: &CaseSummary, metric| {
        case.value(metric).map_or(MISSING.to_owned(), |estimate| scale.text(estimate.value))
    };
    let text = |case: &CaseSummary| {
        case.variant.packed.as_ref()?;
        Some(format!("{}/{}", size(case, Metric::Packed), size(case, Metric::PackedCodebook)))
    };
    let column = Column::new("packed", scale.unit, 13, cells(cases, text));
    Some(Column { legend: "packed: size as a lossless pack, and as bitmap and codebook", ..column })
}

fn speed_up(cases: &[&CaseSummary]) -> Column {
    let cells = cases.iter().map(|case| match case.speed_up {
        _ if case.is_dense() => cell(if case.p50.is_some() { "1 (dense)" } else { MISSING }, Tone::Plain),
        None => cell(MISSING, Tone::Plain),
        Some(Estimate { value, bounds }) => {
            let tone = match bounds {
                _ if case.trust == Some(Trust::Emulated) => Tone::Plain,
                Some(bounds) if bounds.low > 1.0 => Tone::Good,
                Some(bounds) if bounds.high < 1.0 => Tone::Bad,
                _ => Tone::Plain,
            };
            cell(interval(value, bounds, |value| format!("{value:.2}")), tone)
        }
    });
    Column::new("speed-up [95 %]", "× dense", 2, cells.collect())
}

fn trust(case: &CaseSummary) -> Cell {
    match case.trust {
        None => cell(MISSING, Tone::Plain),
        Some(trust @ Trust::Ok) => cell(trust.name(), Tone::Plain),
        Some(trust @ Trust::Throttled) => cell(trust.name(), Tone::Bad),
        Some(trust @ (Trust::Noisy | Trust::Emulated)) => cell(trust.name(), Tone::Doubtful),
    }
}

fn interval(value: f64, bounds: Option<Bounds<f64>>, text: impl Fn(f64) -> String) -> String {
    match bounds {
        Some(bounds) => format!("{} [{}–{}]", text(value), text(bounds.low), text(bounds.high)),
        None => text(value),
    }
}

fn notes(run: &Run, model: &ModelInfo, device: &DeviceInfo, cases: &[&CaseSummary]) -> Vec<String> {
    let mut notes = Vec::new();
    let has = |trust: Trust| cases.iter().any(|case| case.trust == Some(trust));
    if device.emulated {
        notes.push("emulated board: its times are a functional check and do not predict a real board's".to_owned());
    }
    for case in cases {
        for failure in &case.failures {
            let times = if failure.count == 1 { String::new() } else { format!(" ({} times)", failure.count) };
            let (mode, stage) = (failure.mode.name(), failure.stage.name());
            notes.push(format!(
                "{}: `{mode}` failed, stage {stage}: {}{times}",
                name_of(run, case),
                short(&failure.message)
            ));
        }
        let (measured, planned) = (case.invocation_medians.len(), case.planned_invocations);
        let explained = case.failures.iter().any(|failure| failure.mode == Mode::Time);
        if measured < planned as usize && !explained {
            notes.push(format!("{}: {measured} of {planned} timing processes were measured", name_of(run, case)));
        }
    }
    notes.extend(not_finite(run, cases));
    notes.extend(reference(run, cases));
    notes.extend(answers::budget(run, model, cases));
    for engine in &run.header.engines {
        let of_engine: Vec<&CaseSummary> = cases.iter().copied().filter(|case| case.case.engine == *engine).collect();
        notes.extend(zeros_are_not_faster(run, device, &of_engine));
    }
    notes.extend(peers::notes(run, cases));
    if has(Trust::Noisy) {
        let percent = NOISY_LOG_SD * 100.0;
        notes.push(format!("noisy: fewer than two processes, or their medians spread by more than {percent} %"));
    }
    if has(Trust::Throttled) {
        notes.push(
            "throttled: the board was held back or below its full frequency; cool it and measure again".to_owned(),
        );
    }
    notes
}

/// How a note names a row.
fn name_of(run: &Run, case: &CaseSummary) -> String {
    let by = if peers::are_named(run) { format!(" by {}", case.case.engine.name()) } else { String::new() };
    format!("ratio {}{by}", case.case.ratio)
}

/// Which rows answer with what is no number. One note for those that all share, which the model itself is likely to do.
fn not_finite(run: &Run, cases: &[&CaseSummary]) -> Vec<String> {
    let say = |count: NotFiniteCount| {
        let NotFiniteCount { nan, infinite, total } = count;
        let of = |samples: u64, what: &str| (samples > 0).then(|| format!("{what} for {samples} of {total} samples"));
        of(nan, "NaN").into_iter().chain(of(infinite, "an infinite value")).collect::<Vec<_>>().join(" and ")
    };
    let counts: Vec<Option<NotFiniteCount>> = cases.iter().map(|case| case.not_finite).collect();
    match counts.first() {
        Some(Some(first)) if counts.len() > 1 && counts.iter().all(|count| count.as_ref() == Some(first)) => {
            vec![format!("every variant answers {}", say(*first))]
        }
        _ => {
            let named = cases.iter().zip(counts).filter_map(|(case, count)| Some((name_of(run, case), count?)));
            named.map(|(name, count)| format!("{name} answers {}", say(count))).collect()
        }
    }
}

/// How the predictions of all variants compare with the reference device's.
fn reference(run: &Run, cases: &[&CaseSummary]) -> Option<String> {
    let reference = run.header.reference_device.as_deref()?;
    let agreements: Vec<_> = cases.iter().filter_map(|case| Some((case, case.same_as_reference?))).collect();
    if agreements.is_empty() {
        return None;
    }
    let equal: u64 = agreements.iter().map(|(_, agreement)| agreement.equal).sum();
    let total: u64 = agreements.iter().map(|(_, agreement)| agreement.total).sum();
    let largest = agreements.iter().filter_map(|(_, agreement)| agreement.largest_difference).reduce(f32::max);
    let differ = agreements.iter().filter(|(_, agreement)| agreement.equal < agreement.total);
    let differ: Vec<String> = differ.map(|(case, _)| case.case.ratio.to_string()).collect();
    let mut note = format!("predictions as on `{}`: {equal} of {total} equal", sanitise(reference));
    if !differ.is_empty() {
        note.push_str(&format!(", they differ at ratio {}", differ.join(", ")));
    }
    if let Some(largest) = largest {
        note.push_str(&format!(", largest output difference {largest:.1e}"));
    }
    Some(note)
}

/// A note where the intervals of all variants from ratio 0.5 on contain 1.
fn zeros_are_not_faster(run: &Run, device: &DeviceInfo, cases: &[&CaseSummary]) -> Option<String> {
    let high: Vec<&&CaseSummary> = cases.iter().filter(|case| case.case.ratio >= 0.5).collect();
    let mut bounds = high.iter().filter_map(|case| case.speed_up?.bounds).peekable();
    bounds.peek()?;
    let all_contain_one = bounds.all(|bounds| bounds.low <= 1.0 && 1.0 <= bounds.high);
    if !all_contain_one || device.emulated {
        return None;
    }
    let from = high.iter().map(|case| case.case.ratio).fold(f64::INFINITY, f64::min);
    let first = cases.first().filter(|_| peers::are_named(run));
    let by = first.map_or_else(String::new, |first| format!(" by {}", first.case.engine.name()));
    let has_kernels = cases.iter().any(|case| !case.kernels.is_empty());
    let why = if has_kernels {
        "`--profile` shows where the time goes"
    } else {
        "zeros alone do not make a dense engine faster"
    };
    Some(format!("no speed-up is shown{by} from ratio {from} on (the intervals contain 1): {why}"))
}

/// How the numbers of a column are shown.
struct Scale {
    divisor: f64,
    unit: &'static str,
    decimals: usize,
}

const TIMES: &[(f64, &str)] = &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")];
const SIZES: &[(f64, &str)] = &[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")];
const COUNTS: &[(f64, &str)] = &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")];

fn steps(unit: Unit) -> &'static [(f64, &'static str)] {
    match unit {
        Unit::Nanoseconds => TIMES,
        Unit::Bytes => SIZES,
        _ => COUNTS,
    }
}

impl Scale {
    fn of_metrics(cases: &[&CaseSummary], metrics: &[Metric]) -> Scale {
        let values = cases.iter().flat_map(|case| metrics.iter().filter_map(|metric| case.value(*metric)));
        let unit = metrics.first().map_or(Unit::Count, |metric| metric.unit());
        Scale::new(values.map(|estimate| estimate.value), steps(unit))
    }

    /// The unit in which the largest value is at least 1; three digits of the smallest value that is not 0.
    fn new(values: impl Iterator<Item = f64>, steps: &[(f64, &'static str)]) -> Scale {
        let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
        let largest = values.iter().copied().fold(0.0, f64::max);
        let smallest = values.iter().copied().fold(largest, f64::min);
        let (divisor, unit) = steps.iter().rev().find(|(step, _)| largest >= *step).copied().unwrap_or(steps[0]);
        let digits = if smallest > 0.0 { (smallest / divisor).log10().floor() as i32 } else { 0 };
        let decimals = if divisor == 1.0 { 0 } else { (2 - digits).clamp(0, 3) as usize };
        Scale { divisor, unit, decimals }
    }

    fn text(&self, value: f64) -> String {
        format!("{:.*}", self.decimals, value / self.divisor)
    }
}

/// With its unit, e.g. `4.10 MiB`.
pub fn size(bytes: u64) -> String {
    let scale = Scale::new([bytes as f64].into_iter(), SIZES);
    format!("{} {}", scale.text(bytes as f64), scale.unit)
}

/// A fraction in per cent, with at most so many decimals and no needless ones: 0.005 is `0.5`.
pub fn percent(fraction: f64, decimals: u32) -> String {
    let scale = 10f64.powi(decimals.cast_signed());
    ((fraction * (100.0 * scale)).round() / scale).to_string()
}

/// Two times (ns), sizes (bytes) or counts in one unit, with one more digit than in a table: they may be close.
pub fn both(base: f64, candidate: f64, unit: Unit) -> [String; 2] {
    let scale = Scale::new([base, candidate].into_iter(), steps(unit));
    let decimals = if scale.divisor == 1.0 { 0 } else { scale.decimals + 1 };
    let scale = Scale { decimals, ..scale };
    [base, candidate].map(|value| format!("{} {}", scale.text(value), scale.unit))
}

/// Untrusted text, sanitised and of bounded length.
pub fn short(text: &str) -> String {
    const MOST: usize = 200;
    let mut kept: String = text.chars().take(MOST).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    sanitise(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, record::Record, summary::summarise};

    #[track_caller]
    fn check_scale(values: &[f64], steps: &[(f64, &'static str)], expected: &[&str], unit: &str) {
        let scale = Scale::new(values.iter().copied(), steps);
        assert_eq!(values.iter().map(|value| scale.text(*value)).collect::<Vec<String>>(), expected);
        assert_eq!(scale.unit, unit);
    }

    #[test]
    fn a_column_has_one_unit() {
        check_scale(&[1.0e6, 0.8e6], TIMES, &["1.000", "0.800"], "ms");
        check_scale(&[999_000.0, 120_000.0], TIMES, &["999", "120"], "µs");
        check_scale(&[412.0, 7.0], TIMES, &["412", "7"], "ns");
        check_scale(&[2.5e9, 2.5e6], TIMES, &["2.500", "0.003"], "s");
        check_scale(&[215_040.0], SIZES, &["210"], "KiB");
        check_scale(&[52_000.0, 0.0], COUNTS, &["52.0", "0.0"], "k");
        check_scale(&[], TIMES, &[], "ns");
    }

    fn notes_on_local(run: &Run) -> Vec<String> {
        sheets(run, &summarise(run)).swap_remove(0).notes
    }

    /// The pruned variant's times are raised to about those of dense.
    #[test]
    fn zeros_are_called_slow_only_where_they_are() {
        let noted = |notes: &[String]| notes.iter().any(|note| note.starts_with("no speed-up is shown"));
        let mut run = fixture::run();
        assert!(!noted(&notes_on_local(&run)));
        for record in &mut run.records {
            if let Outcome::Measured(measured) = &mut record.outcome
                && record.case.ratio == 0.5
                && !measured.timed_ns.is_empty()
            {
                measured.timed_ns.iter_mut().for_each(|ns| *ns = *ns * 5 / 4);
            }
        }
        assert!(noted(&notes_on_local(&run)));
        let emulated = sheets(&run, &summarise(&run)).swap_remove(1);
        assert!(!noted(&emulated.notes));
    }

    #[test]
    fn the_budget_is_judged_by_what_was_scored() {
        let budget = |allowed: Option<f64>, keep: fn(&Record) -> bool| {
            let mut run = fixture::run();
            run.header.models[0].max_accuracy_drop = allowed;
            run.records.retain(keep);
            notes_on_local(&run).into_iter().find(|note| note.contains("budget"))
        };
        let expected = "largest ratio within the accuracy budget (at most 8 pp lost): 0.9 (-8.00 pp)";
        assert_eq!(budget(Some(0.08), |_| true).as_deref(), Some(expected));
        let expected = "no pruned variant is within the accuracy budget (at most 0.5 pp lost)";
        assert_eq!(budget(Some(0.005), |_| true).as_deref(), Some(expected));
        assert_eq!(budget(None, |_| true), None);
        assert_eq!(budget(Some(0.08), |record| record.case.ratio > 0.0), None, "dense is missing");
    }

    #[test]
    fn without_labels_the_classes_are_compared_with_dense() {
        let mut run = fixture::run();
        run.header.models[0].labels = None;
        let sheet = sheets(&run, &summarise(&run)).swap_remove(0);
        let names: Vec<&str> = sheet.columns.iter().map(|column| column.name).collect();
        assert!(names.contains(&"same class") && !names.contains(&"accuracy"), "{names:?}");
        let same = sheet.columns.iter().find(|column| column.name == "same class").unwrap();
        assert_eq!(same.cells.iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>(), ["—", "196/200", "182/200"]);
    }

    #[test]
    fn random_weights_and_skipping_are_facts() {
        let mut run = fixture::run();
        let noted =
            |run: &Run, start: &str| sheets(run, &summarise(run))[0].facts.iter().any(|fact| fact.starts_with(start));
        assert!(!noted(&run, "random weights") && !noted(&run, "skipping"));
        run.header.models[0].source = "build:resnet50".into();
        run.header.models[0].labels = None;
        run.header.skip_below = Some(0.01);
        assert!(noted(&run, "random weights") && noted(&run, "skipping leaves out activations up to 0.01"));
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let run = fixture::run();
        for sheet in sheets(&run, &summarise(&run)) {
            let text = [sheet.facts, sheet.notes].concat().concat();
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn per_cent_without_needless_digits() {
        assert_eq!(
            [0.005, 0.03, 0.07, 0.0, 0.000_012].map(|fraction| percent(fraction, 4)),
            ["0.5", "3", "7", "0", "0.0012"]
        );
        assert_eq!([0.0213, 0.005, 1.0].map(|fraction| percent(fraction, 1)), ["2.1", "0.5", "100"]);
        // 0.29 · 100 is 28.999999999999996 in binary.
        assert_eq!(percent(0.29, 6), "29");
    }
}
