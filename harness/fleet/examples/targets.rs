//! Makes a target buildable, or builds the runner for it: `targets setup|plan|build TRIPLE [cargo|zigbuild|cross] [static | FLOOR]`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use espalier_bench::inventory::{Builder, Glibc, Libc, Target};
use espalier_fleet::{build, cache::Cache, cancel::Cancel, process::Watch, toolchain};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [action, triple, options @ ..] = words.as_slice() else { bail!("see the top of this file") };
    let mut target = Target {
        name: triple.clone(),
        triple: triple.clone(),
        builder: Builder::Auto,
        libc: Libc::Any,
        cpu: None,
        features: Vec::new(),
    };
    for option in options {
        match option.as_str() {
            "cargo" => target.builder = Builder::Cargo,
            "zigbuild" => target.builder = Builder::Zigbuild,
            "cross" => target.builder = Builder::Cross,
            "static" => target.libc = Libc::Static,
            floor => target.libc = Libc::Floor(Glibc::parse(floor).context("no such option")?),
        }
    }
    let cache = Cache::open()?;
    let cancel = Cancel::default();
    let watch = Watch { cancel: &cancel, progress: &|line| eprintln!("{line}") };
    let since = std::time::Instant::now();
    match action.as_str() {
        "setup" => println!("{:#?}", toolchain::setup(&cache, &target, None, watch)?),
        "plan" => println!("{:#?}", build::prepare(&cache, &target)?),
        "build" => println!("{:#?}", build::build(&cache, Path::new("."), &target, watch)?),
        _ => bail!("see the top of this file"),
    }
    eprintln!("took {:?}", since.elapsed());
    Ok(())
}
