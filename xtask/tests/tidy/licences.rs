//! The licences of everything that is linked on Linux are those that `deny.toml` allows. cargo-deny audits the rest
//! (advisories, sources, other systems) where it is installed: see the workflow.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use crate::{read_toml, root};

#[test]
fn only_allowed_licences_are_used() {
    let deny = read_toml("deny.toml");
    let allowed: BTreeSet<&str> =
        deny["licenses"]["allow"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    // Older crates write `/` for `OR`.
    let is_refused = |licence: &String| !is_allowed(&licence.replace('/', " OR "), &allowed);
    let refused: Vec<_> = licences().into_iter().filter(|(_, licence)| is_refused(licence)).collect();
    assert!(refused.is_empty(), "deny.toml does not allow: {refused:#?}");
}

/// Whether an SPDX expression has an alternative of which every part is allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    for (operator, any) in [(" OR ", true), (" AND ", false)] {
        let parts = split(expression, operator);
        if parts.len() > 1 {
            // Any part that is allowed, or none that is not.
            return parts.iter().any(|part| is_allowed(part, allowed) == any) == any;
        }
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(expression),
    }
}

/// Splits where no bracket is open.
fn split<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (index, _) in expression.match_indices(operator) {
        let open = |bracket| expression[..index].matches(bracket).count();
        if open('(') == open(')') {
            parts.push(&expression[start..index]);
            start = index + operator.len();
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn expressions_are_read() {
    let allowed = BTreeSet::from(["MIT", "Unicode-3.0"]);
    let check = |expression, expected| assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("MIT AND GPL-3.0", false);
    check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
    check("MIT AND (GPL-3.0 OR Apache-2.0)", false);
    check("GPL-3.0 OR MIT AND Unicode-3.0", true);
}

/// Package and licence of every dependency, this workspace's crates among them.
fn licences() -> BTreeMap<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let output = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let linked: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    assert!(linked.len() > 100, "cargo's metadata was misread");
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| package["id"].as_str().is_some_and(|id| linked.contains(id)));
    let licence = |package: &Value| package["license"].as_str().unwrap_or("no licence").to_owned();
    packages.map(|package| (package["id"].as_str().unwrap().to_owned(), licence(package))).collect()
}
