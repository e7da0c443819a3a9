//! A gate's report as JUnit XML, which every CI shows: a device is a suite, a comparison `model@ratio/criterion` a test
//! case.
//!
//! Regressed is a failure, inconclusive is skipped with the reason, a waived comparison passes with the waiver's
//! reason. Errors are faults of the device or the gate itself: a lost device, a planned comparison that is missing, a
//! gate in which nothing passed. What is written is valid against Jenkins' `junit-10.xsd`.

use std::fmt::Write;

use crate::{
    Comparison, Criterion, Role,
    outcome::{self, Standing},
    report::Report,
    text,
};
use espalier_bench::record::Case;
use espalier_protocol::text::sanitise;

struct TestCase {
    name: String,
    /// Its part of what the invocations of its case took; the criteria of a case are judged from the same ones.
    ms: u64,
    result: TestResult,
}

/// With its message.
enum TestResult {
    Passed(String),
    Failure { kind: &'static str, message: String },
    Error { kind: &'static str, message: String },
    Skipped(String),
}

pub fn render(report: &Report) -> String {
    let outcome = report.outcome();
    let mut suites: Vec<(String, Vec<TestCase>)> = Vec::new();
    for device in report.device_names() {
        let of_device = report.comparisons.iter().filter(|comparison| comparison.case.device == device);
        let mut cases: Vec<TestCase> = of_device.map(|comparison| compared(report, comparison)).collect();
        let missing = outcome.missing.iter().filter(|missing| missing.case.device == device);
        cases.extend(missing.map(|missing| TestCase {
            name: name(&missing.case, missing.criterion, missing.role),
            ms: 0,
            result: TestResult::Error { kind: "missing", message: "planned and not compared".to_owned() },
        }));
        let faults = report.faults.iter().filter(|fault| fault.device == device);
        cases.extend(faults.map(|fault| TestCase {
            name: "device".to_owned(),
            ms: 0,
            result: TestResult::Error { kind: fault.stage.name(), message: text::line(&fault.message) },
        }));
        suites.push((device.to_owned(), cases));
    }
    // Without an error this file would be green.
    if outcome.tally.passed == 0 {
        let message = "nothing passed: a gate that compared nothing is not green".to_owned();
        let result = TestResult::Error { kind: "nothing-passed", message };
        suites.push(("gate".to_owned(), vec![TestCase { name: "nothing passed".to_owned(), ms: 0, result }]));
    }
    document(report, &suites)
}

fn compared(report: &Report, comparison: &Comparison) -> TestCase {
    let message = text::sentence(report, comparison);
    let result = match (outcome::alarm(comparison), outcome::standing(comparison)) {
        (Some(alarm), _) => TestResult::Failure { kind: "control", message: format!("{alarm}: {message}") },
        // A known slow-down that was found.
        (None, _) if comparison.role == Role::PositiveControl => TestResult::Passed(message),
        (None, Standing::Regressed) => TestResult::Failure { kind: "regressed", message },
        (None, Standing::Inconclusive) => TestResult::Skipped(format!("{}: {message}", text::verdict(comparison))),
        (None, Standing::Waived) => TestResult::Passed(format!("{}: {message}", text::verdict(comparison))),
        (None, Standing::Passed) => TestResult::Passed(message),
    };
    let is_of = |case: &Case, role: Role| *case == comparison.case && role == comparison.role;
    let criteria = report.comparisons.iter().filter(|other| is_of(&other.case, other.role)).count() as u64;
    let took = report.took.iter().find(|took| is_of(&took.case, took.role)).map_or(0, |took| took.ms);
    let name = name(&comparison.case, comparison.criterion, comparison.role);
    TestCase { name, ms: took / criteria.max(1), result }
}

fn name(case: &Case, criterion: Criterion, role: Role) -> String {
    let control = text::control(role);
    format!("{}@{}/{}{control}", case.model, case.ratio, criterion.name())
}

fn document(report: &Report, suites: &[(String, Vec<TestCase>)]) -> String {
    let all = || suites.iter().flat_map(|(_, cases)| cases);
    let title = format!("espalier gate against {}", report.baseline.name);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    put(&mut out, format_args!("<testsuites name=\"{}\" {}>\n", escape(&title), counts(all()).of_all()));
    for (device, cases) in suites {
        let (device, counts, started) = (escape(device), counts(cases.iter()).of_suite(), escape(&report.started));
        put(&mut out, format_args!("  <testsuite name=\"{device}\" {counts} timestamp=\"{started}\">\n"));
        out.push_str("    <properties>\n");
        let unknown = "unknown".to_owned();
        let properties = [
            ("baseline", &report.baseline.name),
            ("baseline-revision", report.baseline.revision.as_ref().unwrap_or(&unknown)),
            ("candidate-revision", report.candidate.revision.as_ref().unwrap_or(&unknown)),
            ("profile", &report.profile.name),
        ];
        for (name, value) in properties {
            put(&mut out, format_args!("      <property name=\"{name}\" value=\"{}\"/>\n", escape(value)));
        }
        out.push_str("    </properties>\n");
        for case in cases {
            let (name, time, result) = (escape(&case.name), seconds(case.ms), element(&case.result));
            put(
                &mut out,
                format_args!(
                    "    <testcase classname=\"{device}\" name=\"{name}\" time=\"{time}\">{result}</testcase>\n"
                ),
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

fn element(result: &TestResult) -> String {
    match result {
        TestResult::Passed(text) => format!("<system-out>{}</system-out>", escape(text)),
        TestResult::Failure { kind, message } => format!("<failure type=\"{kind}\" message=\"{}\"/>", escape(message)),
        TestResult::Error { kind, message } => format!("<error type=\"{kind}\" message=\"{}\"/>", escape(message)),
        TestResult::Skipped(message) => format!("<skipped message=\"{}\"/>", escape(message)),
    }
}

#[derive(Default)]
struct Counts {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
    ms: u64,
}

impl Counts {
    fn of_all(&self) -> String {
        let Counts { tests, failures, errors, ms, .. } = self;
        format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{}\"", seconds(*ms))
    }

    /// The root has no `skipped`.
    fn of_suite(&self) -> String {
        let Counts { tests, failures, errors, skipped, ms } = self;
        let time = seconds(*ms);
        format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time}\"")
    }
}

fn counts<'a>(cases: impl Iterator<Item = &'a TestCase>) -> Counts {
    let mut counts = Counts::default();
    for case in cases {
        counts.tests += 1;
        counts.ms += case.ms;
        match case.result {
            TestResult::Passed(_) => {}
            TestResult::Failure { .. } => counts.failures += 1,
            TestResult::Error { .. } => counts.errors += 1,
            TestResult::Skipped(_) => counts.skipped += 1,
        }
    }
    counts
}

/// As `SUREFIRE_TIME`: seconds, with three digits at most behind the point and no exponent.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

/// Foreign text for an attribute or between tags. XML 1.0 has no way to write a control character or U+FFFE:
/// [`sanitise`] writes them out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in sanitise(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // A parser makes a space of a line break in an attribute.
            '\n' => out.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Finding, Verdict, report::Fault, report::tests_support};

    type Attributes = Vec<(String, String)>;

    /// Reads just enough XML to see that it is some: every tag is closed in its order, every attribute is quoted and
    /// comes once, every `&` begins a known entity, and nothing is there that XML 1.0 cannot hold. Gives back names of
    /// elements with their attributes.
    fn parse(xml: &str) -> std::result::Result<Vec<(String, Attributes)>, String> {
        let allowed = |c: char| c == '\n' || (c >= ' ' && !matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}'));
        if let Some(c) = xml.chars().find(|c| !allowed(*c)) {
            return Err(format!("{c:?} in it"));
        }
        let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").ok_or("no declaration")?;
        let (mut open, mut elements): (Vec<&str>, Vec<_>) = (Vec::new(), Vec::new());
        loop {
            let (text, tag) = rest.split_once('<').unwrap_or((rest, ""));
            unescaped(text)?;
            if open.is_empty() && !text.trim().is_empty() {
                return Err(format!("text outside the root: {text:?}"));
            }
            if tag.is_empty() {
                break;
            }
            // No `>` in a value: `escape` leaves none.
            let (tag, after) = tag.split_once('>').ok_or("a tag has no end")?;
            if tag.contains('<') {
                return Err(format!("a `<` in {tag:?}"));
            }
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("`{name}` was not open"));
                }
                continue;
            }
            let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                return Err(format!("`{name}` is no name"));
            }
            elements.push((name.to_owned(), read_attributes(attributes)?));
            if !is_empty {
                open.push(name);
            }
        }
        if open.is_empty() { Ok(elements) } else { Err(format!("still open: {open:?}")) }
    }

    fn read_attributes(mut text: &str) -> std::result::Result<Attributes, String> {
        let mut attributes: Attributes = Vec::new();
        while !text.is_empty() {
            let (name, value) = text.split_once("=\"").ok_or_else(|| format!("no attribute: {text:?}"))?;
            let (value, after) = value.split_once('"').ok_or("a value has no end")?;
            if attributes.iter().any(|(other, _)| other == name) {
                return Err(format!("`{name}` twice"));
            }
            attributes.push((name.to_owned(), unescaped(value)?));
            text = after.strip_prefix(' ').unwrap_or(after);
        }
        Ok(attributes)
    }

    fn unescaped(text: &str) -> std::result::Result<String, String> {
        let mut parts = text.split('&');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (entity, plain) = part.split_once(';').ok_or_else(|| format!("a bare `&` before {part:?}"))?;
            let known = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''), ("#10", '\n')];
            let c = known.iter().find(|(name, _)| *name == entity).ok_or_else(|| format!("no entity: {entity}"))?.1;
            out.push(c);
            out.push_str(plain);
        }
        Ok(out)
    }

    #[test]
    fn the_checker_finds_what_is_wrong() {
        let with = |body: &str| parse(&format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"));
        assert_eq!(with("<a b=\"1 &amp;\"><c/>x</a>\n").unwrap().len(), 2);
        for body in [
            "<a>",
            "<a></b>",
            "<a b=1/>",
            "<a b=\"1\" b=\"2\"/>",
            "<a>&</a>",
            "<a>&nbsp;</a>",
            "<a b=\"<\"/>",
            "<a>\u{1}</a>",
            "<a/>x",
            "<a>\u{fffe}</a>",
            "<a",
            "<a b=\"&#x1;\"/>",
        ] {
            assert!(with(body).is_err(), "{body}");
        }
        assert!(parse("<a/>").is_err());
    }

    #[test]
    fn as_a_ci_reads_it() {
        let got = render(&tests_support::report());
        let expected = include_str!("../tests/fixtures/report-junit.txt");
        assert!(got == expected, "{got}");
        parse(&got).unwrap();
    }

    /// The numbers in the head are those of what is below.
    #[test]
    fn counts_are_what_is_there() {
        let elements = parse(&render(&tests_support::report())).unwrap();
        let count = |name: &str| elements.iter().filter(|(element, _)| element == name).count().to_string();
        let head = |key: &str| elements[0].1.iter().find(|(name, _)| name == key).unwrap().1.clone();
        let keys = [("tests", "testcase"), ("failures", "failure"), ("errors", "error")];
        for (key, element) in keys {
            assert_eq!(head(key), count(element), "{key}");
            assert_ne!(head(key), "0", "{key}");
        }
        let of = |element: &'static str, key: &'static str| {
            let named = elements.iter().filter(move |(name, _)| name == element);
            named.flat_map(move |(_, attributes)| attributes.iter().filter(move |(name, _)| name == key))
        };
        let sum = |element, key| of(element, key).map(|(_, value)| value.parse::<f64>().unwrap()).sum::<f64>();
        assert_eq!(sum("testsuite", "skipped").to_string(), count("skipped"));
        assert!(sum("testcase", "time") > 60.0, "of the case that took 61.5 s");
        for element in ["testsuite", "testsuites"] {
            assert!((sum(element, "time") - sum("testcase", "time")).abs() < 0.01, "{element}");
        }
    }

    /// Elements and attributes of Jenkins' `junit-10.xsd`, as far as they are written here.
    #[test]
    fn it_is_valid_against_the_schema_of_jenkins() {
        let schema: [(&str, &[&str], &[&str]); 9] = [
            ("testsuites", &[], &["name", "time", "tests", "failures", "errors"]),
            (
                "testsuite",
                &["name", "tests", "failures", "errors"],
                &[
                    "group",
                    "time",
                    "skipped",
                    "timestamp",
                    "hostname",
                    "id",
                    "package",
                    "file",
                    "log",
                    "url",
                    "version",
                ],
            ),
            ("properties", &[], &[]),
            ("property", &["name", "value"], &[]),
            ("testcase", &["name"], &["time", "classname", "group"]),
            ("failure", &[], &["type", "message"]),
            ("error", &[], &["type", "message"]),
            ("skipped", &[], &["type", "message"]),
            ("system-out", &[], &[]),
        ];
        let elements = parse(&render(&tests_support::report())).unwrap();
        for (element, attributes) in &elements {
            let (_, required, optional) = schema.iter().find(|(name, ..)| name == element).expect("a known element");
            let has = |name: &str| attributes.iter().any(|(other, _)| other == name);
            assert!(required.iter().all(|name| has(name)), "{element}: {attributes:?}");
            for (name, value) in attributes {
                assert!(required.contains(&name.as_str()) || optional.contains(&name.as_str()), "{element} {name}");
                if name == "time" {
                    let (whole, fraction) = value.split_once('.').unwrap();
                    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
                    assert!(digits(whole) && digits(fraction) && fraction.len() <= 3, "{value}");
                }
            }
            assert!(!element.starts_with("test") || has("time"), "{element} has no time");
        }
    }

    #[test]
    fn an_empty_gate_is_an_error() {
        let mut report = tests_support::report();
        report.comparisons.clear();
        report.planned.clear();
        report.faults.clear();
        let xml = render(&report);
        assert!(xml.contains("<error type=\"nothing-passed\""), "{xml}");
        parse(&xml).unwrap();
    }

    #[test]
    fn controls_fail_only_when_wrong() {
        let of = |role: Role, verdict: Verdict| {
            let mut report = tests_support::report();
            let effect = Finding::Effect(tests_support::effect(1.05, 1.03, 1.07));
            report.comparisons =
                vec![Comparison { role, ..tests_support::comparison("m@0 on d", Criterion::P50, verdict, effect) }];
            render(&report).contains("<failure type=\"control\"")
        };
        assert!(of(Role::NegativeControl, Verdict::Regressed) && !of(Role::NegativeControl, Verdict::Pass));
        assert!(of(Role::PositiveControl, Verdict::Inconclusive) && !of(Role::PositiveControl, Verdict::Regressed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_makes_well_formed_xml(
            texts in vec(any::<String>(), 6),
            odd in "[\u{0}-\u{20}<>&\"'\\]\u{7f}-\u{9f}\u{fffe}\u{ffff}\u{2028}a]{0,12}",
        ) {
            let mut report = tests_support::report();
            let [name, reason, tag, message, device, baseline] = texts.try_into().expect("six");
            let first = &mut report.comparisons[0];
            first.case.model = name + &odd;
            first.reason = reason + &odd;
            first.tags = vec![tag];
            report.comparisons[2].case.device = device.clone();
            report.baseline.revision = Some(odd.clone());
            report.baseline.name = baseline;
            report.faults.push(Fault { device, message: (message + &odd).into(), ..report.faults[0].clone() });
            let xml = render(&report);
            let parsed = parse(&xml);
            prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed, xml);
        }

        /// What a reader sees is what was given, where XML can hold it.
        #[test]
        fn printable_text_comes_back(text in "[ -~\n]*") {
            prop_assert_eq!(unescaped(&escape(&text)), Ok(text));
        }
    }
}
