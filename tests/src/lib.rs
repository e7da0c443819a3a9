//! What the end-to-end tests share: the real `cargo xtask` program, run with a folder of configuration of each test's
//! own, against real boards.
//!
//! `cargo xtask test` builds the program, boots the boards and sets the variables `ESPALIER_XTASK` (the program),
//! `ESPALIER_PYTHON` (an interpreter with onnxruntime, or empty) and `ESPALIER_SKIPS` (the file for tests that cannot
//! run here). Tests share the boards, but each has a `workdir` of its own there.

mod program;
mod shelf;

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use espalier_fleet::{
    boards::{self, BoardKind, BoardState},
    cache::Cache,
};

pub use program::{Outcome, Running};
pub use shelf::Shelf;

/// Reports a test that cannot run here, and why, on stderr and for the suite's summary.
pub fn skip(name: &str, reason: &str) {
    let line = format!("{name}: {}\n", reason.replace('\n', " "));
    // Past libtest's capture.
    io::stderr().write_all(format!("skipped: {line}").as_bytes()).unwrap();
    if let Some(path) = env::var_os("ESPALIER_SKIPS").filter(|path| !path.is_empty()) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        // One write: tests run in parallel.
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Whether all of these boards are on; if not, the test `name` is skipped.
pub fn boards_are_up(name: &str, kinds: &[BoardKind]) -> bool {
    let off: Vec<&str> = boards::list(&cache())
        .unwrap()
        .iter()
        .filter(|status| kinds.contains(&status.kind) && status.state != BoardState::Running)
        .map(|status| status.kind.name())
        .collect();
    if !off.is_empty() {
        skip(name, &format!("not up: {0} (`cargo xtask board up {0}`)", off.join(" ")));
    }
    off.is_empty()
}

/// An interpreter with onnxruntime; if there is none, the test `name` is skipped.
pub fn python(name: &str) -> Option<PathBuf> {
    let python = env::var_os("ESPALIER_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        skip(name, "no Python interpreter with onnxruntime (`ESPALIER_PYTHON`)");
    }
    python.map(PathBuf::from)
}

pub fn cache() -> Cache {
    Cache::open().unwrap()
}

/// A file of the repository.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// What a script on the board prints; by the system's own ssh, which is independent of `fleet`.
#[track_caller]
pub fn on_board(kind: BoardKind, script: &str) -> String {
    let output = ssh(kind, script);
    assert!(output.status.success(), "`{script}` on {kind}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ssh(kind: BoardKind, script: &str) -> std::process::Output {
    let config = cache().root.join("boards/ssh_config");
    let mut command = Command::new("ssh");
    command.arg("-F").arg(config).args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", kind.name(), script]);
    command.output().expect("the tests of boards need `ssh`")
}

/// The board's port on this host.
pub fn port(kind: BoardKind) -> u16 {
    let statuses = boards::list(&cache()).unwrap();
    statuses.iter().find(|status| status.kind == kind).and_then(|status| status.port).unwrap()
}

/// Checks every 50 ms until `is_so` holds or `limit` is over.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
