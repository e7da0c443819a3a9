//! A calibration for people: the table of what was tried, what was chosen in a sentence, and advice where a device is
//! not fit.

use super::{
    Fit, ModelCalibration,
    decide::{Choice, LEAST_OF_A_TAIL, Length, NIGHTLY, RELEASE, WarmUp, Worth},
};
use crate::{
    Criterion,
    profile::{Profile, Terms},
};
use espalier_bench::{
    sheet::{Column, Sheet, Tone, cell},
    table::{self, Look},
};

/// One model on a device.
pub struct Tried<'a> {
    pub model: &'a str,
    pub device: &'a str,
    /// E.g. the runner, the conditions.
    pub facts: Vec<String>,
    pub warm_up: &'a WarmUp,
    pub lengths: &'a [Length],
    pub choice: &'a Choice,
    pub worth: Option<Worth>,
}

/// The table, and below it what was chosen.
pub fn terminal(tried: &Tried, look: Look) -> String {
    let rows: Vec<(&Length, Criterion, f64)> = tried
        .lengths
        .iter()
        .flat_map(|length| length.pair_sd.iter().map(move |(criterion, sd)| (length, *criterion, *sd)))
        .collect();
    let column = |name, unit: &str, rank, text: &dyn Fn(&(&Length, Criterion, f64)) -> String| {
        let tone = |(length, criterion, _): &(&Length, Criterion, f64)| {
            let Choice { judged, tail, .. } = tried.choice;
            let is_judged = *criterion == *judged || Some(*criterion) == *tail;
            if **length == tried.choice.length && is_judged { Tone::Good } else { Tone::Plain }
        };
        Column::new(name, unit, rank, rows.iter().map(|row| cell(text(row), tone(row))).collect())
    };
    let columns = vec![
        column("length", "ms", 2, &|(length, ..)| length.ms.to_string()),
        column("inferences", "", 3, &|(length, ..)| length.iterations.to_string()),
        column("pairs", "", 5, &|(length, ..)| length.pairs.to_string()),
        column("criterion", "", 0, &|(_, criterion, _)| criterion.name().to_owned()),
        column("pair SD", "%", 1, &|(.., sd)| hundredths(*sd)),
        Column {
            legend: "MDE: the slow-down that 95 of 100 sessions of 32 blocks would find",
            ..column("MDE", "%", 4, &|(_, criterion, sd)| mde(*criterion, *sd))
        },
    ];
    let mut notes = vec![warm_up(tried.warm_up)];
    notes.extend(tried.worth.map(worth));
    notes.extend(tail(tried.choice));
    let sheet = Sheet {
        title: format!("{} on {}: pairs of the same artifact", tried.model, tried.device),
        facts: tried.facts.clone(),
        columns,
        notes,
    };
    let mut out = table::render_sheet(&sheet, look);
    out.push_str(&format!("{}\n", choice(tried.choice)));
    out.extend(advice(tried.choice).map(|advice| format!("  {advice}\n")));
    out
}

/// E.g. `FIT FOR nightly: …`.
pub fn choice(choice: &Choice) -> String {
    let Choice { length, judged, fit, .. } = choice;
    let spread = length.pair_sd.get(judged).map_or("—".to_owned(), |sd| hundredths(*sd));
    let what = match judged {
        Criterion::Fastest => "the fastest of its inferences".to_owned(),
        judged => judged.name().to_owned(),
    };
    let judged =
        format!("{what} is judged, pairs spread by {spread} %, {} inferences an invocation", choice.iterations());
    match fit {
        Fit::Release => format!("fit for release: {judged}"),
        Fit::Nightly => format!("fit for nightly: {judged}"),
        Fit::Unfit => {
            format!("not fit: pairs of the median spread by {spread} % at best, more than {} %", hundredths(NIGHTLY))
        }
    }
}

/// What would improve it; `None` where nothing needs to.
pub fn advice(choice: &Choice) -> Option<String> {
    const STEPS: &str = "set the governor to `performance` or one frequency, cool the board, give the runner a CPU of \
                         its \
                         own (`[conditions] cpus`, `isolcpus`), and close other programs; then calibrate again";
    let median = choice.length.pair_sd.get(&Criterion::P50).map_or("—".to_owned(), |sd| hundredths(*sd));
    match (choice.fit, choice.judged) {
        (Fit::Release | Fit::Nightly, Criterion::Fastest) => Some(format!(
            "the median is not judged, its pairs spread by {median} %: the processor seems to be shared or to change \
             its \
             speed; to judge it too, {STEPS}"
        )),
        (Fit::Release, _) => None,
        (Fit::Nightly, _) => Some(format!("for release (at most {} %): {STEPS}", hundredths(RELEASE))),
        (Fit::Unfit, _) => Some(STEPS.to_owned()),
    }
}

/// Of the device's builds; `None`: it was not measured.
pub fn layouts(layout_sd: Option<f64>, builds: u32) -> String {
    match layout_sd {
        Some(sd) => format!(
            "{builds} builds of the same code spread by {} %: where runners differ, less than {} % is no regression",
            hundredths(sd),
            hundredths((2.0 * sd).max(Profile::NIGHTLY.median.lower))
        ),
        None => "the spread between builds of the same code was not measured (`--layouts`, on a device that is fit)"
            .to_owned(),
    }
}

/// The worst of the models that were calibrated.
pub fn worst<'a>(models: impl IntoIterator<Item = &'a ModelCalibration>) -> Option<Fit> {
    models.into_iter().map(|model| model.fit).max_by_key(|fit| match fit {
        Fit::Release => 0,
        Fit::Nightly => 1,
        Fit::Unfit => 2,
    })
}

fn warm_up(warm_up: &WarmUp) -> String {
    let WarmUp { warmup, invocations, never_steady, .. } = warm_up;
    let text = format!("warm-up: {warmup} inferences");
    match never_steady {
        0 => text,
        _ => format!("{text}; {never_steady} of {invocations} invocations never became steady and were left out"),
    }
}

fn worth(worth: Worth) -> String {
    let best = format!("an invocation is worth most with about {} inferences", worth.best);
    match worth.enough {
        Some(enough) => format!("{best}; more than {enough} gain nothing"),
        None => best,
    }
}

fn tail(choice: &Choice) -> Option<String> {
    if choice.tail.is_some() {
        return None;
    }
    Some(match choice.length.pair_sd.get(&Criterion::P95) {
        Some(sd) => format!("no tail is judged: pairs of p95 spread by {} %", hundredths(*sd)),
        None => format!(
            "no tail is judged: it takes {LEAST_OF_A_TAIL} inferences an invocation, here are {}",
            choice.iterations()
        ),
    })
}

fn mde(criterion: Criterion, sd: f64) -> String {
    let pairs = 2 * Profile::NIGHTLY.most_blocks();
    let design = Profile::NIGHTLY.design(criterion, Terms::ALONE);
    design.map_or("—".to_owned(), |design| hundredths(design.minimum_detectable_effect(sd, pairs)))
}

/// In per cent with two decimals, so that a column aligns: `0.0123` is `1.23`.
fn hundredths(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(ms: u64, sds: &[(Criterion, f64)]) -> Length {
        Length { ms, iterations: 2 * ms as u32, pairs: 20, pair_sd: sds.iter().copied().collect() }
    }

    fn rendered(choice: &Choice) -> String {
        let lengths = [choice.length.clone()];
        let warm_up = WarmUp { warmup: 12, invocations: 20, never_steady: 3, median_ns: 5e5 };
        let worth = Some(Worth { best: 40, enough: Some(90) });
        let (model, device, facts) = ("digits-cnn", "pi4", vec!["runner abc".to_owned()]);
        let tried = Tried { model, device, facts, warm_up: &warm_up, lengths: &lengths, choice, worth };
        terminal(&tried, Look { width: 120, colour: false })
    }

    #[track_caller]
    fn check(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }

    #[test]
    fn a_quiet_board() {
        let length = length(200, &[(Criterion::P50, 0.01), (Criterion::P95, 0.08)]);
        let choice = Choice { length, judged: Criterion::P50, tail: None, fit: Fit::Release };
        let text = rendered(&choice);
        // At 1 %, 64 pairs find (1.005 · e^((3.55 + 1.67) · 0.01 / 8) − 1).
        let parts = [
            "digits-cnn on pi4",
            "runner abc",
            "1.00",
            "1.16",
            "3 of 20",
            "no tail is judged: pairs of p95 spread by 8.00 %",
        ];
        check(&text, &parts);
        check(
            &text,
            &[
                "more than 90 gain nothing",
                "fit for release: p50 is judged, pairs spread by 1.00 %, 400 inferences an invocation",
            ],
        );
        assert_eq!(advice(&choice), None);
    }

    #[test]
    fn other_boards_get_advice() {
        let length = length(1000, &[(Criterion::Fastest, 0.011), (Criterion::P50, 0.25)]);
        let shared = Choice { length, judged: Criterion::Fastest, tail: None, fit: Fit::Release };
        check(
            &rendered(&shared),
            &["the fastest of its inferences is judged", "spread by 25.00 %", "it takes 300 inferences"],
        );
        let unfit = Choice { judged: Criterion::P50, fit: Fit::Unfit, ..shared };
        check(
            &rendered(&unfit),
            &["not fit: pairs of the median spread by 25.00 % at best, more than 4.50 %", "governor", "cool"],
        );
        check(&layouts(Some(0.004), 6), &["6 builds", "0.40 %", "0.80 %"]);
        check(&layouts(Some(0.001), 6), &["0.50 %"]);
        check(&layouts(None, 0), &["not measured"]);
    }

    #[test]
    fn the_worst_model_counts() {
        let model = |fit| ModelCalibration {
            warmup: 1,
            iterations: 30,
            min_time_ms: 0,
            judged: Criterion::P50,
            tail: None,
            pair_sd: [].into(),
            fit,
        };
        assert_eq!(worst(&[model(Fit::Nightly), model(Fit::Unfit), model(Fit::Release)]), Some(Fit::Unfit));
        assert_eq!(worst(&[]), None);
    }
}
