//! Tells the program which triple it runs on.

fn main() {
    println!("cargo:rustc-env=ESPALIER_HOST_TRIPLE={}", std::env::var("TARGET").expect("cargo sets TARGET"));
    println!("cargo:rerun-if-changed=build.rs");
}
