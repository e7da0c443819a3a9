//! Tests against a real OpenSSH server on loopback, of the user who runs the tests, with keys and a port of its own. It
//! stands in for a board. They are ignored, so that `cargo test` says what it leaves out, and are run by `cargo xtask
//! test` or `cargo test -p espalier-fleet --features ssh -- --ignored sshd::`.

mod push;
mod transport;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use espalier_inventory::{Conditions, Device, SshAddress, Timeouts, Transport};

pub const HOST_KEYS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

pub struct Sshd {
    process: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sshd {
    /// A server with all kinds of host keys and nothing special.
    pub fn start() -> Sshd {
        Sshd::start_with(&HOST_KEYS, "")
    }

    pub fn start_with(host_keys: &[&str], more: &str) -> Sshd {
        let programs = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
        let program = programs.iter().find(|path| Path::new(path).exists());
        let program = program.expect("sshd is not installed: `apt install openssh-server`");
        // Where it runs as root it insists on this empty folder, which its service would have made.
        let _ = fs::create_dir("/run/sshd");
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nAuthorizedKeysFile {}\n{more}\n",
            key("user").with_extension("pub").display()
        );
        for kind in host_keys {
            config += &format!("HostKey {}\n", key(kind).display());
        }
        let path = folder.path().join("sshd_config");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut process =
            Command::new(program).args(["-D", "-e", "-f"]).arg(&path).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(process.try_wait().unwrap().is_none(), "sshd ended: {}", log());
            assert!(started.elapsed() < Duration::from_secs(300), "sshd does not listen: {}", log());
            thread::sleep(Duration::from_millis(10));
        }
        Sshd { process, folder, port }
    }

    /// The way there, with the first host key pinned.
    pub fn address(&self) -> SshAddress {
        SshAddress {
            host: "127.0.0.1".into(),
            port: Some(self.port),
            user: Some(user()),
            identity: Some(key("user").display().to_string()),
            host_key: Some(fingerprint("ed25519")),
            // Not the configuration and keys of whoever runs the tests.
            config: Some("/dev/null".into()),
            known_hosts: None,
        }
    }

    /// A file beside the server's own.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A line of known_hosts that names this server with one of the keys.
    pub fn known_as(&self, kind: &str) -> String {
        let public = fs::read_to_string(key(kind).with_extension("pub")).unwrap();
        format!("[127.0.0.1]:{} {public}", self.port)
    }
}

pub fn device(address: SshAddress) -> Device {
    Device {
        name: "board".into(),
        target: "host".into(),
        description: None,
        transport: Transport::Ssh(address),
        workdir: "/tmp".into(),
        runner: Vec::new(),
        emulated: false,
        in_all: true,
        threads: 1,
        kernels: None,
        conditions: Conditions::default(),
        timeouts: Timeouts {
            connect: Duration::from_secs(120),
            command: Duration::from_secs(600),
            idle: Duration::from_secs(120),
        },
    }
}

pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A private key: one of the server's [`HOST_KEYS`], `user` that is accepted, `unknown` that is not, `locked` that has
/// a passphrase, `other` for a host key the server does not have.
pub fn key(name: &str) -> PathBuf {
    static KEYS: OnceLock<PathBuf> = OnceLock::new();
    let folder = KEYS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ssh-keys");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let make = |name: &str, kind: &str, passphrase: &str| {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", kind, "-N", passphrase, "-C", name, "-f"]).arg(folder.join(name));
            if kind == "rsa" {
                command.args(["-b", "2048"]);
            }
            assert!(command.status().unwrap().success());
        };
        for kind in HOST_KEYS {
            make(kind, kind, "");
        }
        for name in ["user", "unknown", "other"] {
            make(name, "ed25519", "");
        }
        make("locked", "ed25519", "secret");
        folder
    });
    folder.join(name)
}

/// As `ssh-keygen -lf` prints it.
pub fn fingerprint(name: &str) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(key(name).with_extension("pub")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().nth(1).unwrap().to_owned()
}
