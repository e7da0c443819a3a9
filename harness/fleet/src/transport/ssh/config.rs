//! Where a board is and how to log in: from the device file, else the user's ssh configuration, else the defaults.
//!
//! `ssh2-config` parses the file and matches hosts. It takes `Match` for an unknown keyword, so that the lines below
//! would belong to the `Host` above, and refuses a whole file for one value it does not know. So it is given only the
//! keywords that are used here, and of the `Match` sections only `all`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use espalier_inventory::SshAddress;
use ssh2_config::{HostParams, ParseRule, SshConfig};

use crate::transport::error::TransportError;

/// The address with everything resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Named by the device file or the configuration, in the order to try.
    pub identities: Vec<PathBuf>,
    /// No keys but `identities`, be they in the agent or not.
    pub identities_only: bool,
    pub agent: Agent,
    /// The usual key files, tried last.
    pub default_identities: Vec<PathBuf>,
    pub trust: Trust,
    /// For messages: where a fingerprint is pinned.
    pub device_file: String,
}

impl Endpoint {
    /// For messages.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The one `SSH_AUTH_SOCK` names.
    Usual,
    At(PathBuf),
    None,
}

/// How the board proves that it is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By this fingerprint.
    Pinned(String),
    /// By its key in one of these files, under this name.
    KnownHosts { files: Vec<PathBuf>, name: String },
}

/// Keywords of an ssh configuration that are used here.
const USED: &str = "host hostname port user identityfile identitiesonly identityagent \
                    userknownhostsfile globalknownhostsfile hostkeyalias proxyjump proxycommand include ignoreunknown";

pub fn resolve(device: &str, address: &SshAddress) -> Result<Endpoint, TransportError> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let file = match &address.config {
        Some(named) => Some(expand_home(named, home.as_deref())),
        None => home.as_ref().map(|home| home.join(".ssh/config")).filter(|usual| usual.exists()),
    };
    let params = read_config(file.as_deref())?.query(&address.host);
    if let Some(keyword) = proxy(&params) {
        return Err(TransportError::Configuration(format!(
            "`{keyword}` is set for `{}` in `{}`, and espalier connects directly only: name an address that can be \
             reached, such as a port forwarded by `ssh -L`",
            address.host,
            file.unwrap_or_default().display()
        )));
    }
    let host = match &params.host_name {
        Some(name) => name.replace("%h", &address.host).replace("%%", "%"),
        None => address.host.clone(),
    };
    let user = address.user.clone().or_else(|| params.user.clone()).or_else(own_name).ok_or_else(|| {
        TransportError::Configuration(format!(
            "no user to log in as on `{host}`: set `user` in `devices/{device}.toml`"
        ))
    })?;
    let port = address.port.or(params.port).unwrap_or(22);
    let settings = Settings { address, params: &params, home: home.as_deref(), host: &host, port, user: &user };
    let identities = settings.identities();
    let usual = settings.in_ssh_folder(&["id_ed25519", "id_ecdsa", "id_rsa"]);
    let default_identities = usual.into_iter().filter(|path| !identities.contains(path) && path.exists()).collect();
    let (agent, trust) = (settings.agent(), settings.trust());
    let identities_only = settings.first("identitiesonly").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    let device_file = format!("devices/{device}.toml");
    Ok(Endpoint { host, port, user, identities, identities_only, agent, default_identities, trust, device_file })
}

/// What is set for one host, and what paths of a configuration may refer to.
struct Settings<'a> {
    address: &'a SshAddress,
    params: &'a HostParams,
    home: Option<&'a Path>,
    host: &'a str,
    port: u16,
    user: &'a str,
}

impl Settings<'_> {
    /// The values of a keyword that `ssh2-config` does not know.
    fn all(&self, keyword: &str) -> &[String] {
        self.params.unsupported_fields.get(keyword).map(Vec::as_slice).unwrap_or_default()
    }

    fn first(&self, keyword: &str) -> Option<&str> {
        self.all(keyword).first().map(String::as_str)
    }

    /// A path with the tokens of `ssh_config(5)`.
    fn path(&self, path: &str) -> PathBuf {
        let home = self.home.map(|home| home.to_string_lossy().into_owned()).unwrap_or_default();
        let path = path.replace("%d", &home).replace("%h", self.host).replace("%n", &self.address.host);
        let path = path.replace("%r", self.user).replace("%p", &self.port.to_string());
        let path = path.replace("%u", &own_name().unwrap_or_default());
        expand_home(&path.replace("%%", "%"), self.home)
    }

    fn in_ssh_folder(&self, names: &[&str]) -> Vec<PathBuf> {
        names.iter().filter_map(|name| Some(self.home?.join(".ssh").join(name))).collect()
    }

    fn identities(&self) -> Vec<PathBuf> {
        let named = self.address.identity.iter().map(|path| expand_home(path, self.home));
        let configured = self.params.identity_file.iter().flatten().filter_map(|path| path.to_str());
        named.chain(configured.filter(|path| !is_none(path)).map(|path| self.path(path))).collect()
    }

    fn agent(&self) -> Agent {
        match self.first("identityagent") {
            None | Some("SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK") => Agent::Usual,
            Some(path) if is_none(path) => Agent::None,
            Some(path) => Agent::At(self.path(path)),
        }
    }

    fn trust(&self) -> Trust {
        if let Some(pin) = &self.address.host_key {
            return Trust::Pinned(pin.trim().trim_end_matches('=').to_owned());
        }
        let configured = |keyword: &str, usual: Vec<PathBuf>| match self.all(keyword) {
            [] => usual,
            [file] if is_none(file) => Vec::new(),
            files => files.iter().map(|file| self.path(file.trim_matches('"'))).collect(),
        };
        let files = match &self.address.known_hosts {
            Some(file) => vec![expand_home(file, self.home)],
            None => {
                let usual = self.in_ssh_folder(&["known_hosts", "known_hosts2"]);
                let mut files = configured("userknownhostsfile", usual);
                files.extend(configured("globalknownhostsfile", vec!["/etc/ssh/ssh_known_hosts".into()]));
                files
            }
        };
        let name = match (self.first("hostkeyalias"), self.port) {
            (Some(alias), _) => alias.to_owned(),
            (None, 22) => self.host.to_lowercase(),
            (None, port) => format!("[{}]:{port}", self.host.to_lowercase()),
        };
        Trust::KnownHosts { files, name }
    }
}

/// The keyword that sends the connection through another host.
fn proxy(params: &HostParams) -> Option<&'static str> {
    let jump = params.proxy_jump.iter().flatten().next();
    let command = params.unsupported_fields.get("proxycommand").and_then(|values| values.first());
    let is_set = |value: Option<&String>| value.is_some_and(|value| !is_none(value));
    if is_set(jump) { Some("ProxyJump") } else { is_set(command).then_some("ProxyCommand") }
}

fn is_none(value: &str) -> bool {
    value.eq_ignore_ascii_case("none")
}

fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn read_config(file: Option<&Path>) -> Result<SshConfig, TransportError> {
    let Some(file) = file else { return Ok(SshConfig::default()) };
    let wrong = |error: &dyn std::fmt::Display| {
        TransportError::Configuration(format!("cannot read the ssh configuration `{}`: {error}", file.display()))
    };
    let text = fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    SshConfig::default().parse(&mut used_lines(&text).as_bytes(), rules).map_err(|error| wrong(&error))
}

/// The lines with keywords that are used, without `Match` sections.
fn used_lines(text: &str) -> String {
    let mut used = String::new();
    let mut skipping = false;
    for line in text.lines() {
        let line = line.trim();
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let keyword = line[..end].to_ascii_lowercase();
        if keyword == "match" {
            skipping = !line[end..].trim().eq_ignore_ascii_case("all");
            if !skipping {
                used.push_str("Host *\n");
            }
            continue;
        }
        skipping &= keyword != "host";
        if !skipping && USED.split(' ').any(|used| used == keyword) {
            used.push_str(line);
            used.push('\n');
        }
    }
    used
}

/// The name of the user who runs this.
fn own_name() -> Option<String> {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| env::var(name).ok()).filter(|name| !name.is_empty());
    named.or_else(|| {
        let output = Command::new("id").arg("-un").output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The host `board` resolved with this configuration.
    fn endpoint(config: &str) -> Result<Endpoint, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let address = SshAddress {
            host: "board".into(),
            config: Some(file.path().to_str().unwrap().into()),
            user: Some("pi".into()),
            ..SshAddress::default()
        };
        resolve("pi4", &address).map_err(|error| error.to_string())
    }

    #[test]
    fn an_alias_is_followed() {
        let config = "Host other\n  Port 1\nHost b*\n  HostName 10.0.0.7\n  Port 2222\n  User ignored\n  \
                      IdentityFile /k/%n.key\n  IdentitiesOnly yes\n  UserKnownHostsFile /k/a /k/b\n  \
                      GlobalKnownHostsFile none\n  AddKeysToAgent confirm\n  IdentityAgent none\n";
        let board = endpoint(config).unwrap();
        assert_eq!((board.address().as_str(), board.user.as_str()), ("10.0.0.7:2222", "pi"));
        assert_eq!(board.identities, [PathBuf::from("/k/board.key")]);
        assert!(board.identities_only);
        assert_eq!(board.agent, Agent::None);
        let files = vec!["/k/a".into(), "/k/b".into()];
        assert_eq!(board.trust, Trust::KnownHosts { files, name: "[10.0.0.7]:2222".into() });
    }

    #[test]
    fn a_match_section_does_not_leak_into_the_host_above() {
        let config = "Host board\n  Port 5\nMatch user root\n  HostName wrong\nMatch all\n  HostName right\n";
        assert_eq!(endpoint(config).unwrap().address(), "right:5");
    }

    #[test]
    fn a_proxy_is_refused_by_name() {
        for word in ["ProxyJump gate", "ProxyCommand nc %h %p"] {
            let error = endpoint(&format!("Host board\n  {word}\n")).unwrap_err();
            assert!(error.contains(word.split(' ').next().unwrap()) && error.contains("`board`"), "{error}");
        }
        assert!(endpoint("Host board\n  ProxyJump none\n").is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let address = SshAddress { host: "h".into(), config: Some("/no/such/file".into()), ..SshAddress::default() };
        let error = resolve("pi4", &address).unwrap_err().to_string();
        assert!(error.contains("`/no/such/file`"), "{error}");
    }
}
