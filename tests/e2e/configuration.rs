//! Mistakes in flags and files are reported before anything is built, pushed or measured.

use espalier_tests::Shelf;

#[test]
fn a_near_name_is_suggested() {
    let shelf = Shelf::new("a_near_name_is_suggested");
    shelf.write("devices/virt-aarch64.toml", "target = \"aarch64-gnu\"\ntransport = { ssh = { host = \"b\" } }\n");
    let check = |args: &[&str], expected: &str| {
        let outcome = shelf.run(args).expect(2);
        outcome.says(&[expected]);
        assert_eq!(outcome.stdout, "");
    };
    check(&["bench", "--device", "virt-arch64"], "error: unknown device `virt-arch64`; did you mean `virt-aarch64`?");
    check(&["bench", "--model", "digit-cnn"], "error: unknown model `digit-cnn`; did you mean `digits-cnn`?");
    check(&["build", "--target", "armv7-gn"], "error: unknown target `armv7-gn`; did you mean `armv7-gnu`?");
    check(&["board", "up", "virt-armv8"], "error: unknown board `virt-armv8`; did you mean `virt-armv7`?");
    check(&["bench", "--model", "absent.onnx"], "error: there is no file `");
    check(&["bench", "--ratios", "0.5,1"], "error: ratio 1 is not in [0, 1)");
    check(&["bench", "--skip-below", "0.1"], "error: `--skip-below` is for `--engine skipping`");
    check(&["bench", "--resume", "2001"], "error: there is no run `2001`");
    check(&["bench", "--runner", "absent"], "error: runner `absent`");
    assert!(shelf.run_files().is_empty());
}

#[test]
fn every_mistake_is_reported_at_once() {
    let shelf = Shelf::new("every_mistake_is_reported_at_once");
    let device = "target = \"aarch64-gnuu\"\nworkdir = \"here\"\ncolour = \"red\"\n[transport.ssh]\nhots = \"pi\"\n\
                  [timeouts]\nidle = \"1s\"\n";
    shelf.write("devices/broken.toml", device);
    shelf.write("devices/torn.toml", "transport = \"local\"\ntarget = \"host\nemulated = yes\n");
    let model = "source = \"digits-cnn/absent.onnx\"\n[prune]\nmethod = \"magnitud\"\nratios = [0.5, 1.5]\n";
    shelf.write("models/bad.toml", model);
    let outcome = shelf.run(&["check"]).expect(2);
    outcome.prints(&[
        "devices/broken.toml:1:10: unknown target `aarch64-gnuu`; did you mean `aarch64-gnu`?",
        "devices/broken.toml:2:11: ",
        "devices/broken.toml:3:1: ",
        "devices/broken.toml:5:1: ",
        "devices/broken.toml:7:8: `1s` is too short",
        "devices/torn.toml:2:",
        "devices/torn.toml:3:",
        "models/bad.toml:1:10: ",
        "models/bad.toml:3:10: ",
        "models/bad.toml:4:16: ",
    ]);
    let mistakes = outcome.stdout.lines().filter(|line| line.contains(".toml:")).count();
    outcome.says(&[&format!("error: {mistakes} mistakes")]);

    // A command that needs one of these files fails; others continue with a warning.
    shelf.bench(&["--device", "broken"]).expect(2).says(&["devices/broken.toml:3:1: ", "models/bad.toml:1:10: "]);
    let outcome = shelf.bench(&["--model", "digits-cnn", "--ratios", "0"]).expect(0);
    outcome.says(&["`devices/broken.toml` has mistakes and is left out", "`models/bad.toml` has mistakes"]);
}

#[test]
fn a_dry_run_prints_what_would_be_run_and_does_nothing() {
    let shelf = Shelf::new("a_dry_run_prints_what_would_be_run_and_does_nothing");
    // Nothing answers there; nothing is contacted.
    let device = "target = \"aarch64-gnu\"\nworkdir = \"/data/espalier\"\n\
                  transport = { ssh = { host = \"127.0.0.1\", port = 1 } }\n[conditions]\ncpus = [3]\n";
    shelf.write("devices/far.toml", device);
    let outcome = shelf.bench(&["--device", "far", "--ratios", "0.5", "--dry-run", "--verbose"]).expect(0);
    outcome.prints(&[
        "# runner for target `aarch64-gnu` (aarch64-unknown-linux-gnu): ",
        "# runner for target `host` (",
        // Two variants, each scored, its memory and its times measured; here only scored.
        "# device `far`: 6 invocations (2 score, 2 memory, 2 time)\n",
        "# device `local`: 2 invocations (2 score)\n",
    ]);
    let commands: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("/data/espalier/blobs/")).collect();
    assert_eq!(commands.len(), 6, "{}", outcome.all());
    let flags = ["--model /data/espalier/blobs/", "--warmup 1", "--iterations 3", "--min-time-ms 0", "--cpus 3"];
    assert!(commands.iter().all(|line| flags.iter().all(|flag| line.contains(flag))), "{commands:#?}");
    let builds = outcome.stdout.lines().filter(|line| line.contains("--package espalier-runner")).count();
    assert_eq!(builds, 2, "{}", outcome.all());
    assert!(!shelf.path("reports").exists());
}
