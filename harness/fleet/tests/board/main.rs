//! Reaching a board, against a real OpenSSH server on loopback. Where none is installed, each test that needs it says so and does nothing.
#![cfg(feature = "ssh")]

mod named;
mod push;
mod server;
mod transport;
