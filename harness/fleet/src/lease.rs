//! One session on a board at a time: two at once would measure each other.
//!
//! A lease is the file `workdir/lease` with five lines:
//!
//! - when it ends, by the board's own clock: the lease of a host that died expires by itself;
//! - a random token: a lease that was taken over meanwhile is not released by mistake;
//! - its owner, for people;
//! - the process that holds it: what a dead process of this host left behind is taken over at once, for `--resume`;
//! - how long it lasts, when it ends by the time since the board's start, and which start that was.
//!
//! The last line decides where it can: a clock that is set meanwhile (a board without a battery gets the time from the
//! network) neither ends a lease early, which would let two hosts in, nor keeps a board locked for years. After a
//! restart nothing of the holder's runs any more. Hosts of earlier releases write four lines; then the clock decides,
//! and an end further away than a day comes from a wrong one.
//!
//! It is read and written under `workdir/lease.lock`, a folder, because `mkdir` succeeds for one only, on every file
//! system and shell. Taking over an expired lease without it was a race that tests lost.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use espalier_protocol::{Text, text::sanitise};

use crate::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};

/// The way to a board and the lease on it, which is released when dropped.
pub struct Lease {
    pub transport: Transport,
    /// This host needs none.
    held: Option<Held>,
}

struct Held {
    file: String,
    token: String,
    lasts: Duration,
    limits: Limits,
    renewed: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    Transport(#[from] TransportError),

    #[error(
        "the board is in use by {owner}, for {} more at most; wait, or remove `{file}` on it if nobody is there",
        minutes(*left)
    )]
    Held { owner: String, left: Duration, file: String },

    #[error(
        "the lease `{file}` on the board ran out and was taken by somebody else: what was measured since may be \
         disturbed"
    )]
    Overtaken { file: String },

    #[error("cannot make the lease `{file}` on the board: {message}")]
    Failed { file: String, message: String },
}

/// What the scripts' exit statuses mean.
const NOT_MADE: i32 = 71;
const NOT_OURS: i32 = 74;

/// Goes before each of the scripts below; `$1` is the lease. A power cut between the `mkdir` and the trap leaves the
/// lock behind: after a minute it is removed. `tries` counts faster where the lock cannot be made at all, and where
/// `sleep` takes full seconds only.
const LOCK: &str = r#"lease=$1
mkdir -p "${lease%/*}" || exit 71
tries=0
until mkdir "$lease.lock" 2>/dev/null; do
    [ -d "$lease.lock" ] || tries=$((tries + 9))
    tries=$((tries + 1))
    if [ "$tries" -ge 50 ]; then
        find "$lease.lock" -maxdepth 0 -mmin +1 -exec rmdir {} \; 2>/dev/null
        mkdir "$lease.lock" && break
        exit 71
    fi
    sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)); }
done
trap 'rm -f "$lease.new"; rmdir "$lease.lock"' EXIT
trap 'exit 1' HUP INT TERM
ends= token= owner= process= lasts= until= start=
[ -f "$lease" ] && {
    read -r ends; read -r token; read -r owner; read -r process; read -r lasts until start
} < "$lease"
boot= up=
read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id
read -r up rest 2>/dev/null </proc/uptime
up=${up%%.*}
number() { case $1 in ''|*[!0-9]*|0?*|????????????????*) echo 0 ;; *) echo "$1" ;; esac; }
left() {
    most=86400
    [ -n "$lasts" ] && most=$(number "$lasts")
    if [ -z "$ends" ]; then left=0
    elif [ -n "$boot" ] && [ "$start" = "$boot" ]; then left=$(($(number "$until") - $(number "$up")))
    elif [ -n "$boot" ] && [ -n "$start" ]; then left=0
    else left=$(($(number "$ends") - $(date +%s)))
    fi
    [ "$left" -le "$most" ] || left=0
}
hold() {
    printf '%s\n%s\n%s\n%s\n%s %s %s\n' "$(($(date +%s) + $1))" "$2" "$3" "$4" \
        "$1" "$(($(number "$up") + $1))" "$boot" > "$lease.new" || exit 71
    mv -f "$lease.new" "$lease" || exit 71
}
"#;

/// `$2` token, `$3` owner, `$4` seconds, `$5` process, `$6` the token of a lease to take over.
const TAKE: &str = r#"left
if [ "$left" -gt 0 ] && [ "$token" != "$6" ]; then
    echo "held $left $owner"
    echo "by $token $process"
else
    hold "$4" "$2" "$3" "$5" && echo taken
fi"#;

/// `$2` token, `$3` seconds.
const RENEW: &str = r#"[ "$token" = "$2" ] || exit 74
hold "$3" "$2" "$owner" "$process""#;

/// `$2` token.
const RELEASE: &str = r#"[ "$token" = "$2" ] || exit 74
rm -f "$lease""#;

impl Lease {
    /// Takes the board behind `transport` for `owner`, whom others are shown. The lease must last longer than the
    /// longest single command, because it is renewed between commands only.
    pub fn take(
        mut transport: Transport,
        workdir: &str,
        owner: &str,
        lasts: Duration,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Lease, LeaseError> {
        let file = format!("{workdir}/lease");
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        let owner = sanitise(owner).replace('\n', " ");
        let seconds = lasts.as_secs().to_string();
        let renewed = Instant::now();
        let process = process_id(std::process::id());
        let mut take = |overtaken: &str| {
            run(&mut transport, TAKE, &[&file, &token, &owner, &seconds, &process, overtaken], limits, cancel)
        };
        // No lease has this token.
        let mut answer = take("-")?;
        if let Some(orphan) = orphaned(&answer) {
            answer = take(orphan)?;
        }
        if let Some(held) = answer.strip_prefix("held ") {
            let held = held.lines().next().unwrap_or_default().trim();
            let (left, owner) = held.split_once(' ').unwrap_or((held, "somebody unnamed"));
            let left = Duration::from_secs(left.parse().unwrap_or(0));
            return Err(LeaseError::Held { owner: owner.to_owned(), left, file });
        }
        if answer.trim() != "taken" {
            let message = format!("it answered `{}`", answer.trim());
            return Err(LeaseError::Failed { file, message });
        }
        Ok(Lease { transport, held: Some(Held { file, token, lasts, limits, renewed }) })
    }

    /// For this host, where no lease is needed.
    pub fn unneeded(transport: Transport) -> Lease {
        Lease { transport, held: None }
    }

    /// Extends it once a third of its time is over; call it between commands.
    ///
    /// # Errors
    /// `Overtaken` when it had expired and another process has it.
    pub fn renew(&mut self, cancel: &Cancel) -> Result<(), LeaseError> {
        let Some(held) = self.held.as_mut().filter(|held| held.renewed.elapsed() >= held.lasts / 3) else {
            return Ok(());
        };
        let now = Instant::now();
        let seconds = held.lasts.as_secs().to_string();
        run(&mut self.transport, RENEW, &[&held.file, &held.token, &seconds], held.limits, cancel)?;
        held.renewed = now;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Held { file, token, limits, .. }) = &self.held {
            // Best effort, because a lease expires by itself. Not stopped by Ctrl-C, after which it matters most.
            let _ = run(&mut self.transport, RELEASE, &[file, token], *limits, &Cancel::default());
        }
    }
}

/// The token of a lease that is never released: its holder was a process of this host and has ended.
fn orphaned(answer: &str) -> Option<&str> {
    let (token, process) = answer.lines().find_map(|line| line.strip_prefix("by "))?.split_once(' ')?;
    let pid: u32 = process.rsplit_once('/')?.1.parse().ok()?;
    (process == process_id(pid) && has_ended(pid)).then_some(token)
}

/// A process id that is unique across hosts, containers and boots; empty where this system does not have the parts.
fn process_id(pid: u32) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{}/{}/{pid}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

fn has_ended(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 is not sent; it only shows whether there is such a process.
    let result = unsafe { libc::kill(pid, 0) };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Runs a script with arguments, the first of which is the lease's file; returns what it printed.
fn run(
    transport: &mut Transport,
    script: &str,
    args: &[&str],
    limits: Limits,
    cancel: &Cancel,
) -> Result<Text, LeaseError> {
    let script = format!("{LOCK}{script}");
    let argv = ["sh", "-c", &script, "sh"];
    let argv: Vec<String> = argv.iter().chain(args).map(|argument| (*argument).to_owned()).collect();
    let output = transport.feed(&argv, &mut std::io::empty(), &mut |_| {}, limits, cancel)?;
    let file = args[0].to_owned();
    match output.exit.code {
        Some(0) => Ok(output.stdout),
        Some(NOT_OURS) => Err(LeaseError::Overtaken { file }),
        Some(NOT_MADE) => Err(LeaseError::Failed { file, message: output.exit.stderr.into() }),
        _ => Err(LeaseError::Failed { file, message: output.exit.describe() }),
    }
}

fn minutes(left: Duration) -> String {
    if left.as_secs() < 120 { format!("{} s", left.as_secs()) } else { format!("{} min", left.as_secs().div_ceil(60)) }
}

#[cfg(test)]
mod tests {
    use espalier_inventory::Timeouts;

    use super::*;

    /// A lease of a folder on this host.
    fn take(workdir: &str, owner: &str, seconds: u64) -> Result<Lease, LeaseError> {
        let limits = Limits::from(&Timeouts::default());
        let transport = Transport::Local;
        Lease::take(transport, workdir, owner, Duration::from_secs(seconds), limits, &Cancel::default())
    }

    #[track_caller]
    fn expect_held(result: Result<Lease, LeaseError>, by: &str) {
        match result {
            Err(LeaseError::Held { owner, left, .. }) => {
                assert_eq!(owner, by);
                assert!(left <= Duration::from_secs(600), "{left:?}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was taken twice"),
        }
    }

    #[test]
    fn one_at_a_time_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = format!("{}/deep er/work", folder.path().display());
        let first = take(&workdir, "anna at\thost; it's $(fine)", 600).unwrap();
        expect_held(take(&workdir, "ben", 600), "anna at host; it's $(fine)");
        drop(first);
        drop(take(&workdir, "ben", 600).unwrap());
        take(&workdir, "carla", 600).unwrap();
    }

    #[test]
    fn an_expired_lease_is_taken_over_and_its_holder_notices() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let mut first = take(workdir, "anna", 0).unwrap();
        let second = take(workdir, "ben", 600).unwrap();
        assert!(matches!(first.renew(&Cancel::default()), Err(LeaseError::Overtaken { .. })));
        // Dropping the first does not release the second.
        drop(first);
        expect_held(take(workdir, "carla", 600), "ben");
        drop(second);
    }

    /// A run whose board died could not release the lease, and `--resume` had to wait for half an hour.
    #[test]
    fn a_lease_of_a_dead_process_of_this_host_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let held_by = |process: &str| {
            let lease = format!("{}\n0123456789abcdef\nanna\n{process}\n", clock() + 600);
            std::fs::write(folder.path().join("lease"), lease).unwrap();
            take(workdir, "ben", 600)
        };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = process_id(child.id());
        drop(held_by(&gone).unwrap());
        let elsewhere = gone.replacen('/', "x/", 1);
        for process in [process_id(std::process::id()), elsewhere, String::new(), "1".into(), "//-5".into()] {
            assert!(matches!(held_by(&process), Err(LeaseError::Held { owner, .. }) if owner == "anna"), "{process}");
        }
    }

    fn clock() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs()
    }

    /// The board's clock is set after the lease was taken: its first line is off by that much.
    #[test]
    fn a_clock_that_is_set_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (workdir, file) = (folder.path().to_str().unwrap(), folder.path().join("lease"));
        let years = 30 * 365 * 86_400;
        for ends in [clock() - years, clock() + years, 0] {
            let mut first = take(workdir, "anna", 600).unwrap();
            let taken = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("{ends}\n{}", taken.split_once('\n').unwrap().1)).unwrap();
            expect_held(take(workdir, "ben", 600), "anna");
            first.held.as_mut().unwrap().renewed -= Duration::from_secs(600);
            first.renew(&Cancel::default()).unwrap();
        }
        // Time is up by the time since the start, whatever the clock says.
        let taken = {
            std::mem::forget(take(workdir, "anna", 0).unwrap());
            std::fs::read_to_string(&file).unwrap()
        };
        std::fs::write(&file, format!("{}\n{}", clock() + 600, taken.split_once('\n').unwrap().1)).unwrap();
        take(workdir, "ben", 600).unwrap();
    }

    /// Of a host of an earlier release, of a board that was started again since, of a clock that was years ahead.
    #[test]
    fn leases_without_a_time_since_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let held_by = |ends: u64, more: &str| {
            std::fs::write(folder.path().join("lease"), format!("{ends}\ntoken\nanna\n\n{more}")).unwrap();
            take(workdir, "ben", 600)
        };
        expect_held(held_by(clock() + 600, ""), "anna");
        held_by(clock() - 5, "").unwrap();
        held_by(clock() + 2 * 86_400, "").unwrap();
        held_by(99_999_999_999_999_999, "").unwrap();
        held_by(clock() + 600, "600 99999999 an-earlier-start\n").unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        held_by(clock() + 600, &format!("600 08 {boot}\n")).unwrap();
        held_by(clock() + 600, &format!("600 $(reboot) {boot}\n")).unwrap();
        held_by(clock() + 600, &format!("600 999999999999 {boot}\n")).unwrap();
    }

    #[test]
    fn a_file_that_is_no_lease_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lease"), "soon\n").unwrap();
        take(folder.path().to_str().unwrap(), "anna", 600).unwrap();
    }

    #[test]
    fn of_many_takers_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        // An expired one to take over, where a race would be.
        std::mem::forget(take(workdir, "gone", 0).unwrap());
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || take(workdir, &n.to_string(), 600))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }

    #[test]
    fn renewing_extends_it() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let file = folder.path().join("lease");
        let mut lease = take(workdir, "anna", 600).unwrap();
        let taken = std::fs::read_to_string(&file).unwrap();
        let (ends, rest) = taken.split_once('\n').unwrap();
        // As if it had been taken a while ago.
        let ends: u64 = ends.parse().unwrap();
        std::fs::write(&file, format!("{}\n{rest}", ends - 300)).unwrap();
        lease.held.as_mut().unwrap().renewed -= Duration::from_secs(300);
        lease.renew(&Cancel::default()).unwrap();
        let renewed = std::fs::read_to_string(&file).unwrap();
        let (later, same) = renewed.split_once('\n').unwrap();
        assert!(later.parse::<u64>().unwrap() >= ends && same == rest, "{taken} {renewed}");
    }

    #[test]
    fn an_impossible_workdir_is_an_error() {
        let error = take("/proc/no/such", "anna", 600).err().unwrap().to_string();
        assert!(error.contains("`/proc/no/such/lease`") && error.contains("mkdir"), "{error}");
    }
}
