//! The page from a stored run of a digits network by three engines, renamed to a network of the article.

use espalier_bench::{
    engine::{self, Engine},
    record::{Measurement, Outcome, Run},
};
use espalier_protocol::{Macs, Mode};

use super::{page::render, rows::ms};

fn stored() -> Run {
    Run::parse(include_str!("run.jsonl")).unwrap()
}

/// The run has ratio 0.5; the article has 0.9.
fn run(net: &str) -> Run {
    let mut run = stored();
    let model = &mut run.header.models[0];
    (model.name, model.source, model.labels) = (net.into(), format!("build:{net}"), None);
    model.recipe = "magnitude, global, block-4x1".into();
    model.variants[1].ratio = 0.9;
    for record in &mut run.records {
        record.case.model = net.into();
        if record.case.ratio == 0.5 {
            record.case.ratio = 0.9;
        }
    }
    run
}

fn each_measured(run: &mut Run, mut change: impl FnMut(f64, &mut Measurement)) {
    for record in &mut run.records {
        if let Outcome::Measured(measurement) = &mut record.outcome {
            change(record.case.ratio, measurement);
        }
    }
}

#[test]
fn the_complete_page() {
    let mut mobile = run("mobilenetv2");
    each_measured(&mut mobile, |ratio, measurement| {
        if let Some(macs) = &mut measurement.loaded.macs {
            *macs = Macs { executed: 300_000_000, nonzero: if ratio > 0.0 { 30_000_000 } else { 300_000_000 } };
        }
    });
    let mut lstm = run("lstm");
    lstm.header.id = "20261124T000000Z-0000".into();
    each_measured(&mut lstm, |ratio, measurement| {
        if let Some(macs) = &mut measurement.loaded.macs {
            *macs = Macs { executed: 420_000_000, nonzero: if ratio > 0.0 { 42_000_000 } else { 420_000_000 } };
        }
    });
    let got = render(&[mobile, lstm]).unwrap();
    let expected = include_str!("expected.txt");
    assert!(got == expected, "{got}");
}

#[test]
fn the_newest_of_one_recipe_counts() {
    let (mut old, new) = (run("lstm"), run("lstm"));
    old.header.id = "20250101T000000Z-0000".into();
    old.records.clear();
    let page = |runs: &[Run]| render(runs).unwrap();
    assert_eq!(page(&[new.clone(), old.clone()]), page(std::slice::from_ref(&new)));
    assert_eq!(page(&[old.clone(), new.clone()]), page(std::slice::from_ref(&new)));
    // Pruned another way it is another row.
    old.header.models[0].recipe = "magnitude, global, channel".into();
    assert_eq!(page(&[old, new]).matches("| LSTM | 0.0522 M parameters").count(), 2);
}

#[test]
fn only_what_is_known_is_shown() {
    let mut bare = run("bert-large");
    bare.header.engines = engine::default_engines();
    bare.header.peers.clear();
    bare.records.retain(|record| record.case.engine == Engine::default() && record.mode != Mode::Profile);
    let page = render(&[bare.clone()]).unwrap();
    assert!(page.contains("1.00 (espalier) → 0.800 ms"), "{page}");
    assert!(!page.contains("## Where the time goes"));
    bare.records.clear();
    let page = render(&[bare.clone()]).unwrap();
    assert!(page.contains("- BERT-large: the article claims 5.5 times; not measured here."), "{page}");
    assert!(page.contains("— (espalier) → — ms"), "{page}");
    bare.header.devices[0].emulated = true;
    assert!(render(&[bare]).unwrap_err().starts_with("no run has a pruned variant of resnet50, mobilenetv2"));
    assert!(render(&[stored()]).is_err());
}

#[test]
fn a_claim_is_held_against_what_is_left_to_compute() {
    let reading = |nonzero: u64| {
        let mut run = run("mobilenetv2");
        each_measured(&mut run, |ratio, measurement| {
            if let Some(macs) = &mut measurement.loaded.macs {
                *macs = Macs { executed: 300_000_000, nonzero: if ratio > 0.0 { nonzero } else { 300_000_000 } };
            }
        });
        let page = render(&[run]).unwrap();
        page[page.find("- MobileNetV2").unwrap()..].replace("\n  ", " ")
    };
    // 31.5 M stay dense; of the rest a tenth, or next to nothing, is left.
    assert!(reading(30_000_000).contains("more than pruning explains: the multiply-accumulates left allow 5.1 times"));
    assert!(reading(3_000).contains("within what pruning explains: the multiply-accumulates left allow 9.5 times"));
}

#[test]
fn times_have_three_digits() {
    assert_eq!([123.4e6, 12.34e6, 1.234e6, 0.1234e6, 0.01234e6].map(ms), ["123", "12.3", "1.23", "0.123", "0.0123"]);
}

#[test]
fn no_line_but_a_tables_is_wide() {
    let page = render(&[run("lstm"), run("mobilenetv2")]).unwrap();
    let wide = |line: &&str| line.chars().count() > 120 && !line.starts_with('|');
    assert_eq!(page.lines().find(wide), None);
}

#[test]
fn untrusted_text_is_only_text() {
    let mut hostile = run("lstm");
    hostile.header.models[0].recipe = "a|b\u{1b}[31m".into();
    each_measured(&mut hostile, |_, measurement| measurement.before.cpu = Some("<img> | \u{1b}]0;x\u{7}".into()));
    let page = render(&[hostile]).unwrap();
    assert!(!page.contains('\u{1b}') && !page.contains("<img>"), "{page}");
    let columns = |line: &str| line.replace(r"\|", "").matches('|').count();
    let table: Vec<usize> =
        page.lines().skip_while(|line| !line.starts_with("| network")).take(3).map(columns).collect();
    assert_eq!(table, [table[0]; 3]);
}
