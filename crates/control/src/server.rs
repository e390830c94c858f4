//! The socket and the tasks behind it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use warren_broker::Broker;

use crate::protocol::{Envelope, Response};
use crate::{answer, frame};

/// The socket's name in the data directory.
pub const SOCKET: &str = "warren.sock";

/// Clients that are served at a time; more wait.
const CLIENTS_MAX: usize = 16;

/// Time for a client to send its request, and to take each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the control socket {}", path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

/// What the broker itself does not know of its node.
#[derive(Debug)]
pub struct Node {
    /// Its name, as `rabbit@host`.
    pub name: String,
    /// The name of its cluster.
    pub cluster: String,
    /// Warren's version.
    pub version: String,
    /// When it was started.
    pub started: Instant,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration file.
    pub config_file: Option<PathBuf>,
    /// Where AMQP is served.
    pub listeners: Vec<SocketAddr>,
    /// Memory of the machine or container, in bytes, if it is known.
    pub memory: Option<u64>,
    /// Set to true to end the node.
    pub stop: watch::Sender<bool>,
}

/// Opens the socket in a data directory that is locked: one that is there already was left by a broker that is gone.
///
/// # Errors
/// If the file system does not allow it.
pub fn bind(data_dir: &Path) -> Result<UnixListener, ControlError> {
    let path = data_dir.join(SOCKET);
    open(&path).map_err(|source| ControlError { path, source })
}

fn open(path: &Path) -> io::Result<UnixListener> {
    // It gets its name only when nobody else may open it any more.
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Answers clients for ever.
pub async fn serve(listener: UnixListener, node: Arc<Node>, broker: Arc<Broker>) {
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (node, broker) = (Arc::clone(&node), Arc::clone(&broker));
                tokio::spawn(async move {
                    if let Err(error) = serve_client(socket, &node, &broker).await {
                        tracing::debug!("a control connection has failed: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!("cannot accept a control connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve_client(mut socket: UnixStream, node: &Node, broker: &Broker) -> io::Result<()> {
    check_peer(&socket)?;
    let envelope = in_time(read(&mut socket)).await?;
    answer::answer(envelope, node, broker, &mut Answers { socket }).await
}

/// The file's mode keeps others out; where file systems do not care for it, this does.
fn check_peer(socket: &UnixStream) -> io::Result<()> {
    let peer = socket.peer_cred()?.uid();
    if peer == 0 || peer == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} may not control this node")))
}

async fn read(socket: &mut UnixStream) -> io::Result<Envelope> {
    let mut head = [0; frame::HEAD_LEN];
    socket.read_exact(&mut head).await?;
    let len = frame::announced(head, frame::REQUEST_LEN_MAX)?;
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Answers {
    socket: UnixStream,
}

impl Answers {
    /// Sends a piece of the answer, and waits until the client has room for it.
    pub(crate) async fn send(&mut self, response: &Response) -> io::Result<()> {
        let bytes = frame::encode(response)?;
        in_time(self.socket.write_all(&bytes)).await
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
