//! Emulated boards: machines with their own kernel, `/proc`, SSH server and power switch, reached like any other board.
//!
//! [`up`] makes everything that is missing: packages through the host's own apt (nothing is installed), an image, qemu,
//! keys, and an entry in `CACHE/boards/ssh_config`. A board outlives the process that started it. Power cuts and
//! freezes are for tests: unlike a mock, a board fails the way boards do.

mod access;
mod cpio;
mod image;
mod kind;
mod machine;
mod modules;
mod packages;
mod run;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub use kind::BoardKind;
pub use machine::BoardState;

use crate::{
    cache::Cache,
    cancel::Cancel,
    file_lock::{self, FileLock},
    process::Watch,
};

#[derive(Clone, Debug)]
pub struct Options {
    /// Four fifths of it can be filled with files below `/root`.
    pub memory_mib: u32,
    /// From power on to the SSH server's greeting; packages are not counted.
    pub boot_limit: Duration,
}

impl Default for Options {
    fn default() -> Options {
        // Measured: about 10 s, and 40 s on a host that is busy with builds.
        Options { memory_mib: 1024, boot_limit: Duration::from_secs(90) }
    }
}

/// A board that answers.
#[derive(Clone, Debug)]
pub struct Board {
    pub ssh_config: PathBuf,
    /// From power on to the SSH server's greeting; `None` when it was up already.
    pub boot: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct BoardStatus {
    pub kind: BoardKind,
    pub state: BoardState,
    /// This and the rest are `None` when the board is off.
    pub pid: Option<i32>,
    pub port: Option<u16>,
    pub resident_bytes: Option<u64>,
    pub uptime: Option<Duration>,
}

/// Starts a board, making whatever is missing. A board that is up stays as it is; a frozen one goes on.
pub fn up(
    cache: &Cache,
    kind: BoardKind,
    options: &Options,
    progress: &dyn Fn(&str),
    cancel: &Cancel,
) -> Result<Board> {
    let watch = Watch { cancel, progress };
    let boards = cache.folder("boards")?;
    let folder = cache.folder(&format!("boards/{kind}"))?;
    let _lock = lock(&folder.join("lock"), watch)?;
    let began = Instant::now();
    let mut power_on = None;
    if let Some(pid) = machine::process(&folder) {
        machine::signal(pid, libc::SIGCONT)?;
        let port = read_port(&folder).with_context(|| format!("`{kind}` runs without a port; take it `down` first"))?;
        write_ssh_config(&boards, watch)?;
        machine::wait_until_answers(&folder, port, options.boot_limit, cancel)
            .with_context(|| format!("`{kind}` is on but does not answer; take it `down` first"))?;
    } else {
        let prepared = prepare(&boards, &folder, kind, watch)?;
        for attempt in 1.. {
            progress("starting");
            power_on = Some(Instant::now());
            match boot(&boards, &folder, kind, &prepared, options, watch) {
                Ok(()) => break,
                // Seldom, on riscv64, the kernel hangs before its first line. Switching off and on again helps.
                Err(error) if attempt == 1 && !cancel.is_requested() => progress(&format!("once more: {error:#}")),
                Err(error) => return Err(error.context(format!("`{kind}` did not come up"))),
            }
        }
    }
    let port = read_port(&folder).with_context(|| format!("`{kind}` lost its port"))?;
    machine::process(&folder).with_context(|| format!("`{kind}` ended as soon as it was up"))?;
    progress(&format!("up on port {port} after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(Board { ssh_config: boards.join("ssh_config"), boot: power_on.map(|power_on| power_on.elapsed()) })
}

/// Everything a board is started from.
struct Prepared {
    qemu: machine::Qemu,
    unpacked: image::Unpacked,
    keys: access::Keys,
}

fn prepare(boards: &Path, folder: &Path, kind: BoardKind, watch: Watch) -> Result<Prepared> {
    let recipe = kind.recipe();
    let (qemu, packages) = {
        // The unpacked qemu is shared, and parallel downloads would gain nothing.
        let _lock = lock(&boards.join("packages.lock"), watch)?;
        let set = packages::PackageSet {
            name: recipe.architecture,
            architecture: recipe.architecture,
            further_suites: recipe.further_suites,
            // glibc with its maths and gcc's support library: what a dynamically linked runner needs.
            packages: &[&["busybox-static"], &["dropbear-bin"], &["libc6"], &["libgcc-s1"]],
            kernel: Some(recipe.kernel),
        };
        let qemu = machine::Qemu::find(boards, kind, watch)?;
        (qemu, packages::fetch(&boards.join("debs"), &set, watch)?)
    };
    let unpacked = image::unpack(folder, &packages, watch)?;
    let keys = access::keys(folder, watch.cancel)?;
    fs::write(folder.join("initrd"), image::pack(&unpacked, kind.name(), &keys)?)?;
    Ok(Prepared { qemu, unpacked, keys })
}

/// Starts the machine and waits for its SSH server; a machine that does not come up is switched off.
fn boot(
    boards: &Path,
    folder: &Path,
    kind: BoardKind,
    prepared: &Prepared,
    options: &Options,
    watch: Watch,
) -> Result<()> {
    let Prepared { qemu, unpacked, keys } = prepared;
    let port = machine::start(qemu, kind, folder, &unpacked.kernel, options.memory_mib, watch.cancel)?;
    access::write_known_hosts(folder, port, &keys.host_public)?;
    write_ssh_config(boards, watch)?;
    let answered = machine::wait_until_answers(folder, port, options.boot_limit, watch.cancel);
    if answered.is_err()
        && let Some(pid) = machine::process(folder)
    {
        machine::signal(pid, libc::SIGKILL)?;
        machine::wait_until_gone(folder, Duration::from_secs(5));
    }
    answered
}

/// Switches a board off; true if it was on. Its file system is in memory, so there is nothing to save.
pub fn down(cache: &Cache, kind: BoardKind) -> Result<bool> {
    stop(cache, kind, libc::SIGTERM)
}

/// A power cut: no connection is closed, nothing is sent.
pub fn power_cut(cache: &Cache, kind: BoardKind) -> Result<bool> {
    stop(cache, kind, libc::SIGKILL)
}

/// Stops a board in the middle of whatever it does: connections stay open, and nothing answers.
pub fn freeze(cache: &Cache, kind: BoardKind) -> Result<()> {
    machine::signal(running(cache, kind)?, libc::SIGSTOP)
}

/// Undoes [`freeze`].
pub fn thaw(cache: &Cache, kind: BoardKind) -> Result<()> {
    machine::signal(running(cache, kind)?, libc::SIGCONT)
}

pub fn list(cache: &Cache) -> Result<Vec<BoardStatus>> {
    let status = |kind: BoardKind| {
        let folder = cache.root.join("boards").join(kind.name());
        let pid = machine::process(&folder);
        BoardStatus {
            kind,
            state: pid.map_or(BoardState::Off, machine::state),
            pid,
            port: pid.and_then(|_| read_port(&folder)),
            resident_bytes: pid.and_then(machine::resident_bytes),
            uptime: pid.and_then(|_| machine::uptime(&folder)),
        }
    };
    Ok(BoardKind::ALL.into_iter().map(status).collect())
}

fn running(cache: &Cache, kind: BoardKind) -> Result<i32> {
    let pid = machine::process(&cache.root.join("boards").join(kind.name()));
    pid.with_context(|| format!("`{kind}` is not up: `cargo xtask board up {kind}`"))
}

fn stop(cache: &Cache, kind: BoardKind, signal: libc::c_int) -> Result<bool> {
    let folder = cache.root.join("boards").join(kind.name());
    let Some(pid) = machine::process(&folder) else { return Ok(false) };
    machine::signal(pid, signal)?;
    // A frozen process takes a signal only when it goes on.
    machine::signal(pid, libc::SIGCONT)?;
    if !machine::wait_until_gone(&folder, Duration::from_secs(5)) {
        machine::signal(pid, libc::SIGKILL)?;
        if !machine::wait_until_gone(&folder, Duration::from_secs(5)) {
            bail!("`{kind}` (process {pid}) does not end");
        }
    }
    Ok(true)
}

fn read_port(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join("port")).ok()?.trim().parse().ok()
}

/// Boards that are off keep their entry: connecting to one fails as refused, not as an unknown host.
fn write_ssh_config(boards: &Path, watch: Watch) -> Result<()> {
    let _lock = lock(&boards.join("ssh_config.lock"), watch)?;
    let ports: Vec<(BoardKind, u16)> =
        BoardKind::ALL.into_iter().filter_map(|kind| Some((kind, read_port(&boards.join(kind.name()))?))).collect();
    let (path, fresh) = (boards.join("ssh_config"), boards.join("ssh_config.new"));
    fs::write(&fresh, access::ssh_config(boards, &ports))?;
    fs::rename(&fresh, &path).with_context(|| format!("cannot write `{}`", path.display()))
}

fn lock(path: &Path, watch: Watch) -> Result<FileLock> {
    file_lock::hold(path, "another run prepares emulated boards; waiting for it", watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_boards_all_are_off_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        assert!(list(&cache).unwrap().iter().all(|status| status.state == BoardState::Off && status.pid.is_none()));
        for kind in BoardKind::ALL {
            assert!(!down(&cache, kind).unwrap());
            assert!(freeze(&cache, kind).unwrap_err().to_string().contains("is not up"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Guards against a recycled process id, which may belong to any process by now.
    #[test]
    fn another_process_is_no_board() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let board = cache.folder("boards/virt-armv7").unwrap();
        fs::write(board.join("pid"), std::process::id().to_string()).unwrap();
        assert!(!power_cut(&cache, BoardKind::Armv7).unwrap());
    }
}
