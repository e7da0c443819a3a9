//! Where a board is and how to log in: the device file first, then the person's ssh configuration, then the usual places.
//!
//! `ssh2-config` matches hosts and takes lines apart. It keeps `Match` for an unknown word, so that what stands below it would fall to the `Host`
//! above, and refuses a whole file for one value it does not know; so only the words used here are given to it, and no `Match` section but `all`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use espalier_inventory::SshAddress;
use ssh2_config::{HostParams, ParseRule, SshConfig};

use super::error::TransportError;

/// Everything resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
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
pub(super) enum Agent {
    /// The one `SSH_AUTH_SOCK` names.
    Usual,
    At(PathBuf),
    None,
}

/// How the board proves that it is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// By this fingerprint.
    Pinned(String),
    /// By its key in one of these files, under this name.
    KnownHosts { files: Vec<PathBuf>, name: String },
}

/// Words of an ssh configuration that mean something here.
const USED: [&str; 14] = [
    "host",
    "hostname",
    "port",
    "user",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "userknownhostsfile",
    "globalknownhostsfile",
    "hostkeyalias",
    "proxyjump",
    "proxycommand",
    "include",
    "ignoreunknown",
];

pub(super) fn resolve(device: &str, address: &SshAddress) -> Result<Endpoint, TransportError> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let expand = |path: &str| match (path.strip_prefix("~/"), &home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    let file = match &address.config {
        Some(named) => Some(expand(named)),
        None => home.as_ref().map(|home| home.join(".ssh/config")).filter(|usual| usual.exists()),
    };
    let asked = read_config(file.as_deref())?.query(&address.host);
    let extra = |word: &str| asked.unsupported_fields.get(word).map(Vec::as_slice).unwrap_or_default();

    let no = |value: &str| value.eq_ignore_ascii_case("none");
    let jump = asked.proxy_jump.as_ref().and_then(|hops| hops.first()).filter(|hop| !no(hop)).map(|_| "ProxyJump");
    let command = extra("proxycommand").first().filter(|command| !no(command)).map(|_| "ProxyCommand");
    if let Some(word) = jump.or(command) {
        return Err(TransportError::Configuration(format!(
            "`{word}` is set for `{}` in `{}`, and espalier connects directly only: name an address that can be reached, such as a port forwarded by `ssh -L`",
            address.host,
            file.unwrap_or_default().display()
        )));
    }

    let host = match &asked.host_name {
        Some(name) => name.replace("%h", &address.host).replace("%%", "%"),
        None => address.host.clone(),
    };
    let port = address.port.or(asked.port).unwrap_or(22);
    let user = match address.user.clone().or_else(|| asked.user.clone()) {
        Some(user) => user,
        None => own_name().ok_or_else(|| {
            TransportError::Configuration(format!(
                "no user to log in as on `{host}`: set `user` in `devices/{device}.toml`"
            ))
        })?,
    };
    let tokens = |path: &str| {
        let home = home.as_deref().map(|home| home.to_string_lossy().into_owned()).unwrap_or_default();
        let path = path.replace("%d", &home).replace("%h", &host).replace("%n", &address.host).replace("%r", &user);
        let path = path.replace("%p", &port.to_string()).replace("%u", &own_name().unwrap_or_default());
        expand(&path.replace("%%", "%"))
    };
    let mut identities: Vec<PathBuf> = address.identity.iter().map(|path| expand(path)).collect();
    identities.extend(configured_identities(&asked).map(tokens));
    let ssh_file = |name: &str| home.as_ref().map(|home| home.join(".ssh").join(name));
    let default_identities = ["id_ed25519", "id_ecdsa", "id_rsa"].into_iter().filter_map(ssh_file);
    let default_identities = default_identities.filter(|path| !identities.contains(path) && path.exists()).collect();

    let trust = match &address.host_key {
        Some(pin) => Trust::Pinned(pin.trim().trim_end_matches('=').to_owned()),
        None => {
            let named = |words: &[String], usual: Vec<PathBuf>| match words {
                [] => usual,
                [word] if no(word) => Vec::new(),
                words => words.iter().map(|word| tokens(word.trim_matches('"'))).collect(),
            };
            let files = match &address.known_hosts {
                Some(file) => vec![expand(file)],
                None => {
                    let usual = ["known_hosts", "known_hosts2"].into_iter().filter_map(ssh_file).collect();
                    let mut files = named(extra("userknownhostsfile"), usual);
                    files.extend(named(extra("globalknownhostsfile"), vec!["/etc/ssh/ssh_known_hosts".into()]));
                    files
                }
            };
            let name = match extra("hostkeyalias").first() {
                Some(alias) => alias.clone(),
                None if port == 22 => host.to_lowercase(),
                None => format!("[{}]:{port}", host.to_lowercase()),
            };
            Trust::KnownHosts { files, name }
        }
    };
    let agent = match extra("identityagent").first().map(String::as_str) {
        None | Some("SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK") => Agent::Usual,
        Some(path) if no(path) => Agent::None,
        Some(path) => Agent::At(tokens(path)),
    };
    let identities_only = extra("identitiesonly").first().is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    let device_file = format!("devices/{device}.toml");
    Ok(Endpoint { host, port, user, identities, identities_only, agent, default_identities, trust, device_file })
}

fn configured_identities(asked: &HostParams) -> impl Iterator<Item = &str> {
    let files = asked.identity_file.iter().flatten();
    files.filter_map(|path| path.to_str()).filter(|path| !path.eq_ignore_ascii_case("none"))
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

/// The lines that matter here, without `Match` sections.
fn used_lines(text: &str) -> String {
    let mut used = String::new();
    let mut skipping = false;
    for line in text.lines() {
        let line = line.trim();
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let word = line[..end].to_ascii_lowercase();
        if word == "match" {
            skipping = !line[end..].trim().eq_ignore_ascii_case("all");
            if !skipping {
                used.push_str("Host *\n");
            }
            continue;
        }
        skipping &= word != "host";
        if !skipping && USED.contains(&word.as_str()) {
            used.push_str(line);
            used.push('\n');
        }
    }
    used
}

/// Who runs this, as the system knows them.
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

    /// What becomes of the host `board` with this configuration.
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
        let found = endpoint(
            "Host other\n  Port 1\nHost b*\n  HostName 10.0.0.7\n  Port 2222\n  User ignored\n  IdentityFile /k/%n.key\n  IdentitiesOnly yes\n  UserKnownHostsFile /k/a /k/b\n  GlobalKnownHostsFile none\n  AddKeysToAgent confirm\n  IdentityAgent none\n",
        )
        .unwrap();
        assert_eq!((found.address().as_str(), found.user.as_str()), ("10.0.0.7:2222", "pi"));
        assert_eq!(found.identities, [PathBuf::from("/k/board.key")]);
        assert!(found.identities_only);
        assert_eq!(found.agent, Agent::None);
        let files = vec!["/k/a".into(), "/k/b".into()];
        assert_eq!(found.trust, Trust::KnownHosts { files, name: "[10.0.0.7]:2222".into() });
    }

    #[test]
    fn a_match_section_does_not_leak_into_the_host_above() {
        let found =
            endpoint("Host board\n  Port 5\nMatch user root\n  HostName wrong\nMatch all\n  HostName right\n").unwrap();
        assert_eq!(found.address(), "right:5");
    }

    #[test]
    fn a_proxy_is_refused_in_words() {
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
