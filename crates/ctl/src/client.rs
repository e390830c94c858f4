//! The connection to a broker's control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use warren_control::{Envelope, Request, Response, SOCKET, VERSION, frame};

use crate::failure::CtlError;

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
}

impl Client {
    /// Sends a request to the broker with this data directory; its answers must come in time.
    pub(crate) fn ask(
        data_dir: &Path,
        timeout: Option<Duration>,
        request: Request,
    ) -> Result<Self, CtlError> {
        let unavailable = |source| CtlError::Unavailable { data_dir: data_dir.to_owned(), source };
        let mut socket = connect(data_dir).map_err(unavailable)?;
        socket.set_read_timeout(timeout).map_err(unavailable)?;
        frame::write(&mut socket, &Envelope { version: VERSION, request }).map_err(CtlError::Broken)?;
        Ok(Self { socket })
    }

    /// The next piece of the answer.
    pub(crate) fn next(&mut self) -> Result<Response, CtlError> {
        frame::read(&mut self.socket, frame::RESPONSE_LEN_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CtlError::Timeout,
            _ => CtlError::Broken(error),
        })
    }
}

/// A path may be longer than the name of a socket can be: then the directory is reached through its descriptor.
fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let path = data_dir.join(SOCKET);
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let directory = std::fs::File::open(data_dir)?;
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&directory);
            UnixStream::connect(format!("/proc/self/fd/{descriptor}/{SOCKET}"))
        }
        connected => connected,
    }
}
