//! Strips the runner's symbols at link time. The profile's `strip` would do, but cargo leaves 5 MB of symbols in where a package has a profile of its own.

fn main() {
    println!("cargo:rustc-link-arg-bins=-s");
    println!("cargo:rerun-if-changed=build.rs");
}
