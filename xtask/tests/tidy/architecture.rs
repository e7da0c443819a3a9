//! ARCHITECTURE.md's tables name what is there: every module of every crate, and every command.

use std::{collections::BTreeSet, process::Command};

use crate::{read, tracked_files};

#[test]
fn the_tables_name_every_module() {
    let architecture = read("ARCHITECTURE.md");
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (folder, modules) in modules_of_crates() {
        let Some(section) = section(&architecture, &folder) else {
            wrong.push(format!("`{folder}` has no paragraph"));
            continue;
        };
        checked += modules.len();
        let named = code_in(section);
        for module in modules.iter().filter(|module| !named.contains(module.as_str())) {
            wrong.push(format!("`{folder}`: the module `{module}` is missing"));
        }
    }
    assert!(checked > 150, "modules are not found any more: {checked}");
    assert!(wrong.is_empty(), "ARCHITECTURE.md: {wrong:#?}");
}

#[test]
fn the_tables_name_no_module_that_is_gone() {
    let architecture = read("ARCHITECTURE.md");
    let (mut gone, mut checked) = (Vec::new(), 0);
    for (folder, _) in modules_of_crates() {
        let Some(section) = section(&architecture, &folder) else { continue };
        let source = format!("{folder}/src/");
        let files: Vec<String> = tracked_files().into_iter().filter(|path| path.starts_with(&source)).collect();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        for name in rows.flat_map(|row| code_in(row.split(" | ").next().unwrap_or_default())) {
            checked += 1;
            let module = name.replace("::", "/");
            let ends = [format!("/{module}.rs"), format!("/{module}/mod.rs")];
            if !files.iter().any(|path| ends.iter().any(|end| path.ends_with(end))) {
                gone.push(format!("`{folder}`: `{name}`"));
            }
        }
    }
    assert!(checked > 100, "rows are not recognised any more: {checked}");
    assert!(gone.is_empty(), "ARCHITECTURE.md names modules that are not there: {gone:#?}");
}

#[test]
fn every_command_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // Two spaces and the name; the description may go on further to the right.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() > 20, "the list of commands is not recognised any more: {help}");
    let architecture = read("ARCHITECTURE.md");
    let named = code_in(&architecture);
    let missing: Vec<&&str> = names.iter().filter(|name| !named.contains(**name)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name the commands {missing:?}");
}

/// The folder of each crate with its modules; of nested modules those at the top.
fn modules_of_crates() -> Vec<(String, BTreeSet<String>)> {
    let files = tracked_files();
    let folders = files.iter().filter_map(|path| path.strip_suffix("/Cargo.toml"));
    let folders = folders.filter(|folder| folder.starts_with("harness/") || *folder == "xtask");
    let modules = |folder: &str| -> BTreeSet<String> {
        let below = files.iter().filter_map(|path| path.strip_prefix(folder)?.strip_prefix("/src/"));
        let names = below.filter_map(|path| path.split('/').next()?.strip_suffix(".rs"));
        names.filter(|name| !["lib", "main", "tests"].contains(name)).map(str::to_owned).collect()
    };
    let crates: Vec<_> = folders.map(|folder| (folder.to_owned(), modules(folder))).collect();
    assert!(crates.len() > 10, "the crates are not found any more");
    crates
}

/// The paragraphs and tables of one crate: from the line that begins with its folder to the next crate's.
fn section<'a>(architecture: &'a str, folder: &str) -> Option<&'a str> {
    let start = architecture.find(&format!("\n`{folder}`"))?;
    let rest = &architecture[start + 1..];
    let ends = ["\n`harness/", "\n`xtask`", "\n`tests`", "\n## "];
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    Some(&rest[..end])
}

/// What stands in backticks.
fn code_in(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
