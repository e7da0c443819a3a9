//! The qemu of a board: located or fetched, started so that it outlives this process, watched, switched off.
//!
//! qemu turns itself into a daemon (`-daemonize`) after its ports are open: a failure up to then has qemu's own
//! message, and no child of this process is left. From then on a board is the process in its `pid` file, provided that
//! its command line names the board's folder.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use espalier_bench::command::CommandLine;

use super::{
    image,
    kind::BoardKind,
    packages::{self, PackageSet},
    run::run,
};
use crate::{cancel::Cancel, process::Watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardState {
    Off,
    Running,
    Frozen,
}

/// How to call a qemu.
pub struct Qemu {
    /// The program and the arguments before qemu's own options.
    argv: Vec<String>,
}

impl Qemu {
    /// The one on `PATH`, else one in the cache, which is fetched where it is missing.
    ///
    /// Never installed: Debian's qemu packages exclude each other across releases and backports, and the host's
    /// packages are not this program's to change.
    pub fn find(boards: &Path, kind: BoardKind, watch: Watch) -> Result<Qemu> {
        let program = kind.recipe().qemu;
        if crate::process::which(program).is_some() {
            return Ok(Qemu { argv: vec![program.to_owned()] });
        }
        let folder = boards.join("qemu");
        if !folder.join("complete").is_file() {
            fetch(boards, &folder, watch)?;
        }
        // Through its own loader, with its own libraries: none of the host's has to fit.
        let mut libraries = Vec::new();
        for parent in [folder.join("lib"), folder.join("usr/lib")] {
            let Ok(entries) = fs::read_dir(&parent) else { continue };
            libraries.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()));
        }
        libraries.retain(|path| path.to_string_lossy().ends_with("-linux-gnu"));
        let loader = libraries.iter().find_map(|library| {
            let mut entries = fs::read_dir(library).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
            entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")))
        });
        let loader =
            loader.with_context(|| format!("`{}` holds no loader; remove it, and try again", folder.display()))?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let libraries: Vec<String> = libraries.iter().map(|path| text(path)).collect();
        Ok(Qemu {
            argv: vec![
                text(&loader),
                "--library-path".to_owned(),
                libraries.join(":"),
                text(&folder.join("usr/bin").join(program)),
                "-L".to_owned(),
                text(&folder.join("usr/share/qemu")),
            ],
        })
    }
}

fn fetch(boards: &Path, folder: &Path, watch: Watch) -> Result<()> {
    let architecture = run(&CommandLine::new("dpkg").arg("--print-architecture"), boards, watch.cancel)?;
    let set = PackageSet {
        name: "qemu",
        architecture: architecture.trim(),
        further_suites: &[],
        // `-misc` held RISC-V until Debian 12.
        packages: &[&["qemu-system-arm"], &["qemu-system-riscv", "qemu-system-misc"]],
        kernel: None,
    };
    let packages = packages::fetch(&boards.join("debs"), &set, watch)?;
    watch.emit("unpacking qemu");
    let fresh = boards.join("qemu.new");
    for old in [&fresh, &folder.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    for package in &packages {
        image::unpack_package(package, &fresh, watch.cancel)?;
    }
    // Two thirds are emulators of other machines.
    let used: Vec<&str> = BoardKind::ALL.iter().map(|kind| kind.recipe().qemu).collect();
    for entry in fs::read_dir(fresh.join("usr/bin"))? {
        let entry = entry?;
        if !used.contains(&entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    fs::write(fresh.join("complete"), "")?;
    fs::rename(&fresh, folder)?;
    Ok(())
}

/// Starts a board from `kernel` and the `initrd` in its folder; returns the host's port for its SSH server.
pub fn start(
    qemu: &Qemu,
    kind: BoardKind,
    folder: &Path,
    kernel: &Path,
    memory_mib: u32,
    cancel: &Cancel,
) -> Result<u16> {
    // The port it had before, if that is still free: known_hosts and configurations in use stay valid.
    let earlier = fs::read_to_string(folder.join("port")).ok().and_then(|text| text.trim().parse().ok());
    let mut failure = None;
    for preferred in [earlier.unwrap_or(0), 0, 0] {
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, preferred)) else { continue };
        let port = listener.local_addr()?.port();
        drop(listener);
        let line = command_line(qemu, kind, folder, kernel, memory_mib, port);
        match run(&line, folder, cancel) {
            Ok(_) => {
                fs::write(folder.join("port"), port.to_string())?;
                return Ok(port);
            }
            // Another process can take the port before qemu does.
            Err(error) if format!("{error:#}").contains("host forwarding") => failure = Some(error),
            Err(error) => return Err(error.context(format!("cannot start `{}`", kind.name()))),
        }
    }
    Err(failure.context("no free port on 127.0.0.1")?)
}

fn command_line(qemu: &Qemu, kind: BoardKind, folder: &Path, kernel: &Path, memory_mib: u32, port: u16) -> CommandLine {
    let recipe = kind.recipe();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (program, before) = (&qemu.argv[0], &qemu.argv[1..]);
    CommandLine::new(program)
        .args(before)
        .args(["-machine", recipe.machine, "-cpu", recipe.cpu, "-smp", "2", "-m", &memory_mib.to_string()])
        .args(["-kernel", &kernel.to_string_lossy(), "-initrd", &path("initrd")])
        .args(["-append", &format!("console={} quiet panic=-1", recipe.console)])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-daemonize"])
        .args(["-serial", &format!("file:{}", path("console.log")), "-pidfile", &path("pid")])
        .args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22")])
        .args(["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"])
}

/// Waits until the SSH server greets, the machine dies, or `limit` is over.
pub fn wait_until_answers(folder: &Path, port: u16, limit: Duration, cancel: &Cancel) -> Result<()> {
    let began = Instant::now();
    let log = folder.join("console.log");
    let console = || {
        let bytes = fs::read(&log).unwrap_or_default();
        // Without control characters, which could change the user's terminal.
        String::from_utf8_lossy(&bytes).chars().filter(|c| *c == '\n' || !c.is_control()).collect::<String>()
    };
    let end = || {
        let console = console();
        let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        format!("the end of `{}`:\n{}", log.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
    };
    loop {
        // Not earlier: qemu keeps earlier attempts, and the board would start with many dead connections.
        if console().contains(READY) && greets(port) {
            return Ok(());
        }
        if cancel.is_requested() {
            bail!("cancelled while the board started");
        }
        if process(folder).is_none() {
            bail!("the board's qemu ended before its SSH server answered; {}", end());
        }
        if began.elapsed() > limit {
            bail!("the board's SSH server did not answer within {} s; {}", limit.as_secs(), end());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What `init.sh` writes to the console at its end.
const READY: &str = "espalier: ready";

/// qemu accepts connections long before the board does, so only the greeting counts.
fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)) else {
        return false;
    };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}

/// The process that is this board, if it runs.
pub fn process(folder: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()?;
    // Process ids are reused.
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let initrd = folder.join("initrd").to_string_lossy().into_owned().into_bytes();
    command_line.split(|byte| *byte == 0).any(|argument| argument == initrd).then_some(pid)
}

pub fn state(pid: i32) -> BoardState {
    match status(pid, "State:") {
        Some(state) if state.starts_with(['T', 't']) => BoardState::Frozen,
        Some(_) => BoardState::Running,
        None => BoardState::Off,
    }
}

/// Memory of the host that qemu uses now.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    Some(status(pid, "VmRSS:")?.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// A field of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned())
}

pub fn uptime(folder: &Path) -> Option<Duration> {
    fs::metadata(folder.join("pid")).ok()?.modified().ok()?.elapsed().ok()
}

pub fn signal(pid: i32, signal: libc::c_int) -> Result<()> {
    // SAFETY: `kill` takes two numbers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).with_context(|| format!("cannot send signal {signal} to process {pid}"))
}

/// True once the process is gone.
pub fn wait_until_gone(folder: &Path, limit: Duration) -> bool {
    let began = Instant::now();
    while process(folder).is_some() {
        if began.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_script_prints_what_is_waited_for() {
        assert!(include_str!("init.sh").contains(&format!("echo \"{READY}")));
    }

    /// Guards against arguments out of place where others go before them, as with an unpacked qemu.
    #[test]
    fn an_unpacked_qemu_is_called_through_its_loader() {
        let qemu = Qemu { argv: ["ld.so", "--library-path", "lib", "qemu-system-arm"].map(str::to_owned).to_vec() };
        let folder = Path::new("/c/virt-armv7");
        let line = command_line(&qemu, BoardKind::Armv7, folder, Path::new("/c/kernel"), 512, 4022).to_string();
        assert!(line.starts_with("ld.so --library-path lib qemu-system-arm -machine virt,highmem=off "), "{line}");
        assert!(line.contains(" -m 512 -kernel /c/kernel -initrd /c/virt-armv7/initrd "), "{line}");
        assert!(
            line.ends_with(
                "hostfwd=tcp:127.0.0.1:4022-:22 -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci"
            ),
            "{line}"
        );
    }

    #[test]
    fn a_machine_that_is_not_there_fails_with_the_console() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("console.log"), "booting\n\x1b[31mKernel panic\n").unwrap();
        let error = wait_until_answers(folder.path(), 1, Duration::from_secs(5), &Cancel::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("qemu ended before") && message.ends_with("booting\n[31mKernel panic"), "{message}");
    }
}
