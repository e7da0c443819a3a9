//! A folder with targets, devices and models as the program expects them in a repository: what is shipped, and what a
//! test adds. Runs go there too.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use espalier_bench::record::Run;
use espalier_fleet::boards::BoardKind;

use crate::{Outcome, Running, shipped, ssh};

/// Gone when dropped, with the folders on boards.
pub struct Shelf {
    folder: tempfile::TempDir,
    name: String,
    workdirs: Vec<(BoardKind, String)>,
}

/// Little enough to be quick; times are not what these tests look at.
const QUICK: [&str; 8] = ["--runs", "1", "--warmup", "1", "--iterations", "3", "--min-time", "0"];

impl Shelf {
    /// With this host as the only device. `name` is the test's.
    pub fn new(name: &str) -> Shelf {
        let shelf = Shelf { folder: tempfile::tempdir().unwrap(), name: name.replace('_', "-"), workdirs: Vec::new() };
        for file in ["targets.toml", "devices/local.toml"] {
            shelf.write(file, fs::read_to_string(shipped(file)).unwrap());
        }
        shelf.model("digits-cnn");
        shelf
    }

    /// Adds another of the shipped models.
    pub fn model(&self, name: &str) {
        let file = format!("models/{name}.toml");
        self.write(&file, fs::read_to_string(shipped(&file)).unwrap());
        let folder = format!("models/{name}");
        std::os::unix::fs::symlink(shipped(&folder), self.path(&folder)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Adds a board's own device file, with a folder on the board that no other test uses; `more` is TOML put at its
    /// end. Returns the folder.
    pub fn board(&mut self, kind: BoardKind, more: &str) -> String {
        let workdir = self.workdir(kind);
        let file = format!("devices/{kind}.toml");
        let text = fs::read_to_string(shipped(&file)).unwrap();
        let usual = "workdir = \"/root/espalier\"";
        assert!(text.contains(usual), "`{file}` has another `workdir` than this test knows");
        self.write(&file, text.replace(usual, &format!("workdir = \"{workdir}\"")) + "\n" + more);
        workdir
    }

    /// A folder of this test's on the board, removed in the end.
    pub fn workdir(&mut self, kind: BoardKind) -> String {
        let workdir = format!("/root/espalier-{}-{}", self.name, std::process::id());
        self.workdirs.push((kind, workdir.clone()));
        workdir
    }

    pub fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, &[])
    }

    /// With these variables besides.
    pub fn start_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let program = env::var_os("ESPALIER_XTASK");
        let program = program.expect("`ESPALIER_XTASK` is not set: these tests are run by `cargo xtask test`");
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).env("ESPALIER_ROOT", self.folder.path());
        command.envs(environment.iter().copied());
        Running::start(command)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).wait()
    }

    /// `bench` with as little measuring as there can be.
    #[track_caller]
    pub fn bench(&self, args: &[&str]) -> Outcome {
        self.run(&[&["bench"], &QUICK[..], args].concat())
    }

    /// The files in `reports/runs/`, oldest first.
    pub fn run_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("reports/runs")).map(|entries| entries.flatten().collect());
        let mut files: Vec<PathBuf> = entries.unwrap_or_else(|_| Vec::new()).iter().map(fs::DirEntry::path).collect();
        files.sort();
        files
    }

    /// The newest run.
    #[track_caller]
    pub fn newest_run(&self) -> Run {
        read_run(self.run_files().last().expect("there is a run"))
    }
}

fn read_run(path: &Path) -> Run {
    Run::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

impl Drop for Shelf {
    fn drop(&mut self) {
        for (kind, workdir) in &self.workdirs {
            // As well as it goes: boards are in memory, and off some day.
            ssh(*kind, &format!("rm -rf '{workdir}'"));
        }
    }
}
