//! The part of a workspace that a runner is made of: entries of `Cargo.lock` and of the root `Cargo.toml`.
//!
//! If artifacts were named by the whole workspace, a change in a table's layout would rebuild them; if by too little, a
//! stale binary would be measured. So the name covers every package reachable from the runner in the lock file
//! (development dependencies included, which is more than is linked), and of the root manifest all but what cannot
//! matter.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// What a package is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPackages {
    /// Packages without a source: folders of this workspace.
    pub local: BTreeSet<String>,
    /// Every package with its version, source and checksum, as text in a fixed order.
    pub text: String,
}

/// Everything reachable from `package` in a `Cargo.lock`.
///
/// # Errors
/// The text is no lock file, or names no such package.
pub fn locked_packages(lock: &str, package: &str) -> Result<LockedPackages, String> {
    let lock: Table = lock.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let packages = lock.get("package").and_then(Value::as_array).ok_or("it holds no packages")?;
    let mut by_name: BTreeMap<&str, Vec<&Table>> = BTreeMap::new();
    for entry in packages.iter().filter_map(Value::as_table) {
        by_name.entry(text(entry, "name")).or_default().push(entry);
    }
    if !by_name.contains_key(package) {
        return Err(format!("it holds no package `{package}`"));
    }
    let mut found: BTreeMap<(&str, &str, &str), &Table> = BTreeMap::new();
    let mut pending = vec![package];
    while let Some(dependency) = pending.pop() {
        // `name`, `name version` or `name version (source)`: as much as identifies it.
        let mut words = dependency.split(' ');
        let name = words.next().unwrap_or_default();
        let version = words.next();
        let of_name = by_name.get(name).ok_or_else(|| format!("it holds no package `{dependency}`"))?;
        for entry in of_name.iter().filter(|entry| version.is_none_or(|version| text(entry, "version") == version)) {
            let key = (name, text(entry, "version"), text(entry, "source"));
            if found.insert(key, entry).is_none() {
                let dependencies = entry.get("dependencies").and_then(Value::as_array);
                pending.extend(dependencies.into_iter().flatten().filter_map(Value::as_str));
            }
        }
    }
    let local = found.keys().filter(|(_, _, source)| source.is_empty()).map(|(name, ..)| (*name).to_owned()).collect();
    let text = found.values().map(|entry| format!("{entry}\n")).collect();
    Ok(LockedPackages { local, text })
}

/// The root `Cargo.toml` without what cannot change a runner: members, lints, and profiles other than `profile` and
/// those it inherits from.
///
/// # Errors
/// The text is no TOML.
pub fn root_settings(manifest: &str, profile: &str) -> Result<String, String> {
    let mut manifest: Table = manifest.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    if let Some(workspace) = manifest.get_mut("workspace").and_then(Value::as_table_mut) {
        for key in ["members", "default-members", "exclude", "lints", "metadata"] {
            workspace.remove(key);
        }
    }
    if let Some(profiles) = manifest.get_mut("profile").and_then(Value::as_table_mut) {
        let mut used = BTreeSet::new();
        let mut next = Some(profile.to_owned());
        while let Some(name) = next {
            let parent = profiles.get(&name).and_then(|table| table.get("inherits")?.as_str());
            next = parent.map(str::to_owned).filter(|parent| !used.contains(parent));
            used.insert(name);
        }
        profiles.retain(|name, _| used.contains(name));
    }
    Ok(manifest.to_string())
}

/// The folders of a workspace's members, as its root `Cargo.toml` names them.
///
/// # Errors
/// The text is no workspace's manifest.
pub fn members(manifest: &str) -> Result<Vec<String>, String> {
    let manifest: Table = manifest.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
    let members = members.ok_or("it names no workspace members")?;
    Ok(members.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// The name of the package that a `Cargo.toml` describes.
pub fn package_name(manifest: &str) -> Option<String> {
    let manifest: Table = manifest.parse().ok()?;
    Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
}

fn text<'a>(entry: &'a Table, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4
[[package]]
name = "app"
version = "0.1.0"
dependencies = ["shared", "old 1.0.0"]
[[package]]
name = "shared"
version = "0.1.0"
dependencies = ["app"]
[[package]]
name = "old"
version = "1.0.0"
source = "registry"
checksum = "aa"
[[package]]
name = "old"
version = "2.0.0"
source = "registry"
checksum = "bb"
[[package]]
name = "other"
version = "0.1.0"
dependencies = ["old 2.0.0"]
"#;

    #[test]
    fn only_what_is_reached_counts() {
        let packages = locked_packages(LOCK, "app").unwrap();
        assert_eq!(packages.local.iter().map(String::as_str).collect::<Vec<_>>(), ["app", "shared"]);
        let with = |from: &str, to: &str| locked_packages(&LOCK.replace(from, to), "app").unwrap();
        assert_eq!(packages, with("checksum = \"bb\"", "checksum = \"cc\""));
        assert_ne!(packages, with("checksum = \"aa\"", "checksum = \"cc\""));
        assert!(locked_packages(LOCK, "absent").is_err());
        assert!(locked_packages("=", "app").is_err());
    }

    #[test]
    fn the_root_manifest_counts_where_it_can_matter() {
        let manifest = "[workspace]\nmembers = [\"a\"]\n[workspace.dependencies]\nx = \"1\"\n[profile.dev]\ndebug = 1\n\
                        [profile.release]\ndebug = 7\n[profile.runner]\ninherits = \"release\"\nopt-level = 3\n";
        let settings = |manifest: &str| root_settings(manifest, "runner").unwrap();
        let same = |from: &str, to: &str| settings(manifest) == settings(&manifest.replace(from, to));
        assert!(same("[\"a\"]", "[\"a\", \"b\"]"));
        assert!(same("debug = 1", "debug = 2"));
        assert!(!same("x = \"1\"", "x = \"2\""));
        assert!(!same("opt-level = 3", "opt-level = 2"));
        assert!(!same("debug = 7", "debug = 8"), "an inherited profile counts");
        assert_eq!(members(manifest).unwrap(), ["a"]);
    }
}
