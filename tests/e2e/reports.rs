//! What remains of a run: the same table from its records as at its end, and files for other programs.

use std::fs;

use espalier_bench::metric::Metric;
use espalier_tests::Shelf;
use serde_json::Value;

const VARIANTS: usize = 5;

#[test]
fn a_report_is_what_bench_printed() {
    let shelf = Shelf::new("a_report_is_what_bench_printed");
    let first = shelf.bench(&["--export-csv", "first.csv"]).expect(0);
    assert_eq!(first.stdout.lines().filter(|line| line.starts_with('│')).count(), VARIANTS + 2, "{}", first.all());
    let id = shelf.newest_run().header.id;
    assert!(fs::read_to_string(shelf.path(&format!("reports/{id}.md"))).unwrap().contains("| "));
    let file = shelf.run_files().remove(0);
    let stored = fs::read(&file).unwrap();
    for run in [&[][..], &[id.as_str()], &[&id[..15]], &[file.to_str().unwrap()]] {
        let again = shelf.run(&[&["report", "--export-csv", "again.csv"], run].concat()).expect(0);
        assert_eq!(again.stdout, first.stdout);
        assert_eq!(read(&shelf, "again.csv"), read(&shelf, "first.csv"));
    }
    assert_eq!(fs::read(&file).unwrap(), stored, "a report changes nothing");
}

#[test]
fn exports_are_read_by_others() {
    let shelf = Shelf::new("exports_are_read_by_others");
    let exports = ["json", "csv", "markdown", "hyperfine", "bencher", "action"];
    let args: Vec<String> =
        exports.iter().flat_map(|kind| [format!("--export-{kind}"), format!("out.{kind}")]).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--runs", "2"]).collect();
    // The last of two flags counts.
    shelf.run(&[&["bench", "--iterations", "60", "--min-time", "0", "--warmup", "1"], &args[..]].concat()).expect(0);

    let json = parsed(&shelf, "out.json");
    assert_eq!((&json["schema"], &json["version"]), (&"espalier-summary".into(), &1.into()));
    assert_eq!(json["cases"].as_array().unwrap().len(), VARIANTS);
    assert_eq!(json["run"]["id"], shelf.newest_run().header.id.as_str());

    let csv = read(&shelf, "out.csv");
    let rows: Vec<usize> = csv.split("\r\n").filter(|row| !row.is_empty()).map(columns).collect();
    assert_eq!(rows.len(), VARIANTS + 1);
    assert!(rows.iter().all(|columns| *columns == rows[0] && *columns > Metric::ALL.len()), "{rows:?}\n{csv}");

    assert_eq!(read(&shelf, "out.markdown").lines().filter(|line| line.starts_with('|')).count(), VARIANTS + 2);

    let hyperfine = parsed(&shelf, "out.hyperfine");
    let results = hyperfine["results"].as_array().unwrap();
    assert_eq!(results.len(), VARIANTS);
    for (result, case) in results.iter().zip(json["cases"].as_array().unwrap()) {
        assert_eq!(result["times"].as_array().unwrap().len(), 2);
        // Seconds here, nanoseconds there.
        let (mean, median) = (result["mean"].as_f64().unwrap(), case["p50"]["value"].as_f64().unwrap());
        assert!((mean * 1e9 / median - 1.0).abs() < 0.5, "{mean} s, {median} ns");
        let numbers = ["mean", "median", "min", "max"].map(|key| result[key].as_f64().unwrap());
        assert!(numbers[2] <= numbers[0] && numbers[0] <= numbers[3], "{result}");
    }

    let bencher = parsed(&shelf, "out.bencher");
    assert_eq!(bencher.as_object().unwrap().len(), VARIANTS);
    assert!(bencher["digits-cnn/0.5/local"]["latency"]["value"].as_f64().unwrap() > 0.0, "{bencher}");

    for (file, metric) in [("out.action", "p50"), ("out-bigger.action", "accuracy")] {
        let entries = parsed(&shelf, file);
        let of_metric = |entry: &&Value| entry["name"].as_str().unwrap().ends_with(&format!(" {metric}"));
        assert_eq!(entries.as_array().unwrap().iter().filter(of_metric).count(), VARIANTS, "{file}: {entries}");
    }
}

#[test]
fn messages_are_one_object_a_line() {
    let shelf = Shelf::new("messages_are_one_object_a_line");
    let outcome = shelf.bench(&["--message-format", "json", "--ratios", "0.5"]).expect(0);
    let messages: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<&str> = messages.iter().map(|message| message["reason"].as_str().unwrap()).collect();
    let expected = [&["run-started"][..], &["record"; 6], &["summary"; 2], &["finished"]].concat();
    assert_eq!(reasons, expected);
    let finished = messages.last().unwrap();
    assert_eq!(
        (&finished["measured"], &finished["missing"], &finished["exit_code"]),
        (&6.into(), &0.into(), &0.into())
    );
    // The records are those of the run's file.
    let stored = fs::read_to_string(shelf.run_files().remove(0)).unwrap();
    assert_eq!(stored.lines().count(), 7);
}

fn read(shelf: &Shelf, name: &str) -> String {
    fs::read_to_string(shelf.path(name)).unwrap()
}

fn parsed(shelf: &Shelf, name: &str) -> Value {
    serde_json::from_str(&read(shelf, name)).unwrap()
}

/// Fields of a row as RFC 4180 counts them: commas outside quotes separate.
fn columns(row: &str) -> usize {
    let mut is_quoted = false;
    1 + row
        .chars()
        .filter(|c| {
            is_quoted ^= *c == '"';
            *c == ',' && !is_quoted
        })
        .count()
}
