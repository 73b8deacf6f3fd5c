//! Accepts connections: not more than the limit, and none that does not finish its handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait after `accept` failed for want of resources, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener accepts.
#[derive(Clone)]
pub struct ListenerSettings {
    /// Where.
    pub address: SocketAddr,
    /// `None`: plaintext.
    pub tls: Option<TlsAcceptor>,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: ListenerSettings,
}

/// A connection that is ready to be served.
pub struct Connection {
    /// The bytes, decrypted.
    pub stream: Either<TcpStream, TlsStream<TcpStream>>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its place among the connections open at once.
    pub permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// That of the operating system: the address is in use, or not one of this machine.
    pub async fn bind(settings: ListenerSettings) -> io::Result<Self> {
        let socket = TcpListener::bind(settings.address).await?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            settings,
        })
    }

    /// The address with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`, and has every connection served by a task of `tracker`.
    pub async fn run<F, Served>(self, stop: CancellationToken, tracker: TaskTracker, serve: F)
    where
        F: Fn(Connection) -> Served + Clone + Send + 'static,
        Served: Future<Output = ()> + Send,
    {
        let places = Arc::new(Semaphore::new(self.settings.max_connections));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&places) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let (tls, serve, stop) = (self.settings.tls.clone(), serve.clone(), stop.clone());
            let limit = self.settings.handshake_timeout;
            tracker.spawn(async move {
                let secured = tokio::select! {
                    () = stop.cancelled() => return,
                    secured = tokio::time::timeout(limit, secure(stream, tls)) => secured,
                };
                // A failed or slow handshake is the peer's business, and too cheap to make for a
                // log line each.
                if let Ok(Ok(stream)) = secured {
                    serve(Connection {
                        stream,
                        peer,
                        permit,
                    })
                    .await;
                }
            });
        }
    }

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        // Never closed. The backlog of the operating system holds those that wait.
        let permit = Arc::clone(places).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                // Answers are small: waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                Some((stream, peer, permit))
            }
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                tracing::warn!(error.message = %error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// The peer went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

async fn secure(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
    match tls {
        Some(acceptor) => acceptor.accept(stream).await.map(Either::Right),
        None => Ok(Either::Left(stream)),
    }
}
