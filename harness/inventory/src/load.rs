//! The contents of files in, an [`Inventory`] out, or every problem in them.
//!
//! Nothing is read from the disk here: contents, variables and whether a file exists are parameters. A file with a
//! mistake is read on with a default, so that one pass finds all mistakes; such a result never leaves [`load`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Builder, Device, Inventory, Libc, Model, Problem, Target,
    device::read_device,
    document::{Document, Table, Wrong},
    model::read_model,
    names::{self, UnknownName, ill_name},
    problem::SourceFile,
    types::{HOST_TARGET, LOCAL_DEVICE},
    values,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFiles {
    /// `targets.toml`.
    pub targets: Option<SourceFile>,
    /// `devices/*.toml`; the file's name is the device's.
    pub devices: Vec<SourceFile>,
    /// `models/*.toml`; the file's name is the model's. Paths in them are relative to the file's folder.
    pub models: Vec<SourceFile>,
}

/// What the meaning of files depends on besides their contents.
pub struct Surroundings<'a> {
    /// The triple of this host, which becomes the target [`HOST_TARGET`].
    pub host_triple: &'a str,
    /// Values of `${NAME}` in a device's file.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a file exists; the path is relative to the root or absolute.
    pub exists: &'a dyn Fn(&str) -> bool,
}

/// The file of [`LOCAL_DEVICE`] where there is none.
const LOCAL: &str = "description = \"this machine\"\ntransport = \"local\"\nin-all = false\n";

/// # Errors
/// Every mistake in every file: targets, devices, models, each file from top to bottom.
pub fn load(files: &SourceFiles, surroundings: &Surroundings<'_>) -> Result<Inventory, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut inventory = Inventory::default();

    let mut targets_known = true;
    if let Some(source) = &files.targets {
        let (document, root) = Document::open(source, None);
        inventory.targets = read_targets(&document, document.root(root));
        targets_known = !document.is_broken();
        problems.extend(document.into_problems());
    }
    inventory.targets.insert(HOST_TARGET.to_owned(), host_target(surroundings.host_triple));
    // A device may name a target whose definition could not be read.
    let targets = targets_known.then(|| inventory.targets.keys().map(String::as_str).collect::<Vec<_>>());

    for (source, name) in named(&files.devices, "device", &mut problems) {
        let (document, root) = Document::open(source, Some(surroundings.environment));
        let device = read_device(name, document.root(root), targets.as_deref(), surroundings.environment);
        problems.extend(document.into_problems());
        inventory.devices.insert(name.to_owned(), device);
    }
    if !inventory.devices.contains_key(LOCAL_DEVICE) {
        let source = SourceFile::new("built in", LOCAL.to_owned());
        let (document, root) = Document::open(&source, None);
        let device = read_device(LOCAL_DEVICE, document.root(root), None, surroundings.environment);
        inventory.devices.insert(LOCAL_DEVICE.to_owned(), device);
    }
    for (source, name) in named(&files.models, "model", &mut problems) {
        let (document, root) = Document::open(source, None);
        let model = read_model(name, source.folder(), document.root(root), surroundings.exists);
        problems.extend(document.into_problems());
        inventory.models.insert(name.to_owned(), model);
    }
    if problems.is_empty() { Ok(inventory) } else { Err(problems) }
}

impl Inventory {
    /// # Errors
    /// Suggests the nearest name, and lists all.
    pub fn target(&self, name: &str) -> Result<&Target, UnknownName> {
        find("target", &self.targets, name)
    }

    /// # Errors
    /// As for [`Inventory::target`].
    pub fn device(&self, name: &str) -> Result<&Device, UnknownName> {
        find("device", &self.devices, name)
    }

    /// # Errors
    /// As for [`Inventory::target`].
    pub fn model(&self, name: &str) -> Result<&Model, UnknownName> {
        find("model", &self.models, name)
    }
}

fn find<'a, T>(kind: &'static str, all: &'a BTreeMap<String, T>, name: &str) -> Result<&'a T, UnknownName> {
    all.get(name).ok_or_else(|| UnknownName::new(kind, name, all.keys().map(String::as_str)))
}

/// Files with their names. Notes names that are invalid or taken.
fn named<'a>(sources: &'a [SourceFile], kind: &str, problems: &mut Vec<Problem>) -> Vec<(&'a SourceFile, &'a str)> {
    let mut taken = BTreeSet::new();
    let mut named = Vec::new();
    for source in sources {
        let name = source.stem().unwrap_or(&source.path);
        if !names::is_name(name) {
            problems.push(Problem::new(source, 0..0, ill_name(kind, name), None));
        } else if !taken.insert(name) {
            problems.push(Problem::new(source, 0..0, format!("there is another {kind} `{name}`"), None));
        }
        named.push((source, name));
    }
    named
}

fn host_target(triple: &str) -> Target {
    Target {
        name: HOST_TARGET.to_owned(),
        triple: triple.to_owned(),
        builder: Builder::Cargo,
        libc: Libc::Any,
        cpu: None,
        features: Vec::new(),
    }
}

fn read_targets(document: &Document<'_>, mut root: Table<'_, '_>) -> BTreeMap<String, Target> {
    let mut targets = BTreeMap::new();
    if let Some(mut tables) = root.take("target").and_then(|value| value.table()) {
        for (name, span, value) in tables.drain() {
            if name == HOST_TARGET {
                document.wrong(span, Wrong::new("the target `host` is this machine's own and cannot be another"));
            } else if !names::is_name(&name) {
                document.wrong(span, Wrong::new(ill_name("target", &name)));
            }
            if let Some(table) = value.table() {
                targets.insert(name.clone(), read_target(name, table));
            }
        }
    }
    root.close();
    targets
}

fn read_target(name: String, mut table: Table<'_, '_>) -> Target {
    let triple = table.require("triple", "\"aarch64-unknown-linux-gnu\"").and_then(|value| value.parse(values::triple));
    let builder = table.take("builder").and_then(|value| value.parse(values::builder));
    let glibc = table.take("glibc");
    let is_static = table.take("static").and_then(|value| value.flag()).unwrap_or(false);
    let libc = match &glibc {
        Some(value) if is_static => {
            value.wrong(Wrong::new(
                "`glibc` and `static = true` exclude each other: a static runner has no libc to match",
            ));
            Libc::Static
        }
        Some(value) => {
            if triple.as_deref().is_some_and(|triple| !triple.contains("-gnu")) {
                value.wrong(Wrong::new("`glibc` is given, but the triple is of another libc"));
            }
            value.parse(values::glibc).map_or(Libc::Any, Libc::Floor)
        }
        None if is_static => Libc::Static,
        None => Libc::Any,
    };
    let cpu = table.take("cpu").and_then(|value| value.parse(values::cpu));
    let features = table.take("features").map(|value| value.items("strings")).unwrap_or_default();
    let features = features.iter().filter_map(|feature| feature.parse(values::feature)).collect();
    table.close();
    Target { name, triple: triple.unwrap_or_default(), builder: builder.unwrap_or(Builder::Auto), libc, cpu, features }
}
