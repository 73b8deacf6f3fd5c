//! How many requests a provider is at, at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that counts: a connection is busy from the request's first byte to the answer's (HTTP/1.1, one request
/// at a time).
pub struct Meter {
    address: SocketAddr,
    busy: Arc<Busy>,
}

#[derive(Default)]
struct Busy {
    now: AtomicI64,
    peak: AtomicI64,
    requests: AtomicI64,
}

impl Busy {
    fn begin(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
    }

    fn end(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Meter {
    pub async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let busy = Arc::<Busy>::default();
        let counted = Arc::clone(&busy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream, Arc::clone(&counted)));
            }
        });
        Self { address, busy }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.busy.peak.store(0, Ordering::SeqCst);
        self.busy.requests.store(0, Ordering::SeqCst);
    }

    /// Most requests at once, and requests in all, since the beginning.
    pub fn peak_and_total(&self) -> (i64, i64) {
        let load = |counter: &AtomicI64| counter.load(Ordering::SeqCst);
        (load(&self.busy.peak), load(&self.busy.requests))
    }
}

async fn pass(client: TcpStream, upstream: SocketAddr, busy: Arc<Busy>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut asked = false;
    let (mut request, mut answer) = (vec![0; 16_384], vec![0; 16_384]);
    loop {
        tokio::select! {
            read = from_client.read(&mut request) => {
                if !forward(&request, read, &mut to_server).await {
                    break;
                }
                if !asked {
                    busy.begin();
                }
                asked = true;
            }
            read = from_server.read(&mut answer) => {
                if asked {
                    busy.end();
                }
                asked = false;
                if !forward(&answer, read, &mut to_client).await {
                    break;
                }
            }
        }
    }
    if asked {
        busy.end();
    }
}

async fn forward(
    bytes: &[u8],
    read: std::io::Result<usize>,
    to: &mut (impl AsyncWrite + Unpin),
) -> bool {
    match read {
        Ok(0) | Err(_) => false,
        Ok(count) => to.write_all(&bytes[..count]).await.is_ok(),
    }
}
