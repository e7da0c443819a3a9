//! Oracles: `readelf`'s output for a program made elsewhere, this very process, glibc's own version.

use std::path::Path;

use espalier_bench::command::CommandLine;
use espalier_inventory::Builder;
use proptest::prelude::*;

use super::*;
use crate::process;

/// `arm-linux-gnueabihf-gcc -Os -s -Wl,-z,max-page-size=4096 t.c -lm` (Debian 12) of a program that calls `printf` and
/// `pow`.
const ARMHF: &[u8] = include_bytes!("../../fixtures/armhf.elf");

const fn glibc(minor: u32) -> Glibc {
    Glibc { major: 2, minor }
}

#[test]
fn a_cross_built_program_as_readelf_shows_it() {
    let expected = ElfInfo {
        machine: Machine::Arm,
        bits: 32,
        big_endian: false,
        float_abi: Some(FloatAbi::Hard),
        interpreter: Some("/lib/ld-linux-armhf.so.3".to_owned()),
        needed: vec!["libm.so.6".to_owned(), "libc.so.6".to_owned()],
        // Of 2.4, 2.29 and 2.34: by number, not by letters.
        glibc: Some(glibc(34)),
    };
    assert_eq!(read(ARMHF).unwrap(), expected);
}

#[test]
fn a_program_for_another_target_is_a_misfit() {
    let target = |triple: &str| Target {
        name: "some".to_owned(),
        triple: triple.to_owned(),
        builder: Builder::Auto,
        libc: Libc::Any,
        cpu: None,
        features: Vec::new(),
    };
    let arm = read(ARMHF).unwrap();
    assert_eq!(misfit(&arm, &target("armv7-unknown-linux-gnueabihf")), None);
    // 64-bit kernels run it, too; whether the loader is there is for the board to say.
    assert_eq!(misfit(&arm, &target("aarch64-unknown-linux-gnu")), None);
    assert_eq!(misfit(&arm, &target("loongarch64-unknown-linux-gnu")), None, "not known is no reason");
    let said = misfit(&arm, &target("x86_64-unknown-linux-gnu")).unwrap();
    assert_eq!(said, "is built for `arm, hard float`, but target `some` is `x86_64-unknown-linux-gnu`");
    let wide = ElfInfo { machine: Machine::Riscv, bits: 64, ..arm };
    assert_eq!(misfit(&wide, &target("riscv64gc-unknown-linux-gnu")), None);
    assert!(misfit(&wide, &target("riscv32gc-unknown-linux-gnu")).is_some());
}

#[test]
fn this_very_program() {
    let elf = read(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
    assert_eq!(usize::from(elf.bits), usize::BITS as usize);
    assert_eq!(elf.big_endian, cfg!(target_endian = "big"));
    let machine = match std::env::consts::ARCH {
        "x86_64" => Machine::X86_64,
        "x86" => Machine::X86,
        "aarch64" => Machine::Aarch64,
        "arm" => Machine::Arm,
        "riscv64" => Machine::Riscv,
        other => panic!("add `{other}` to this test"),
    };
    assert_eq!(elf.machine, machine);
    if cfg!(target_env = "gnu") {
        assert!(elf.needed.iter().any(|library| library == "libc.so.6"), "{:?}", elf.needed);
        assert!(Path::new(elf.interpreter.as_deref().unwrap()).exists());
    }
}

#[cfg(target_env = "gnu")]
#[test]
fn the_probe_finds_what_this_host_is() {
    // SAFETY: gives a static string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) }.to_str().unwrap();
    let output = process::output_of(&CommandLine::new("sh").args(["-c", PROBE])).unwrap();
    let board = BoardLibc::parse(&output);
    assert_eq!(board.glibc, Glibc::parse(version), "{output}");
    let program = read(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
    assert_eq!(board.for_program(&program), (Glibc::parse(version), Some(true)), "{output}");
}

#[track_caller]
fn check_probe(output: &str, expected: &str) {
    let board = BoardLibc::parse(output);
    let (glibc, has_loader) = board.for_program(&read(ARMHF).unwrap());
    let glibc = glibc.map_or("none".to_owned(), |glibc| glibc.to_string());
    assert_eq!(format!("{} {glibc} {has_loader:?}", board.machine), expected, "{board:?}");
}

#[test]
fn boards_as_they_answer() {
    let debian = "Welcome!\nmachine armv7l\n\
                  loader /lib/ld-linux-armhf.so.3 ld.so (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\n\
                  libc glibc 2.36\nlibc ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\n";
    check_probe(debian, "armv7l 2.36 Some(true)");
    // Before 2.33 the loader has no version; here libc itself is the only source.
    let busybox = "machine armv7l\nloader /lib/ld-linux-armhf.so.3 \nlibc \nlibc \n\
                   libc GNU C Library (Buildroot) stable release version 2.31.\n";
    check_probe(busybox, "armv7l 2.31 Some(true)");
    let musl = "machine armv7l\nloader /lib/ld-musl-armhf.so.1 musl libc (armhf)\nlibc \nlibc musl libc (armhf)\n";
    check_probe(musl, "armv7l none Some(false)");
    // Two libcs: the program's own counts.
    let multiarch = "machine aarch64\nloader /lib/ld-linux-aarch64.so.1 ld.so (GNU libc) stable release version 2.38.\n\
                     loader /lib/ld-linux-armhf.so.3 ld.so (GNU libc) stable release version 2.36.\nlibc glibc 2.38\n";
    check_probe(multiarch, "aarch64 2.36 Some(true)");
    check_probe("machine armv7l\nlibc \n", "armv7l none None");
    check_probe("", " none None");
}

#[track_caller]
fn check_fit(change: impl Fn(&mut ElfInfo), board: (&str, Option<u32>, Option<bool>), expected: &[&str]) {
    let mut elf = read(ARMHF).unwrap();
    change(&mut elf);
    let target = Target {
        name: "armv7-gnu".to_owned(),
        triple: "armv7-unknown-linux-gnueabihf".to_owned(),
        builder: Builder::Auto,
        libc: Libc::Any,
        cpu: None,
        features: Vec::new(),
    };
    let (machine, libc, has_loader) = board;
    let loader = |has| if has { "/lib/ld-linux-armhf.so.3" } else { "/lib/ld-musl-armhf.so.1" }.to_owned();
    let loaders = has_loader.map(|has| (loader(has), None)).into_iter().collect();
    let board = BoardLibc { machine: machine.to_owned(), loaders, glibc: libc.map(glibc) };
    let actual: Vec<String> = check(&elf, &board, &target).iter().map(ToString::to_string).collect();
    assert_eq!(actual, expected);
}

#[test]
fn every_mismatch_is_named() {
    let as_is = |_: &mut ElfInfo| {};
    check_fit(as_is, ("armv7l", Some(36), Some(true)), &[]);
    check_fit(as_is, ("armv8l", Some(34), None), &[]);
    check_fit(as_is, ("aarch64", None, Some(true)), &[]);
    check_fit(
        as_is,
        ("x86_64", Some(36), Some(true)),
        &["built for `armv7, hard float` (target `armv7-gnu`), but the board says `x86_64`"],
    );
    check_fit(
        as_is,
        ("armv6l", Some(36), Some(true)),
        &["built for `armv7, hard float` (target `armv7-gnu`), but the board says `armv6l`"],
    );
    check_fit(
        as_is,
        ("armv7l", Some(31), Some(true)),
        &["needs GLIBC_2.34, the board has 2.31: set `glibc = \"2.31\"` with `builder = \"zigbuild\"`, or `static = \
             true`, in target `armv7-gnu`"],
    );
    check_fit(
        as_is,
        ("armv7l", Some(36), Some(false)),
        &["needs the loader `/lib/ld-linux-armhf.so.3`, which the board does not have (another libc, or another \
             float ABI than hard float): set `static = true` in target `armv7-gnu`"],
    );
    let fixed = |elf: &mut ElfInfo| (elf.interpreter, elf.glibc) = (None, None);
    check_fit(fixed, ("armv7l", Some(17), Some(false)), &[]);
    let arm64 = |elf: &mut ElfInfo| (elf.machine, elf.bits) = (Machine::Aarch64, 64);
    check_fit(
        arm64,
        ("armv7l", None, None),
        &["built for `aarch64` (target `armv7-gnu`), but the board says `armv7l`"],
    );
}

#[test]
fn a_broken_promise_of_the_target_is_a_mismatch() {
    let elf = read(ARMHF).unwrap();
    let broken = |libc| {
        let target = Target {
            name: "t".to_owned(),
            triple: "armv7-unknown-linux-gnueabihf".to_owned(),
            builder: Builder::Cargo,
            libc,
            cpu: None,
            features: Vec::new(),
        };
        check_target(&elf, &target).len()
    };
    assert_eq!([Libc::Any, Libc::Floor(glibc(34)), Libc::Floor(glibc(33)), Libc::Static].map(broken), [0, 0, 1, 1]);
}

proptest! {
    #[test]
    fn bytes_from_anywhere_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
        let mut headed = ARMHF[..20].to_vec();
        headed.extend(bytes);
        let _ = read(&headed);
    }

    #[test]
    fn a_damaged_program_never_panics(
        length in 0..=ARMHF.len(),
        changes in proptest::collection::vec((0..ARMHF.len(), any::<u8>()), 0..24),
    ) {
        let mut bytes = ARMHF.to_vec();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        let _ = read(&bytes);
        let _ = read(&bytes[..length]);
    }

    #[test]
    fn what_a_board_answers_never_panics(output in "((machine|loader|libc)? ?[ -~\\n]{0,40}\\n?){0,8}") {
        let board = BoardLibc::parse(&output);
        let _ = board.for_program(&read(ARMHF).unwrap());
    }
}
