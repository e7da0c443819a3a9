//! What can go wrong on the way to a board, each with what to do about it. Text from the board is sanitised.

use std::{io, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("no connection to `{address}`: {reason}; is the board on, on the network and its ssh server running?")]
    Unreachable { address: String, reason: String },

    #[error(
        "`{address}` let nobody in as `{user}`: {}; put a public key of yours into `~/.ssh/authorized_keys` there, or \
         name its private key as `identity` in the device file",
        tried_list(tried)
    )]
    Authentication { address: String, user: String, tried: Vec<String> },

    #[error(
        "the host key of `{address}` is not known: it is {fingerprint}; if that is what the board itself shows \
         (`ssh-keygen -lf` on its `/etc/ssh/ssh_host_*_key.pub`), pin it with `host-key = \"{fingerprint}\"` in \
         `{device_file}`, or log in once with `ssh`"
    )]
    HostKeyUnknown { address: String, fingerprint: String, device_file: String },

    #[error(
        "the host key of `{address}` has CHANGED: expected {} ({source_of_expected}), got {}; someone may be in \
         between, or the board was set up anew: if so, replace the old one",
        expected.join(" or "),
        got.join(", ")
    )]
    HostKeyChanged { address: String, expected: Vec<String>, got: Vec<String>, source_of_expected: String },

    #[error("the host key of `{address}`, {fingerprint}, is marked as revoked in `{file}`")]
    HostKeyRevoked { address: String, fingerprint: String, file: String },

    #[error(
        "{what} said nothing for {} s; the board may be frozen, or `timeouts.idle` in its device file too short",
        after.as_secs_f64()
    )]
    Silent { what: String, after: Duration },

    #[error(
        "{what} was not done after {} s; raise `{limit}` in the device file if that is how long it takes",
        after.as_secs_f64()
    )]
    TimedOut { what: String, after: Duration, limit: &'static str },

    #[error("the connection to `{address}` was lost: {reason}; did the board go down?")]
    Lost { address: String, reason: String },

    #[error("cancelled")]
    Cancelled,

    #[error("{what} sent {problem}: not what a runner says, so it was ended")]
    BadOutput { what: String, problem: String },

    #[error("{0}")]
    Configuration(String),

    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },

    #[error(
        "this build has no ssh: build with the feature `ssh` (needs OpenSSL's headers, `libssl-dev` or \
         `openssl-devel`) or `ssh-vendored` (needs only time)"
    )]
    NoSsh,
}

fn tried_list(tried: &[String]) -> String {
    if tried.is_empty() {
        "there was no key to try, neither in an agent nor in `~/.ssh`".to_owned()
    } else {
        format!("tried {}", tried.join(", "))
    }
}
