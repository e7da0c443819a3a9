//! The installed program `espalier`, in a folder of a user's: which files it finds, and what it says where some are
//! missing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const MODEL: &str = "source = \"gru/dense.onnx\"\n[prune]\nratios = [0.5]\n";

/// A folder with a target, a device and a model, and a folder below it.
struct Home {
    folder: TempDir,
    below: PathBuf,
}

impl Home {
    fn new() -> Home {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("notes/today");
        for inner in ["models/gru", "devices", "notes/today"] {
            fs::create_dir_all(folder.path().join(inner)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("targets.toml", "[target.pi]\ntriple = \"aarch64-unknown-linux-gnu\"\n");
        write("devices/local.toml", "transport = \"local\"\n");
        write("models/gru.toml", MODEL);
        fs::write(folder.path().join("models/gru/dense.onnx"), espalier_fixtures::fixture("gru-script")).unwrap();
        Home { folder, below }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Without any of the caller's settings; the cache is below the working folder.
fn espalier(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    command.current_dir(folder).env_remove("ESPALIER_ROOT").env_remove("ESPALIER_SOURCES");
    command.env("ESPALIER_CACHE", folder.join("cache"));
    command
}

#[track_caller]
fn prints(command: &mut Command, expected: &str) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success() && stdout.contains(expected), "{status}\n{stdout}{stderr}");
}

/// Exit code 2, nothing on stdout and one line on stderr.
#[track_caller]
fn refuses(command: &mut Command, expected: &str) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(2) && stdout.is_empty() && stderr.lines().count() == 1, "{status}\n{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(expected), "{stderr}");
}

#[test]
fn files_are_found_from_a_folder_below_them() {
    let home = Home::new();
    prints(espalier(&home.below).arg("check"), "2 targets, 1 devices and 1 models are valid");
    prints(espalier(&home.below).args(["inspect", "gru"]), " of them prunable weights");
    // Paths on the command line are relative to the working folder.
    prints(espalier(&home.below).args(["inspect", "../../models/gru/dense.onnx"]), " of them prunable weights");
    prints(espalier(&home.below).args(["prune", "gru", "--ratio", "0.5", "-q", "-o", "out.onnx"]), "out.onnx: ");
    assert!(home.below.join("out.onnx").is_file());
    fs::write(home.path().join("models/gru.toml"), MODEL.replace("0.5", "5")).unwrap();
    let wrong = espalier(&home.below).arg("check").output().unwrap();
    assert!(wrong.status.code() == Some(2) && wrong.stdout.starts_with(b"models/gru.toml:3:"), "{wrong:?}");
}

#[test]
fn espalier_root_takes_precedence() {
    let (home, other) = (Home::new(), Home::new());
    fs::remove_file(other.path().join("models/gru.toml")).unwrap();
    let mut check = espalier(&home.below);
    prints(check.env("ESPALIER_ROOT", other.path()).arg("check"), "1 devices and 0 models");
    let mut inspect = espalier(&home.below);
    refuses(inspect.env("ESPALIER_ROOT", other.path()).args(["inspect", "gru"]), "unknown model `gru`");
    for nowhere in [home.path().join("nowhere"), home.path().join("models")] {
        let mut check = espalier(&home.below);
        refuses(check.env("ESPALIER_ROOT", nowhere).arg("check"), "there is no `targets.toml` in `");
    }
}

#[test]
fn without_targets_only_files_can_be_named() {
    let home = Home::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let espalier = || espalier(elsewhere.path());
    refuses(espalier().arg("check"), "there is no `targets.toml` in `");
    refuses(espalier().args(["inspect", "gru"]), "there is no `targets.toml` in `");
    let file = home.path().join("models/gru/dense.onnx");
    prints(espalier().arg("inspect").arg(&file), " of them prunable weights");
    prints(espalier().args(["bench", "--dry-run", "--model"]).arg(&file), "local");
    refuses(espalier().args(["bench", "--device", "pi4", "--model"]).arg(&file), "(known: `local`)");
    prints(espalier().arg("prune").arg(&file).args(["--ratio", "0.5", "-q", "-o", "out.onnx"]), "out.onnx: ");
}

#[test]
fn a_runner_cannot_be_built_without_sources() {
    let (home, empty) = (Home::new(), tempfile::tempdir().unwrap());
    let espalier = || {
        let mut command = espalier(home.path());
        command.env("ESPALIER_SOURCES", empty.path());
        command
    };
    refuses(espalier().arg("build"), "which `ESPALIER_SOURCES` names, is no clone of Espalier");
    // All else works.
    prints(espalier().arg("check"), "2 targets");
}

/// Whatever mode it has: downloads have none. The same bytes may be in the cache as something that is only read.
#[test]
fn a_given_runner_is_a_program_of_the_target() {
    let home = Home::new();
    let write = |name: &str, content: &[u8]| {
        fs::write(home.path().join(name), content).unwrap();
    };
    write("text", b"not a program\n");
    write("empty", b"");
    let program = fs::read("/bin/true").unwrap();
    write("damaged", &program[..200]);
    write("armhf", include_bytes!("../../fleet/fixtures/armhf.elf"));
    for (runner, expected) in [
        ("text", "runner `text`: it is no program: it is not an ELF file"),
        ("empty", "runner `empty`: it is no program"),
        ("damaged", "runner `damaged`: it is no program: a damaged ELF file"),
        ("armhf", "runner `armhf`: it is built for `arm, hard float`, but target `host` is `"),
        ("absent", "runner `absent`: No such file or directory"),
    ] {
        for command in ["bench", "accept"] {
            refuses(espalier(home.path()).args([command, "-q", "--runner", runner]), expected);
        }
    }
    write("runner", &program);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path().join("runner")) & 0o111, 0);
    let output = espalier(home.path()).args(["bench", "--runner", "runner"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // It was started.
    assert!(stderr.contains("the runner did not start: exit status 0"), "{stderr}");
    // And the reason is there, once, in place of a table of dashes.
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("gru on local\n  nothing was measured\n  at run: the runner did not start"), "{stdout}");
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    let plan = |more: &[&str]| {
        let args = [&["bench", "--runner", "runner", "--dry-run"], more].concat();
        String::from_utf8(espalier(home.path()).args(args).output().unwrap().stdout).unwrap()
    };
    assert_eq!(plan(&[]).lines().count(), 2, "{}", plan(&[]));
    assert!(plan(&["--verbose"]).lines().count() > 20);
}

/// Before anything is pruned or measured.
#[test]
fn outputs_are_checked_first() {
    let home = Home::new();
    let model = home.path().join("models/gru/dense.onnx");
    let before = fs::read(&model).unwrap();
    fs::hard_link(&model, home.path().join("linked.onnx")).unwrap();
    std::os::unix::fs::symlink(&model, home.path().join("link.ONNX")).unwrap();
    let refused = |args: &str, expected: &str| refuses(espalier(home.path()).args(args.split(' ')), expected);
    for output in ["models/gru/dense.onnx", "models/gru/../gru/dense.onnx", "linked.onnx", "link.ONNX"] {
        refused(&format!("prune gru --ratio 0.5 -o {output}"), "is what is read: it would be overwritten");
        refused(&format!("pack gru -o {output}"), "is what is read: it would be overwritten");
    }
    assert_eq!(fs::read(&model).unwrap(), before);
    refused("prune gru --ratio 0.5 -o none/out.onnx", "there is no folder `none`");
    refused("prune gru --ratio 0.5 -o models", "`models`: it is a folder");
    for flag in ["json", "csv", "markdown", "hyperfine", "bencher", "action"] {
        let export = format!("--export-{flag} none/out");
        refused(&format!("bench --runner /bin/true {export}"), "there is no folder `none`");
        refused(&format!("report {export}"), "there is no folder `none`");
    }
    for flag in ["json", "markdown", "junit", "replay"] {
        refused(&format!("gate --export-{flag} none/out"), "there is no folder `none`");
    }
    refused("sensitivity gru --export-csv none/out", "there is no folder `none`");
    assert!(!home.path().join("reports").exists(), "nothing was measured");
    // In whatever case its ending is.
    prints(espalier(home.path()).args(["inspect", "link.ONNX"]), " of them prunable weights");
    refused("bench --model absent.ONNX", "there is no file `");
}

/// On samples that nothing was trained on, and with what chance may hide: not the drop that was seen.
#[test]
fn a_search_keeps_its_budget_on_held_out_samples() {
    let home = Home::new();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits-cnn");
    let prune = |drop: &str| {
        let mut command = espalier(home.path());
        command.args(["prune", "-q", "-o", "out.onnx", "--finetune", "3", "--until"]);
        command.arg(format!("max-accuracy-drop={drop}")).arg(digits.join("dense.onnx"));
        command.arg("--train").arg(digits.join("train.npz")).arg("--eval").arg(digits.join("eval.npz"));
        command
    };
    let output = prune("0.01").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && stdout.contains(": holds\n") && stdout.contains(": does not hold\n"),
        "{stdout}"
    );
    let line = stdout.lines().find(|line| line.starts_with("held-out accuracy: ")).unwrap();
    let words: Vec<&str> = line.split(['(', ' ', ',']).collect();
    let before = |word: &str| -> f64 {
        let at = words.iter().position(|other| other.trim_end_matches([')', ':']) == word).unwrap();
        words[at - 1].parse().unwrap()
    };
    let (count, lost, won) = (before("samples"), before("lost"), before("won"));
    // Bonett and Price, one-sided 95 %, once more.
    let extra = if lost + won < 20.0 { 1.0 } else { 0.0 };
    let (b, c, n) = (lost + extra, won + extra, count + 2.0 * extra);
    let limit = (b - c) / n + 1.644_853_627 * (b + c - (b - c) * (b - c) / n).sqrt() / n;
    assert!(count == 497.0 && limit <= 0.01, "{line}: up to {limit}");
    refuses(&mut prune("0.001"), "497 held-out samples cannot show with 95 % confidence that at most 0.10 pp are lost");
}

/// `-r` used to be a ratio, ratios and runs.
#[test]
fn a_short_flag_means_one_thing() {
    use clap::Subcommand as _;
    let program = espalier_cli::Command::augment_subcommands(clap::Command::new("espalier"));
    let mut waiting: Vec<&clap::Command> = program.get_subcommands().collect();
    let mut meanings = std::collections::BTreeMap::new();
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands());
        for flag in command.get_arguments() {
            let (Some(short), Some(long)) = (flag.get_short(), flag.get_long()) else { continue };
            // One ratio or several.
            let long = long.trim_end_matches('s').to_owned();
            let known = meanings.entry(short).or_insert_with(|| long.clone());
            assert_eq!(*known, long, "-{short} of `{}`", command.get_name());
        }
    }
    assert!(meanings.len() > 5, "the flags are not found any more: {meanings:?}");
}

#[test]
fn the_help_has_examples_and_groups() {
    let help = espalier(Home::new().path()).args(["bench", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["\nExports:\n", "\nWhat is measured:\n", "\nOptions:\n", "\nExamples:\n  bench --model digits-cnn\n"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn all_of_the_accuracy_is_no_budget() {
    let home = Home::new();
    let output = espalier(home.path())
        .args(["prune", "gru", "--until", "max-accuracy-drop=1", "-o", "out.onnx"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("all of the accuracy may not be lost"), "{stderr}");
    fs::write(home.path().join("models/gru.toml"), format!("{MODEL}[budget]\nmax-accuracy-drop = 1\n")).unwrap();
    let output = espalier(home.path()).arg("check").output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.code() == Some(2) && stdout.contains("below 1"), "{stdout}");
    assert_eq!(stderr, "error: 1 mistake\n");
}

/// A given runner is part of what is resumed.
#[test]
fn the_hint_to_resume_is_complete() {
    let home = Home::new();
    let output = espalier(home.path()).args(["bench", "--runner", "/bin/true", "--runs", "1"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let hint = stderr.split('`').find(|text| text.contains("bench --resume")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(hint.ends_with(" --runner /bin/true"), "{hint}");
    let again = hint.strip_prefix("espalier ").unwrap();
    let again = espalier(home.path()).args(again.split(' ')).output().unwrap();
    assert_eq!(again.status.code(), Some(5), "it is taken up, and its device fails again: {again:?}");
}

#[test]
fn a_resumed_run_has_the_flags_it_began_with() {
    let home = Home::new();
    let bench = |args: &[&str]| {
        let mut command = espalier(home.path());
        command.arg("bench").args(args);
        command
    };
    refuses(&mut bench(&["--resume"]), "there is no earlier run");
    refuses(&mut bench(&["--resume", "-q", "--dry-run"]), "there is no earlier run");
    for flag in [&["--runs", "3"][..], &["--model", "gru"], &["--engine", "tract"], &["--nested"], &["--ratios", "0"]] {
        let output = bench(&[&["--resume"], flag].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains("cannot be used with"), "{flag:?}: {stderr}");
    }
}

#[test]
fn commands_are_named_as_this_program_has_them() {
    let home = Home::new();
    refuses(espalier(home.path()).arg("report"), "there is no earlier run: `espalier bench` makes one");
}
