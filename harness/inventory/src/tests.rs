//! The messages about wrong files, and that no mistake is missed. Several files are one text: a line `--- path` begins
//! each.

use std::time::Duration;

use super::*;

mod properties;

/// All problems, one a line; empty where there is none.
#[track_caller]
fn check(input: &str, expected: &str) {
    let got = match load_text(input) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    };
    assert_eq!(got, expected, "\ngot:\n{got}\nexpected:\n{expected}");
}

fn load_text(input: &str) -> Result<Inventory, Vec<Problem>> {
    load_files(&split(input))
}

fn load_files(files: &SourceFiles) -> Result<Inventory, Vec<Problem>> {
    let environment = |name: &str| match name {
        "HOME" => Some("/home/tester".to_owned()),
        "BOARD_HOST" => Some("board.lab".to_owned()),
        _ => None,
    };
    let exists = |path: &str| ["models/cnn/dense.onnx", "models/cnn/eval.npz"].contains(&path);
    let host_triple = "x86_64-unknown-linux-gnu";
    load(files, &Surroundings { host_triple, environment: &environment, exists: &exists })
}

fn split(input: &str) -> SourceFiles {
    let mut files = SourceFiles::default();
    for part in input.split("--- ").skip(1) {
        let (path, text) = part.split_once('\n').expect("a path on a line of its own");
        let source = SourceFile::new(path, text);
        match path.split_once('/') {
            Some(("devices", _)) => files.devices.push(source),
            Some(("models", _)) => files.models.push(source),
            _ => files.targets = Some(source),
        }
    }
    files
}

const VALID: &str = r#"--- targets.toml
[target.aarch64-gnu]
triple = "aarch64-unknown-linux-gnu"
builder = "zigbuild"
glibc = "2.28"
cpu = "cortex-a72"
features = ["+neon", "-sve2"]

[target.riscv64-static]
triple = "riscv64gc-unknown-linux-gnu"
static = true
--- devices/local.toml
transport = "local"
--- devices/pi4.toml
target = "aarch64-gnu"
description = "on the shelf"
workdir = "/data/$$espalier/"
runner = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
threads = 2
kernels = "/data/kernels/"
[transport.ssh]
host = "${BOARD_HOST}"
port = 2222
user = "pi"
identity = "~/.ssh/board"
host-key = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
config = "ssh.conf"
known-hosts = "/etc/known"
[conditions]
governor = "performance"
cpus = [3, 0x2]
max-start-celsius = 60
[timeouts]
connect = "500ms"
command = "10min"
idle = "2 min"
--- models/cnn.toml
source = "cnn/dense.onnx"
eval = "cnn/eval.npz"
calibration = "cnn/eval.npz"
[prune]
method = "magnitude"
scope = "global"
unit = "weight"
ratios = [0.5, 0.9]
[budget]
max-accuracy-drop = 0.01
"#;

#[test]
fn valid_files_mean_what_they_say() {
    let inventory = load_text(VALID).expect("valid");
    assert_eq!(inventory.targets.keys().collect::<Vec<_>>(), ["aarch64-gnu", "host", "riscv64-static"]);
    assert_eq!(
        *inventory.target("aarch64-gnu").unwrap(),
        Target {
            name: "aarch64-gnu".into(),
            triple: "aarch64-unknown-linux-gnu".into(),
            builder: Builder::Zigbuild,
            libc: Libc::Floor(Glibc { major: 2, minor: 28 }),
            cpu: Some("cortex-a72".into()),
            features: vec!["+neon".into(), "-sve2".into()],
        }
    );
    assert_eq!(inventory.target("riscv64-static").unwrap().libc, Libc::Static);
    assert_eq!(inventory.target(HOST_TARGET).unwrap().triple, "x86_64-unknown-linux-gnu");
    assert_eq!(
        *inventory.device("local").unwrap(),
        Device {
            name: "local".into(),
            target: HOST_TARGET.into(),
            description: None,
            transport: Transport::Local,
            workdir: DEFAULT_WORKDIR.into(),
            runner: Vec::new(),
            emulated: false,
            in_all: true,
            threads: 1,
            kernels: None,
            conditions: Conditions::default(),
            timeouts: Timeouts::default(),
        }
    );
    assert_eq!(
        *inventory.device("pi4").unwrap(),
        Device {
            name: "pi4".into(),
            target: "aarch64-gnu".into(),
            description: Some("on the shelf".into()),
            transport: Transport::Ssh(SshAddress {
                host: "board.lab".into(),
                port: Some(2222),
                user: Some("pi".into()),
                identity: Some("/home/tester/.ssh/board".into()),
                host_key: Some("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".into()),
                config: Some("ssh.conf".into()),
                known_hosts: Some("/etc/known".into()),
            }),
            workdir: "/data/$espalier".into(),
            runner: vec!["qemu-aarch64-static".into(), "-L".into(), "/usr/aarch64-linux-gnu".into()],
            emulated: true,
            in_all: true,
            threads: 2,
            kernels: Some("/data/kernels".into()),
            conditions: Conditions {
                governor: Some("performance".into()),
                cpus: vec![3, 2],
                max_start_celsius: Some(60.0)
            },
            timeouts: Timeouts {
                connect: Duration::from_millis(500),
                command: Duration::from_secs(600),
                idle: Duration::from_secs(120),
            },
        }
    );
    assert_eq!(
        *inventory.model("cnn").unwrap(),
        Model {
            name: "cnn".into(),
            source: Source::File("models/cnn/dense.onnx".into()),
            eval: Some("models/cnn/eval.npz".into()),
            calibration: Some("models/cnn/eval.npz".into()),
            train: None,
            recipe: Recipe {
                method: Method::Magnitude,
                scope: Scope::Global,
                unit: Unit::Weight,
                ratios: vec![0.0, 0.5, 0.9],
                ..Recipe::default()
            },
            task: Spec::default(),
            budget: Budget { max_accuracy_drop: Some(0.01) },
            in_all: true,
        }
    );
}

#[test]
fn nothing_is_needed_but_the_source_of_a_model() {
    let inventory = load_text("--- models/cnn.toml\nsource = 'cnn/dense.onnx'").expect("valid");
    assert_eq!(inventory.model("cnn").unwrap().recipe, Recipe::default());
    let local = inventory.device("local").unwrap();
    assert_eq!((&local.transport, local.in_all), (&Transport::Local, false));
    assert_eq!(
        inventory.device("lokal").unwrap_err().to_string(),
        "unknown device `lokal`; did you mean `local`? (known: `local`)"
    );
    assert_eq!(
        inventory.model("cnm").unwrap_err().to_string(),
        "unknown model `cnm`; did you mean `cnn`? (known: `cnn`)"
    );
}

#[test]
fn a_model_may_be_built() {
    let inventory = load_text("--- models/r.toml\nbuild = 'resnet50'\nin-all = false\n").expect("valid");
    let model = inventory.model("r").unwrap();
    assert_eq!(model.source, Source::Build { net: "resnet50".into(), samples: 16 });
    assert_eq!((model.in_all, &model.eval), (false, &None));
    let inventory = load_text("--- models/r.toml\nbuild = 'lstm'\nsamples = 3\n").expect("valid");
    assert_eq!(inventory.model("r").unwrap().source, Source::Build { net: "lstm".into(), samples: 3 });
    for net in BUILT {
        let source = Source::Build { net: net.into(), samples: Source::SAMPLES };
        assert_eq!(Source::parse(&source.to_string()), source);
    }
    check(
        "--- models/r.toml\nbuild = 'resnet5'\nsource = 'cnn/dense.onnx'\neval = 'cnn/eval.npz'\nsamples = 0\n\
         [budget]\nmax-accuracy-drop = 0.01\n",
        "models/r.toml:1:9: unknown network `resnet5`; did you mean `resnet50`?\n\
         models/r.toml:2:10: `source` and `build` exclude each other: a file that is there, or one that is made\n\
         models/r.toml:3:8: the weights of what is built are random: there is no accuracy\n\
         models/r.toml:4:11: `samples` must be from 1 to 4096\n\
         models/r.toml:5:1: the weights of what is built are random: there is no accuracy\n",
    );
    check(
        "--- models/r.toml\nsource = 'cnn/dense.onnx'\nsamples = 3\nin-all = 1\n",
        "models/r.toml:2:11: samples are synthetic for what is built; `eval` names those of a model's own\n\
         models/r.toml:3:10: `in-all` must be `true` or `false`, not a whole number\n",
    );
}

#[test]
fn every_mistake_of_all_files_at_once() {
    check(
        r#"--- targets.toml
[target.aarch64-gnu]
tripel = "aarch64-unknown-linux-gnu"
builder = "zigbuidl"
[target.Bad]
triple = "aarch64-linux-gnu"
glibc = 2.28
--- devices/pi4.toml
target = "aarch64-gmu"
transport = { ssh = { host = "pi4.lab", host_key = "SHA256:abc" } }
emulated = "yes"
[conditions]
governer = "performance"
cpus = [3, "2", 3]
--- models/cnn.toml
source = "cnn/dens.onnx"
[prune]
method = "tailor"
unit = "wieght"
ratios = [0.5, 1.5, 0.2]
"#,
        "\
targets.toml:2:1: unknown key `tripel` in `[target.aarch64-gnu]`; did you mean `triple`?
targets.toml:3:11: unknown builder `zigbuidl`; did you mean `zigbuild`?
targets.toml:4:9: `Bad` cannot be a target's name: a to z, 0 to 9, `.`, `_` and `-`, a letter or digit first, at most 64
targets.toml:5:10: `aarch64-linux-gnu` is not a Linux target of rustc's; did you mean `aarch64-unknown-linux-gnu`?
targets.toml:6:9: `target.Bad.glibc` must be a string, not a number; did you mean `\"2.28\"`?
devices/pi4.toml:1:10: unknown target `aarch64-gmu`; did you mean `aarch64-gnu`?
devices/pi4.toml:2:41: unknown key `host_key` in `[transport.ssh]`; did you mean `host-key`?
devices/pi4.toml:3:12: `emulated` must be `true` or `false`, not a string
devices/pi4.toml:5:1: unknown key `governer` in `[conditions]`; did you mean `governor`?
devices/pi4.toml:6:12: `conditions.cpus` must be a whole number, not a string
devices/pi4.toml:6:17: CPU 3 is already in the list
models/cnn.toml:1:10: there is no file `models/cnn/dens.onnx`
models/cnn.toml:3:10: unknown method `tailor`; did you mean `taylor`?
models/cnn.toml:4:8: unknown unit `wieght`; did you mean `weight`?
models/cnn.toml:5:16: `prune.ratios` must be at least 0 and less than 1, the fraction of the units that is removed
models/cnn.toml:5:21: ratios must ascend, but 0.2 follows 0.5
",
    );
}

#[test]
fn the_longer_form_shows_the_line() {
    let problems = load_text("--- devices/pi4.toml\ntransport = 'local'\ntarget = 'hots'\n").unwrap_err();
    assert_eq!(
        problems[0].with_source(),
        "devices/pi4.toml:2:10: unknown target `hots`; did you mean `host`?\n  |\n\
         2 | target = 'hots'\n  |          ^^^^^^"
    );
}

#[test]
fn broken_toml_is_reported_line_by_line_and_the_rest_is_checked() {
    check(
        "--- devices/a.toml\ntarget = \ntransport = \"local\nrunner = 3\n[conditions\n[timeouts]\nidle = 2 s\n\
         idle = '1m'\n",
        "\
devices/a.toml:1:10: string values must be quoted, expected literal string
devices/a.toml:2:19: invalid basic string, expected `\"`
devices/a.toml:3:10: `runner` must be an array of strings, not a whole number
devices/a.toml:4:12: unclosed table, expected `]`
devices/a.toml:6:8: string values must be quoted, expected literal string
devices/a.toml:7:1: duplicate key
",
    );
    // What follows an open bracket belongs to it: nothing can be said about it.
    check(
        "--- devices/a.toml\nrunner = [\"a\"\ntarget = 3\n[x]\n",
        "devices/a.toml:2:1: missing comma between array elements, expected `,`\n",
    );
    // A target that may be in the unreadable part is not missing.
    check(
        "--- targets.toml\n[target.a\ntriple = 1\n--- devices/a.toml\ntransport = 'local'\ntarget = 'a'\n",
        "targets.toml:1:10: unclosed table, expected `]`\n",
    );
}

#[test]
fn what_must_be_there() {
    check(
        "--- targets.toml\n[target.a]\n--- devices/a.toml\n[timeouts]\n--- devices/b.toml\ntransport = { ssh = {} }\n\
         --- models/m.toml\n",
        "\
targets.toml:1:1: `triple` is missing in `[target.a]`, e.g. `triple = \"aarch64-unknown-linux-gnu\"`
devices/a.toml:1:1: `transport` is missing, e.g. `transport = { ssh = { host = \"board.lab\" } }`
devices/a.toml:1:1: `target` is missing, e.g. `target = \"aarch64-gnu\"`
devices/b.toml:1:1: `target` is missing, e.g. `target = \"aarch64-gnu\"`
devices/b.toml:1:21: `host` is missing in `[transport.ssh]`, e.g. `host = \"board.lab\"`
models/m.toml:1:1: `source` is missing, e.g. `source = \"my-model/dense.onnx\"`
",
    );
}

#[test]
fn targets() {
    #[track_caller]
    fn target(lines: &str, expected: &str) {
        check(&format!("--- targets.toml\n[target.a]\n{lines}\n"), expected);
    }
    target(
        "triple = 'riscv64-unknown-linux-gnu'",
        "targets.toml:2:10: `riscv64-unknown-linux-gnu` is not a Linux target of rustc's; did you mean \
         `riscv64gc-unknown-linux-gnu`?\n",
    );
    target(
        "triple = 'armv7-unknown-linux-gnu'",
        "targets.toml:2:10: `armv7-unknown-linux-gnu` is not a Linux target of rustc's; did you mean \
         `armv7-unknown-linux-gnueabihf`?\n",
    );
    target(
        "triple = 'x86_64-pc-windows-msvc'",
        "targets.toml:2:10: `x86_64-pc-windows-msvc` is not a Linux target of rustc's\n",
    );
    target("triple = 'thumbv7neon-unknown-linux-gnueabihf'", "");
    target("triple = 'powerpc64le-unknown-linux-musl'\nstatic = true", "");
    target(
        "triple = 'aarch64-unknown-linux-gnu'\nglibc = '2.28'\nstatic = true",
        "targets.toml:3:9: `glibc` and `static = true` exclude each other: a static runner has no libc to match\n",
    );
    target("triple = 'aarch64-unknown-linux-gnu'\nglibc = '2.28'\nstatic = false", "");
    target(
        "triple = 'aarch64-unknown-linux-musl'\nglibc = '2'",
        "targets.toml:3:9: `glibc` is given, but the triple is of another libc\n\
         targets.toml:3:9: `2` is not a version of glibc such as `2.28`\n",
    );
    target(
        "triple = 'aarch64-unknown-linux-gnu'\ncpu = 'cortex a72'\nfeatures = ['neon', '+a b', 1]",
        "targets.toml:3:7: `cortex a72` is not a CPU as `rustc --print target-cpus` names them\n\
         targets.toml:4:13: `neon` is neither switched on nor off; did you mean `+neon`?\n\
         targets.toml:4:21: `+a b` is not a CPU feature such as `+neon`\n\
         targets.toml:4:29: `target.a.features` must be a string, not a whole number; did you mean `\"1\"`?\n",
    );
    check("--- targets.toml\n[targets.a]\n", "targets.toml:1:2: unknown key `targets`; did you mean `target`?\n");
    check("--- targets.toml\ntarget = 1\n", "targets.toml:1:10: `target` must be a table, not a whole number\n");
    check("--- targets.toml\n[target]\na = 1\n", "targets.toml:2:5: `target.a` must be a table, not a whole number\n");
    check(
        "--- targets.toml\n[target.host]\ntriple = 'aarch64-unknown-linux-gnu'\n",
        "targets.toml:1:9: the target `host` is this machine's own and cannot be another\n",
    );
}

#[test]
fn names_of_files() {
    check(
        "--- devices/Pi 4.toml\ntransport = 'local'\n--- devices/a.toml\ntransport = 'local'\n--- devices/x/a.toml\n\
         transport = 'local'\n",
        "devices/Pi 4.toml:1:1: `Pi 4` cannot be a device's name: a to z, 0 to 9, `.`, `_` and `-`, a letter or digit \
         first, at most 64\n\
         devices/x/a.toml:1:1: there is another device `a`\n",
    );
}

#[test]
fn transports() {
    #[track_caller]
    fn transport(value: &str, expected: &str) {
        check(&format!("--- devices/a.toml\ntarget = 'host'\ntransport = {value}\n"), expected);
    }
    transport(
        "'ssh'",
        "devices/a.toml:2:13: `transport` lacks the board's address; did you mean `{ ssh = { host = \"board.lab\" } \
         }`?\n",
    );
    transport("'serial'", "devices/a.toml:2:13: unknown transport `serial` (known: `\"local\"`, `{ ssh = { … } }`)\n");
    transport("3", "devices/a.toml:2:13: `transport` must be a string, not a whole number; did you mean `\"3\"`?\n");
    transport(
        "{ ssh = { host = 'pi@board', port = 0, user = '-x', identity = '' } }",
        "devices/a.toml:2:30: `pi@board` has a user in it: that goes to `user`\n\
         devices/a.toml:2:49: `transport.ssh.port` must be from 1 to 65535\n\
         devices/a.toml:2:59: `-x` is not one word of letters, digits, `.`, `_` and `-`\n\
         devices/a.toml:2:76: the path must not be empty\n",
    );
    transport("{ ssh = { host = 'b:22' } }", "devices/a.toml:2:30: `b:22` has a port in it: that goes to `port`\n");
    transport("{ ssh = { host = 'fe80::1%eth0' } }", "");
    transport(
        "{ ssh = { host = '-oProxyCommand=x' } }",
        "devices/a.toml:2:30: `-oProxyCommand=x` is not a host name\n",
    );
    let fingerprint = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let host_key = |key: &str| format!("{{ ssh = {{ host = 'b', host-key = '{key}' }} }}");
    transport(&host_key(&format!("SHA256:{fingerprint}")), "");
    transport(
        &host_key(&format!("SHA256:{fingerprint}=")),
        "devices/a.toml:2:46: `host-key` must be a fingerprint as `ssh-keygen -lf` prints it: `SHA256:` and 43 \
         characters of base64\n",
    );
    transport(
        &host_key(&format!("SHA256:{}", &fingerprint[1..])),
        "devices/a.toml:2:46: `host-key` must be `SHA256:` and 43 characters, these are 42; `ssh-keygen -lf` prints \
         it\n",
    );
    transport(
        &host_key("MD5:16:27:ac"),
        "devices/a.toml:2:46: `host-key` must be a fingerprint as `ssh-keygen -lf` prints it: `SHA256:` and 43 \
         characters of base64\n",
    );
}

#[test]
fn the_rest_of_a_device() {
    #[track_caller]
    fn device(lines: &str, expected: &str) {
        check(&format!("--- devices/a.toml\ntransport = 'local'\n{lines}\n"), expected);
    }
    device("workdir = 'tmp'", "devices/a.toml:2:11: `workdir` must be an absolute path on the board, `tmp` is not\n");
    device("workdir = '/../'", "devices/a.toml:2:11: `workdir` must be a folder of its own, `/../` is not\n");
    device("kernels = 'k'", "devices/a.toml:2:11: `kernels` must be an absolute path on the board, `k` is not\n");
    device("workdir = '/'", "devices/a.toml:2:11: `workdir` must be a folder of its own, `/` is not\n");
    device("runner = ['']", "devices/a.toml:2:11: a word must not be empty\n");
    device("target = 'zzz'", "devices/a.toml:2:10: unknown target `zzz` (known: `host`)\n");
    device(
        "[conditions]\ngovernor = 'perfomance'\ncpus = [-1, 4096]\nmax-start-celsius = nan",
        "devices/a.toml:3:12: unknown governor `perfomance`; did you mean `performance`?\n\
         devices/a.toml:4:9: `conditions.cpus` must be from 0 to 1023\n\
         devices/a.toml:4:13: `conditions.cpus` must be from 0 to 1023\n\
         devices/a.toml:5:21: `conditions.max-start-celsius` must be more than 0 and at most 150\n",
    );
    device("threads = 0", "devices/a.toml:2:11: `threads` must be from 1 to 1024\n");
    device("threads = 4", "");
    device("threads = 2\n[conditions]\ncpus = [2, 3]", "");
    device(
        "threads = 3\n[conditions]\ncpus = [2, 3]",
        "devices/a.toml:2:11: 3 threads would share what `conditions.cpus` lists (2): list as many CPUs\n",
    );
    // Vendors' kernels have governors of their own.
    device("[conditions]\ngovernor = 'interactive'", "");
    device(
        "[timeouts]\nconnect = '10m'\ncommand = '0s'\nidle = '5s'",
        "devices/a.toml:3:11: `10m` is not a duration such as `30s`, `500ms`, `10min` or `2h`; did you mean `10min`?\n\
         devices/a.toml:4:11: `0s` is no time at all\n\
         devices/a.toml:5:8: `5s` is too short: a healthy runner is silent for up to 5s\n",
    );
    device(
        "[timeouts]\nconnect = 30\ncommand = '25h'\nidle = '99999999999999999999999s'",
        "devices/a.toml:3:11: `timeouts.connect` must be a string, not a whole number; did you mean `\"30\"`?\n\
         devices/a.toml:4:11: `25h` is longer than a day\n\
         devices/a.toml:5:8: `99999999999999999999999s` is not a duration such as `30s`, `500ms`, `10min` or `2h`\n",
    );
    // An emulator is one whether or not the file says so, unless it says no.
    let emulated = |lines: &str| {
        load_text(&format!("--- devices/a.toml\ntransport = 'local'\n{lines}")).unwrap().devices["a"].emulated
    };
    assert!(emulated("runner = ['/usr/bin/qemu-arm-static']"));
    assert!(!emulated("runner = ['/usr/bin/qemu-arm-static']\nemulated = false"));
    assert!(!emulated("runner = ['nice']"));
}

#[test]
fn variables() {
    #[track_caller]
    fn description(written: &str, expected: Result<&str, &str>) {
        let input = format!("--- devices/a.toml\ntransport = 'local'\ndescription = {written}\n");
        match expected {
            Ok(text) => {
                let inventory = load_text(&input).expect("valid");
                assert_eq!(inventory.devices["a"].description.as_deref(), Some(text));
            }
            Err(problems) => check(&input, problems),
        }
    }
    description("'${BOARD_HOST}:${HOME}$$'", Ok("board.lab:/home/tester$"));
    // What a variable holds is not looked into again.
    description("'$${HOME}'", Ok("${HOME}"));
    description(
        "'a ${NOPE} ${BOARD_HOST} ${NOPE}'",
        Err("devices/a.toml:2:18: the environment variable `NOPE` is not set\n\
             devices/a.toml:2:40: the environment variable `NOPE` is not set\n"),
    );
    // Hidden behind an escape: the whole string is shown.
    description(r#""\u0024{NOPE}""#, Err("devices/a.toml:2:15: the environment variable `NOPE` is not set\n"));
    description(
        "'$HOME'",
        Err("devices/a.toml:2:16: a `$` stands for nothing without braces; a plain one is written `$$`; did you mean \
             `${HOME}`?\n"),
    );
    description(
        "'5 $'",
        Err("devices/a.toml:2:18: a `$` stands for nothing without braces; a plain one is written `$$`\n"),
    );
    description("'${HOME'", Err("devices/a.toml:2:16: no `}` behind `${HOME`: only names of variables go there\n"));
    description(
        "'${HOME:-x} ${1}'",
        Err("devices/a.toml:2:16: no `}` behind `${HOME`: only names of variables go there\n\
             devices/a.toml:2:27: `1` is no name of a variable\n"),
    );
}

#[test]
fn ratios() {
    #[track_caller]
    fn ratios(written: &str, expected: Result<&[f64], &str>) {
        let input = format!("--- models/m.toml\nsource = 'cnn/dense.onnx'\n[prune]\nratios = {written}\n");
        match expected {
            Ok(ratios) => assert_eq!(load_text(&input).expect("valid").models["m"].recipe.ratios, ratios),
            Err(problems) => check(&input, problems),
        }
    }
    let out_of_range = "`prune.ratios` must be at least 0 and less than 1, the fraction of the units that is removed";
    ratios("[0.25, 0.5]", Ok(&[0.0, 0.25, 0.5]));
    ratios("[]", Ok(&[0.0]));
    ratios("[0, 0.5]", Ok(&[0.0, 0.5]));
    ratios("[-0.0]", Ok(&[0.0]));
    for wrong in ["1", "1.0", "-0.1", "nan", "inf", "1e999", "50"] {
        ratios(&format!("[{wrong}]"), Err(&format!("models/m.toml:3:11: {out_of_range}\n")));
    }
    ratios("[0.5, 0.5]", Err("models/m.toml:3:16: the ratio 0.5 is already in the list\n"));
    ratios("0.5", Err("models/m.toml:3:10: `prune.ratios` must be an array of numbers, not a number\n"));
}

#[test]
fn recipes() {
    #[track_caller]
    fn recipe(lines: &str, expected: &str) {
        check(&format!("--- models/m.toml\nsource = 'cnn/dense.onnx'\n{lines}\n"), expected);
    }
    let samples = "train = 'cnn/eval.npz'\n[prune]\n";
    let all = "method = 'taylor'\nscope = 'local'\nunit = 'block-4x1'\nsteps = 3\nschedule = 'cubic'\nfinetune = 15\n\
               distil = 'free'\nrate = 0.002\nbatch = 16\nseed = 7\nsoft = true\npack = 'bitmap-codebook'";
    recipe(&format!("{samples}{all}"), "");
    let model =
        &load_text(&format!("--- models/m.toml\nsource = 'cnn/dense.onnx'\n{samples}{all}")).unwrap().models["m"];
    assert_eq!(model.train.as_deref(), Some("models/cnn/eval.npz"));
    assert_eq!(
        model.recipe,
        Recipe {
            method: Method::Taylor,
            scope: Scope::Local,
            unit: Unit::Block { rows: 4, columns: 1 },
            ratios: vec![0.0, 0.5, 0.8, 0.9, 0.95],
            steps: 3,
            schedule: Schedule::Cubic,
            finetune: 15,
            distil: Distillation::Free,
            rate: Some(0.002),
            batch: Some(16),
            seed: Some(7),
            round_to: 1,
            min_keep: 0.0,
            soft: true,
            pack: Some("bitmap-codebook".into()),
        }
    );
    // What can be told of what is written, is.
    let of = |lines: &str| {
        load_text(&format!("--- models/m.toml\nsource = 'cnn/dense.onnx'\n{samples}{lines}")).unwrap().models["m"]
            .recipe
            .clone()
    };
    assert_eq!(of("unit = '2:4'").ratios, [0.0, 0.5]);
    assert_eq!(of("steps = 2\nfinetune = 1").schedule, Schedule::Geometric);
    assert_eq!(of("finetune = 1\ndistil = true").distil, Distillation::Labels);
    assert_eq!(of("distil = false").distil, Distillation::Not);

    recipe(
        "[prune]\nmethod = 'taylor'\nunit = '2:4'\nratios = [0, 0.75]\nsteps = 3\nschedule = 'one-shot'\nfinetune = 5\n\
         round-to = 8\nsoft = true",
        "models/m.toml:3:10: the method `taylor` looks at samples, and there are none: `calibration` or `train` names \
         an `.npz` of some\n\
         models/m.toml:5:10: with the unit `2:4` the ratio is 0.5, not 0.75\n\
         models/m.toml:7:12: one-shot is one step, but `steps` is 3\n\
         models/m.toml:8:12: fine-tuning needs samples, and there are none: `calibration` or `train` names an `.npz` \
         of some\n\
         models/m.toml:9:12: with the unit `2:4` no tensor shrinks whose size could be rounded\n",
    );
    recipe(
        &format!(
            "{samples}unit = '4:2'\nsteps = 0\nschedule = 'cubik'\ndistil = 'lables'\nrate = 2\nmin-keep = 10\n\
             pack = 'zip'\nfine-tune = 3"
        ),
        "models/m.toml:4:8: unknown unit `4:2` (known: `weight`, `2:4`, `block-4x1`, `channel`, `neuron`, `head`, \
         `hidden`, `layer`, `structure`)\n\
         models/m.toml:5:9: `prune.steps` must be from 1 to 100\n\
         models/m.toml:6:12: unknown schedule `cubik`; did you mean `cubic`?\n\
         models/m.toml:7:10: unknown way to distil `lables`; did you mean `labels`?\n\
         models/m.toml:8:8: `prune.rate` must be more than 0 and at most 1\n\
         models/m.toml:9:12: `prune.min-keep` must be a fraction from 0 to 1\n\
         models/m.toml:10:8: `zip` is no packed form: a layout (`dense`, `csr`, `block-csr-4x1`, `bitmap`) and a kind \
         of values (`f32`, `f16`, `int8`, `codebook`), e.g. `bitmap-codebook`\n\
         models/m.toml:11:1: unknown key `fine-tune` in `[prune]`; did you mean `finetune`?\n",
    );
    // A training set that is not there is one mistake.
    recipe("train = 'x.npz'\n[prune]\nfinetune = 3", "models/m.toml:2:9: there is no file `models/x.npz`\n");
}
