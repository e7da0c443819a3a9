//! Logging in, by public key only: the keys named, those of the agent, the usual files. When none is let in, the error says which were tried and
//! what became of each. A key with a passphrase is left to the agent: asking for it here would hang a nightly job.

use std::{
    fs,
    path::{Path, PathBuf},
};

use espalier_bench::sanitise::sanitise;
use ssh2::ErrorCode;

use super::{
    error::TransportError,
    hostkey::{KeyBlob, decode_base64},
    link::Link,
    output::Watch,
    ssh_config::{Agent, Endpoint},
};

/// libssh2: the server said no (to the key; to the signature).
const REFUSED: [i32; 2] = [-18, -19];
/// libssh2: the server hung up, or cannot be heard any more.
const GONE: [i32; 3] = [-13, -43, -7];

enum Answer {
    Welcome,
    No(String),
    /// The server has ended the connection: most do after six keys.
    HungUp,
}

pub(super) fn log_in(link: &Link, endpoint: &Endpoint, watch: &Watch<'_>) -> Result<(), TransportError> {
    let mut tried = Vec::new();
    let refusal =
        |tried| TransportError::Authentication { address: endpoint.address(), user: endpoint.user.clone(), tried };
    let methods = link.complete(watch, || link.session.auth_methods(&endpoint.user).map(str::to_owned))?;
    // Asking for the methods is an attempt to log in without any; some boards let everybody in.
    if link.session.authenticated() {
        return Ok(());
    }
    let methods = methods.map_err(|error| link.lost(&error))?;
    if !methods.split(',').any(|method| method == "publickey") {
        tried.push(format!("nothing: the server takes `{}` only, espalier logs in by public key", sanitise(&methods)));
        return Err(refusal(tried));
    }

    for path in &endpoint.identities {
        let answer = try_file(link, endpoint, path, watch)?;
        if note(answer, format!("`{}`", path.display()), &mut tried) {
            return finish(tried, refusal);
        }
    }
    if endpoint.agent != Agent::None && try_agent(link, endpoint, watch, &mut tried)? {
        return finish(tried, refusal);
    }
    if !endpoint.identities_only {
        for path in &endpoint.default_identities {
            let answer = try_file(link, endpoint, path, watch)?;
            if note(answer, format!("`{}`", path.display()), &mut tried) {
                return finish(tried, refusal);
            }
        }
    }
    Err(refusal(tried))
}

/// Whether there is nothing more to try; a hang-up leaves an explanation as the last of `tried`.
fn note(answer: Answer, key: String, tried: &mut Vec<String>) -> bool {
    match answer {
        Answer::Welcome => tried.clear(),
        Answer::No(reason) => {
            tried.push(format!("{key} ({reason})"));
            return false;
        }
        Answer::HungUp => tried.push(format!("{key} (the server hung up: too many keys? name one as `identity`)")),
    }
    true
}

fn finish(tried: Vec<String>, refusal: impl Fn(Vec<String>) -> TransportError) -> Result<(), TransportError> {
    if tried.is_empty() { Ok(()) } else { Err(refusal(tried)) }
}

fn try_file(link: &Link, endpoint: &Endpoint, path: &Path, watch: &Watch<'_>) -> Result<Answer, TransportError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Ok(Answer::No(format!("cannot be read: {error}"))),
    };
    // Looked at before libssh2 does, which would have OpenSSL ask on the terminal.
    if has_passphrase(&text) {
        let add = format!("has a passphrase: add it to the agent with `ssh-add {}`", path.display());
        return Ok(Answer::No(add));
    }
    let answer = link.complete(watch, || link.session.userauth_pubkey_file(&endpoint.user, None, path, None))?;
    Ok(understand(answer))
}

/// Whether that was the end of it.
fn try_agent(
    link: &Link,
    endpoint: &Endpoint,
    watch: &Watch<'_>,
    tried: &mut Vec<String>,
) -> Result<bool, TransportError> {
    let Ok(mut agent) = link.session.agent() else { return Ok(false) };
    if let Agent::At(path) = &endpoint.agent
        && let Err(error) = agent.set_identity_path(path)
    {
        tried.push(format!("the agent at `{}` ({error})", path.display()));
        return Ok(false);
    }
    if let Err(error) = agent.connect() {
        // Without an agent being named its absence is nothing to tell.
        if let Agent::At(path) = &endpoint.agent {
            tried.push(format!("the agent at `{}` ({})", path.display(), error.message()));
        }
        return Ok(false);
    }
    let keys = agent.list_identities().and_then(|()| agent.identities()).unwrap_or_default();
    let allowed = endpoint.identities_only.then(|| public_keys(&endpoint.identities));
    for key in keys {
        if allowed.as_ref().is_some_and(|allowed| !allowed.iter().any(|known| known == key.blob())) {
            continue;
        }
        let answer = link.complete(watch, || agent.userauth(&endpoint.user, &key))?;
        let name = format!("`{}` of the agent", sanitise(key.comment()));
        if note(understand(answer), name, tried) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn understand(answer: Result<(), ssh2::Error>) -> Answer {
    let Err(error) = answer else { return Answer::Welcome };
    match error.code() {
        ErrorCode::Session(code) if REFUSED.contains(&code) => Answer::No("refused".into()),
        ErrorCode::Session(code) if GONE.contains(&code) => Answer::HungUp,
        _ => Answer::No(sanitise(error.message())),
    }
}

/// What stands beside private keys in their `.pub` files.
fn public_keys(identities: &[PathBuf]) -> Vec<KeyBlob> {
    let beside = identities.iter().filter_map(|path| {
        let mut name = path.clone().into_os_string();
        name.push(".pub");
        fs::read_to_string(name).ok()
    });
    beside.filter_map(|text| text.split_whitespace().nth(1).and_then(decode_base64)).collect()
}

/// PEM says so in its headers; OpenSSH's own format names its cipher right after the magic.
fn has_passphrase(key: &str) -> bool {
    if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = key.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let bytes = decode_base64(&body).unwrap_or_default();
    bytes.strip_prefix(b"openssh-key-v1\0").is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}
