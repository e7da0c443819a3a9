//! The manifest of a baseline, `reports/baselines/NAME.toml`: what was accepted, by hash. Small and committed, so that
//! a review shows what a gate will compare with; the files themselves are in a store, by the same hashes.
//!
//! A program writes it, but merges and people edit it. So every mistake is reported with its line, and an incomplete
//! baseline is refused, because a gate against half a baseline would be green for the other half.

use crate::date;
use espalier_bench::record::VariantInfo;
use espalier_inventory::{
    SourceFile,
    document::{Document, Table, Value, Wrong},
    is_name,
    names::ill_name,
};

/// Raised when a field changes its meaning.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    pub format: u32,
    /// Also the file's, without `.toml`.
    pub name: String,
    /// RFC 3339, UTC.
    pub accepted: String,
    pub by: String,
    /// Version of espalier.
    pub espalier: String,
    /// Commit of the repository, with `+` behind it where the tree had changes.
    pub revision: Option<String>,
    /// By `target`, at least one.
    pub runners: Vec<BaselineRunner>,
    /// By `name`, at least one.
    pub models: Vec<BaselineModel>,
}

/// The program of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineRunner {
    pub target: String,
    pub triple: String,
    /// Of the file: 64 hexadecimal digits in lower case, as all hashes here.
    pub sha256: String,
    pub bytes: u64,
    /// `cargo`, `zigbuild` or `cross`, and the compiler.
    pub builder: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BaselineModel {
    pub name: String,
    /// As text, e.g. `magnitude, global, weight`.
    pub recipe: String,
    /// SHA-256 of the prepared inputs, where there is an eval set.
    pub inputs: Option<String>,
    /// By `ratio`, at least one.
    pub variants: Vec<BaselineVariant>,
}

/// A model at one prune ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineVariant {
    pub ratio: f64,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    pub bytes: u64,
    /// Weights that may be pruned, and those that were.
    pub prunable: u64,
    pub removed: u64,
    /// All float parameters of the model, pruned ones included.
    pub parameters: u64,
    /// Prunable weights that are zero for whatever reason.
    pub zeros: u64,
}

impl From<VariantInfo> for BaselineVariant {
    fn from(info: VariantInfo) -> BaselineVariant {
        let VariantInfo { ratio, sha256, bytes, prunable, removed, parameters, zeros, .. } = info;
        BaselineVariant { ratio, sha256, bytes, prunable, removed, parameters, zeros }
    }
}

impl Baseline {
    /// The file's text; [`Baseline::parse`] reads it back as it was.
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# What `cargo xtask gate --baseline {}` compares with, made by `cargo xtask accept`. \
             The files are in the baseline store, by SHA-256.\n",
            self.name
        );
        out.push_str(&format!("format = {}\n", self.format));
        let revision = self.revision.as_ref().map(|revision| ("revision", revision));
        let texts =
            [("name", &self.name), ("accepted", &self.accepted), ("by", &self.by), ("espalier", &self.espalier)];
        for (key, text) in texts.into_iter().chain(revision) {
            out.push_str(&format!("{key} = {}\n", quoted(text)));
        }
        for BaselineRunner { target, triple, sha256, bytes, builder } in &self.runners {
            let (target, triple, builder) = (quoted(target), quoted(triple), quoted(builder));
            out.push_str(&format!("\n[[runner]]\ntarget = {target}\ntriple = {triple}\nsha256 = {}\n", quoted(sha256)));
            out.push_str(&format!("bytes = {bytes}\nbuilder = {builder}\n"));
        }
        for BaselineModel { name, recipe, inputs, variants } in &self.models {
            out.push_str(&format!("\n[[model]]\nname = {}\nrecipe = {}\n", quoted(name), quoted(recipe)));
            out.extend(inputs.iter().map(|inputs| format!("inputs = {}\n", quoted(inputs))));
            out.push_str("variants = [\n");
            for BaselineVariant { ratio, sha256, bytes, prunable, removed, parameters, zeros } in variants {
                // One line a variant: a diff then shows which of them changed.
                out.push_str(&format!("    {{ ratio = {ratio}, sha256 = {}, bytes = {bytes}, ", quoted(sha256)));
                out.push_str(&format!("prunable = {prunable}, removed = {removed}, "));
                out.push_str(&format!("parameters = {parameters}, zeros = {zeros} }},\n"));
            }
            out.push_str("]\n");
        }
        out
    }

    /// `file` is the name for messages; where it ends in `.toml` it must be the baseline's.
    ///
    /// # Errors
    /// Every mistake, one a line, as `file:line:column: message`; of another format only that.
    pub fn parse(text: &str, file: &str) -> Result<Baseline, String> {
        let source = SourceFile::new(file, text);
        let (document, root) = Document::open(&source, None);
        let mut root = document.root(root);
        let format = root.require("format", "1");
        let number = format.as_ref().and_then(Value::count);
        let baseline = match (format, number) {
            (Some(format), Some(number)) if number != u64::from(FORMAT) => {
                let cure = if number > u64::from(FORMAT) { "use a newer espalier" } else { "accept it again" };
                format.wrong(Wrong::new(format!("it has format {number}, this espalier reads {FORMAT}; {cure}")));
                None
            }
            _ => {
                let baseline = read(&document, &mut root);
                root.close();
                Some(baseline)
            }
        };
        match (baseline, document.into_problems().as_slice()) {
            (Some(baseline), []) => Ok(baseline),
            (_, problems) => Err(problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("\n")),
        }
    }

    pub fn runner(&self, target: &str) -> Option<&BaselineRunner> {
        self.runners.iter().find(|runner| runner.target == target)
    }

    pub fn variant(&self, model: &str, ratio: f64) -> Option<&BaselineVariant> {
        let model = self.models.iter().find(|candidate| candidate.name == model)?;
        model.variants.iter().find(|variant| variant.ratio == ratio)
    }

    /// Every file the baseline needs: its SHA-256 and its description, e.g. `digits-cnn at ratio 0.5`.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, String)> {
        let runners = self.runners.iter().map(|runner| (&*runner.sha256, format!("runner for {}", runner.target)));
        let models = self.models.iter().flat_map(|model| {
            let inputs = model.inputs.iter().map(|inputs| (&**inputs, format!("inputs of {}", model.name)));
            let variant = |variant: &BaselineVariant| format!("{} at ratio {}", model.name, variant.ratio);
            inputs.chain(model.variants.iter().map(move |of| (&*of.sha256, variant(of))))
        });
        runners.chain(models)
    }

    /// The runner for a device of this target, whose triple is `triple` today.
    ///
    /// # Errors
    /// The baseline is from another type of device; both are named.
    pub fn check_device(&self, target: &str, triple: &str) -> Result<&BaselineRunner, String> {
        let cure = "take another baseline, or make one with `cargo xtask accept`";
        let refused = |why: String| Err(format!("baseline `{}` is from another device type: {why}; {cure}", self.name));
        let Some(runner) = self.runner(target) else {
            let has: Vec<String> =
                self.runners.iter().map(|runner| format!("`{}` ({})", runner.target, runner.triple)).collect();
            return refused(format!("it has a runner for {} and none for `{target}` ({triple})", has.join(", ")));
        };
        if runner.triple != triple {
            return refused(format!("its runner for `{target}` is for {}, the device is {triple}", runner.triple));
        }
        Ok(runner)
    }
}

/// What is missing or wrong becomes a problem of the document and gets a default, because the result is then discarded.
fn read(document: &Document<'_>, root: &mut Table<'_, '_>) -> Baseline {
    let named = root.require("name", "\"release-1.4\"");
    let name = named.as_ref().and_then(|value| value.parse(|text| name("baseline", text))).unwrap_or_default();
    if let (Some(value), Some(stem)) = (named, document.source.stem())
        && !name.is_empty()
        && name != stem
    {
        value.wrong(Wrong::new(format!("the baseline calls itself `{name}` and its file `{stem}`")));
    }
    let accepted = root.require("accepted", "\"2026-11-23T19:15:00Z\"").and_then(|value| value.parse(timestamp));
    Baseline {
        format: FORMAT,
        name,
        accepted: accepted.unwrap_or_default(),
        by: text(root, "by", "\"jo@workbench\""),
        espalier: text(root, "espalier", "\"0.1.0\""),
        revision: root.take("revision").and_then(|value| value.text()),
        runners: read_each(root, "runner", "[[runner]]", read_runner),
        models: read_each(root, "model", "[[model]]", read_model),
    }
}

/// The entries of an array of tables, of which there must be one.
fn read_each<T>(
    table: &mut Table<'_, '_>,
    key: &'static str,
    example: &str,
    read: impl Fn(&mut Table<'_, '_>, &[T]) -> T,
) -> Vec<T> {
    let Some(value) = table.require(key, example) else { return Vec::new() };
    if value.is_empty_array() {
        value.wrong(Wrong::new(format!("`{key}` is empty: there is nothing to compare with")));
    }
    let mut all = Vec::new();
    for value in value.items("tables") {
        if let Some(mut table) = value.table() {
            let one = read(&mut table, &all);
            table.close();
            all.push(one);
        }
    }
    all
}

fn read_runner(table: &mut Table<'_, '_>, others: &[BaselineRunner]) -> BaselineRunner {
    let target = table.require("target", "\"aarch64-gnu\"").and_then(|value| {
        value.parse(|text| {
            let name = name("target", text)?;
            let twice = others.iter().any(|other| other.target == name);
            if twice { Err(Wrong::new(format!("there is another runner for `{name}`"))) } else { Ok(name) }
        })
    });
    BaselineRunner {
        target: target.unwrap_or_default(),
        triple: text(table, "triple", "\"aarch64-unknown-linux-gnu\""),
        sha256: hash(table, "sha256"),
        bytes: count(table, "bytes"),
        builder: text(table, "builder", "\"cargo, rustc 1.91.0\""),
    }
}

fn read_model(table: &mut Table<'_, '_>, others: &[BaselineModel]) -> BaselineModel {
    let named = table.require("name", "\"digits-cnn\"").and_then(|value| {
        value.parse(|text| {
            let name = name("model", text)?;
            let twice = others.iter().any(|other| other.name == name);
            if twice { Err(Wrong::new(format!("there is another model `{name}`"))) } else { Ok(name) }
        })
    });
    BaselineModel {
        name: named.unwrap_or_default(),
        recipe: text(table, "recipe", "\"magnitude, global, weight\""),
        inputs: table.take("inputs").and_then(|value| value.parse(sha256)),
        variants: read_each(table, "variants", "[{ ratio = 0, … }]", read_variant),
    }
}

fn read_variant(table: &mut Table<'_, '_>, others: &[BaselineVariant]) -> BaselineVariant {
    let value = table.require("ratio", "0.5");
    let ratio = value.as_ref().and_then(|value| value.number("from 0 to 1", |ratio| (0.0..=1.0).contains(&ratio)));
    if let (Some(value), Some(ratio)) = (value, ratio)
        && others.iter().any(|other| other.ratio == ratio)
    {
        value.wrong(Wrong::new(format!("there is another variant with ratio {ratio}")));
    }
    BaselineVariant {
        ratio: ratio.unwrap_or_default(),
        sha256: hash(table, "sha256"),
        bytes: count(table, "bytes"),
        prunable: count(table, "prunable"),
        removed: count(table, "removed"),
        parameters: count(table, "parameters"),
        zeros: count(table, "zeros"),
    }
}

fn text(table: &mut Table<'_, '_>, key: &'static str, example: &str) -> String {
    table.require(key, example).and_then(|value| value.text()).unwrap_or_default()
}

fn count(table: &mut Table<'_, '_>, key: &'static str) -> u64 {
    table.require(key, "4299161").and_then(|value| value.count()).unwrap_or_default()
}

fn hash(table: &mut Table<'_, '_>, key: &'static str) -> String {
    table.require(key, "\"64 hexadecimal digits\"").and_then(|value| value.parse(sha256)).unwrap_or_default()
}

/// They become names of files.
fn sha256(text: &str) -> Result<String, Wrong> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(digit) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("`{text}` is no SHA-256: 64 digits, 0 to 9 and a to f")))
}

fn name(kind: &str, text: &str) -> Result<String, Wrong> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(Wrong::new(ill_name(kind, text))) }
}

fn timestamp(text: &str) -> Result<String, Wrong> {
    if date::is_timestamp(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("`{text}` is no time such as `2026-11-23T19:15:00Z`")))
}

/// A TOML basic string, always on one line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const FILE: &str = "reports/baselines/release-1.4.toml";

    fn hash_of(number: u64) -> String {
        format!("{number:064x}")
    }

    fn baseline() -> Baseline {
        let variant = |ratio: f64, number: u64| BaselineVariant {
            ratio,
            sha256: hash_of(number),
            bytes: 215_040,
            prunable: 52_000,
            removed: (ratio * 52_000.0) as u64,
            parameters: 52_200,
            zeros: (ratio * 52_000.0) as u64,
        };
        let runner = |target: &str, triple: &str, number: u64| BaselineRunner {
            target: target.into(),
            triple: triple.into(),
            sha256: hash_of(number),
            bytes: 4_299_161,
            builder: "cargo, rustc 1.91.0".into(),
        };
        Baseline {
            format: FORMAT,
            name: "release-1.4".into(),
            accepted: "2026-11-23T19:15:00Z".into(),
            by: "jo@workbench".into(),
            espalier: "0.1.0".into(),
            revision: Some("7c7533f".into()),
            runners: vec![
                runner("host", "x86_64-unknown-linux-gnu", 1),
                runner("aarch64-gnu", "aarch64-unknown-linux-gnu", 2),
            ],
            models: vec![BaselineModel {
                name: "digits-cnn".into(),
                recipe: "magnitude, global, weight".into(),
                inputs: Some(hash_of(3)),
                variants: vec![variant(0.0, 4), variant(0.5, 5)],
            }],
        }
    }

    #[test]
    fn as_it_is_committed() {
        let expected = include_str!("../tests/fixtures/accepted.txt");
        assert_eq!(baseline().to_toml(), expected);
        assert_eq!(Baseline::parse(expected, FILE), Ok(baseline()));
    }

    /// A change to the valid file, and every mistake that is reported.
    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let text = baseline().to_toml();
        assert!(text.contains(from), "{from}");
        let error = Baseline::parse(&text.replace(from, to), FILE).map(|_| ()).unwrap_err();
        assert_eq!(error.replace(FILE, "F"), expected);
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        check("format = 1", "format = 2", "F:2:10: it has format 2, this espalier reads 1; use a newer espalier");
        check("format = 1", "format = 0", "F:2:10: it has format 0, this espalier reads 1; accept it again");
        check("format = 1\n", "", "F:1:1: `format` is missing, e.g. `format = 1`");
        check("\"release-1.4\"", "\"1.4\"", "F:3:8: the baseline calls itself `1.4` and its file `release-1.4`");
        check(
            "name = \"release-1.4\"",
            "name = \"../x\"",
            "F:3:8: `../x` cannot be a baseline's name: a to z, 0 to 9, `.`, `_` and `-`, a letter or digit first, at \
             most 64",
        );
        check(
            "2026-11-23T19:15:00Z",
            "2026-11-31T19:15:00Z",
            "F:4:12: `2026-11-31T19:15:00Z` is no time such as `2026-11-23T19:15:00Z`",
        );
        check(&hash_of(2), "abc", "F:19:10: `abc` is no SHA-256: 64 digits, 0 to 9 and a to f");
        check(
            &hash_of(3),
            &"A".repeat(64),
            &format!("F:26:10: `{}` is no SHA-256: 64 digits, 0 to 9 and a to f", "A".repeat(64)),
        );
        check("\"aarch64-gnu\"", "\"host\"", "F:17:10: there is another runner for `host`");
        check("ratio = 0.5", "ratio = 0.0", "F:29:15: there is another variant with ratio 0");
        check("ratio = 0.5", "ratio = 1.5", "F:29:15: `model.variants.ratio` must be from 0 to 1");
        check(
            "bytes = 215040, prunable = 52000, removed = 0",
            "bytes = -1, prunable = 52000, removed = 0",
            "F:28:103: `model.variants.bytes` must be 0 or more, and below 2^64",
        );
        check("revision =", "revison =", "F:7:1: unknown key `revison`; did you mean `revision`?");
        // Two at once.
        check(
            "builder = \"cargo, rustc 1.91.0\"",
            "",
            "F:9:1: `builder` is missing in `[runner]`, e.g. `builder = \"cargo, rustc 1.91.0\"`\n\
             F:16:1: `builder` is missing in `[runner]`, e.g. `builder = \"cargo, rustc 1.91.0\"`",
        );
    }

    #[test]
    fn two_models_of_one_name_are_refused() {
        let mut twice = baseline();
        twice.models.push(twice.models[0].clone());
        let error = Baseline::parse(&twice.to_toml(), FILE).unwrap_err();
        assert_eq!(error, format!("{FILE}:33:8: there is another model `digits-cnn`"));
    }

    #[test]
    fn half_a_baseline_is_none() {
        let without = |change: fn(&mut Baseline)| {
            let mut changed = baseline();
            change(&mut changed);
            Baseline::parse(&changed.to_toml(), FILE).unwrap_err()
        };
        let error = without(|baseline| baseline.runners.clear());
        assert!(error.contains("`runner` is missing"), "{error}");
        let error = without(|baseline| baseline.models.clear());
        assert!(error.contains("`model` is missing"), "{error}");
        let error = without(|baseline| baseline.models[0].variants.clear());
        assert!(error.contains("`variants` is empty: there is nothing to compare with"), "{error}");
    }

    #[test]
    fn runners_variants_and_files_are_found() {
        let baseline = baseline();
        assert_eq!(baseline.runner("aarch64-gnu").map(|runner| &*runner.sha256), Some(&*hash_of(2)));
        assert_eq!(baseline.runner("aarch64"), None);
        assert_eq!(baseline.variant("digits-cnn", 0.5).map(|variant| &*variant.sha256), Some(&*hash_of(5)));
        assert_eq!((baseline.variant("digits-cnn", 0.6), baseline.variant("digits", 0.5)), (None, None));
        let blobs: Vec<(String, String)> = baseline.blobs().map(|(sha256, what)| (sha256.to_owned(), what)).collect();
        let names = ["runner for host", "runner for aarch64-gnu", "inputs of digits-cnn"];
        let names = names.into_iter().chain(["digits-cnn at ratio 0", "digits-cnn at ratio 0.5"]);
        assert_eq!(blobs, (1..).map(hash_of).zip(names.map(str::to_owned)).collect::<Vec<_>>());
    }

    #[test]
    fn another_device_type_is_refused_with_both_names() {
        let baseline = baseline();
        assert_eq!(
            baseline.check_device("aarch64-gnu", "aarch64-unknown-linux-gnu").map(|runner| &*runner.target),
            Ok("aarch64-gnu")
        );
        assert_eq!(
            baseline.check_device("riscv64", "riscv64gc-unknown-linux-gnu").unwrap_err(),
            "baseline `release-1.4` is from another device type: it has a runner for `host` \
             (x86_64-unknown-linux-gnu), \
             `aarch64-gnu` (aarch64-unknown-linux-gnu) and none for `riscv64` (riscv64gc-unknown-linux-gnu); \
             take another baseline, or make one with `cargo xtask accept`"
        );
        assert_eq!(
            baseline.check_device("host", "aarch64-unknown-linux-gnu").unwrap_err(),
            "baseline `release-1.4` is from another device type: its runner for `host` is for \
             x86_64-unknown-linux-gnu, \
             the device is aarch64-unknown-linux-gnu; take another baseline, or make one with `cargo xtask accept`"
        );
    }

    /// Every field is generated, none is taken from the example.
    fn any_baseline() -> impl Strategy<Value = Baseline> {
        let hash = || "[0-9a-f]{64}";
        let size = any::<u64>;
        let runner = (any::<String>(), hash(), size(), any::<String>());
        let variant = (0.0..=1.0_f64, hash(), size(), [size(); 4]).prop_map(|(ratio, sha256, bytes, counts)| {
            let [prunable, removed, parameters, zeros] = counts;
            BaselineVariant { ratio, sha256, bytes, prunable, removed, parameters, zeros }
        });
        let model = (any::<String>(), proptest::option::of(hash()), vec(variant, 1..4));
        let day = (1..=28_u32).prop_map(|day| format!("2026-11-{day:02}T19:15:00Z"));
        let texts = (any::<String>(), any::<String>(), proptest::option::of(any::<String>()), day);
        (texts, vec(runner, 1..3), vec(model, 1..3)).prop_map(
            |((by, espalier, revision, accepted), runners, models)| {
                let runner = |(index, (text, sha256, bytes, builder)): (usize, (String, String, u64, String))| {
                    BaselineRunner { target: format!("t{index}"), triple: text, sha256, bytes, builder }
                };
                let model = |(index, (recipe, inputs, mut variants)): (usize, (String, _, Vec<BaselineVariant>))| {
                    variants.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
                    variants.dedup_by(|one, other| one.ratio == other.ratio);
                    BaselineModel { name: format!("m{index}"), recipe, inputs, variants }
                };
                Baseline {
                    format: FORMAT,
                    name: "release-1.4".into(),
                    accepted,
                    by,
                    espalier,
                    revision,
                    runners: runners.into_iter().enumerate().map(runner).collect(),
                    models: models.into_iter().enumerate().map(model).collect(),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn comes_back_as_it_was(baseline in any_baseline()) {
            let text = baseline.to_toml();
            prop_assert_eq!(Baseline::parse(&text, FILE), Ok(baseline), "{}", text);
        }

        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let error = Baseline::parse(&text, FILE).unwrap_err();
            prop_assert!(error.lines().all(|line| line.starts_with(&format!("{FILE}:"))), "{}", error);
        }

        /// Slips in a valid file: what is still read has what a baseline must have.
        #[test]
        fn a_slip_is_refused_or_harmless(
            slips in vec((any::<proptest::sample::Index>(), 0..3_usize, "[\\[\\]{}=\"'#.,\n0-9a-f -]{0,2}"), 1..4),
        ) {
            let mut characters: Vec<char> = baseline().to_toml().chars().collect();
            for (place, removed, inserted) in slips {
                let place = place.index(characters.len() - removed);
                characters.splice(place..place + removed, inserted.chars());
            }
            match Baseline::parse(&String::from_iter(characters), FILE) {
                Ok(read) => {
                    prop_assert!(read.blobs().all(|(hash, _)| sha256(hash).is_ok()));
                    prop_assert_eq!(Baseline::parse(&read.to_toml(), FILE), Ok(read));
                }
                Err(error) => {
                    let place = format!("{FILE}:");
                    prop_assert!(error.lines().all(|line| line.starts_with(&place)), "{}", error);
                }
            }
        }
    }
}
