//! Archives in cpio's "newc" format, which is what the kernel takes as its first file system.
//!
//! Written here so that neither `cpio` nor root is needed: everything in the archive belongs to root because it says so.
//! Format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

/// Grows entry by entry. A folder comes before what lies in it.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// `path` without a leading slash; `permissions` as for chmod.
    pub fn folder(&mut self, path: &str, permissions: u32) {
        self.entry(path, FOLDER | permissions, (0, 0), b"");
    }

    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, FILE | permissions, (0, 0), contents);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | permissions, (major, minor), b"");
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // No owner but root, and no times: the same contents make the same archive.
        let size = u32::try_from(contents.len()).expect("files of an image are far below 4 GiB");
        self.write(path, [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor], contents);
    }

    /// `fields`: inode, mode, user, group, links, time, size, device (2), device meant by a device node (2).
    fn write(&mut self, path: &str, fields: [u32; 11], contents: &[u8]) {
        self.bytes.extend_from_slice(b"070701");
        let name_size = u32::try_from(path.len() + 1).expect("a path is short");
        for field in fields.into_iter().chain([name_size, 0]) {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::PermissionsExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn bytes_of_a_small_archive() {
        let mut archive = Archive::default();
        archive.folder("dev", 0o755);
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.file("a", 0o644, b"hello");
        let expected = [
            "070701",
            "00000001",
            "000041ed",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000004",
            "00000000",
            "dev\0\0\0",
            "070701",
            "00000002",
            "00002180",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000005",
            "00000001",
            "0000000c",
            "00000000",
            "dev/console\0\0\0",
            "070701",
            "00000003",
            "000081a4",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "a\0",
            "hello\0\0\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000b",
            "00000000",
            "TRAILER!!!\0\0\0\0",
        ];
        assert_eq!(String::from_utf8(archive.finish()).unwrap(), expected.concat());
    }

    /// Against the reference program, where it is installed.
    #[test]
    fn cpio_unpacks_what_was_packed() {
        let mut archive = Archive::default();
        archive.folder("folder", 0o750);
        // Every alignment of contents and of names.
        for length in 0..9_usize {
            archive.file(&format!("folder/{}", "n".repeat(length + 1)), 0o640, &vec![b'x'; length]);
        }
        archive.link("link", "folder/n");
        let bytes = archive.finish();

        let unpacked = tempfile::tempdir().unwrap();
        let child = Command::new("cpio")
            .args(["--extract", "--quiet", "--no-preserve-owner"])
            .current_dir(unpacked.path())
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: `cpio` is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(child.wait().unwrap().success());
        for length in 0..9 {
            let path = unpacked.path().join("folder").join("n".repeat(length + 1));
            assert_eq!(fs::read(&path).unwrap(), vec![b'x'; length]);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        assert_eq!(fs::read_link(unpacked.path().join("link")).unwrap().to_str(), Some("folder/n"));
        assert_eq!(fs::read_dir(unpacked.path()).unwrap().count(), 2);
    }
}
