//! Archives in cpio's "newc" format, which is what the kernel takes as its first file system.
//!
//! Written here so that neither `cpio` nor root is needed: the archive itself says that everything belongs to root.
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

    /// `fields`: inode, mode, user, group, links, time, size, device (2), device of a device node (2).
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
    use super::*;

    /// Made by GNU cpio 2.13 of the same entries, all with the date 0: `cpio --create --format newc --reproducible
    /// --owner 0:0`, the names on stdin.
    const BY_CPIO: &[u8] = include_bytes!("../../tests/fixtures/newc.cpio");

    /// With the fields that programs may choose made equal (numbers of inodes, links of a folder, capital digits), and
    /// without the zeros that fill cpio's last block.
    fn comparable(archive: &[u8]) -> Vec<u8> {
        let mut bytes = archive.to_vec();
        let mut at = 0;
        while bytes[at..].starts_with(b"070701") {
            bytes[at..at + 110].make_ascii_lowercase();
            let field = |number: usize| {
                let start = at + 6 + 8 * number;
                start..start + 8
            };
            let value = |number| usize::from_str_radix(str::from_utf8(&bytes[field(number)]).unwrap(), 16).unwrap();
            let (size, name) = (value(6), value(11));
            let (inode, links) = (field(0), field(4));
            bytes[inode].fill(b'0');
            bytes[links].fill(b'0');
            at = ((at + 110 + name).next_multiple_of(4) + size).next_multiple_of(4).min(bytes.len());
        }
        assert!(bytes[at..].iter().all(|byte| *byte == 0), "the trailer is the last entry");
        bytes.truncate(at);
        bytes
    }

    #[test]
    fn an_archive_is_the_one_cpio_makes() {
        let mut archive = Archive::default();
        archive.folder("folder", 0o750);
        // Every alignment of contents and of names.
        for length in 0..9_usize {
            archive.file(&format!("folder/{}", "n".repeat(length + 1)), 0o640, &vec![b'x'; length]);
        }
        archive.link("link", "folder/n");
        let archive = comparable(&archive.finish());
        assert_eq!(String::from_utf8_lossy(&archive), String::from_utf8_lossy(&comparable(BY_CPIO)));
    }

    #[test]
    fn bytes_of_a_device_and_the_trailer() {
        let mut archive = Archive::default();
        archive.character_device("dev/console", 0o600, 5, 1);
        let zeros = |count: usize| "00000000".repeat(count);
        let expected = format!(
            "0707010000000100002180{}00000001{}00000005000000010000000c{}dev/console\0\0\0\
             070701{}00000001{}0000000b{}TRAILER!!!\0\0\0\0",
            zeros(2),
            zeros(4),
            zeros(1),
            zeros(4),
            zeros(6),
            zeros(1)
        );
        assert_eq!(String::from_utf8(archive.finish()).unwrap(), expected);
    }
}
