//! Rules of this repository that no compiler knows: who may depend on whom, what every file looks like, which
//! licences are used. Fast, without building anything.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use espalier_inventory::{self as inventory, SourceFile, SourceFiles, Surroundings};
use toml::Table;

mod architecture;
mod arrows;
mod code;
mod licences;
mod text;

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> =
        rust_files().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these files do not begin with a `//!` paragraph: {silent:#?}");
}

/// `cargo xtask test` has cargo run documentation tests of these crates alone: in a crate without any that costs
/// seconds for nothing.
#[test]
fn documentation_tests_are_run() {
    let mut untested = Vec::new();
    for (path, text) in rust_files().into_iter().filter(|(path, _)| !path.starts_with("harness/kernels/")) {
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let Some(fence) = ["//! ```", "/// ```"].iter().find_map(|start| line.strip_prefix(start)) else {
                continue;
            };
            fenced = !fenced;
            if fenced && !["text", "toml", "json", "sh"].contains(&fence) {
                untested.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(untested.is_empty(), "add the crate to the step `documentation tests` of the suite: {untested:#?}");
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
    for other in ["stats", "tasks", "inventory", "gate"] {
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
    let inventory = inventory::load(&source_files, &surroundings).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| problem.with_source() + "\n").collect::<String>())
    });
    // `--all-devices` works on a fresh clone, without boards, emulators or their packages.
    let in_all: Vec<&str> =
        inventory.devices.values().filter(|device| device.in_all).map(|device| device.name.as_str()).collect();
    assert_eq!(in_all, ["local"], "set `in-all = false`");
}

/// `println!` panics where stdout is a closed pipe or a full disk.
#[test]
fn only_one_file_of_the_host_prints() {
    let (mut places, mut files) = (Vec::new(), 0);
    for (path, text) in rust_files() {
        let is_product = (path.starts_with("harness/") || path.starts_with("xtask/")) && path.contains("/src/");
        // The runner's stdout is read by the host; `terminal` is the one place.
        if !is_product || path.starts_with("harness/runner/") || path == "harness/cli/src/terminal.rs" {
            continue;
        }
        files += 1;
        let prints = ["println", "print", "eprintln", "eprint", "dbg"];
        for (line, word) in code::identifiers(code::production(&text)) {
            let is_macro = || text.lines().nth(line - 1).is_some_and(|text| text.contains(&format!("{word}!")));
            if prints.contains(&word.as_str()) && is_macro() && !path.ends_with("/tests.rs") {
                places.push(format!("{path}:{line}"));
            }
        }
    }
    assert!(files > 200, "the product's files are not found any more: {files}");
    assert!(places.is_empty(), "use `terminal::say`, `print` or `note`: {places:#?}");
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

/// Path and text of every Rust file.
fn rust_files() -> Vec<(String, String)> {
    let files: Vec<_> = tracked_files().into_iter().filter(|path| path.ends_with(".rs")).collect();
    assert!(files.iter().any(|path| path == "xtask/tests/tidy/main.rs"), "the list of files is wrong: {files:?}");
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
