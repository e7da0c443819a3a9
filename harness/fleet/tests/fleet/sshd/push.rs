//! Bringing files onto a board, and what can go wrong with that, against a real server.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use espalier_fleet::{
    cancel::Cancel,
    deploy::{DeployError, push},
    transport::Transport,
};

use super::{Sshd, device};
use crate::deploy::{LIMITS, file, noise, to_board};

fn open(server: &Sshd) -> Transport {
    Transport::open(&device(server.address()), &Cancel::default()).unwrap()
}

/// Nothing temporary is left.
#[track_caller]
fn expect_clean(workdir: &Path) {
    let left: Vec<PathBuf> = fs::read_dir(workdir.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn only_missing_and_damaged_files_are_sent() {
    let server = Sshd::start();
    let mut board = open(&server);
    let here = tempfile::tempdir().unwrap();
    let workdir = server.folder.path().join("it's a workdir");
    let files = [
        file(here.path(), "runner", b"#!/bin/sh\necho ran\n", true),
        file(here.path(), "model", &noise(3_000_000), false),
        file(here.path(), "zeros", &vec![0; 5_000_000], false),
        file(here.path(), "empty", b"", false),
    ];
    let mut steps = Vec::new();
    let first = push(&mut board, workdir.to_str().unwrap(), &files, LIMITS, &Cancel::default(), &mut |done, total| {
        steps.push((done, total));
    })
    .unwrap();
    assert_eq!((first.files_sent, first.files_present), (4, 0));
    let total = files.iter().map(|file| file.bytes).sum::<u64>();
    // Sent compressed only where that helps.
    assert!(first.bytes_sent > 3_000_000 && first.bytes_sent < 3_100_000, "{}", first.bytes_sent);
    assert_eq!(steps.last(), Some(&(total, total)));
    for file in &files {
        assert_eq!(fs::read(&first.paths[&file.sha256]).unwrap(), fs::read(&file.path).unwrap());
    }
    let ran = board.shell(
        &format!("exec '{}'", first.paths[&files[0].sha256].replace('\'', r"'\''")),
        LIMITS,
        &Cancel::default(),
    );
    assert_eq!(ran.unwrap().stdout, "ran\n");
    expect_clean(&workdir);

    let second = to_board(&mut board, &workdir, &files).unwrap();
    assert_eq!((second.bytes_sent, second.files_sent, second.files_present), (0, 0, 4));
    assert_eq!(second.paths, first.paths);

    let damaged = &first.paths[&files[1].sha256];
    let mut bytes = fs::read(damaged).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(damaged, &bytes).unwrap();
    let third = to_board(&mut board, &workdir, &files).unwrap();
    assert_eq!((third.files_sent, third.files_present), (1, 3));
    assert_eq!(fs::read(damaged).unwrap(), noise(3_000_000));
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn a_file_with_another_hash_does_not_get_its_name() {
    let server = Sshd::start();
    let mut board = open(&server);
    let here = tempfile::tempdir().unwrap();
    let workdir = server.folder.path().join("work");
    let mut wrong = file(here.path(), "model", b"new", false);
    wrong.sha256 = file(here.path(), "old", b"old", false).sha256;
    let error = to_board(&mut board, &workdir, std::slice::from_ref(&wrong)).unwrap_err();
    assert!(
        matches!(&error, DeployError::Damaged { got, .. } if *got == file(here.path(), "model", b"new", false).sha256),
        "{error}"
    );
    assert!(!workdir.join("blobs").join(&wrong.sha256).exists());
    expect_clean(&workdir);
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn leftovers_of_a_dead_push_are_removed() {
    let server = Sshd::start();
    let workdir = server.folder.path().join("work");
    fs::create_dir_all(workdir.join("tmp")).unwrap();
    let old = fs::File::create(workdir.join("tmp/old")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    fs::write(workdir.join("tmp/young"), "of another push").unwrap();
    to_board(&mut open(&server), &workdir, &[]).unwrap();
    assert!(!workdir.join("tmp/old").exists() && workdir.join("tmp/young").exists());
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn an_interrupted_push_leaves_nothing_behind() {
    let server = Sshd::start();
    let mut board = open(&server);
    let here = tempfile::tempdir().unwrap();
    let workdir = server.folder.path().join("work");
    let model = [file(here.path(), "model", &noise(30_000_000), false)];
    let cancel = Cancel::default();
    let result = push(&mut board, workdir.to_str().unwrap(), &model, LIMITS, &cancel, &mut |done, _| {
        if done > 5_000_000 {
            cancel.request();
        }
    });
    assert_eq!(result.unwrap_err().to_string(), "cancelled");
    // At once, or on a busy host before one of the next commands.
    let is_empty = || fs::read_dir(workdir.join("tmp")).unwrap().count() == 0;
    let is_removed = (0..20).any(|_| {
        board.shell("sleep 1", LIMITS, &Cancel::default()).unwrap();
        is_empty()
    });
    assert!(is_removed, "the temporary file stays");
    assert_eq!(to_board(&mut board, &workdir, &model).unwrap().files_sent, 1);
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn an_impossible_workdir_is_named() {
    let server = Sshd::start();
    let error = to_board(&mut open(&server), Path::new("/proc/espalier"), &[]).unwrap_err().to_string();
    assert!(error.contains("`/proc/espalier`") && error.contains("`workdir`"), "{error}");
}

/// Says that the rest of a test cannot run here: past libtest's capture, and to the suite, which `ESPALIER_SKIPS` names
/// a file for.
fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", std::thread::current().name().unwrap_or("a test"));
    io::stderr().write_all(format!("skipped: {line}").as_bytes()).unwrap();
    if let Some(path) = env::var_os("ESPALIER_SKIPS") {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// A small file system; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Option<Disk> {
        fs::create_dir_all(&path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Disk(path));
        }
        skip("a small file system cannot be mounted (not root)");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs an OpenSSH server"]
fn a_full_board_is_an_error_with_the_figures() {
    let server = Sshd::start();
    let Some(disk) = Disk::mount(server.folder.path().join("disk"), "4m") else { return };
    let mut board = open(&server);
    let here = tempfile::tempdir().unwrap();
    let big = file(here.path(), "big", &noise(8 << 20), false);
    let error = to_board(&mut board, &disk.0, &[big]).unwrap_err();
    assert!(matches!(&error, DeployError::NoSpace { needed: 8_388_608, available: Some(4_194_304), .. }), "{error:?}");
    assert!(error.to_string().contains("8.0 MiB are needed, 4.0 MiB are free"), "{error}");

    // Filled by another program while the file is on its way.
    let model = file(here.path(), "model", &noise(3 << 20), false);
    let intruder = disk.0.join("intruder");
    let mut is_filled = false;
    let result = push(&mut board, disk.0.to_str().unwrap(), &[model], LIMITS, &Cancel::default(), &mut |_, _| {
        if !std::mem::replace(&mut is_filled, true) {
            fs::write(&intruder, noise(3 << 20)).unwrap();
        }
    });
    let error = result.unwrap_err();
    assert!(matches!(error, DeployError::NoSpace { .. }), "{error:?}");
    expect_clean(&disk.0);
}
