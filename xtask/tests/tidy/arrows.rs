//! Which crate may use which: the list in ARCHITECTURE.md is held against the manifests and the lock file.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::{read, read_toml};

/// The end-to-end tests, which may use anything but the runner: that is built for a target, never linked.
const TESTS: &str = "espalier-tests";
const RUNNER: &str = "espalier-runner";

/// Files for tests: any crate may take it as a development dependency, and only so.
const FIXTURES: &str = "espalier-fixtures";

/// What a crate uses of this workspace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uses {
    shipped: BTreeSet<String>,
    /// By its tests, examples and build scripts alone.
    development: BTreeSet<String>,
}

#[test]
fn crates_depend_along_the_arrows_only() {
    let mut listed = listed_arrows();
    for member in read_toml("Cargo.toml")["workspace"]["members"].as_array().unwrap() {
        let manifest = read_toml(&format!("{}/Cargo.toml", member.as_str().unwrap()));
        let name = manifest["package"]["name"].as_str().unwrap();
        let mut uses = uses(&manifest);
        assert!(!uses.shipped.contains(FIXTURES), "`{name}` may have `{FIXTURES}` for its tests only");
        uses.development.remove(FIXTURES);
        if name == TESTS {
            assert!(!uses.shipped.contains(RUNNER), "the end-to-end tests must not link the runner");
            continue;
        }
        let arrows = listed.remove(name).unwrap_or_else(|| panic!("ARCHITECTURE.md has no arrow of `{name}`"));
        assert_eq!(uses, arrows, "what `{name}` depends on (left) is not what ARCHITECTURE.md says (right)");
    }
    assert!(listed.is_empty(), "ARCHITECTURE.md has arrows of crates that are not there: {listed:?}");
}

/// tract takes minutes to build: `cargo xtask` must start without it. Cargo.lock lists more than any one build uses
/// (all features, all platforms), so what is not reachable there is reachable nowhere.
#[test]
fn xtask_compiles_without_tract() {
    let reachable = reachable_from("xtask");
    assert!(reachable.contains("espalier-fleet"), "Cargo.lock was misread");
    assert!(reachable_from(RUNNER).contains("tract-core"), "Cargo.lock was misread");
    let tract: Vec<&String> = reachable.iter().filter(|name| name.starts_with("tract")).collect();
    assert!(tract.is_empty(), "`xtask` depends on {tract:?}");
}

/// tract does not report its version, so the runner has it in its source.
#[test]
fn the_runner_reports_the_locked_version_of_tract() {
    let lock = read_toml("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let tract = packages.iter().find(|package| package["name"].as_str() == Some("tract-onnx")).unwrap();
    let expected = format!("const TRACT: &str = \"tract {}\";", tract["version"].as_str().unwrap());
    let main = "harness/runner/src/main.rs";
    assert!(read(main).contains(&expected), "{main} has no line `{expected}`, the version of Cargo.lock");
}

/// Reads lines such as ``- `a` → `b`, `c`; tests: `d` ``.
fn listed_arrows() -> BTreeMap<String, Uses> {
    let architecture = read("ARCHITECTURE.md").replace("\n  `", " `");
    let arrows = architecture.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("` → "));
    let arrows = arrows.map(|(name, uses)| {
        let (shipped, development) = uses.split_once("; tests: ").unwrap_or((uses, ""));
        let names = |text: &str| {
            let names = text.split(", ").filter(|name| !["", "nothing"].contains(name));
            names.map(|name| name.trim_matches('`').to_owned()).collect()
        };
        (name.to_owned(), Uses { shipped: names(shipped), development: names(development) })
    });
    arrows.collect()
}

/// The crates of this workspace among a crate's dependencies.
fn uses(manifest: &Table) -> Uses {
    let of = |kind: &str| -> BTreeSet<String> {
        let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
        let places = platforms.filter_map(Value::as_table).chain([manifest]);
        let tables = places.filter_map(|place| place.get(kind)?.as_table());
        let names = tables.flatten().map(|(name, dependency)| {
            let renamed = dependency.get("package").and_then(Value::as_str);
            renamed.unwrap_or(name).to_owned()
        });
        names.filter(|name| name.starts_with("espalier-") || name == "xtask").collect()
    };
    let shipped = of("dependencies");
    let development = of("dev-dependencies").union(&of("build-dependencies")).cloned().collect();
    Uses { development: &development - &shipped, shipped }
}

/// Names of all packages below one, according to Cargo.lock.
fn reachable_from(package: &str) -> BTreeSet<String> {
    let lock = read_toml("Cargo.lock");
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let dependencies = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        // `name`, or `name version` where there are several.
        let names = dependencies.filter_map(|dependency| dependency.as_str()?.split(' ').next());
        edges.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    let mut reachable = BTreeSet::new();
    let mut waiting = vec![package];
    while let Some(name) = waiting.pop() {
        if reachable.insert(name.to_owned()) {
            waiting.extend(edges.get(name).into_iter().flatten());
        }
    }
    reachable
}
