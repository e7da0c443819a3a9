//! Which kernel modules a board loads, and in which order.
//!
//! Packages have no `modules.dep` (installing them makes it), so dependencies are read from the modules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;
use object::{Object, ObjectSection};

use super::run::{require_program, run};
use crate::cancel::Cancel;

/// A module ready to be loaded.
pub struct Module {
    pub name: String,
    pub contents: Vec<u8>,
}

/// The modules `names` and all they depend on, dependencies first. A missing one counts as built in.
pub fn collect(files: &[PathBuf], names: &[&str], cancel: &Cancel) -> Result<Vec<Module>> {
    let paths: BTreeMap<String, &PathBuf> = files.iter().filter_map(|path| Some((module_name(path)?, path))).collect();
    let mut contents = BTreeMap::new();
    let mut depends = BTreeMap::new();
    let mut waiting: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let roots: Vec<String> = waiting.iter().filter(|name| paths.contains_key(*name)).cloned().collect();
    while let Some(name) = waiting.pop() {
        let Some(path) = paths.get(&name) else { continue };
        if contents.contains_key(&name) {
            continue;
        }
        let bytes = read(path, cancel)?;
        let below = dependencies(&bytes).with_context(|| format!("cannot read the module `{}`", path.display()))?;
        waiting.extend(below.iter().cloned());
        depends.insert(name.clone(), below);
        contents.insert(name, bytes);
    }
    let order = in_order(&roots, &depends)?;
    Ok(order.into_iter().map(|name| Module { contents: contents.remove(&name).unwrap_or_default(), name }).collect())
}

/// The name by which the kernel knows a module file.
fn module_name(path: &Path) -> Option<String> {
    match path.file_name()?.to_str()?.split_once(".ko") {
        // File names have `-` where the kernel has `_`.
        Some((name, "" | ".xz" | ".zst" | ".gz")) => Some(name.replace('-', "_")),
        _ => None,
    }
}

/// A module's bytes, decompressed on the host: boards' kernels differ in what they can decompress.
fn read(path: &Path, cancel: &Cancel) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return fs::read(path).with_context(|| format!("cannot read `{}`", path.display())),
    };
    require_program(unpacker.0, unpacker.1)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let line = CommandLine::new(unpacker.0).args(["--decompress", "--keep", "--force", "--quiet"]);
    run(&line.arg(path.to_string_lossy()), folder, cancel)?;
    let plain = path.with_extension("");
    fs::read(&plain).with_context(|| format!("cannot read `{}`", plain.display()))
}

/// The `depends=` entry of a module's `.modinfo` section, which is a list of NUL-terminated `key=value`.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("it has no section `.modinfo`")?;
    Ok(depends_entry(section.data()?))
}

fn depends_entry(modinfo: &[u8]) -> Vec<String> {
    let names = modinfo.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"depends="));
    let names = names.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// Depth first, so that what a module needs stands before it.
fn in_order(roots: &[String], depends: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>> {
    fn visit(
        name: &str,
        depends: &BTreeMap<String, Vec<String>>,
        entered: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if order.iter().any(|done| done == name) {
            return Ok(());
        }
        if !entered.insert(name.to_owned()) {
            bail!("the kernel module `{name}` depends on itself");
        }
        let below = depends.get(name).with_context(|| format!("the kernel packages lack the module `{name}`"))?;
        for name in below {
            visit(name, depends, entered, order)?;
        }
        order.push(name.to_owned());
        Ok(())
    }
    let (mut entered, mut order) = (BTreeSet::new(), Vec::new());
    for name in roots {
        visit(name, depends, &mut entered, &mut order)?;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_depends_entry() {
        assert_eq!(
            depends_entry(b"license=GPL\0depends=net_failover,virtio-ring\0alias=x\0"),
            ["net_failover", "virtio_ring"]
        );
        assert!(depends_entry(b"license=GPL\0depends=\0intree=Y\0").is_empty());
    }

    #[test]
    fn dependencies_come_first() {
        let depends = BTreeMap::from([
            ("virtio_net".to_owned(), owned(&["net_failover"])),
            ("net_failover".to_owned(), owned(&["failover"])),
            ("failover".to_owned(), owned(&[])),
        ]);
        let order = in_order(&owned(&["virtio_net", "failover"]), &depends).unwrap();
        assert_eq!(order, ["failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn missing_and_circular_dependencies_are_errors() {
        let missing = BTreeMap::from([("a".to_owned(), owned(&["b"]))]);
        assert!(in_order(&owned(&["a"]), &missing).unwrap_err().to_string().contains("lack the module `b`"));
        let circle = BTreeMap::from([("a".to_owned(), owned(&["b"])), ("b".to_owned(), owned(&["a"]))]);
        assert!(in_order(&owned(&["a"]), &circle).unwrap_err().to_string().contains("depends on itself"));
    }

    proptest! {
        /// Edges from a higher number to a lower one make any graph without circles.
        #[test]
        fn any_graph_without_circles(edges in prop::collection::vec((0..12_usize, 0..12_usize), 0..40)) {
            let name = |number: usize| format!("m{number}");
            let mut depends: BTreeMap<_, _> = (0..12).map(|number| (name(number), Vec::new())).collect();
            for (one, other) in edges {
                if one != other {
                    depends.get_mut(&name(one.max(other))).unwrap().push(name(one.min(other)));
                }
            }
            let roots: Vec<String> = (0..12).rev().map(name).collect();
            let order = in_order(&roots, &depends).unwrap();
            prop_assert_eq!(order.len(), 12);
            let place = |name: &String| order.iter().position(|other| other == name).unwrap();
            for (name, below) in &depends {
                for needed in below {
                    prop_assert!(place(needed) < place(name));
                }
            }
        }
    }
}
