//! Connections, and the ways in which they are broken on purpose.

use super::reply::Cut;
use crate::limits::{IDLE_TIMEOUT, MAX_CONNECTIONS};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::debug;

/// Orders waiting for the accept loop.
const ORDERS: usize = 16;

/// Opens and closes the door: the listener.
pub(crate) struct Doorman {
    orders: mpsc::Sender<Order>,
}

pub(super) enum Order {
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<io::Result<()>>),
}

impl Doorman {
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Self { orders }, receiver)
    }

    pub(super) async fn pause(&self) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order::Pause(done)).await.is_ok() {
            // Gone without an answer means stopped, which is as closed as can be.
            let _ = wait.await;
        }
    }

    pub(super) async fn resume(&self) -> io::Result<()> {
        let stopped = || io::Error::other("the sandbox has stopped");
        let (done, wait) = oneshot::channel();
        self.orders
            .send(Order::Resume(done))
            .await
            .map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

/// A socket that takes a port without listening on it: whoever connects is refused.
fn reserve(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The listener comes beside it.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// The accept loop.
pub(super) struct Listening {
    addr: SocketAddr,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the connections of the time since the last pause.
    connections: CancellationToken,
    places: Arc<Semaphore>,
    /// Keeps the port ours while nobody listens on it, from the first pause on: bound, and never listening.
    port: Option<TcpSocket>,
}

impl Listening {
    pub(super) fn new(
        addr: SocketAddr,
        router: Router,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let connections = stop.child_token();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self {
            addr,
            router,
            tasks,
            stop,
            connections,
            places,
            port: None,
        }
    }

    pub(super) async fn serve(mut self, listener: TcpListener, mut orders: mpsc::Receiver<Order>) {
        let mut listener = Some(listener);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                order = orders.recv() => match order {
                    Some(order) => self.obey(order, &mut listener).await,
                    None => return,
                },
                () = self.accept(listener.as_ref()) => {}
            }
        }
    }

    async fn obey(&mut self, order: Order, listener: &mut Option<TcpListener>) {
        match order {
            Order::Pause(done) => {
                *listener = None;
                if self.port.is_none() {
                    // Somebody else may have it already, who is told so when this listens again.
                    self.port = reserve(self.addr).ok();
                }
                self.connections.cancel();
                self.connections = self.stop.child_token();
                // Who asked may have gone; the order stands.
                let _ = done.send(());
            }
            Order::Resume(done) => {
                let opened = match listener {
                    Some(_) => Ok(()),
                    None => TcpListener::bind(self.addr)
                        .await
                        .map(|new| *listener = Some(new)),
                };
                let _ = done.send(opened);
            }
        }
    }

    async fn accept(&self, listener: Option<&TcpListener>) {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, connections) = (self.router.clone(), self.connections.clone());
                self.tasks.spawn(async move {
                    connections
                        .run_until_cancelled(serve_one(stream, router))
                        .await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "the sandbox could not accept a connection");
                // Out of file descriptors, most likely: do not spin.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let reset = Arc::new(AtomicBool::new(false));
    let wire = TokioIo::new(Wire {
        stream,
        reset: Arc::clone(&reset),
    });
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, reset) = (router.clone(), Arc::clone(&reset));
        async move {
            let response = match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            broken_as_asked(response, &reset)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(wire, service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the sandbox ended early");
    }
}

fn broken_as_asked(response: Response, reset: &AtomicBool) -> Result<Response, ConnectionCut> {
    match response.extensions().get::<Cut>() {
        None => Ok(response),
        Some(Cut::Close) => Err(ConnectionCut),
        Some(Cut::Reset) => {
            reset.store(true, Ordering::Relaxed);
            Err(ConnectionCut)
        }
        // The body ends in an error, which ends the connection.
        Some(Cut::ResetInBody) => {
            reset.store(true, Ordering::Relaxed);
            Ok(response)
        }
    }
}

/// Why a connection ends without (the rest of) an answer.
#[derive(Debug)]
pub(super) struct ConnectionCut;

impl fmt::Display for ConnectionCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was cut on purpose")
    }
}

impl std::error::Error for ConnectionCut {}

/// A TCP stream that can be told to end with a reset (RST) instead of an orderly close (FIN).
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            debug!(%error, "a connection to the sandbox could not be reset");
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown sends a FIN, after which a reset no longer shows.
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
