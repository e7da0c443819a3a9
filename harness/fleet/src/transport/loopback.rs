//! A board for tests: this host's `sh`, over connections that can be cut. What runs outlives its connection, as on a
//! board.

use std::{
    mem::ManuallyDrop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{error::TransportError, limits::Deadlines, local::Process, output::Exit};
use crate::child::Stream;

/// The board, also in the hands of the test.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<State>);

#[derive(Default)]
struct State {
    /// Nobody gets in.
    is_off: AtomicBool,
    /// Connections made so far; only the newest works.
    connections: AtomicUsize,
}

pub(super) struct Connection {
    board: Board,
    number: usize,
}

pub(super) struct Channel {
    board: Board,
    number: usize,
    /// Not ended with its connection.
    process: ManuallyDrop<Process>,
}

/// Printed by the login shell.
pub(super) const NOISE: &str = "Welcome to the board!";

impl Board {
    pub fn set_off(&self, is_off: bool) {
        self.0.is_off.store(is_off, Ordering::SeqCst);
    }

    /// Loses the connection that is there.
    pub fn cut(&self) {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }

    pub fn connect(&self) -> Result<Connection, TransportError> {
        if self.0.is_off.load(Ordering::SeqCst) {
            return Err(TransportError::Unreachable { address: "loopback".into(), reason: "it is off".into() });
        }
        let number = self.0.connections.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Connection { board: self.clone(), number })
    }
}

impl Connection {
    pub fn exec(&self, line: &str, _: &Deadlines<'_>) -> Result<Channel, TransportError> {
        check(&self.board, self.number)?;
        let argv = ["sh".to_owned(), "-c".to_owned(), format!("echo '{NOISE}'\n{line}")];
        let process = ManuallyDrop::new(Process::start(&argv, true)?);
        Ok(Channel { board: self.board.clone(), number: self.number, process })
    }

    pub fn abandon(self) {}
}

impl Channel {
    pub fn has_ended(&mut self) -> Result<bool, TransportError> {
        check(&self.board, self.number)?;
        self.process.has_ended()
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        check(&self.board, self.number)?;
        self.process.send(bytes)
    }

    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        check(&self.board, self.number)?;
        self.process.close_input()
    }

    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        check(&self.board, self.number)?;
        self.process.read(stream, buffer)
    }

    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        self.process.wait(patience)
    }

    pub fn finish(&mut self, deadlines: &Deadlines<'_>) -> Result<Exit, TransportError> {
        check(&self.board, self.number)?;
        self.process.finish(deadlines)
    }
}

fn check(board: &Board, number: usize) -> Result<(), TransportError> {
    if board.connections() == number {
        return Ok(());
    }
    Err(TransportError::Lost { address: "loopback".into(), reason: "it was cut".into() })
}
