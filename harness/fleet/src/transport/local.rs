//! Commands on this host.

use std::{io, os::unix::process::ExitStatusExt, process::Command, time::Duration};

use super::{error::TransportError, limits::Deadlines, output::Exit};
use crate::child::{Child, Stream};

/// A command that runs. Dropping it ends it, unless it has finished.
pub(super) struct Process(Child);

/// Between the polite signal and the other one.
const GRACE: Duration = Duration::from_millis(500);

impl Process {
    pub fn start(argv: &[String], has_input: bool) -> Result<Process, TransportError> {
        let (program, args) = argv.split_first().expect("a command has a program");
        let child = Child::start(Command::new(program).args(args), has_input, GRACE);
        child.map(Process).map_err(|source| TransportError::Io { what: format!("cannot start `{program}`"), source })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        Ok(self.0.write(bytes))
    }

    pub fn close_input(&mut self) -> Result<bool, TransportError> {
        self.0.close_input();
        Ok(true)
    }

    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Option<usize>, TransportError> {
        self.0.read(stream, buffer).map_err(broken)
    }

    pub fn has_ended(&mut self) -> Result<bool, TransportError> {
        Ok(self.0.has_ended())
    }

    pub fn wait(&mut self, patience: Duration) -> Result<(), TransportError> {
        self.0.wait(patience);
        Ok(())
    }

    pub fn finish(&mut self, _: &Deadlines<'_>) -> Result<Exit, TransportError> {
        let status = self.0.finish().map_err(broken)?;
        Ok(Exit {
            code: status.code(),
            signal: status.signal().map(|signal| signal_name(signal).into()),
            ..Exit::default()
        })
    }
}

fn broken(source: io::Error) -> TransportError {
    TransportError::Io { what: "cannot talk to the command".into(), source }
}

/// As SSH names them; those that end programs.
fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGABRT => "ABRT",
        libc::SIGBUS => "BUS",
        libc::SIGFPE => "FPE",
        libc::SIGHUP => "HUP",
        libc::SIGILL => "ILL",
        libc::SIGINT => "INT",
        libc::SIGKILL => "KILL",
        libc::SIGPIPE => "PIPE",
        libc::SIGSEGV => "SEGV",
        libc::SIGTERM => "TERM",
        _ => return number.to_string(),
    };
    name.to_owned()
}
