use std::{io, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

/// Stands between client and broker, as the client does not let one get at its socket. It handles one
/// connection at a time, and each only once it is allowed.
pub struct Proxy {
    pub port: u16,
    allowed: Arc<Semaphore>,
    cut: Arc<Notify>,
    task: JoinHandle<io::Result<()>>,
}

impl Proxy {
    pub async fn start(broker: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (allowed, cut) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let task = tokio::spawn(serve(listener, broker, allowed.clone(), cut.clone()));
        Ok(Self { port, allowed, cut, task })
    }

    pub fn allow_connection(&self) {
        self.allowed.add_permits(1);
    }

    /// Resets the connection on both sides.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    broker: String,
    allowed: Arc<Semaphore>,
    cut: Arc<Notify>,
) -> io::Result<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        allowed.acquire().await.expect("never closed").forget();
        let mut server = TcpStream::connect(&broker).await?;
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            _ = cut.notified() => {
                client.set_zero_linger()?;
                server.set_zero_linger()?;
            }
        }
    }
}
