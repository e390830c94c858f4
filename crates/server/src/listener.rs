use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use warren_amqp091::{Limits, ServerIdentity};
use warren_broker::Broker;
use warren_types::session::Peer;

use crate::connection;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ServerError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves AMQP clients on TCP.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    broker: Arc<Broker>,
    connections_max: usize,
    limits: Limits,
    identity: Arc<ServerIdentity>,
}

/// Pause after a failed accept: the reason (often too many open files) will not be gone at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

impl Server {
    /// Opens the listeners. At most `connections_max` clients are served at a time; more wait to be accepted.
    ///
    /// # Errors
    /// If one of the addresses cannot be listened on.
    pub fn bind(
        addresses: &[SocketAddr],
        backlog: u32,
        broker: Arc<Broker>,
        connections_max: usize,
        limits: Limits,
        identity: ServerIdentity,
    ) -> Result<Self, ServerError> {
        let listeners = addresses
            .iter()
            .map(|address| {
                listen(*address, backlog).map_err(|source| ServerError { address: *address, source })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { listeners, broker, connections_max, limits, identity: Arc::new(identity) })
    }

    /// The addresses that are listened on, with the ports that the system chose.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Accepts and serves connections until `shutdown` becomes true; then closes them with 320 and waits at
    /// most `patience` for the clients to agree.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>, patience: Duration) {
        let mut tasks = JoinSet::new();
        let (accepted_to, mut accepted) = tokio::sync::mpsc::channel(1);
        let mut acceptors = JoinSet::new();
        for listener in self.listeners {
            acceptors.spawn(accept(listener, accepted_to.clone()));
        }
        let mut full = false;
        loop {
            let was_full = std::mem::replace(&mut full, tasks.len() >= self.connections_max);
            if full && !was_full {
                tracing::warn!(
                    connections = tasks.len(),
                    "no more connections fit the limit of open files: clients wait until others leave; raise the limit"
                );
            }
            tokio::select! {
                Some((socket, peer)) = accepted.recv(), if !full => {
                    let machine = warren_amqp091::Connection::new(
                        self.limits.clone(), Arc::clone(&self.identity), Instant::now());
                    // A client that is gone already is found to be when its connection is read.
                    let server = socket.local_addr().unwrap_or(peer);
                    let session = self.broker.session(Peer { client: peer, server });
                    tasks.spawn(connection::serve(socket, peer, machine, session));
                }
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => report_panic(ended),
                _ = shutdown.wait_for(|stop| *stop) => break,
            }
        }
        acceptors.shutdown().await;
        self.broker.close_connections("shutdown");
        let all_closed = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all_closed).await.is_err() {
            tracing::warn!(connections = tasks.len(), "clients did not agree to close in time; dropped");
        }
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted broker must not wait for the old one's sockets to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

async fn accept(listener: TcpListener, accepted: tokio::sync::mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// A bug in one connection's task has closed that connection; the others go on.
fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection was closed by a bug in its task: {error}");
    }
}
