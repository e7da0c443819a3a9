//! Logging in, by public key only: the configured keys, those of the agent, the default files. When the server accepts
//! none, the error lists each with the reason. A key with a passphrase is left to the agent: a prompt would hang.

use std::{
    fs,
    path::{Path, PathBuf},
};

use espalier_protocol::text::sanitise;
use ssh2::ErrorCode;

use super::{
    config::{Agent, Endpoint},
    host_key::KeyBlob,
    link::{HUNG_UP, Link},
};
use crate::{
    base64,
    transport::{error::TransportError, limits::Deadlines},
};

/// libssh2: the server said no (to the key; to the signature).
const REFUSED: [i32; 2] = [-18, -19];

enum Answer {
    Accepted,
    Refused(String),
    /// The server has ended the connection: most do after six keys.
    HungUp,
}

struct Login<'a> {
    link: &'a Link,
    endpoint: &'a Endpoint,
    deadlines: &'a Deadlines<'a>,
    /// Keys that were not accepted, each with the reason.
    tried: Vec<String>,
}

pub(super) fn log_in(link: &Link, endpoint: &Endpoint, deadlines: &Deadlines<'_>) -> Result<(), TransportError> {
    let mut login = Login { link, endpoint, deadlines, tried: Vec::new() };
    let methods = link.complete(deadlines, || link.session.auth_methods(&endpoint.user).map(str::to_owned))?;
    // Asking for the methods is an attempt to log in without any; some boards let everybody in.
    if link.session.authenticated() {
        return Ok(());
    }
    let methods = methods.map_err(|error| link.lost(&error))?;
    if !methods.split(',').any(|method| method == "publickey") {
        let methods = sanitise(&methods);
        login.tried.push(format!("nothing: the server takes `{methods}` only, espalier logs in by public key"));
        return Err(login.refusal());
    }
    let is_logged_in = login.try_files(&endpoint.identities)?
        || endpoint.agent != Agent::None && login.try_agent()?
        || !endpoint.identities_only && login.try_files(&endpoint.default_identities)?;
    if is_logged_in { Ok(()) } else { Err(login.refusal()) }
}

/// Each method returns whether it logged in, and is an error where nothing more can be tried.
impl Login<'_> {
    fn try_files(&mut self, paths: &[PathBuf]) -> Result<bool, TransportError> {
        for path in paths {
            let answer = self.try_file(path)?;
            if self.is_accepted(answer, format!("`{}`", path.display()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_file(&self, path: &Path) -> Result<Answer, TransportError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Ok(Answer::Refused(format!("cannot be read: {error}"))),
        };
        // Looked at before libssh2 does, which would have OpenSSL ask on the terminal.
        if has_passphrase(&text) {
            let add = format!("has a passphrase: add it to the agent with `ssh-add {}`", path.display());
            return Ok(Answer::Refused(add));
        }
        let (session, user) = (&self.link.session, &self.endpoint.user);
        Ok(answer(self.link.complete(self.deadlines, || session.userauth_pubkey_file(user, None, path, None))?))
    }

    fn try_agent(&mut self) -> Result<bool, TransportError> {
        let Ok(mut agent) = self.link.session.agent() else { return Ok(false) };
        if let Agent::At(path) = &self.endpoint.agent
            && let Err(error) = agent.set_identity_path(path)
        {
            self.tried.push(format!("the agent at `{}` ({error})", path.display()));
            return Ok(false);
        }
        if let Err(error) = agent.connect() {
            // Only an agent that was named is missed.
            if let Agent::At(path) = &self.endpoint.agent {
                self.tried.push(format!("the agent at `{}` ({})", path.display(), error.message()));
            }
            return Ok(false);
        }
        let keys = agent.list_identities().and_then(|()| agent.identities()).unwrap_or_default();
        let allowed = self.endpoint.identities_only.then(|| public_keys(&self.endpoint.identities));
        for key in keys {
            if allowed.as_ref().is_some_and(|allowed| !allowed.iter().any(|known| known == key.blob())) {
                continue;
            }
            let reply = self.link.complete(self.deadlines, || agent.userauth(&self.endpoint.user, &key))?;
            if self.is_accepted(answer(reply), format!("`{}` of the agent", sanitise(key.comment())))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_accepted(&mut self, answer: Answer, key: String) -> Result<bool, TransportError> {
        match answer {
            Answer::Accepted => Ok(true),
            Answer::Refused(reason) => {
                self.tried.push(format!("{key} ({reason})"));
                Ok(false)
            }
            Answer::HungUp => {
                self.tried.push(format!("{key} (the server hung up: too many keys? name one as `identity`)"));
                Err(self.refusal())
            }
        }
    }

    fn refusal(&mut self) -> TransportError {
        let (address, user) = (self.endpoint.address(), self.endpoint.user.clone());
        TransportError::Authentication { address, user, tried: std::mem::take(&mut self.tried) }
    }
}

fn answer(reply: Result<(), ssh2::Error>) -> Answer {
    let Err(error) = reply else { return Answer::Accepted };
    match error.code() {
        ErrorCode::Session(code) if REFUSED.contains(&code) => Answer::Refused("refused".into()),
        ErrorCode::Session(code) if HUNG_UP.contains(&code) => Answer::HungUp,
        _ => Answer::Refused(sanitise(error.message())),
    }
}

/// The public keys in the `.pub` files beside private keys.
fn public_keys(identities: &[PathBuf]) -> Vec<KeyBlob> {
    let beside = identities.iter().filter_map(|path| {
        let mut name = path.clone().into_os_string();
        name.push(".pub");
        fs::read_to_string(name).ok()
    });
    beside.filter_map(|text| text.split_whitespace().nth(1).and_then(base64::decode)).collect()
}

/// PEM has it in its headers; OpenSSH's own format names its cipher right after the magic.
fn has_passphrase(key: &str) -> bool {
    if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = key.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let bytes = base64::decode(&body).unwrap_or_default();
    bytes.strip_prefix(b"openssh-key-v1\0").is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}
