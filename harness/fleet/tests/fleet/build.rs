//! Artifacts are made once and never stale: `build` against a small workspace with a runner of its own, by a real cargo
//! and for this host.

use std::{
    cell::Cell,
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use espalier_bench::build_plan::Layout;
use espalier_fleet::{
    build::{self, Artifact},
    cache::Cache,
    cancel::Cancel,
    process::Watch,
};
use espalier_inventory::{Builder, Libc, Target};
use tempfile::TempDir;

struct Workspace {
    folder: TempDir,
    cache: Cache,
}

impl Workspace {
    fn new() -> Workspace {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("cache")).unwrap();
        let workspace = Workspace { folder, cache };
        workspace.write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"runner\", \"number\", \"other\"]\n\
             [profile.runner]\ninherits = \"dev\"\ndebug = 0\n",
        );
        let package = |name: &str, more: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{more}");
        let number = "[dependencies]\nnumber = { path = \"../number\" }\n";
        workspace.write("runner/Cargo.toml", &package("espalier-runner", number));
        workspace.write("runner/src/main.rs", "fn main() { println!(\"{}\", number::NUMBER) }");
        workspace.write("number/Cargo.toml", &package("number", ""));
        workspace.write("number/src/lib.rs", "pub const NUMBER: &str = \"one\";");
        workspace.write("other/Cargo.toml", &package("other", ""));
        workspace.write("other/src/lib.rs", "");
        workspace.write("outside.txt", "seven");
        // As the real one has it: `--locked` needs it.
        workspace.write(
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"espalier-runner\"\nversion = \"0.0.0\"\ndependencies = [\"number\"]\n\
             [[package]]\nname = \"number\"\nversion = \"0.0.0\"\n[[package]]\nname = \"other\"\nversion = \"0.0.0\"\n",
        );
        workspace
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    fn build(&self) -> Artifact {
        self.build_as(Layout::USUAL, &self.cache)
    }

    #[track_caller]
    fn build_as(&self, layout: Layout, cache: &Cache) -> Artifact {
        self.build_with(layout, cache, &|_| {})
    }

    #[track_caller]
    fn build_with(&self, layout: Layout, cache: &Cache, progress: &dyn Fn(&str)) -> Artifact {
        let watch = Watch { cancel: &Cancel::default(), progress };
        build::build(cache, self.folder.path(), &host(), layout, watch).unwrap_or_else(|error| panic!("{error:?}"))
    }
}

fn host() -> Target {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let triple = String::from_utf8(rustc.stdout).unwrap();
    let triple = triple.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    Target { name: "host".to_owned(), triple, builder: Builder::Auto, libc: Libc::Any, cpu: None, features: Vec::new() }
}

fn printed(program: &Path) -> String {
    loop {
        match Command::new(program).output() {
            // A child that another test has just forked still has the file open as its parent had while writing it.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(Duration::from_millis(10)),
            output => return String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned(),
        }
    }
}

#[test]
fn made_once_and_never_stale() {
    let workspace = Workspace::new();
    let first = workspace.build();
    assert_eq!((printed(&first.path).as_str(), first.cached), ("one", false));
    assert!(first.builder.starts_with("cargo, rustc 1."), "{}", first.builder);

    let versions = workspace.cache.root.join("versions.json");
    let answers = fs::metadata(&versions).unwrap().ino();
    let no_program = |line: &str| panic!("a program was run: {line}");
    let again = workspace.build_with(Layout::USUAL, &workspace.cache, &no_program);
    assert_eq!(again, Artifact { cached: true, ..first.clone() });
    // Written anew after every program that is asked for its version.
    assert_eq!(fs::metadata(&versions).unwrap().ino(), answers, "a compiler was asked again");

    workspace.write("other/src/lib.rs", "pub fn unrelated() {}");
    assert!(workspace.build().cached, "what is not in the runner does not matter to it");

    workspace.write("number/src/lib.rs", "pub const NUMBER: &str = \"two\";");
    let changed = workspace.build();
    assert_eq!((printed(&changed.path).as_str(), changed.cached), ("two", false));

    workspace.write("number/src/lib.rs", "pub const NUMBER: &str = \"one\";");
    assert_eq!(workspace.build(), Artifact { cached: true, ..first.clone() }, "back to what was built before");

    fs::write(&first.path, "damaged").unwrap();
    assert_eq!(printed(&workspace.build().path), "one", "a damaged artifact is made again");
}

#[test]
fn every_layout_is_an_artifact_of_its_own() {
    let workspace = Workspace::new();
    workspace.write("runner/src/main.rs", "fn main() { println!(\"{:?}\", option_env!(\"ESPALIER_LAYOUT\")) }");
    let build = |layout| workspace.build_as(Layout(layout), &workspace.cache);
    for (layout, expected) in [(0, "None"), (1, "Some(\"1\")"), (2, "Some(\"2\")")] {
        let artifact = build(layout);
        assert_eq!((printed(&artifact.path).as_str(), artifact.cached), (expected, false));
    }
    for (layout, expected) in [(1, "Some(\"1\")"), (0, "None")] {
        let artifact = build(layout);
        assert_eq!((printed(&artifact.path).as_str(), artifact.cached), (expected, true));
    }
}

/// Two clones share a cache. cargo knows files by their place in the workspace and by time: older sources it would take
/// for those it has built.
#[test]
fn an_older_clone_is_built_from_its_own_sources() {
    let newer = Workspace::new();
    assert_eq!(printed(&newer.build().path), "one");
    let older = Workspace::new();
    older.write("number/src/lib.rs", "pub const NUMBER: &str = \"two\";");
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "runner/Cargo.toml",
        "runner/src/main.rs",
        "number/Cargo.toml",
        "number/src/lib.rs",
    ] {
        let file = fs::File::options().write(true).open(older.folder.path().join(file)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    assert_eq!(printed(&older.build_as(Layout::USUAL, &newer.cache).path), "two");
    newer.write("number/src/lib.rs", "pub const NUMBER: &str = \"three\";");
    assert_eq!(printed(&newer.build().path), "three");
}

#[test]
fn a_file_from_elsewhere_leaves_it_to_cargo() {
    let workspace = Workspace::new();
    workspace.write("number/src/lib.rs", "pub const NUMBER: &str = include_str!(\"../../outside.txt\");");
    assert_eq!(printed(&workspace.build().path), "seven");
    workspace.write("outside.txt", "eight");
    // cargo compares times of change, whose steps are coarse on some file systems.
    let file = fs::File::options().write(true).open(workspace.folder.path().join("outside.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(2)).unwrap();
    assert_eq!(printed(&workspace.build().path), "eight");
}

#[test]
fn an_error_of_the_compiler_is_shown_and_nothing_is_kept() {
    let workspace = Workspace::new();
    workspace.write("runner/src/main.rs", "fn main() { nonsense }");
    let lines = Cell::new(0);
    let progress = |_: &str| lines.set(lines.get() + 1);
    let watch = Watch { cancel: &Cancel::default(), progress: &progress };
    let error = build::build(&workspace.cache, workspace.folder.path(), &host(), Layout::USUAL, watch).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("cannot find value `nonsense`") && text.contains("--profile runner"), "{text}");
    assert!(lines.get() > 0);
    workspace.write("runner/src/main.rs", "fn main() { println!(\"well\") }");
    assert_eq!(printed(&workspace.build().path), "well");
}
