//! Building runners by a real cargo, and reaching boards: this host, a real OpenSSH server (`sshd`), emulated boards
//! (`named`). Tests that need a server or boards are ignored unless asked for.

mod build;
mod deploy;
#[cfg(feature = "ssh")]
mod hostile;
#[cfg(feature = "ssh")]
mod named;
#[cfg(feature = "ssh")]
mod sshd;
mod transport;
