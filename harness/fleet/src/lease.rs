//! One session on a board at a time: two at once would measure each other.
//!
//! A lease is the folder `workdir/lease`, because `mkdir` succeeds for one only, on every file system and shell. It holds when it ends, by the board's
//! own clock, so that the lease of a host that died goes by itself. Ending is checked against a random token: what was taken over meanwhile is
//! somebody else's.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use espalier_bench::sanitise::sanitise;

use crate::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};

/// A board that is ours, and the way to it. Given back when dropped.
pub struct Lease {
    /// `None` once it was given back.
    transport: Option<Transport>,
    folder: String,
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
        "the board is in use by {owner}, for {} more at most; wait, or remove `{folder}` on it if nobody is there",
        minutes(*left)
    )]
    Held { owner: String, left: Duration, folder: String },

    #[error(
        "the lease `{folder}` on the board ran out and was taken by somebody else: what was measured since may be disturbed"
    )]
    Overtaken { folder: String },

    #[error("cannot make the lease `{folder}` on the board: {message}")]
    Failed { folder: String, message: String },
}

/// What the scripts' exit statuses mean.
const NOT_MADE: i32 = 71;
const NOT_OURS: i32 = 74;

/// `$1` folder, `$2` token, `$3` owner, `$4` seconds. A lease without a readable end is one being made, or its maker lost power there: it is given a
/// second. One that ended is moved aside first, which one taker only can do; if what was moved is not what was read, it is put back.
const TAKE: &str = r#"mkdir -p "${1%/*}" || exit 71
for round in 1 2 3; do
    now=$(date +%s)
    if mkdir "$1" 2>/dev/null; then
        printf '%s\n%s\n%s\n' "$((now + $4))" "$2" "$3" > "$1/new" && mv "$1/new" "$1/held" || { rm -rf "$1"; exit 71; }
        echo taken
        exit 0
    fi
    [ -d "$1" ] || { mkdir "$1"; exit 71; }
    ends= token= owner=
    [ -f "$1/held" ] && { read -r ends; read -r token; read -r owner; } < "$1/held"
    if [ -z "$ends" ]; then
        [ "$round" = 1 ] && { sleep 1; continue; }
    elif [ "$ends" -gt "$now" ] 2>/dev/null; then
        echo "held $((ends - now)) $owner"
        exit 0
    fi
    mv "$1" "$1.$2" 2>/dev/null || continue
    moved=
    [ -f "$1.$2/held" ] && { read -r ends; read -r moved; } < "$1.$2/held"
    if [ "$moved" != "$token" ] && mkdir "$1" 2>/dev/null; then
        mv "$1.$2/held" "$1/held"
    fi
    rm -rf "$1.$2"
done
echo "somebody else takes it over and over" >&2
exit 71"#;

/// `$1` folder, `$2` token, `$3` seconds.
const RENEW: &str = r#"{ read -r ends; read -r token; read -r owner; } 2>/dev/null < "$1/held"
[ "$token" = "$2" ] || exit 74
printf '%s\n%s\n%s\n' "$(($(date +%s) + $3))" "$2" "$owner" > "$1/new" && mv "$1/new" "$1/held" || exit 71"#;

const RELEASE: &str = r#"{ read -r ends; read -r token; } 2>/dev/null < "$1/held"
[ "$token" = "$2" ] || exit 74
rm -rf "$1""#;

impl Lease {
    /// Takes the board behind `transport` for `owner` (shown to whoever else wants it). It must last longer than the longest single command, as it can
    /// be renewed in between only.
    pub fn take(
        mut transport: Transport,
        workdir: &str,
        owner: &str,
        lasts: Duration,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Lease, LeaseError> {
        let folder = format!("{workdir}/lease");
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        let owner = sanitise(owner).replace('\n', " ");
        let seconds = lasts.as_secs().to_string();
        let renewed = Instant::now();
        let said = run(&mut transport, TAKE, &[&folder, &token, &owner, &seconds], limits, cancel)?;
        if let Some(held) = said.strip_prefix("held ") {
            let (left, owner) = held.trim().split_once(' ').unwrap_or((held.trim(), "somebody unnamed"));
            let left = Duration::from_secs(left.parse().unwrap_or(0));
            return Err(LeaseError::Held { owner: sanitise(owner), left, folder });
        }
        if said.trim() != "taken" {
            let message = format!("it said `{}`", sanitise(said.trim()));
            return Err(LeaseError::Failed { folder, message });
        }
        Ok(Lease { transport: Some(transport), folder, token, lasts, limits, renewed })
    }

    pub fn transport(&mut self) -> &mut Transport {
        self.transport.as_mut().expect("a lease has its transport until it is given back")
    }

    /// Makes it last anew once a third of it is over; call it between commands.
    ///
    /// # Errors
    /// `Overtaken` when it had ended and somebody else has it.
    pub fn renew(&mut self, cancel: &Cancel) -> Result<(), LeaseError> {
        if self.renewed.elapsed() < self.lasts / 3 {
            return Ok(());
        }
        let now = Instant::now();
        let (folder, token, limits) = (self.folder.clone(), self.token.clone(), self.limits);
        let seconds = self.lasts.as_secs().to_string();
        run(self.transport(), RENEW, &[&folder, &token, &seconds], limits, cancel)?;
        self.renewed = now;
        Ok(())
    }

    /// Gives the board back and keeps the connection. Ctrl-C does not stop this: it is why it is done.
    pub fn release(mut self) -> Result<Transport, LeaseError> {
        let mut transport = self.transport.take().expect("a lease has its transport until it is given back");
        self.give_back(&mut transport)?;
        Ok(transport)
    }

    fn give_back(&self, transport: &mut Transport) -> Result<(), LeaseError> {
        run(transport, RELEASE, &[&self.folder, &self.token], self.limits, &Cancel::default()).map(drop)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut transport) = self.transport.take() {
            // As well as it goes: a board that cannot be reached any more forgets the lease by itself.
            let _ = self.give_back(&mut transport);
        }
    }
}

/// Runs a script with arguments, the first of which is the lease's folder; returns what it printed.
fn run(
    transport: &mut Transport,
    script: &str,
    args: &[&str],
    limits: Limits,
    cancel: &Cancel,
) -> Result<String, LeaseError> {
    let words: Vec<String> = ["sh", "-c", script, "sh"].iter().chain(args).map(|word| (*word).to_owned()).collect();
    let output = transport.feed(&words, &mut std::io::empty(), &mut |_| {}, limits, cancel)?;
    let folder = args[0].to_owned();
    match output.exit.code {
        Some(0) => Ok(output.stdout),
        Some(NOT_OURS) => Err(LeaseError::Overtaken { folder }),
        Some(NOT_MADE) => Err(LeaseError::Failed { folder, message: output.exit.stderr }),
        _ => Err(LeaseError::Failed { folder, message: output.exit.describe() }),
    }
}

fn minutes(left: Duration) -> String {
    if left.as_secs() < 120 { format!("{} s", left.as_secs()) } else { format!("{} min", left.as_secs().div_ceil(60)) }
}

#[cfg(test)]
mod tests {
    use espalier_bench::inventory::Timeouts;

    use super::*;

    /// A lease of a folder on this host.
    fn take(workdir: &str, owner: &str, seconds: u64) -> Result<Lease, LeaseError> {
        let limits = Limits::from(&Timeouts::default());
        let transport = Transport::local();
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
    fn one_at_a_time_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = format!("{}/deep er/work", folder.path().display());
        let first = take(&workdir, "anna at\thost; it's $(fine)", 600).unwrap();
        expect_held(take(&workdir, "ben", 600), "anna at host; it's $(fine)");
        drop(first);
        take(&workdir, "ben", 600).unwrap().release().unwrap();
        take(&workdir, "carla", 600).unwrap();
    }

    #[test]
    fn what_has_ended_is_taken_over_and_its_holder_learns_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let mut first = take(workdir, "anna", 0).unwrap();
        let second = take(workdir, "ben", 600).unwrap();
        assert!(matches!(first.renew(&Cancel::default()), Err(LeaseError::Overtaken { .. })));
        // Nor does the first take the second's away with it.
        drop(first);
        expect_held(take(workdir, "carla", 600), "ben");
        drop(second);
    }

    #[test]
    fn one_without_an_end_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lease")).unwrap();
        take(folder.path().to_str().unwrap(), "anna", 600).unwrap();
    }

    #[test]
    fn of_many_who_take_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        // An ended one to take over, which is where a race would be.
        std::mem::forget(take(workdir, "gone", 0).unwrap());
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || take(workdir, &n.to_string(), 600))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }

    #[test]
    fn renewing_pushes_the_end_out() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().to_str().unwrap();
        let ends = || std::fs::read_to_string(folder.path().join("lease/held")).unwrap();
        let mut lease = take(workdir, "anna", 600).unwrap();
        let before = ends();
        lease.renewed -= Duration::from_secs(300);
        std::thread::sleep(Duration::from_millis(1100));
        lease.renew(&Cancel::default()).unwrap();
        assert!(ends() > before && ends().contains("anna"), "{before} {}", ends());
    }

    #[test]
    fn a_workdir_that_cannot_be_is_an_error() {
        let error = take("/proc/no/such", "anna", 600).err().unwrap().to_string();
        assert!(error.contains("`/proc/no/such/lease`") && error.contains("mkdir"), "{error}");
    }
}
