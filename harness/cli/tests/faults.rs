//! Every command of `espalier` where something around it is broken: stdout and stderr, `HOME`, folders that may not be
//! written to, each kind of file missing or damaged. No panic, documented exit codes, and the code that fits.
//!
//! The commands come from clap's own list: one that has no line in [`invocations`] fails the test.

use std::{
    fs::{self, File, Permissions},
    io::{Read as _, pipe},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use clap::Subcommand as _;
use rayon::prelude::*;
use tempfile::TempDir;

/// A program of this host that is no runner: every job ends with a message.
const RUNNER: &str = "/bin/true";

/// What README says, and no other.
const DOCUMENTED: [i32; 7] = [0, 1, 2, 3, 4, 5, CLOSED_PIPE];
const CLOSED_PIPE: i32 = 141;

const RUN: &str = "reports/runs/20261123T191500Z-3f9a.jsonl";
const GATE: &str = "reports/gates/20261123T191500Z-3f9a.jsonl";
const CALIBRATION: &str = "devices/calibration/local.toml";

/// A file of each kind that a command reads.
const FILES: [&str; 17] = [
    "targets.toml",
    "devices/local.toml",
    "models/digits.toml",
    "models/dense.onnx",
    "models/eval.npz",
    "models/calibration.npz",
    "digits.pack",
    "replay.jsonl",
    "runner",
    "reports/baselines/main.toml",
    RUN,
    GATE,
    "reports/history.jsonl",
    "reports/changes.toml",
    "reports/waivers.toml",
    "reports/controls.jsonl",
    CALIBRATION,
];

/// Command lines of a command, each with files that it cannot do without.
fn invocations(command: &str) -> Vec<(&'static str, &'static [&'static str])> {
    const MODEL: [&str; 4] = ["targets.toml", "devices/local.toml", "models/digits.toml", "models/dense.onnx"];
    match command {
        "bench" => vec![
            (
                "bench -m digits --runner runner --runs 1 --min-time 0",
                &[MODEL[0], MODEL[1], MODEL[2], MODEL[3], "runner"],
            ),
            ("bench -m digits --runner runner --message-format json --runs 1", &["models/eval.npz"]),
            ("bench --dry-run", &["models/digits.toml"]),
            ("bench --resume", &[RUN]),
        ],
        "prune" => vec![
            ("prune digits --ratio 0.5 -o out/pruned.onnx", &["models/dense.onnx", "models/eval.npz"]),
            ("prune digits --method gradient --ratio 0.5 -o out/pruned.onnx", &["models/calibration.npz"]),
        ],
        "sensitivity" => vec![("sensitivity digits --ratios 0.5", &["models/calibration.npz", "models/dense.onnx"])],
        "model build" => vec![("model build ds-cnn -o out/net.onnx", &[])],
        "inspect" => vec![("inspect digits", &["models/digits.toml", "models/dense.onnx"])],
        "pack" => vec![("pack digits -o out/digits.pack", &["models/dense.onnx"])],
        "unpack" => vec![("unpack digits.pack -o out/unpacked.onnx", &["digits.pack"])],
        "accept" => vec![("accept --replace --runner runner", &["runner", "models/dense.onnx"])],
        "calibrate" => vec![("calibrate --device local", &["devices/local.toml"])],
        "gate" => vec![
            ("gate --runner runner", &["reports/baselines/main.toml"]),
            ("gate --from 20261123T191500Z-3f9a", &[GATE]),
            ("gate --replay replay.jsonl --profile coarse", &["replay.jsonl"]),
        ],
        "nightly" => vec![("nightly --runs 1", &["targets.toml"])],
        "report" => vec![("report", &[RUN])],
        "history" => vec![("history", &["reports/history.jsonl"])],
        "accept-change" => vec![(
            "accept-change digits-cnn@0.5:pi4 --criterion p50 --commit c00022 --reason known --by jo",
            &["reports/history.jsonl"],
        )],
        "check" => vec![("check", &["targets.toml"])],
        "setup" => vec![("setup --target host", &[])],
        "build" => vec![("build --dry-run", &[])],
        "board up" => vec![("board up none", &[])],
        "board down" => vec![("board down", &[])],
        "board list" => vec![("board list", &[])],
        "selftest gate" => vec![("selftest gate --simulate 1", &[])],
        other => panic!("`{other}` is new: say here how this test calls it, and what it reads"),
    }
}

/// All command lines, of every command that clap knows.
fn all() -> Vec<(&'static str, &'static [&'static str])> {
    fn leaves(command: &clap::Command, before: &str) -> Vec<String> {
        let name = format!("{before} {}", command.get_name());
        let below: Vec<String> = command.get_subcommands().flat_map(|below| leaves(below, &name)).collect();
        if below.is_empty() { vec![name.trim().to_owned()] } else { below }
    }
    let program = espalier_cli::Command::augment_subcommands(clap::Command::new("espalier"));
    let found: Vec<String> = program.get_subcommands().flat_map(|command| leaves(command, "")).collect();
    assert!(found.len() > 20, "the commands are not found any more: {found:?}");
    found.iter().flat_map(|command| invocations(command)).collect()
}

/// A folder of a user's with a file of each kind, made once and copied for each call.
fn template() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let copy = |name: &str, from: &str| write(name, &fs::read(root.join(from)).unwrap());
        write("targets.toml", b"");
        write("devices/local.toml", b"transport = \"local\"\n");
        let model = "source = \"dense.onnx\"\neval = \"eval.npz\"\ncalibration = \"calibration.npz\"\n";
        write("models/digits.toml", format!("{model}[prune]\nratios = [0.0, 0.5]\n").as_bytes());
        for name in ["dense.onnx", "eval.npz", "calibration.npz"] {
            copy(&format!("models/{name}"), &format!("models/digits-cnn/{name}"));
        }
        copy("runner", RUNNER);
        copy(RUN, "harness/bench/tests/fixtures/run.jsonl");
        for (name, fixture) in [
            (GATE, "gate.jsonl"),
            ("replay.jsonl", "replay.jsonl"),
            ("reports/history.jsonl", "history.jsonl"),
            ("reports/controls.jsonl", "controls.jsonl"),
        ] {
            copy(name, &format!("harness/gate/tests/fixtures/{fixture}"));
        }
        let calibration = fs::read_to_string(root.join("harness/gate/tests/fixtures/calibration.toml")).unwrap();
        write(CALIBRATION, calibration.replace("\"pi4\"", "\"local\"").as_bytes());
        let change = "[[change]]\ncase = \"digits-cnn@0.5 on pi4\"\ncriterion = \"p50\"\nseries = \"code\"\n\
                      commit = \"c00016\"\nstate = \"accepted\"\nby = \"J\"\nreason = \"r\"\ndate = \"2026-11-23\"\n";
        write("reports/changes.toml", change.as_bytes());
        let waiver = "[[waiver]]\ncase = \"digits-cnn@0.5 on pi4\"\nreason = \"r\"\nuntil = \"2126-12-31\"\n";
        write("reports/waivers.toml", waiver.as_bytes());
        fs::create_dir(folder.path().join("out")).unwrap();
        for made in ["pack digits -q -o digits.pack", "accept -q --runner runner"] {
            let output = espalier(folder.path(), made).output().unwrap();
            assert!(output.status.success(), "{made}: {output:?}");
        }
        for file in FILES {
            assert!(folder.path().join(file).is_file(), "`{file}` is not there");
        }
        folder
    });
    folder.path()
}

fn fresh() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(template().join(".")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    folder
}

/// Without any of the caller's settings and without sources, so that nothing is built.
fn espalier(folder: &Path, args: &str) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_espalier")), folder, args)
}

fn program(program: &Path, folder: &Path, args: &str) -> Command {
    let mut command = Command::new(program);
    command.args(args.split(' ')).current_dir(folder).stdin(Stdio::null());
    for name in ["ESPALIER_ROOT", "ESPALIER_STORE", "ESPALIER_TOOLCHAIN", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command.env("ESPALIER_SOURCES", folder).env("ESPALIER_CACHE", folder.join("cache")).env("USER", "jo");
    command
}

/// Exit code and stderr.
#[track_caller]
fn ended(what: &str, command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let code = status.code().unwrap_or_else(|| panic!("{what}: {status}\n{stderr}"));
    assert!(DOCUMENTED.contains(&code), "{what}: exit code {code} is documented nowhere\n{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{what}:\n{stderr}");
    (code, stderr)
}

/// Calls `check` with every command line and what it usually says.
fn each(check: impl Fn(&'static str, &Output) + Sync) {
    static USUAL: OnceLock<Vec<(&'static str, Output)>> = OnceLock::new();
    let usual = USUAL.get_or_init(|| {
        template();
        let run = |(args, _)| (args, espalier(fresh().path(), args).output().unwrap());
        all().into_par_iter().map(run).collect()
    });
    usual.par_iter().for_each(|(args, usual)| check(args, usual));
}

#[test]
fn whoever_closes_the_pipe_is_not_troubled() {
    each(|args, usual| {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let folder = fresh();
        let (code, stderr) = ended(args, espalier(folder.path(), args).stdout(writer));
        let expected = if usual.stdout.is_empty() { usual.status.code().unwrap() } else { CLOSED_PIPE };
        assert_eq!(code, expected, "{args}: {stderr}");
        assert!(code != CLOSED_PIPE || !stderr.contains("stdout"), "{args}: {stderr}");
    });
}

#[test]
fn a_full_disk_behind_stdout_is_an_error() {
    each(|args, usual| {
        let folder = fresh();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, stderr) = ended(args, espalier(folder.path(), args).stdout(full));
        if usual.stdout.is_empty() {
            assert_eq!(Some(code), usual.status.code(), "{args}: {stderr}");
        } else {
            assert_eq!(code, 1, "{args}: {stderr}");
            assert!(stderr.contains("error: cannot write to stdout: No space left on device"), "{args}: {stderr}");
        }
    });
}

#[test]
fn help_and_version_are_results_too() {
    for args in ["--help", "bench --help", "--version", "help prune"] {
        let folder = fresh();
        let full = || File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(ended(args, espalier(folder.path(), args).stdout(full())).0, 1, "{args}");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(ended(args, espalier(folder.path(), args).stdout(writer)), (CLOSED_PIPE, String::new()), "{args}");
    }
}

/// Nobody reads remarks there: the work and its exit code are the same.
#[test]
fn stderr_may_be_full_or_closed() {
    each(|args, usual| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, _) = ended(args, espalier(fresh().path(), args).stderr(full));
        assert_eq!(Some(code), usual.status.code(), "{args}");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let (code, _) = ended(args, espalier(fresh().path(), args).stderr(writer));
        assert_eq!(Some(code), usual.status.code(), "{args}");
    });
}

#[test]
fn without_a_home_folder() {
    each(|args, usual| {
        let folder = fresh();
        let mut command = espalier(folder.path(), args);
        let (code, stderr) = ended(args, command.env_remove("HOME").env_remove("ESPALIER_CACHE"));
        let is_told = stderr.contains("neither `HOME` nor `ESPALIER_CACHE` is set");
        assert!(Some(code) == usual.status.code() || code == 2 && is_told, "{args}: {code}: {stderr}");
    });
}

/// As a user who may not write there. Root may write everywhere, so it becomes somebody else.
#[test]
fn folders_that_are_read_only() {
    let bin = tempfile::tempdir().unwrap();
    let copy: PathBuf = bin.path().join("espalier");
    fs::copy(env!("CARGO_BIN_EXE_espalier"), &copy).unwrap();
    fs::set_permissions(bin.path(), Permissions::from_mode(0o755)).unwrap();
    each(|args, usual| {
        let (folder, cache) = (fresh(), tempfile::tempdir().unwrap());
        let closed = Command::new("chmod").args(["-R", "a-w,a+rX"]).arg(folder.path()).status().unwrap();
        assert!(closed.success());
        fs::set_permissions(cache.path(), Permissions::from_mode(0o777)).unwrap();
        let run = |cache: &Path| {
            let mut command = program(&copy, folder.path(), args);
            command.env("ESPALIER_CACHE", cache).env("HOME", cache);
            if is_root() {
                command.uid(65534).gid(65534);
            }
            ended(args, &mut command)
        };
        let (code, stderr) = run(cache.path());
        // What writes nothing there works; all else says what it could not write.
        // Another user may have no `rustc`.
        let is_told = stderr.contains("Permission denied") || stderr.contains("`rustc` is not on `PATH`");
        assert!(Some(code) == usual.status.code() || code != 0 && is_told, "{args}: {code}: {stderr}");
        // Nor does the cache have to be writable.
        let (code, stderr) = run(folder.path());
        let is_told = stderr.contains("Permission denied") || stderr.contains("`rustc` is not on `PATH`");
        assert!(Some(code) == usual.status.code() || code != 0 && is_told, "{args}: {code}: {stderr}");
        let opened = Command::new("chmod").args(["-R", "u+w"]).arg(folder.path()).status().unwrap();
        assert!(opened.success());
    });
}

fn is_root() -> bool {
    let mut status = String::new();
    File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// Ways a file is broken, and whether a command that needs it can go on.
const DAMAGES: [(&str, bool); 6] = [
    ("missing", false),
    ("empty", false),
    ("a folder", false),
    ("not text", false),
    // A table's or a program's first half may be one.
    ("cut off", true),
    ("one byte", true),
];

fn damage(path: &Path, how: &str) {
    let content = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    match how {
        "missing" => {}
        "empty" => fs::write(path, "").unwrap(),
        "a folder" => fs::create_dir(path).unwrap(),
        "not text" => fs::write(path, [0xff, 0xfe, 0x00, 0xd8, 0x0a].repeat(40)).unwrap(),
        "cut off" => fs::write(path, &content[..content.len() / 2]).unwrap(),
        "one byte" => {
            let mut content = content;
            let middle = content.len() / 2;
            if let Some(byte) = content.get_mut(middle) {
                *byte ^= 0x55;
            }
            fs::write(path, content).unwrap();
        }
        other => panic!("{other}"),
    }
}

#[test]
fn files_that_are_missing_or_damaged() {
    template();
    let cases: Vec<_> = all().into_iter().flat_map(|call| FILES.map(|file| (call, file))).collect();
    cases.into_par_iter().for_each(|((args, needs), file)| {
        let is_needed = needs.contains(&file);
        // What a command does not read cannot harm it: one damage of each such file is enough.
        for (how, may_go_on) in DAMAGES.into_iter().filter(|(how, _)| is_needed || *how == "not text") {
            let folder = fresh();
            damage(&folder.path().join(file), how);
            let what = format!("`{args}` with `{file}` {how}");
            let (code, stderr) = ended(&what, &mut espalier(folder.path(), args));
            // A shelf without targets of its own has this host's.
            let may_go_on = may_go_on || (file, how) == ("targets.toml", "empty");
            assert!(!is_needed || may_go_on || code != 0, "{what} is a success: {stderr}");
        }
    });
}
