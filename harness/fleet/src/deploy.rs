//! Files onto a board, by content: `workdir/blobs/<sha256>` is either complete and correct or not there.
//!
//! A file is sent under a temporary name, hashed by the board itself, and renamed. Blobs that are there are hashed
//! again before they are trusted: a second push sends nothing, and a damaged blob is replaced. The board needs `sh`,
//! `cat`, `mkdir`, `mv`, `rm`, `chmod` and `sha256sum` (the lease `date`, `sleep` and `rmdir` too). With `df` the space
//! is checked first; with `gunzip` files are sent compressed where that helps. On this host files stay where they are.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use espalier_bench::command::shell_quote;
use espalier_protocol::{MAX_LINE, tensor, text::sanitise};
use flate2::{Compression, read::GzEncoder};

use crate::{
    cancel::Cancel,
    regular,
    transport::{Limits, Output, Transport, TransportError},
};

/// A file of this host that a board needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFile {
    /// Of the contents, in lower-case hexadecimal.
    pub sha256: String,
    pub path: PathBuf,
    pub bytes: u64,
    pub executable: bool,
}

/// What a push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// As sent, compressed or not, without what SSH adds.
    pub bytes_sent: u64,
    pub files_sent: usize,
    pub files_present: usize,
    /// Where each file is on the device, by its hash.
    pub paths: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Transport(#[from] TransportError),

    #[error(
        "no space in `{workdir}` on the board: {} are needed, {} are free; remove what is old there, or set another \
         `workdir` in the device file",
        mebibytes(*needed),
        available.map_or("too few".to_owned(), mebibytes)
    )]
    NoSpace { workdir: String, needed: u64, available: Option<u64> },

    #[error(
        "cannot use `{workdir}` on the board: {message}; set a `workdir` in the device file that its user may write to"
    )]
    Workdir { workdir: String, message: String },

    #[error("the board has no `{tool}`: install it there (busybox has it)")]
    MissingTool { tool: &'static str },

    #[error("cannot send `{}` to the board: {message}", path.display())]
    Refused { path: PathBuf, message: String },

    #[error(
        "`{}` arrived damaged on the board: its SHA-256 is {got} there, not {expected}; has the file changed \
         meanwhile?",
        path.display()
    )]
    Damaged { path: PathBuf, expected: String, got: String },

    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

/// The numbers of samples that a file of prepared inputs may stand for; none where it cannot be read.
pub fn samples(inputs: &Path) -> Vec<u64> {
    let mut line = Vec::new();
    let read =
        regular::open(inputs).and_then(|file| BufReader::new(file.take(MAX_LINE as u64)).read_until(b'\n', &mut line));
    read.map_or_else(|_| Vec::new(), |_| tensor::sample_counts(&line))
}

/// Temporary files older than this many minutes are of a push that died.
const STALE_MINUTES: u32 = 60;

/// What the scripts' exit statuses mean.
const NO_WORKDIR: i32 = 71;
const NO_SHA256SUM: i32 = 72;
const NOT_WRITTEN: i32 = 73;
const WRONG_SUM: i32 = 74;

/// Brings `files` into `workdir` of the device. `progress` gets the bytes done and in all, of files that are sent.
pub fn push(
    transport: &mut Transport,
    workdir: &str,
    files: &[BlobFile],
    limits: Limits,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Pushed, DeployError> {
    let mut pushed = Pushed::default();
    if transport.is_local() {
        for file in files {
            let path = std::path::absolute(&file.path)
                .map_err(|source| DeployError::Unreadable { path: file.path.clone(), source })?;
            pushed.paths.insert(file.sha256.clone(), path.to_string_lossy().into_owned());
        }
        pushed.files_present = pushed.paths.len();
        return Ok(pushed);
    }

    let blobs: BTreeMap<&str, &BlobFile> = files.iter().map(|file| (file.sha256.as_str(), file)).collect();
    let mut push = Push { transport, workdir, limits, cancel };
    let board = push.survey(&blobs)?;
    let missing: Vec<&BlobFile> =
        blobs.values().copied().filter(|file| !board.present.contains(&file.sha256)).collect();
    let total = missing.iter().map(|file| file.bytes).sum();
    if board.available.is_some_and(|available| total > available) {
        return Err(push.no_space(total, board.available));
    }
    let mut done = 0;
    for file in &missing {
        let mut advance = |bytes| {
            done += bytes;
            progress(done, total);
        };
        pushed.bytes_sent += push.send(file, &board, &mut advance)?;
    }
    pushed.files_sent = missing.len();
    pushed.files_present = blobs.len() - missing.len();
    let path = |sha256: &&str| ((*sha256).to_owned(), format!("{workdir}/blobs/{sha256}"));
    pushed.paths = blobs.keys().map(path).collect();
    Ok(pushed)
}

/// What a board has.
struct Board {
    /// Hashes of the blobs that are there and correct.
    present: Vec<String>,
    /// Free bytes, where the board has `df`.
    available: Option<u64>,
    has_gunzip: bool,
}

struct Push<'a> {
    transport: &'a mut Transport,
    workdir: &'a str,
    limits: Limits,
    cancel: &'a Cancel,
}

impl Push<'_> {
    /// One round trip: makes the folders, removes stale temporary files, and lists what is there.
    fn survey(&mut self, blobs: &BTreeMap<&str, &BlobFile>) -> Result<Board, DeployError> {
        let folder = shell_quote(self.workdir);
        let names = blobs.keys().map(|name| shell_quote(name)).collect::<Vec<_>>().join(" ");
        let script = format!(
            r#"mkdir -p {folder}/blobs {folder}/tmp && cd {folder} && [ -w blobs ] && [ -w tmp ] || exit {NO_WORKDIR}
command -v sha256sum >/dev/null || exit {NO_SHA256SUM}
find tmp -type f -mmin +{STALE_MINUTES} -exec rm -f {{}} \; 2>/dev/null
command -v gunzip >/dev/null && echo gunzip
echo "df $(df -Pk . 2>/dev/null | tail -n 1)"
cd blobs
for name in {names}; do [ -f "$name" ] && sha256sum "$name"; done
exit 0"#
        );
        let largest = blobs.values().map(|file| file.bytes).max().unwrap_or(0);
        let Output { exit, stdout } = self.transport.shell(&script, self.hashing(largest), self.cancel)?;
        match exit.code {
            Some(0) => {}
            Some(NO_SHA256SUM) => return Err(DeployError::MissingTool { tool: "sha256sum" }),
            Some(NO_WORKDIR) if is_full(&exit.stderr) => {
                let needed = blobs.values().map(|file| file.bytes).sum();
                return Err(self.no_space(needed, None));
            }
            _ => {
                let message = match exit.code {
                    Some(NO_WORKDIR) if exit.stderr.is_empty() => "it cannot be written to".to_owned(),
                    Some(NO_WORKDIR) => exit.stderr.into(),
                    _ => exit.describe(),
                };
                return Err(DeployError::Workdir { workdir: self.workdir.to_owned(), message });
            }
        }
        let mut board = Board { present: Vec::new(), available: None, has_gunzip: false };
        for line in stdout.lines() {
            if line == "gunzip" {
                board.has_gunzip = true;
            } else if let Some(line) = line.strip_prefix("df ") {
                board.available = free_bytes(line);
            } else if let Some((sum, name)) = line.split_once("  ")
                && sum == name
            {
                board.present.push(sum.to_owned());
            }
        }
        Ok(board)
    }

    /// Sends one file; returns the number of bytes sent.
    fn send(&mut self, file: &BlobFile, board: &Board, advance: &mut dyn FnMut(u64)) -> Result<u64, DeployError> {
        let unreadable = |source| DeployError::Unreadable { path: file.path.clone(), source };
        let mut source = regular::open(&file.path).map_err(unreadable)?;
        let is_packed = board.has_gunzip && compresses_well(&mut source).map_err(unreadable)?;
        let unpack = if is_packed { "gunzip" } else { "cat" };
        // The traps remove the temporary file in any case: Ctrl-C ends the script, a lost connection its input.
        let script = format!(
            r#"tmp=tmp/$1.$$
cd "$2" || exit {NO_WORKDIR}
trap 'rm -f "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
{unpack} > "$tmp" || exit {NOT_WRITTEN}
sum=$(sha256sum < "$tmp")
[ "${{sum%% *}}" = "$1" ] || {{ echo "${{sum%% *}}"; exit {WRONG_SUM}; }}
chmod "$3" "$tmp" && mv -f "$tmp" "blobs/$1""#
        );
        let mode = if file.executable { "755" } else { "644" };
        let argv = ["sh", "-c", &script, "sh", &file.sha256, self.workdir, mode].map(str::to_owned);
        let counted = Counted { source, advance };
        let mut input: Box<dyn Read + '_> =
            if is_packed { Box::new(GzEncoder::new(counted, Compression::default())) } else { Box::new(counted) };
        let mut sent = 0;
        let mut count = |bytes| sent += bytes;
        let Output { exit, stdout } =
            self.transport.feed(&argv, &mut *input, &mut count, self.hashing(file.bytes), self.cancel)?;
        if exit.success() {
            return Ok(sent);
        }
        Err(if is_full(&exit.stderr) {
            self.no_space(file.bytes, board.available)
        } else if exit.code == Some(WRONG_SUM) {
            let (path, expected) = (file.path.clone(), file.sha256.clone());
            DeployError::Damaged { path, expected, got: sanitise(stdout.trim()) }
        } else {
            DeployError::Refused { path: file.path.clone(), message: exit.describe() }
        })
    }

    /// A board is silent while it hashes: it gets one more second per megabyte before it counts as frozen.
    fn hashing(&self, bytes: u64) -> Limits {
        Limits { idle: self.limits.idle + Duration::from_secs(bytes / 1_000_000), ..self.limits }
    }

    fn no_space(&self, needed: u64, available: Option<u64>) -> DeployError {
        DeployError::NoSpace { workdir: self.workdir.to_owned(), needed, available }
    }
}

/// Reports how much of a file was read, whether it is compressed afterwards or not.
struct Counted<'a> {
    source: File,
    advance: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.source.read(buffer)?;
        (self.advance)(bytes as u64);
        Ok(bytes)
    }
}

/// Judged by a few samples: compression that does not help costs both sides time.
fn compresses_well(source: &mut File) -> io::Result<bool> {
    const PLACES: u64 = 4;
    const SAMPLE: u64 = 64 * 1024;
    let length = source.metadata()?.len();
    let mut sample = Vec::new();
    for place in 0..PLACES {
        source.seek(SeekFrom::Start(length / PLACES * place))?;
        Read::by_ref(source).take(SAMPLE).read_to_end(&mut sample)?;
    }
    source.rewind()?;
    let packed = io::copy(&mut GzEncoder::new(&sample[..], Compression::fast()), &mut io::sink())?;
    Ok(packed * 100 < sample.len() as u64 * 85)
}

fn is_full(stderr: &str) -> bool {
    stderr.contains("No space left") || stderr.contains("Disk quota exceeded")
}

/// From a line of `df -Pk`: the number before the percentage. Names at both its ends may hold spaces.
fn free_bytes(line: &str) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let percentage =
        fields.iter().rposition(|field| field.strip_suffix('%').is_some_and(|p| p.parse::<u32>().is_ok()))?;
    fields.get(percentage.checked_sub(1)?)?.parse::<u64>().ok()?.checked_mul(1024)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

impl BlobFile {
    /// A file whose hash is known.
    pub fn new(path: &Path, sha256: impl Into<String>, executable: bool) -> io::Result<BlobFile> {
        let bytes = path.metadata()?.len();
        Ok(BlobFile { sha256: sha256.into(), path: path.to_owned(), bytes, executable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_read_whatever_the_names() {
        let check = |line: &str, expected: Option<u64>| assert_eq!(free_bytes(line), expected);
        check("/dev/root 30298176 5046272 23970816 18% /", Some(23970816 * 1024));
        check("my disk 100 50 50 50% /mnt/50% off", Some(50 * 1024));
        check("tmpfs 1024 1024 0 100% /var/tmp", Some(0));
        check("df: .: not found", None);
        check("", None);
    }
}
