//! A board's only file system, made from unpacked packages: busybox, dropbear, glibc, a few kernel modules.
//!
//! It is in the board's memory, so a power cut leaves nothing to repair. It is packed at every start, in a fraction of
//! a second, so it cannot be out of date. It is not compressed: qemu loads megabytes at once, while an emulated
//! processor is slow to decompress them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use espalier_bench::command::CommandLine;

use super::{
    access::Keys,
    cpio::Archive,
    modules,
    run::{require_program, run},
};
use crate::{cancel::Cancel, process::Watch};

/// A board's unpacked packages, in its folder.
pub struct Unpacked {
    pub kernel: PathBuf,
    modules: PathBuf,
    userland: PathBuf,
}

/// Drivers the boards need: the network card and, for keys, random numbers.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_net", "virtio_rng"];

/// Unpacks a board's packages into its folder, unless these were unpacked before.
pub fn unpack(folder: &Path, packages: &[PathBuf], watch: Watch) -> Result<Unpacked> {
    let names: Vec<String> = packages.iter().map(|path| path.display().to_string()).collect();
    let made_from = format!("{}\nmodules: {}\n", names.join("\n"), MODULES.join(" "));
    let done = folder.join("parts");
    let unpacked = |root: &Path| Unpacked {
        kernel: root.join("kernel"),
        modules: root.join("modules"),
        userland: root.join("userland"),
    };
    if fs::read_to_string(done.join("made-from")).is_ok_and(|earlier| earlier == made_from) {
        return Ok(unpacked(&done));
    }
    watch.emit("unpacking the kernel and userland");
    let fresh = folder.join("parts.new");
    for old in [&done, &fresh] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let Unpacked { kernel, modules, userland } = unpacked(&fresh);
    let kernel_packages = fresh.join("kernel-packages");
    fs::create_dir_all(&modules)?;
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        unpack_package(package, if name.starts_with("linux-") { &kernel_packages } else { &userland }, watch.cancel)?;
    }
    let files = files(&kernel_packages)?;
    let is_kernel = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("vmlinuz") || name.starts_with("vmlinux")
    };
    let image = files.iter().find(is_kernel).context("the kernel's packages hold no kernel (`vmlinuz`)")?;
    for (number, module) in modules::collect(&files, &MODULES, watch.cancel)?.iter().enumerate() {
        fs::write(modules.join(format!("{number:02}-{}.ko", module.name)), &module.contents)?;
    }
    fs::rename(image, kernel)?;
    // Hundreds of megabytes of other boards' drivers.
    fs::remove_dir_all(&kernel_packages)?;
    fs::write(fresh.join("made-from"), made_from)?;
    fs::rename(&fresh, &done)?;
    Ok(unpacked(&done))
}

pub fn unpack_package(package: &Path, folder: &Path, cancel: &Cancel) -> Result<()> {
    require_program("dpkg-deb", "dpkg")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let line = CommandLine::new("dpkg-deb").arg("--extract").arg(package.to_string_lossy()).arg(".");
    run(&line, folder, cancel)?;
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The archive the kernel unpacks as its root.
pub fn pack(unpacked: &Unpacked, hostname: &str, keys: &Keys) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS.split_whitespace() {
        archive.folder(folder, 0o755);
    }
    for folder in ["bin", "lib", "sbin"] {
        archive.link(folder, &format!("usr/{folder}"));
    }
    archive.link("var/run", "../run");
    archive.link("var/tmp", "../tmp");
    // The kernel opens it before `init` can mount anything.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("etc/inittab", 0o644, INITTAB.as_bytes());
    archive.file("etc/passwd", 0o644, b"root:*:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:*:0:\n");
    archive.file("etc/hostname", 0o644, format!("{hostname}\n").as_bytes());
    archive.file("etc/hosts", 0o644, format!("127.0.0.1 localhost {hostname}\n").as_bytes());
    archive.file("etc/dropbear/host_key", 0o600, &keys.host_private);
    archive.file("etc/dropbear/authorized_keys", 0o600, keys.client_public.as_bytes());
    add_folder(&mut archive, &unpacked.modules, "usr/lib/modules")?;
    // Older packages have files in `/lib`, newer ones in `/usr/lib`; here both are one folder.
    for name in ["bin", "sbin", "lib", "usr/bin", "usr/sbin", "usr/lib"] {
        let folder = unpacked.userland.join(name);
        if folder.is_dir() {
            let merged = format!("usr/{}", name.trim_start_matches("usr/"));
            add_folder(&mut archive, &folder, &merged)?;
        }
    }
    Ok(archive.finish())
}

/// Each after the one it is in.
const FOLDERS: &str = "dev etc etc/dropbear mnt mnt/tiny proc root sys tmp \
                       usr usr/bin usr/lib usr/lib/modules usr/sbin var var/log run";

/// The console gets dropbear's log, which shows why a board does not answer.
const INITTAB: &str = "\
::sysinit:/bin/hostname -F /etc/hostname
::respawn:/usr/sbin/dropbear -F -E -s -r /etc/dropbear/host_key
::ctrlaltdel:/sbin/poweroff
";

/// Adds the contents of a folder of the host; the folder itself is in the archive already.
fn add_folder(archive: &mut Archive, folder: &Path, path: &str) -> Result<()> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read `{}`", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Character sets and linker hooks: megabytes that nothing here uses.
        if ["gconv", "audit"].contains(&name.as_str()) {
            continue;
        }
        let (source, path) = (entry.path(), format!("{path}/{name}"));
        let meta = fs::symlink_metadata(&source)?;
        if meta.is_symlink() {
            archive.link(&path, &fs::read_link(&source)?.to_string_lossy());
        } else if meta.is_dir() {
            archive.folder(&path, 0o755);
            add_folder(archive, &source, &path)?;
        } else {
            let contents = fs::read(&source).with_context(|| format!("cannot read `{}`", source.display()))?;
            archive.file(&path, meta.permissions().mode() & 0o777, &contents);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_either_layout_end_in_usr() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (path, contents) in [
            ("modules/00-a.ko", "ko"),
            ("userland/lib/x/libc.so.6", "old"),
            ("userland/usr/bin/busybox", "new"),
            ("userland/usr/lib/x/gconv/big.so", "big"),
            ("userland/usr/share/doc/a", "doc"),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), contents).unwrap();
        }
        let unpacked =
            Unpacked { kernel: root.join("kernel"), modules: root.join("modules"), userland: root.join("userland") };
        let keys = Keys { client_public: "client".into(), host_private: b"host".to_vec(), host_public: String::new() };
        let archive = pack(&unpacked, "virt-test", &keys).unwrap();
        let text = String::from_utf8_lossy(&archive);
        for path in
            ["usr/lib/modules/00-a.ko\0", "usr/lib/x/libc.so.6\0", "usr/bin/busybox\0", "init\0", "dev/console\0"]
        {
            assert_eq!(text.matches(path).count(), 1, "{path}");
        }
        for absent in ["big.so", "doc", "\0lib/x"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}
