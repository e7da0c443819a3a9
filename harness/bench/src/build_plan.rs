//! How a runner is built for a target: which builder and why, and the exact command. What is installed comes in as
//! [`Tools`].
//!
//! `auto` takes the first builder that is installed and can keep the target's promise about libc. Only the last step
//! links statically (`cargo rustc … -- -C target-feature=+crt-static`): what was compiled for a dynamic runner is used
//! again, and a static one costs seconds instead of a quarter of an hour.

use crate::command::CommandLine;
use espalier_inventory::{Builder, Libc, Target};

/// Where the linker puts the runner's code. 0 is the usual layout; every other number links the same code at other
/// addresses, which separates the effect of addresses from that of code. `layout.rs` of the runner implements it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layout(pub u32);

impl Layout {
    pub const USUAL: Layout = Layout(0);
    /// The environment variable that passes it to the runner's build, unless it is the usual one.
    pub const VARIABLE: &str = "ESPALIER_LAYOUT";
}

/// The package that is built.
pub const RUNNER: &str = "espalier-runner";

/// cargo's profile for a runner, in the root `Cargo.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// What is measured and shipped.
    #[default]
    Usual,
    /// Builds several times as fast and runs tract slowly: for tests, which do not look at speed.
    Quick,
}

impl Profile {
    /// The environment variable that chooses a profile by name.
    pub const VARIABLE: &str = "ESPALIER_RUNNER_PROFILE";
    pub const ALL: [Profile; 2] = [Profile::Usual, Profile::Quick];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Usual => "runner",
            Profile::Quick => "runner-quick",
        }
    }
}

/// What is installed, as far as it matters to one target. Paths are absolute or found on `PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// The triple of this host.
    pub host: String,
    pub cargo: String,
    /// What makes `cargo` use the compiler that belongs to it.
    pub cargo_env: Vec<(String, String)>,
    /// The C compiler for the target, where one is installed.
    pub compiler: Option<String>,
    pub zigbuild: Option<Zigbuild>,
    pub cross: Option<Cross>,
    /// The folder that holds a build folder for each target.
    pub target_root: String,
    pub profile: Profile,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zigbuild {
    pub cargo_zigbuild: String,
    /// Where it is not on `PATH`.
    pub zig: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cross {
    pub program: String,
    /// The folder of the toolchain that builds.
    pub sysroot: String,
    /// rustup's name of that folder, passed to `cross` as `+name`, if it is not the folder's own name.
    pub toolchain: Option<String>,
    /// Whether the engine is Docker's and a person has no options of their own for it.
    pub engine_options_are_ours: bool,
    /// Variables a person has `cross` pass on into the container, by `CROSS_BUILD_ENV_PASSTHROUGH`.
    pub passed_on: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPlan {
    /// Never [`Builder::Auto`].
    pub builder: Builder,
    /// Why this one, as half a sentence.
    pub reason: String,
    pub profile: Profile,
    /// To be run in the repository's root.
    pub command: CommandLine,
    /// Makes cargo forget what it built in that folder, of the packages appended as `--package NAME`. Run there too.
    pub forget: CommandLine,
    /// The C compiler that links, where it is a program of its own.
    pub compiler: Option<String>,
    /// cargo's build folder; a name of its own for whatever makes every crate another.
    pub target_folder: String,
    /// Where the runner will be.
    pub program: String,
}

/// Decides how to build for a target.
///
/// # Errors
/// What is missing, and what to do, as one sentence.
pub fn plan(target: &Target, tools: &Tools, layout: Layout) -> Result<BuildPlan, String> {
    let (builder, reason) = choose(target, tools)?;
    let folder = format!("{}{}", target.triple, folder_suffix(target, builder));
    let target_folder = format!("{}/{folder}", tools.target_root);
    let profile = tools.profile.name();
    let mut command = start(builder, target, tools);
    if layout != Layout::USUAL {
        command = command.env(Layout::VARIABLE, layout.0.to_string());
        if let (Builder::Cross, Some(cross)) = (builder, &tools.cross) {
            // Only what is named there reaches the container.
            let names = cross.passed_on.iter().map(String::as_str).chain([Layout::VARIABLE]);
            command = command.env("CROSS_BUILD_ENV_PASSTHROUGH", names.collect::<Vec<_>>().join(" "));
        }
    }
    let floor = match (builder, target.libc) {
        (Builder::Zigbuild, Libc::Floor(floor)) => format!(".{floor}"),
        _ => String::new(),
    };
    command = command.args(["--locked", "--profile", profile, "--package", RUNNER, "--bin", RUNNER, "--target"]);
    command = command.arg(format!("{}{floor}", target.triple)).args(["--target-dir", &target_folder]);
    if target.libc == Libc::Static {
        command = command.args(["--", "-C", "target-feature=+crt-static"]);
    }
    let compiler = match builder {
        Builder::Cargo => tools.compiler.clone(),
        _ => None,
    };
    // zigbuild's output folder does not carry the version it appends to the triple.
    let program = format!("{target_folder}/{}/{profile}/{RUNNER}", target.triple);
    let mut forget = CommandLine::new(&tools.cargo).args(["clean", "--locked", "--profile", profile, "--target"]);
    forget = forget.args([&target.triple, "--target-dir", &target_folder]);
    forget.env.extend(tools.cargo_env.iter().cloned());
    Ok(BuildPlan { builder, reason, profile: tools.profile, command, forget, compiler, target_folder, program })
}

/// A C compiler that links for a target, and the Debian packages it comes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemCompiler {
    pub program: String,
    pub packages: Vec<String>,
}

/// The system's C compiler for a triple by Debian's names; nothing for triples that Debian has none for.
pub fn system_compiler(triple: &str, host: &str) -> Option<SystemCompiler> {
    if triple == host {
        let packages = vec!["gcc".to_owned(), "libc6-dev".to_owned()];
        return Some(SystemCompiler { program: "cc".to_owned(), packages });
    }
    let (gnu, architecture) = match triple {
        "x86_64-unknown-linux-gnu" => ("x86_64-linux-gnu", "amd64"),
        "i686-unknown-linux-gnu" => ("i686-linux-gnu", "i386"),
        "aarch64-unknown-linux-gnu" => ("aarch64-linux-gnu", "arm64"),
        "armv7-unknown-linux-gnueabihf" | "arm-unknown-linux-gnueabihf" | "thumbv7neon-unknown-linux-gnueabihf" => {
            ("arm-linux-gnueabihf", "armhf")
        }
        "armv7-unknown-linux-gnueabi" | "arm-unknown-linux-gnueabi" => ("arm-linux-gnueabi", "armel"),
        "riscv64gc-unknown-linux-gnu" => ("riscv64-linux-gnu", "riscv64"),
        _ => return None,
    };
    // Debian writes names of packages without underscores.
    let packages = vec![format!("gcc-{}", gnu.replace('_', "-")), format!("libc6-dev-{architecture}-cross")];
    Some(SystemCompiler { program: format!("{gnu}-gcc"), packages })
}

/// Whether a target made buildable by `cargo xtask setup` should get the system's linker.
pub fn wants_system_linker(target: &Target, host: &str) -> bool {
    match target.builder {
        Builder::Cargo => true,
        Builder::Auto => system_compiler(&target.triple, host).is_some() && !wants_zig(target),
        Builder::Zigbuild | Builder::Cross => false,
    }
}

/// Whether it should get zig: named as builder, or the only builder that can promise a libc floor.
pub fn wants_zig(target: &Target) -> bool {
    match target.builder {
        Builder::Zigbuild => true,
        Builder::Auto => matches!(target.libc, Libc::Floor(_)),
        Builder::Cargo | Builder::Cross => false,
    }
}

fn choose(target: &Target, tools: &Tools) -> Result<(Builder, String), String> {
    let name = &target.name;
    let host = target.triple == tools.host;
    let setup = format!("run `cargo xtask setup --target {name}`");
    let linker = || match system_compiler(&target.triple, &tools.host) {
        Some(compiler) => format!("`{}` is not installed", compiler.program),
        None => format!("no C compiler is known for `{}`", target.triple),
    };
    match target.builder {
        Builder::Cargo if host => Ok((Builder::Cargo, "the target is this host".to_owned())),
        Builder::Cargo if tools.compiler.is_some() => Ok((Builder::Cargo, "`targets.toml` says so".to_owned())),
        Builder::Cargo => Err(format!("target `{name}` is built with the system's linker, but {}: {setup}", linker())),
        Builder::Zigbuild if target.libc == Libc::Static => Err(format!(
            "target `{name}` asks for `static = true`, which `zigbuild` cannot do with glibc: set `builder = \"cargo\"`"
        )),
        Builder::Zigbuild if tools.zigbuild.is_some() => Ok((Builder::Zigbuild, "`targets.toml` says so".to_owned())),
        Builder::Zigbuild => {
            Err(format!("target `{name}` is built by `cargo zigbuild`, which is not installed: {setup}"))
        }
        Builder::Cross if tools.cross.is_some() => Ok((Builder::Cross, "`targets.toml` says so".to_owned())),
        Builder::Cross => Err(format!(
            "target `{name}` is built by `cross`, which is not installed: run `cargo install cross`, and have a Docker \
             Engine"
        )),
        Builder::Auto => {
            // Only zig links against a chosen glibc. The others take what they find, and the floor is checked
            // afterwards.
            if let (Libc::Floor(floor), Some(_)) = (target.libc, &tools.zigbuild) {
                return Ok((Builder::Zigbuild, format!("it is installed and links against glibc {floor}")));
            }
            if host {
                return Ok((Builder::Cargo, "the target is this host".to_owned()));
            }
            if let Some(compiler) = &tools.compiler {
                return Ok((Builder::Cargo, format!("`{compiler}` is installed")));
            }
            if tools.zigbuild.is_some() && target.libc != Libc::Static {
                return Ok((Builder::Zigbuild, format!("{}, zig is", linker())));
            }
            if tools.cross.is_some() {
                return Ok((Builder::Cross, format!("{}, nor is zig; `cross` is", linker())));
            }
            Err(format!("target `{name}` has no builder: {}, nor is zig or `cross`: {setup}", linker()))
        }
    }
}

fn start(builder: Builder, target: &Target, tools: &Tools) -> CommandLine {
    let action = if target.libc == Libc::Static { "rustc" } else { "build" };
    let upper = target.triple.replace(['-', '.'], "_").to_ascii_uppercase();
    let lower = target.triple.replace('-', "_");
    let mut command = match (builder, &tools.zigbuild, &tools.cross) {
        (Builder::Zigbuild, Some(zigbuild), _) => {
            let mut command = CommandLine::new(&zigbuild.cargo_zigbuild).arg("zigbuild").env("CARGO", &tools.cargo);
            if let Some(zig) = &zigbuild.zig {
                command = command.env("CARGO_ZIGBUILD_ZIG_PATH", zig);
            }
            command
        }
        (Builder::Cross, _, Some(cross)) => {
            // The toolchain is complete: without this variable `cross` has rustup fetch components. It is named by its
            // path, so that none is the active one: `cross` 0.2.5 takes the one listed as `(active, default)` for
            // missing, and has rustup update it.
            let mut command = CommandLine::new(&cross.program).env("CROSS_CUSTOM_TOOLCHAIN", "1");
            command = command.env("RUSTUP_TOOLCHAIN", &cross.sysroot);
            if cross.engine_options_are_ours {
                // Without an init, cargo is the container's first process, which the kernel protects from signals: a
                // stopped build would continue.
                command = command.env("CROSS_CONTAINER_OPTS", "--init");
            }
            command.args(cross.toolchain.iter().map(|name| format!("+{name}"))).arg(action)
        }
        _ => CommandLine::new(&tools.cargo).arg(action),
    };
    if let (Builder::Cargo, Some(compiler)) = (builder, &tools.compiler)
        && target.triple != tools.host
    {
        command = command.env(format!("CARGO_TARGET_{upper}_LINKER"), compiler).env(format!("CC_{lower}"), compiler);
    }
    if builder != Builder::Cross {
        command.env.extend(tools.cargo_env.iter().cloned());
    }
    // Always set, so that no flags of the caller's environment or configuration get in.
    command.env("RUSTFLAGS", rustflags(target))
}

fn rustflags(target: &Target) -> String {
    let mut flags = Vec::new();
    if let Some(cpu) = &target.cpu {
        flags.push(format!("-C target-cpu={cpu}"));
    }
    if !target.features.is_empty() {
        flags.push(format!("-C target-feature={}", target.features.join(",")));
    }
    flags.join(" ")
}

/// Nothing for the usual way, so that all targets of a triple share what they can.
fn folder_suffix(target: &Target, builder: Builder) -> String {
    let mut suffix = String::new();
    match (builder, target.libc) {
        (Builder::Zigbuild, Libc::Floor(floor)) => suffix += &format!("-zig-{floor}"),
        (Builder::Zigbuild, _) => suffix += "-zig",
        (Builder::Cross, _) => suffix += "-cross",
        _ => {}
    }
    for part in target.cpu.iter().chain(&target.features) {
        suffix.push('-');
        suffix.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || "+-.".contains(c) { c } else { '_' }));
    }
    suffix
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_inventory::Glibc;

    const HOST: &str = "x86_64-unknown-linux-gnu";
    const ARM64: &str = "aarch64-unknown-linux-gnu";
    const FLOOR: Libc = Libc::Floor(Glibc { major: 2, minor: 28 });

    fn target(triple: &str, builder: Builder, libc: Libc) -> Target {
        Target { name: "t".to_owned(), triple: triple.to_owned(), builder, libc, cpu: None, features: Vec::new() }
    }

    /// `installed`: words out of `gcc`, `zig`, `cross`.
    fn tools(installed: &str) -> Tools {
        let has = |name: &str| installed.split(' ').any(|word| word == name);
        Tools {
            host: HOST.to_owned(),
            cargo: "/tree/bin/cargo".to_owned(),
            cargo_env: vec![("RUSTC".to_owned(), "/tree/bin/rustc".to_owned())],
            compiler: has("gcc").then(|| "aarch64-linux-gnu-gcc".to_owned()),
            zigbuild: has("zig").then(|| Zigbuild {
                cargo_zigbuild: "/venv/cargo-zigbuild".to_owned(),
                zig: Some("/venv/zig".to_owned()),
            }),
            cross: has("cross").then(|| Cross {
                program: "cross".to_owned(),
                sysroot: "/tree".to_owned(),
                toolchain: Some("espalier-1.96.0".to_owned()),
                engine_options_are_ours: true,
                passed_on: None,
            }),
            target_root: "/cache/target".to_owned(),
            profile: Profile::Usual,
        }
    }

    #[track_caller]
    fn check_choice(triple: &str, builder: Builder, libc: Libc, installed: &str, expected: &str) {
        let actual = match choose(&target(triple, builder, libc), &tools(installed)) {
            Ok((builder, reason)) => format!("{builder:?}: {reason}"),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(actual, expected);
    }

    #[test]
    fn auto_takes_the_first_that_can() {
        let check = |libc, installed, expected| check_choice(ARM64, Builder::Auto, libc, installed, expected);
        check(Libc::Any, "gcc zig cross", "Cargo: `aarch64-linux-gnu-gcc` is installed");
        check(Libc::Any, "zig cross", "Zigbuild: `aarch64-linux-gnu-gcc` is not installed, zig is");
        check(Libc::Any, "cross", "Cross: `aarch64-linux-gnu-gcc` is not installed, nor is zig; `cross` is");
        check(FLOOR, "gcc zig", "Zigbuild: it is installed and links against glibc 2.28");
        check(FLOOR, "gcc", "Cargo: `aarch64-linux-gnu-gcc` is installed");
        check(Libc::Static, "gcc zig", "Cargo: `aarch64-linux-gnu-gcc` is installed");
        check(Libc::Static, "zig cross", "Cross: `aarch64-linux-gnu-gcc` is not installed, nor is zig; `cross` is");
        check(
            Libc::Any,
            "",
            "error: target `t` has no builder: `aarch64-linux-gnu-gcc` is not installed, nor is zig or `cross`: \
             run `cargo xtask setup --target t`",
        );
        check_choice(HOST, Builder::Auto, Libc::Any, "zig", "Cargo: the target is this host");
    }

    #[test]
    fn a_named_builder_is_taken_or_refused() {
        check_choice(ARM64, Builder::Zigbuild, Libc::Any, "gcc zig", "Zigbuild: `targets.toml` says so");
        check_choice(
            ARM64,
            Builder::Zigbuild,
            Libc::Any,
            "gcc",
            "error: target `t` is built by `cargo zigbuild`, which is not installed: \
             run `cargo xtask setup --target t`",
        );
        check_choice(
            ARM64,
            Builder::Cargo,
            Libc::Any,
            "zig",
            "error: target `t` is built with the system's linker, but `aarch64-linux-gnu-gcc` is not installed: \
             run `cargo xtask setup --target t`",
        );
        check_choice(
            ARM64,
            Builder::Zigbuild,
            Libc::Static,
            "zig",
            "error: target `t` asks for `static = true`, which `zigbuild` cannot do with glibc: \
             set `builder = \"cargo\"`",
        );
    }

    #[track_caller]
    fn check_command(target: &Target, installed: &str, expected: &str) {
        assert_eq!(plan(target, &tools(installed), Layout::USUAL).unwrap().command.to_string(), expected);
    }

    #[test]
    fn commands_in_full() {
        check_command(
            &target(ARM64, Builder::Cargo, Libc::Any),
            "gcc",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
             CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc RUSTC=/tree/bin/rustc RUSTFLAGS='' \
             /tree/bin/cargo build --locked --profile runner --package espalier-runner --bin espalier-runner \
             --target aarch64-unknown-linux-gnu --target-dir /cache/target/aarch64-unknown-linux-gnu",
        );
        check_command(
            &target(ARM64, Builder::Zigbuild, FLOOR),
            "zig",
            "CARGO=/tree/bin/cargo CARGO_ZIGBUILD_ZIG_PATH=/venv/zig RUSTC=/tree/bin/rustc RUSTFLAGS='' \
             /venv/cargo-zigbuild zigbuild --locked --profile runner --package espalier-runner --bin espalier-runner \
             --target aarch64-unknown-linux-gnu.2.28 --target-dir /cache/target/aarch64-unknown-linux-gnu-zig-2.28",
        );
        check_command(
            &target(ARM64, Builder::Cross, Libc::Any),
            "cross",
            "CROSS_CUSTOM_TOOLCHAIN=1 RUSTUP_TOOLCHAIN=/tree CROSS_CONTAINER_OPTS=--init RUSTFLAGS='' \
             cross +espalier-1.96.0 build --locked --profile runner \
             --package espalier-runner --bin espalier-runner --target aarch64-unknown-linux-gnu \
             --target-dir /cache/target/aarch64-unknown-linux-gnu-cross",
        );
    }

    #[test]
    fn cross_with_the_active_toolchain_and_a_persons_own_options() {
        let mut tools = tools("cross");
        let cross = tools.cross.as_mut().unwrap();
        cross.toolchain = None;
        cross.engine_options_are_ours = false;
        let command =
            plan(&target(ARM64, Builder::Cross, Libc::Any), &tools, Layout::USUAL).unwrap().command.to_string();
        assert!(
            command.starts_with("CROSS_CUSTOM_TOOLCHAIN=1 RUSTUP_TOOLCHAIN=/tree RUSTFLAGS='' cross build "),
            "{command}"
        );
    }

    #[test]
    fn another_layout_is_one_variable_more() {
        let arm = |builder| target(ARM64, builder, Libc::Any);
        let plans = |builder, tools: &Tools| {
            [Layout::USUAL, Layout(7)].map(|layout| plan(&arm(builder), tools, layout).unwrap())
        };
        for (builder, installed) in [(Builder::Cargo, "gcc"), (Builder::Zigbuild, "zig")] {
            let [usual, mut other] = plans(builder, &tools(installed));
            assert_eq!(other.command.env.pop().unwrap(), ("ESPALIER_LAYOUT".to_owned(), "7".to_owned()));
            // In the same folder: everything but the runner itself is used again.
            assert_eq!(other, usual);
        }
        let mut tools = tools("cross");
        for (passed_on, expected) in [(None, "ESPALIER_LAYOUT"), (Some("SCCACHE_DIR"), "SCCACHE_DIR ESPALIER_LAYOUT")] {
            tools.cross.as_mut().unwrap().passed_on = passed_on.map(str::to_owned);
            let [usual, mut other] = plans(Builder::Cross, &tools);
            assert_eq!(
                other.command.env.pop().unwrap(),
                ("CROSS_BUILD_ENV_PASSTHROUGH".to_owned(), expected.to_owned())
            );
            assert_eq!(other.command.env.pop().unwrap().0, "ESPALIER_LAYOUT");
            assert_eq!(other, usual);
        }
    }

    #[test]
    fn the_quick_profile_shares_the_folder() {
        let quick = Tools { profile: Profile::Quick, ..tools("gcc") };
        let [usual, quick] = [tools("gcc"), quick]
            .map(|tools| plan(&target(ARM64, Builder::Cargo, Libc::Any), &tools, Layout::USUAL).unwrap());
        assert_eq!(quick.target_folder, usual.target_folder);
        assert_eq!(quick.program, usual.program.replace("/runner/", "/runner-quick/"));
        let replaced =
            |command: &CommandLine| command.to_string().replace("--profile runner ", "--profile runner-quick ");
        assert_eq!(quick.command.to_string(), replaced(&usual.command));
        assert_eq!(quick.forget.to_string(), replaced(&usual.forget));
    }

    #[test]
    fn static_is_of_the_last_step_and_shares_the_folder() {
        let [dynamic, fixed] = [Libc::Any, Libc::Static]
            .map(|libc| plan(&target(ARM64, Builder::Auto, libc), &tools("gcc"), Layout::USUAL).unwrap());
        assert_eq!(dynamic.target_folder, fixed.target_folder);
        assert_eq!(fixed.command.argv[1], "rustc");
        assert!(fixed.command.to_string().ends_with("-- -C target-feature=+crt-static"));
        assert_eq!(
            fixed.program,
            "/cache/target/aarch64-unknown-linux-gnu/aarch64-unknown-linux-gnu/runner/espalier-runner"
        );
    }

    #[test]
    fn what_makes_every_crate_another_has_its_own_folder() {
        let mut special = target(HOST, Builder::Auto, Libc::Any);
        special.cpu = Some("x86-64-v3".to_owned());
        special.features = vec!["+fma".to_owned(), "-aes".to_owned()];
        let plan = plan(&special, &tools(""), Layout::USUAL).unwrap();
        assert_eq!(plan.target_folder, "/cache/target/x86_64-unknown-linux-gnu-x86-64-v3-+fma--aes");
        let flags = ("RUSTFLAGS".to_owned(), "-C target-cpu=x86-64-v3 -C target-feature=+fma,-aes".to_owned());
        assert!(plan.command.env.contains(&flags));
    }
}
