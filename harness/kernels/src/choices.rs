//! The file that stores how long each kernel took for a layer, so that the next process chooses the same kernels
//! without measuring. It is text, one layer a line. Each line has a digest of its own, so damage costs the damaged
//! lines only. A line also says whether the times are sure: those that are not are measured again by later processes.
//!
//! One process at a time measures. It holds a lock from the first layer that is not in the file until it has written; a
//! process that starts meanwhile waits and reads. The file is written under another name together with what other
//! processes wrote before, and then renamed.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Larger files are neither written nor read.
const MOST_BYTES: u64 = 8 << 20;
/// A process that waited this long for the lock measures without it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a kernel took for a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub kernel: String,
    /// `None` where it failed.
    pub ns: Option<u64>,
    pub failure: Option<String>,
}

/// How long the kernels of a layer took, and how much that is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    pub measured: Vec<Measured>,
    /// Each time was reproduced, and no other program was in the way.
    pub sure: bool,
    /// How many processes measured, up to the first that was sure.
    pub looks: u32,
}

impl Timed {
    /// A board that is never quiet is not looked at for ever.
    pub const MOST_LOOKS: u32 = 8;

    /// Whether a later process measures again.
    pub fn is_doubtful(&self) -> bool {
        !self.sure && self.looks < Timed::MOST_LOOKS
    }

    pub fn is_of(&self, kernels: &[&str]) -> bool {
        self.measured.iter().map(|measured| &*measured.kernel).eq(kernels.iter().copied())
    }

    /// After another measurement of the same kernels: a sure one counts alone. Of others the shorter times count, as
    /// other programs only make a kernel slower.
    #[must_use]
    pub fn and(&self, again: Timed) -> Timed {
        let looks = self.looks.saturating_add(again.looks);
        let kernels: Vec<&str> = self.measured.iter().map(|measured| &*measured.kernel).collect();
        if again.sure || !again.is_of(&kernels) {
            return Timed { looks, ..again };
        }
        let mut measured = again.measured;
        for (new, old) in measured.iter_mut().zip(&self.measured) {
            new.ns = new.ns.zip(old.ns).map(|(new, old)| new.min(old)).or(new.ns);
        }
        Timed { measured, sure: false, looks }
    }

    /// Whether this is to be believed rather than `other`.
    fn outweighs(&self, other: &Timed) -> bool {
        (self.sure, self.looks) >= (other.sure, other.looks)
    }
}

pub struct ChoiceFile {
    /// `None` where choices are not stored.
    path: Option<PathBuf>,
    /// The first line.
    title: String,
    lock: Lock,
}

enum Lock {
    NotTried,
    Held(#[expect(dead_code, reason = "the lock lasts as long as the open file")] File),
    /// The folder cannot be written to, or another process held the lock for too long.
    Refused,
}

impl ChoiceFile {
    /// `about` is what the choices depend on beside a layer's key.
    pub fn new(folder: Option<PathBuf>, about: &str) -> ChoiceFile {
        let title = format!("espalier kernels 2: {}", one_field(about));
        let path = folder.map(|folder| folder.join(format!("kernels-{:016x}.txt", digest(&title))));
        ChoiceFile { path, title, lock: Lock::NotTried }
    }

    /// Empty for a file that does not exist, is about something else, or is unreadable.
    pub fn read(&self) -> HashMap<String, Timed> {
        let Some(path) = &self.path else { return HashMap::new() };
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        if read.is_err() || bytes.len() as u64 > MOST_BYTES {
            return HashMap::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        if lines.next() != Some(&self.title) {
            return HashMap::new();
        }
        lines.filter_map(parse).collect()
    }

    /// Waits until no other process measures. Returns whether the file may have changed meanwhile and is to be read
    /// again.
    pub fn lock(&mut self) -> bool {
        let (Lock::NotTried, Some(path)) = (&self.lock, &self.path) else { return false };
        self.lock = Lock::Refused;
        if let Some(folder) = path.parent() {
            // If this fails, opening the file below fails as well.
            let _ = fs::create_dir_all(folder);
        }
        let Ok(file) = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))
        else {
            return false;
        };
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.lock = Lock::Held(file);
                    return true;
                }
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) => return true,
            }
        }
    }

    /// Adds to the file. What another process wrote of the same layer meanwhile stays, unless it is less sure:
    /// processes may have chosen by it.
    pub fn write(&self, fresh: BTreeMap<String, Timed>) {
        let Some(path) = &self.path else { return };
        let mut all: BTreeMap<String, Timed> = fresh;
        for (key, timed) in self.read() {
            let kernels: Vec<&str> = timed.measured.iter().map(|measured| &*measured.kernel).collect();
            if all.get(&key).is_none_or(|ours| ours.is_of(&kernels) && timed.outweighs(ours)) {
                all.insert(key, timed);
            }
        }
        let mut text = format!("{}\n", self.title);
        for (key, timed) in &all {
            text += &format_line(key, timed);
        }
        if text.len() as u64 > MOST_BYTES {
            return;
        }
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&temporary, path)
        };
        if write().is_err() {
            // A full disk: no half-written file is left behind, and the next process measures again.
            let _ = fs::remove_file(&temporary);
        }
    }
}

/// `digest|key|sure or unsure|looks|kernel=ns|kernel=|…`, with nothing after `=` where a candidate failed.
fn format_line(key: &str, timed: &Timed) -> String {
    let mut rest = format!("{}|{}|{}", one_field(key), if timed.sure { "sure" } else { "unsure" }, timed.looks);
    for Measured { kernel, ns, .. } in &timed.measured {
        rest += &format!("|{}={}", one_field(kernel), ns.map_or(String::new(), |ns| ns.to_string()));
    }
    format!("{:016x}|{rest}\n", digest(&rest))
}

fn parse(text: &str) -> Option<(String, Timed)> {
    let (sum, rest) = text.split_once('|')?;
    if sum != format!("{:016x}", digest(rest)) {
        return None;
    }
    let mut fields = rest.split('|');
    let key = fields.next()?.to_owned();
    let sure = fields.next()? == "sure";
    let looks = fields.next()?.parse().ok()?;
    let measured = fields.map(|field| {
        let (kernel, ns) = field.rsplit_once('=')?;
        let ns = if ns.is_empty() { None } else { Some(ns.parse().ok()?) };
        let failure = ns.is_none().then(|| "it failed when it was measured".to_owned());
        Some(Measured { kernel: kernel.to_owned(), ns, failure })
    });
    Some((key, Timed { measured: measured.collect::<Option<Vec<Measured>>>()?, sure, looks }))
}

/// Replaces what separates fields and lines.
fn one_field(text: &str) -> String {
    text.replace(['|', '\n', '\r'], " ")
}

/// FNV-1a: detects accidental damage.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("espalier-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn measured(kernels: &[(&str, Option<u64>)]) -> Timed {
        timed(true, 1, kernels)
    }

    fn timed(sure: bool, looks: u32, kernels: &[(&str, Option<u64>)]) -> Timed {
        let one = |(kernel, ns): &(&str, Option<u64>)| Measured {
            kernel: (*kernel).to_owned(),
            ns: *ns,
            failure: ns.is_none().then(|| "it failed when it was measured".to_owned()),
        };
        Timed { measured: kernels.iter().map(one).collect(), sure, looks }
    }

    #[test]
    fn doubts_end_with_a_sure_measurement_or_after_some_looks() {
        let busy = timed(false, 1, &[("4x1", Some(90)), ("tract", Some(60)), ("dense", None)]);
        assert!(busy.is_doubtful());
        // Two busy ones: the shorter times.
        let again = busy.and(timed(false, 1, &[("4x1", Some(50)), ("tract", Some(70)), ("dense", Some(9))]));
        assert_eq!(again, timed(false, 2, &[("4x1", Some(50)), ("tract", Some(60)), ("dense", Some(9))]));
        // A sure one counts alone.
        let sure = again.and(timed(true, 1, &[("4x1", Some(55)), ("tract", Some(65)), ("dense", Some(80))]));
        assert_eq!(sure, timed(true, 3, &[("4x1", Some(55)), ("tract", Some(65)), ("dense", Some(80))]));
        assert!(!sure.is_doubtful());
        assert!(timed(false, Timed::MOST_LOOKS - 1, &[]).is_doubtful());
        assert!(!timed(false, Timed::MOST_LOOKS, &[]).is_doubtful());
    }

    #[test]
    fn what_is_sure_replaces_what_is_not() {
        let folder = folder("doubted");
        fs::create_dir_all(&folder).unwrap();
        let write = |timed: Timed| {
            let store = ChoiceFile::new(Some(folder.clone()), "cpu");
            store.write(BTreeMap::from([("conv".to_owned(), timed)]));
            store.read().remove("conv").unwrap()
        };
        let of = |sure, looks, ns| timed(sure, looks, &[("4x1", Some(ns)), ("tract", None)]);
        assert_eq!(write(of(false, 1, 1)), of(false, 1, 1));
        assert_eq!(write(of(false, 2, 2)), of(false, 2, 2));
        assert_eq!(write(of(false, 1, 3)), of(false, 2, 2));
        assert_eq!(write(of(true, 1, 4)), of(true, 1, 4));
        assert_eq!(write(of(true, 1, 5)), of(true, 1, 4));
        assert_eq!(write(of(false, 7, 6)), of(true, 1, 4));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_kept_is_read_by_the_next_process() {
        let folder = folder("kept");
        let layers = BTreeMap::from([
            ("conv 3x3".to_owned(), measured(&[("4x1 avx2", Some(12)), ("tract", Some(30))])),
            ("odd|key\n".to_owned(), measured(&[("a=b", None), ("tract", Some(1))])),
        ]);
        let mut store = ChoiceFile::new(Some(folder.clone()), "cpu");
        assert!(store.read().is_empty());
        assert!(store.lock());
        store.write(layers.clone());
        let read = ChoiceFile::new(Some(folder.clone()), "cpu").read();
        assert_eq!(read["conv 3x3"], layers["conv 3x3"]);
        assert_eq!(read["odd key "], layers["odd|key\n"]);
        assert!(ChoiceFile::new(Some(folder.clone()), "another cpu").read().is_empty());
        // What was written first stays; new layers are added.
        let more = BTreeMap::from([
            ("conv 3x3".to_owned(), measured(&[("4x1 avx2", Some(99)), ("tract", Some(1))])),
            ("gemm".to_owned(), measured(&[("tract", Some(1))])),
        ]);
        ChoiceFile::new(Some(folder.clone()), "cpu").write(more);
        let read = ChoiceFile::new(Some(folder.clone()), "cpu").read();
        assert_eq!(read.len(), 3);
        assert_eq!(read["conv 3x3"], layers["conv 3x3"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn damage_costs_the_damaged_line() {
        let folder = folder("damaged");
        let store = ChoiceFile::new(Some(folder.clone()), "cpu");
        fs::create_dir_all(&folder).unwrap();
        let keys = ["one", "two", "three"];
        store.write(keys.iter().map(|key| ((*key).to_owned(), measured(&[("tract", Some(7))]))).collect());
        let path = store.path.clone().unwrap();
        let whole = fs::read(&path).unwrap();
        let title = whole.iter().position(|byte| *byte == b'\n').unwrap();
        for at in title + 1..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&path, &damaged).unwrap();
            let read = store.read();
            assert!(
                read.len() >= keys.len() - 2 && read.values().all(|found| *found == measured(&[("tract", Some(7))]))
            );
        }
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(store.read().len() <= keys.len());
        }
        fs::write(&path, vec![0xff; 1000]).unwrap();
        assert!(store.read().is_empty());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_at_a_time() {
        let folder = folder("locked");
        let mut first = ChoiceFile::new(Some(folder.clone()), "cpu");
        assert!(first.lock() && !first.lock());
        let (second, in_folder) = (ChoiceFile::new(Some(folder.clone()), "cpu"), folder.clone());
        let waiting = std::thread::spawn(move || {
            let mut second = second;
            assert!(second.lock());
            second.read().len()
        });
        std::thread::sleep(Duration::from_millis(100));
        first.write(BTreeMap::from([("gemm".to_owned(), measured(&[("tract", Some(1))]))]));
        drop(first);
        assert_eq!(waiting.join().unwrap(), 1);
        fs::remove_dir_all(in_folder).unwrap();
    }

    #[test]
    fn nowhere_to_keep_it_is_no_failure() {
        let mut store = ChoiceFile::new(Some("/proc/no/such/folder".into()), "cpu");
        assert!(!store.lock() && store.read().is_empty());
        store.write(BTreeMap::from([("gemm".to_owned(), measured(&[("tract", Some(1))]))]));
        let mut none = ChoiceFile::new(None, "cpu");
        assert!(!none.lock() && none.read().is_empty());
        none.write(BTreeMap::new());
    }
}
