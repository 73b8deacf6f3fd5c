//! How many requests a provider is at, at once and in a second.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    begun: Mutex<Vec<Instant>>,
}

/// What was counted since the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests in all.
    pub requests: usize,
    /// Most at once.
    pub peak: i64,
    /// Most that began within one second.
    pub peak_per_second: usize,
}

impl Busy {
    fn begin(&self) {
        self.begun.lock().unwrap().push(Instant::now());
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
        self.busy.begun.lock().unwrap().clear();
    }

    /// What was counted since the beginning.
    pub fn load(&self) -> Load {
        let mut begun = self.busy.begun.lock().unwrap().clone();
        begun.sort();
        let within_a_second = |first: usize| {
            let end = begun[first] + Duration::from_secs(1);
            begun.partition_point(|at| *at < end) - first
        };
        let peak_per_second = (0..begun.len()).map(within_a_second).max();
        Load {
            requests: begun.len(),
            peak: self.busy.peak.load(Ordering::SeqCst),
            peak_per_second: peak_per_second.unwrap_or(0),
        }
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
