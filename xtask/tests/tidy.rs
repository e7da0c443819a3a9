//! Rules of this repository that no compiler knows: who may depend on whom, and what every file looks like. Fast, without building anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use espalier_inventory::{self as inventory, SourceFile, SourceFiles, Surroundings};
use toml::{Table, Value};

/// The arrows of ARCHITECTURE.md: a crate, its folder and the crates of ours it may use.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("espalier-protocol", "harness/protocol", &[]),
    ("espalier-weights", "harness/weights", &[]),
    ("espalier-onnx", "harness/onnx", &[]),
    ("espalier-engine", "harness/engine", &["espalier-onnx"]),
    ("espalier-recipe", "harness/recipe", &[]),
    ("espalier-prune", "harness/prune", &["espalier-engine", "espalier-onnx", "espalier-recipe"]),
    ("espalier-zoo", "harness/zoo", &["espalier-engine", "espalier-onnx", "espalier-prune"]),
    ("espalier-stats", "harness/stats", &[]),
    ("espalier-inventory", "harness/inventory", &["espalier-protocol", "espalier-recipe"]),
    ("espalier-bench", "harness/bench", &["espalier-inventory", "espalier-protocol", "espalier-stats"]),
    ("espalier-gate", "harness/gate", &["espalier-bench", "espalier-inventory", "espalier-protocol", "espalier-stats"]),
    ("espalier-fleet", "harness/fleet", &["espalier-bench", "espalier-inventory", "espalier-protocol"]),
    ("espalier-kernels", "harness/kernels", &["espalier-weights"]),
    ("espalier-accelerate", "harness/accelerate", &["espalier-kernels", "espalier-weights"]),
    (
        "espalier-runner",
        "harness/runner",
        &["espalier-accelerate", "espalier-kernels", "espalier-protocol", "espalier-weights"],
    ),
    (
        "espalier-cli",
        "harness/cli",
        &[
            "espalier-bench",
            "espalier-fleet",
            "espalier-gate",
            "espalier-inventory",
            "espalier-protocol",
            "espalier-prune",
            "espalier-weights",
            "espalier-zoo",
        ],
    ),
    (
        "xtask",
        "xtask",
        &["espalier-bench", "espalier-cli", "espalier-fleet", "espalier-inventory", "espalier-protocol"],
    ),
];

/// The end-to-end tests, which may use anything but the runner: that is built for a target, never linked.
const TESTS: (&str, &str) = ("espalier-tests", "tests");

/// Files for tests: any crate may take it as a development dependency, and only so.
const FIXTURES: (&str, &str) = ("espalier-fixtures", "tests/fixtures");

#[test]
fn crates_depend_along_the_arrows_only() {
    let workspace = read_toml("Cargo.toml");
    let members: BTreeSet<&str> =
        workspace["workspace"]["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap()).collect();
    let listed = ARROWS.iter().map(|(_, folder, _)| *folder).chain([TESTS.1, FIXTURES.1]).collect();
    assert_eq!(members, listed, "a crate was added or removed: give it its place in `ARROWS` and in ARCHITECTURE.md");

    for &(name, folder, allowed) in ARROWS {
        let manifest = read_toml(&format!("{folder}/Cargo.toml"));
        assert_eq!(manifest["package"]["name"].as_str(), Some(name), "the crate in `{folder}`");
        let shipped = manifest.get("dependencies").and_then(Value::as_table);
        let links_fixtures = shipped.is_some_and(|table| table.contains_key(FIXTURES.0));
        assert!(!links_fixtures, "`{name}` may have `{}` for its tests only", FIXTURES.0);
        let used = own_dependencies(&manifest);
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(used, allowed, "what `{name}` depends on (left) is not what ARCHITECTURE.md says (right)");
    }
    let used = own_dependencies(&read_toml(&format!("{}/Cargo.toml", TESTS.1)));
    assert!(!used.contains("espalier-runner"), "the end-to-end tests must not link the runner");
}

#[test]
fn architecture_lists_the_arrows() {
    let architecture = read("ARCHITECTURE.md");
    for (name, _, allowed) in ARROWS {
        let listed: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
        let line = format!("- `{name}` → {listed}\n");
        assert!(architecture.contains(&line), "ARCHITECTURE.md lacks the line {line}");
    }
}

/// Tract takes a quarter of an hour to build: `cargo xtask` must start without it. Cargo.lock lists more than any one build uses (all features, all
/// platforms), so what is not reachable there is reachable nowhere.
#[test]
fn xtask_compiles_without_tract() {
    let reachable = reachable_from("xtask");
    assert!(reachable.contains("espalier-fleet"), "Cargo.lock was misread");
    assert!(reachable_from("espalier-runner").contains("tract-core"), "Cargo.lock was misread");
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

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> =
        rust_files().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these files do not begin with a `//!` paragraph: {silent:#?}");
}

#[test]
fn every_allow_has_a_reason() {
    // Put together here, lest this file find itself.
    let starts = [concat!("#[", "allow("), concat!("#![", "allow(")];
    let mut bare = Vec::new();
    for (path, text) in rust_files() {
        for (start, _) in starts.iter().flat_map(|start| text.match_indices(start)) {
            let attribute = text[start..].split(']').next().unwrap_or_default();
            if !attribute.contains("reason") {
                bare.push(format!("{path}:{}: {attribute}", 1 + text[..start].matches('\n').count()));
            }
        }
    }
    assert!(bare.is_empty(), "say why, or better use `expect`: {bare:#?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let (mut followed, mut broken) = (0, Vec::new());
    for document in tracked_files().iter().filter(|path| path.ends_with(".md")) {
        let text = read(document);
        for (start, opening) in text.match_indices("](") {
            let link = text[start + opening.len()..].split(')').next().unwrap_or_default();
            let path = link.split('#').next().unwrap_or_default();
            if link.contains(':') || path.is_empty() {
                continue;
            }
            followed += 1;
            if !root().join(document).with_file_name(path).exists() {
                broken.push(format!("{document}:{}: {link}", 1 + text[..start].matches('\n').count()));
            }
        }
    }
    assert!(broken.is_empty(), "no such files: {broken:#?}");
    assert!(followed > 5, "links are not recognised any more: {followed}");
}

#[test]
fn files_are_small() {
    let size = |path: &String| fs::metadata(root().join(path)).map_or(0, |metadata| metadata.len());
    let files = tracked_files();
    let large: Vec<&String> = files.iter().filter(|path| size(path) > 1 << 20).collect();
    assert!(large.is_empty(), "larger than 1 MiB: {large:?}");
    let models: u64 = files.iter().filter(|path| path.starts_with("models/")).map(size).sum();
    assert!(models < 2_000_000, "`models/` has {models} bytes, 2 MB is the limit: a clone must stay quick");
}

#[test]
fn pure_crates_ban_the_same() {
    let bench = read("harness/bench/clippy.toml");
    for other in ["stats", "inventory", "gate"] {
        assert_eq!(bench, read(&format!("harness/{other}/clippy.toml")), "`clippy.toml` of bench and {other} differ");
    }
    for (key, bans) in bench.parse::<Table>().unwrap() {
        for ban in bans.as_array().unwrap() {
            assert!(ban.get("reason").is_some(), "`{key}` bans {ban} without a reason");
        }
    }
}

/// What is shipped passes `cargo xtask check`, whatever variables the reader has set.
#[test]
fn shipped_targets_devices_and_models_are_valid() {
    let files = tracked_files();
    let sources = |folder: &str| -> Vec<SourceFile> {
        let inside = |path: &&String| path.strip_prefix(folder).is_some_and(|name| !name.contains('/'));
        let tomls = files.iter().filter(inside).filter(|path| path.ends_with(".toml"));
        tomls.map(|path| SourceFile::new(path, read(path))).collect()
    };
    let source_files = SourceFiles {
        targets: Some(SourceFile::new("targets.toml", read("targets.toml"))),
        devices: sources("devices/"),
        models: sources("models/"),
    };
    let surroundings = Surroundings {
        host_triple: "x86_64-unknown-linux-gnu",
        environment: &|_| Some("/variable".to_owned()),
        exists: &|path| root().join(path).is_file(),
    };
    if let Err(problems) = inventory::load(&source_files, &surroundings) {
        panic!("{}", problems.iter().map(|problem| problem.with_source() + "\n").collect::<String>());
    }
}

/// The crates of this workspace among all kinds of dependencies.
fn own_dependencies(manifest: &Table) -> BTreeSet<String> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let places = platforms.filter_map(Value::as_table).chain([manifest]);
    let tables = places.flat_map(|place| kinds.iter().filter_map(|kind| place.get(*kind)?.as_table()));
    let names = tables.flatten().map(|(name, dependency)| {
        let renamed = dependency.get("package").and_then(Value::as_str);
        renamed.unwrap_or(name).to_owned()
    });
    names.filter(|name| name.starts_with("espalier-") && name != FIXTURES.0 || name == "xtask").collect()
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

/// Path and text of every Rust file.
fn rust_files() -> Vec<(String, String)> {
    let files: Vec<_> = tracked_files().into_iter().filter(|path| path.ends_with(".rs")).collect();
    assert!(files.iter().any(|path| path == "xtask/tests/tidy.rs"), "the list of files is wrong: {files:?}");
    files.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// What git knows, from the root: not what a user put beside it. Without git, every file but those that are made.
fn tracked_files() -> Vec<String> {
    let git = ["ls-files", "-z", "--cached"];
    let listed =
        Command::new("git").args(git).current_dir(root()).output().ok().filter(|output| output.status.success());
    let mut files: Vec<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect(),
        None => walk(&root()).iter().map(|path| path.strip_prefix(root()).unwrap().display().to_string()).collect(),
    };
    // git lists what was deleted and not yet committed.
    files.retain(|path| root().join(path).is_file());
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let made = ["target", ".git", "runs"].iter().any(|name| entry.file_name() == *name);
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !made => files.extend(walk(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

fn read_toml(path: &str) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("`{path}`: {error}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What two commands share stands beside them, so that each can be read by itself.
#[test]
fn no_command_uses_another() {
    let commands: Vec<_> =
        rust_files().into_iter().filter(|(path, _)| path.starts_with("harness/cli/src/commands/")).collect();
    assert!(commands.len() > 15, "the commands have moved: {}", commands.len());
    for (path, text) in commands {
        assert!(!text.contains("commands::"), "`{path}` uses another command");
    }
}
