//! The state a board must be in while it is measured: set, read back, restored.
//!
//! Everything goes through the board's shell, because only there `sudo -n` may be allowed for these files. A setting
//! that fails becomes a note, never silence; every measurement holds the actual state, as the runner reads it.
//!
//! What was set before is also kept on the board, in `workdir/governors`, until it is restored: a session that was
//! killed restores nothing, and the next one would take its setting for the board's own. A reboot restores by itself.

use std::time::{Duration, Instant};

use espalier_bench::command::shell_quote;
use espalier_inventory::Conditions;
use espalier_protocol::Text;

use crate::{
    cancel::Cancel,
    transport::{Limits, Transport, TransportError},
};

/// The board's shell, and how long a script may take.
pub struct Shell<'a> {
    pub transport: &'a mut Transport,
    pub limits: Limits,
    pub cancel: &'a Cancel,
}

impl Shell<'_> {
    fn output(&mut self, script: &str) -> Result<Text, TransportError> {
        Ok(self.transport.shell(script, self.limits, self.cancel)?.stdout)
    }
}

/// The governors of a board before [`SavedGovernors::set`] changed them.
#[derive(Debug)]
pub struct SavedGovernors {
    /// `/sys`, unless it is a test.
    sys: String,
    /// Where the values are kept on the board.
    kept: String,
    /// Files in `/sys` and their values.
    files: Vec<(String, String)>,
    /// For people: what could not be set, and what an earlier session had left behind.
    pub notes: Vec<String>,
}

/// The board's boot, then what is kept; `$kept` goes before it.
const KEPT: &str = r#"boot=; read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id
echo "boot $boot"
[ -f "$kept" ] && cat "$kept"
true"#;

const TEMPERATURES: &str = r#"for f in /sys/class/thermal/thermal_zone*/temp; do [ -r "$f" ] && cat "$f"; done; true"#;

/// Longest wait for a board to cool down before an invocation.
const COOL_DOWN: Duration = Duration::from_secs(300);

impl SavedGovernors {
    /// Of a board with this `workdir`; nothing is saved yet.
    pub fn new(workdir: &str) -> SavedGovernors {
        let kept = format!("{workdir}/governors");
        SavedGovernors { sys: "/sys".into(), kept, files: Vec::new(), notes: Vec::new() }
    }

    /// Restores what a killed session left behind, then sets the governor that the device file names. After an error
    /// too, restore the ones that were set before it.
    pub fn set(&mut self, shell: &mut Shell, conditions: &Conditions) -> Result<(), TransportError> {
        let boot = self.recover(shell)?;
        let Some(governor) = &conditions.governor else { return Ok(()) };
        self.files = self.governors(shell)?;
        if !self.files.is_empty() {
            self.keep(shell, &boot)?;
        }
        if self.files.is_empty() {
            self.notes.push(format!("governor `{governor}` is configured, but the board has none to set"));
        }
        for (file, _) in &self.files {
            write(shell, file, governor)?;
        }
        for (file, now) in self.governors(shell)? {
            if now != *governor {
                self.notes.push(format!(
                    "governor `{governor}` is configured, but `{file}` stays at `{now}`: let the ssh user write it \
                     (`sudo -n tee`)"
                ));
            }
        }
        Ok(())
    }

    /// Best effort: a board that is gone cannot be restored, and is reported elsewhere.
    pub fn restore(&self, shell: &mut Shell) -> Result<(), TransportError> {
        for (file, before) in &self.files {
            write(shell, file, before)?;
        }
        if self.files.is_empty() { Ok(()) } else { self.forget(shell) }
    }

    /// Puts back what is kept of a session that ended without doing so. Returns the board's boot id.
    fn recover(&mut self, shell: &mut Shell) -> Result<String, TransportError> {
        let output = shell.output(&format!("kept={}\n{KEPT}", shell_quote(&self.kept)))?;
        let mut lines = output.lines();
        let boot = lines.next().unwrap_or_default().to_owned();
        let Some(kept_in) = lines.next() else { return Ok(boot) };
        let mut recovered = Vec::new();
        if kept_in == boot {
            // Only files that are governors: others may have written to the folder.
            let now = self.governors(shell)?;
            for (file, before) in lines.filter_map(|line| line.rsplit_once(' ')) {
                let differs = now.iter().find(|(known, value)| known == file && value != before);
                if let Some((_, value)) = differs.filter(|_| is_governor(before)) {
                    write(shell, file, before)?;
                    recovered.push(format!("`{file}` from `{value}` to `{before}`"));
                }
            }
        }
        if !recovered.is_empty() {
            let list = recovered.join(", ");
            self.notes.push(format!("an earlier session was killed and left its governor; it is put back: {list}"));
        }
        self.forget(shell)?;
        Ok(boot)
    }

    fn keep(&mut self, shell: &mut Shell, boot: &str) -> Result<(), TransportError> {
        let files: String = self.files.iter().map(|(file, before)| format!("{file} {before}\n")).collect();
        let (kept, text) = (shell_quote(&self.kept), shell_quote(&format!("{boot}\n{files}")));
        let script = format!(
            "kept={kept}; mkdir -p \"${{kept%/*}}\" && printf %s {text} >\"$kept.new\" \
             && mv -f \"$kept.new\" \"$kept\" && echo kept"
        );
        if &*shell.output(&script)? != "kept\n" {
            self.notes.push(format!(
                "`{}` cannot be written on the board: if this session is killed, nothing restores the governor",
                self.kept
            ));
        }
        Ok(())
    }

    fn forget(&self, shell: &mut Shell) -> Result<(), TransportError> {
        shell.output(&format!("rm -f {}", shell_quote(&self.kept))).map(drop)
    }

    fn governors(&self, shell: &mut Shell) -> Result<Vec<(String, String)>, TransportError> {
        let policies = format!("{}/devices/system/cpu/cpufreq", self.sys);
        let lines = shell.output(&format!(
            "for f in {}/policy*/scaling_governor; do [ -r \"$f\" ] && echo \"$f $(cat \"$f\")\"; done; true",
            shell_quote(&policies)
        ))?;
        let pairs = lines.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(pairs.map(|(file, now)| (file.into(), now.into())).collect())
    }
}

/// As kernels name them: `ondemand`.
fn is_governor(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Waits until the board is at most this warm. Returns a note if it stays warmer or has no thermometer.
pub fn cool_down(shell: &mut Shell, celsius: f64) -> Result<Option<String>, TransportError> {
    let start = Instant::now();
    loop {
        let temperatures = shell.output(TEMPERATURES)?;
        let millidegrees = temperatures.lines().filter_map(|line| line.trim().parse::<f64>().ok());
        let hottest = millidegrees.reduce(f64::max).map(|hottest| hottest / 1000.0);
        match hottest {
            None => {
                return Ok(Some("a highest start temperature is configured, but the board has no thermometer".into()));
            }
            Some(now) if now <= celsius => return Ok(None),
            Some(now) if start.elapsed() > COOL_DOWN => {
                return Ok(Some(format!(
                    "started at {now:.1} °C: it did not cool down to {celsius:.1} °C within {} s",
                    COOL_DOWN.as_secs()
                )));
            }
            Some(_) if shell.cancel.is_requested() => return Err(TransportError::Cancelled),
            Some(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn write(shell: &mut Shell, file: &str, value: &str) -> Result<(), TransportError> {
    let (file, value) = (shell_quote(file), shell_quote(value));
    let script =
        format!("{{ echo {value} > {file}; }} 2>/dev/null || echo {value} | sudo -n tee {file} >/dev/null 2>&1; true");
    shell.output(&script).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use espalier_inventory::Timeouts;

    use super::*;

    /// A board whose `/sys` and `workdir` are folders of this host.
    struct Board {
        folder: tempfile::TempDir,
    }

    impl Board {
        fn new(governors: &[&str]) -> Board {
            let board = Board { folder: tempfile::tempdir().unwrap() };
            for (index, governor) in governors.iter().enumerate() {
                fs::create_dir_all(board.policy(index).parent().unwrap()).unwrap();
                fs::write(board.policy(index), format!("{governor}\n")).unwrap();
            }
            board
        }

        fn policy(&self, index: usize) -> std::path::PathBuf {
            self.folder.path().join(format!("s y's/devices/system/cpu/cpufreq/policy{index}/scaling_governor"))
        }

        fn saved(&self) -> SavedGovernors {
            let sys = self.folder.path().join("s y's").display().to_string();
            SavedGovernors { sys, ..SavedGovernors::new(&self.workdir()) }
        }

        fn workdir(&self) -> String {
            self.folder.path().join("work dir").display().to_string()
        }

        fn now(&self, index: usize) -> String {
            fs::read_to_string(self.policy(index)).unwrap().trim().to_owned()
        }
    }

    fn with_shell<T>(act: impl FnOnce(&mut Shell) -> Result<T, TransportError>) -> T {
        let (limits, cancel) = (Limits::from(&Timeouts::default()), Cancel::default());
        act(&mut Shell { transport: &mut Transport::Local, limits, cancel: &cancel }).unwrap()
    }

    fn conditions(governor: Option<&str>) -> Conditions {
        Conditions { governor: governor.map(str::to_owned), ..Conditions::default() }
    }

    #[test]
    fn what_was_set_is_restored() {
        let board = Board::new(&["ondemand", "powersave"]);
        let mut saved = board.saved();
        with_shell(|shell| saved.set(shell, &conditions(Some("performance"))));
        assert_eq!((board.now(0), board.now(1)), ("performance".into(), "performance".into()));
        assert!(saved.notes.is_empty(), "{:?}", saved.notes);
        with_shell(|shell| saved.restore(shell));
        assert_eq!((board.now(0), board.now(1)), ("ondemand".into(), "powersave".into()));
        assert_eq!(fs::read_dir(board.workdir()).unwrap().count(), 0);
    }

    /// The next session took `performance` for the board's own setting, and left it for good.
    #[test]
    fn what_a_killed_session_left_is_put_back() {
        let board = Board::new(&["ondemand"]);
        with_shell(|shell| board.saved().set(shell, &conditions(Some("performance"))));
        // Killed here. The next one wants none; another wants one again.
        for wanted in [None, Some("performance")] {
            let mut next = board.saved();
            with_shell(|shell| next.set(shell, &conditions(wanted)));
            let note = next.notes.join("; ");
            if wanted.is_none() {
                assert!(note.contains("killed") && note.ends_with("from `performance` to `ondemand`"), "{note}");
                assert_eq!(board.now(0), "ondemand");
                with_shell(|shell| board.saved().set(shell, &conditions(Some("performance"))));
            } else {
                assert!(note.contains("killed"), "{note}");
                assert_eq!(board.now(0), "performance");
                with_shell(|shell| next.restore(shell));
                assert_eq!(board.now(0), "ondemand");
            }
        }
    }

    #[test]
    fn a_reboot_or_a_strange_file_restores_nothing() {
        let board = Board::new(&["ondemand"]);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let other = board.folder.path().join("other");
        fs::write(&other, "mine").unwrap();
        fs::create_dir_all(board.workdir()).unwrap();
        let policy = board.policy(0).display().to_string();
        for text in [
            format!("boot an-earlier-one\n{policy} powersave\n"),
            format!("boot {boot}{} powersave\n", other.display()),
            format!("boot {boot}{policy} $(reboot)\n"),
            "\n\n".to_owned(),
            String::new(),
        ] {
            fs::write(format!("{}/governors", board.workdir()), &text).unwrap();
            let mut saved = board.saved();
            with_shell(|shell| saved.set(shell, &conditions(None)));
            assert_eq!((board.now(0), fs::read_to_string(&other).unwrap()), ("ondemand".into(), "mine".into()));
            assert!(saved.notes.is_empty(), "{text:?}: {:?}", saved.notes);
        }
    }
}
