//! The file in which it is kept how long each kernel took for a layer, so that the next process chooses the same without measuring. Text, one layer a line, each line with a digest of its own: what is damaged is not believed, and the rest is.
//!
//! One process at a time measures: it holds a lock from the first layer that is not in the file until it has written, and a process that comes meanwhile
//! waits and reads. The file is written whole under another name and renamed, with what others wrote before.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Larger than anything that was written here; what is larger is not read.
const MOST_BYTES: u64 = 8 << 20;
/// After that long without the lock each chooses for itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a kernel took for a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub kernel: String,
    /// Nothing where it failed.
    pub ns: Option<u64>,
    pub failure: Option<String>,
}

pub struct Store {
    /// Nothing where nothing is to be kept.
    path: Option<PathBuf>,
    /// The first line.
    title: String,
    lock: Lock,
}

enum Lock {
    NotTried,
    Held(#[expect(dead_code, reason = "it is held by being there")] File),
    /// The folder cannot be written to, or somebody holds it for too long.
    Refused,
}

impl Store {
    /// `about` is what the choices depend on that is not in a layer's key.
    pub fn new(folder: Option<PathBuf>, about: &str) -> Store {
        let title = format!("espalier kernels 1: {}", line(about));
        let path = folder.map(|folder| folder.join(format!("kernels-{:016x}.txt", digest(&title))));
        Store { path, title, lock: Lock::NotTried }
    }

    /// Nothing from a file that is not there, of something else, or unreadable.
    pub fn read(&self) -> HashMap<String, Vec<Measured>> {
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

    /// Waits until nobody else measures. Whether there is something to be read again: not if the lock was had before, or cannot be.
    pub fn lock(&mut self) -> bool {
        let (Lock::NotTried, Some(path)) = (&self.lock, &self.path) else { return false };
        self.lock = Lock::Refused;
        if let Some(folder) = path.parent() {
            // Where that fails, so does what follows.
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

    /// Adds to the file. What another process wrote of the same layer meanwhile stays: others have chosen by it already.
    pub fn write(&self, fresh: BTreeMap<String, Vec<Measured>>) {
        let Some(path) = &self.path else { return };
        let mut all: BTreeMap<String, Vec<Measured>> = fresh;
        for (key, measured) in self.read() {
            let same = |ours: &Vec<Measured>| ours.iter().map(|m| &m.kernel).eq(measured.iter().map(|m| &m.kernel));
            if all.get(&key).is_none_or(same) {
                all.insert(key, measured);
            }
        }
        let mut text = format!("{}\n", self.title);
        for (key, measured) in &all {
            text += &format_line(key, measured);
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
            // A full disk leaves nothing behind. Nothing else can be done about it here.
            let _ = fs::remove_file(&temporary);
        }
    }
}

/// `digest|key|kernel=ns|kernel=|…`, with nothing behind `=` where a candidate failed.
fn format_line(key: &str, measured: &[Measured]) -> String {
    let mut rest = line(key);
    for Measured { kernel, ns, .. } in measured {
        rest += &format!("|{}={}", line(kernel), ns.map_or(String::new(), |ns| ns.to_string()));
    }
    format!("{:016x}|{rest}\n", digest(&rest))
}

fn parse(text: &str) -> Option<(String, Vec<Measured>)> {
    let (sum, rest) = text.split_once('|')?;
    if sum != format!("{:016x}", digest(rest)) {
        return None;
    }
    let mut fields = rest.split('|');
    let key = fields.next()?.to_owned();
    let measured = fields.map(|field| {
        let (kernel, ns) = field.rsplit_once('=')?;
        let ns = if ns.is_empty() { None } else { Some(ns.parse().ok()?) };
        let failure = ns.is_none().then(|| "it failed when it was measured".to_owned());
        Some(Measured { kernel: kernel.to_owned(), ns, failure })
    });
    Some((key, measured.collect::<Option<Vec<Measured>>>()?))
}

/// Without what separates fields and lines.
fn line(text: &str) -> String {
    text.replace(['|', '\n', '\r'], " ")
}

/// FNV-1a: tells accidents apart.
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

    fn measured(kernels: &[(&str, Option<u64>)]) -> Vec<Measured> {
        let one = |(kernel, ns): &(&str, Option<u64>)| Measured {
            kernel: (*kernel).to_owned(),
            ns: *ns,
            failure: ns.is_none().then(|| "it failed when it was measured".to_owned()),
        };
        kernels.iter().map(one).collect()
    }

    #[test]
    fn what_was_kept_is_read_by_the_next_process() {
        let folder = folder("kept");
        let layers = BTreeMap::from([
            ("conv 3x3".to_owned(), measured(&[("4x1 avx2", Some(12)), ("tract", Some(30))])),
            ("odd|key\n".to_owned(), measured(&[("a=b", None), ("tract", Some(1))])),
        ]);
        let mut store = Store::new(Some(folder.clone()), "cpu");
        assert!(store.read().is_empty());
        assert!(store.lock());
        store.write(layers.clone());
        let read = Store::new(Some(folder.clone()), "cpu").read();
        assert_eq!(read["conv 3x3"], layers["conv 3x3"]);
        assert_eq!(read["odd key "], layers["odd|key\n"]);
        assert!(Store::new(Some(folder.clone()), "another cpu").read().is_empty());
        // Who was first is right; what is new is added.
        let more = BTreeMap::from([
            ("conv 3x3".to_owned(), measured(&[("4x1 avx2", Some(99)), ("tract", Some(1))])),
            ("gemm".to_owned(), measured(&[("tract", Some(1))])),
        ]);
        Store::new(Some(folder.clone()), "cpu").write(more);
        let read = Store::new(Some(folder.clone()), "cpu").read();
        assert_eq!(read.len(), 3);
        assert_eq!(read["conv 3x3"], layers["conv 3x3"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn damage_costs_the_damaged_line() {
        let folder = folder("damaged");
        let store = Store::new(Some(folder.clone()), "cpu");
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
        let mut first = Store::new(Some(folder.clone()), "cpu");
        assert!(first.lock() && !first.lock());
        let (second, in_folder) = (Store::new(Some(folder.clone()), "cpu"), folder.clone());
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
        let mut store = Store::new(Some("/proc/no/such/folder".into()), "cpu");
        assert!(!store.lock() && store.read().is_empty());
        store.write(BTreeMap::from([("gemm".to_owned(), measured(&[("tract", Some(1))]))]));
        let mut none = Store::new(None, "cpu");
        assert!(!none.lock() && none.read().is_empty());
        none.write(BTreeMap::new());
    }
}
