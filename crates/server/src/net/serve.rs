//! Serves one connection until its last call is done, or the server stops waiting for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::listener::Connection;
use super::open_calls::OpenCalls;
use super::preface::PrefaceLimit;
use super::write_limit::WriteLimit;

/// How long the headers of an HTTP/1.1 request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long whoever asked over HTTP/1.1 may take for its answers: the largest, `/metrics`, is some hundred kilobytes. Beyond
/// it the connection is cut.
pub(crate) const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of an HTTP/1.1 request, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// How long the answers that a stopping server gives at last may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long whoever has no call open may take to leave a stopping server. One that is not there any more never does.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// The same, where a call has just ended: its answer may still be on its way.
const TAKE_ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Limits of an HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Http2Settings {
    /// How long the peer may take to begin.
    pub preface_timeout: Duration,
    /// Calls open at once.
    pub max_concurrent_streams: u32,
    /// Bytes of all headers of one request.
    pub max_header_list_size: u32,
    /// Pause after which a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
}

/// Serves gRPC. After `stop` no new call is accepted, and it returns when the open ones are done, or soon where there is none;
/// after `kill`, which has the open ones answered, it returns as soon as the answers are written.
pub async fn serve_grpc<S>(
    connection: Connection,
    service: S,
    settings: Http2Settings,
    stop: CancellationToken,
    kill: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let Connection {
        stream,
        peer,
        permit,
    } = connection;
    let calls = OpenCalls::new();
    let opened = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let (call, answered) = (opened.open(), service.clone().oneshot(request));
        async move { answered.await.map(|response| call.answered(response)) }
    });
    let stream = PrefaceLimit::new(stream, settings.preface_timeout, stop.clone());
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(settings.max_header_list_size)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // How a connection ends is the peer's business.
        _ = serving.as_mut() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                _ = serving.as_mut() => {}
                () = nobody_calls(&calls) => {}
                () = kill.cancelled() => {
                    let _ = tokio::time::timeout(LAST_WORDS, serving).await;
                }
            }
        }
    }
    drop(permit);
}

/// Returns once there was no call for as long as it takes to leave.
async fn nobody_calls(calls: &OpenCalls) {
    let mut limit = LEAVE_LIMIT;
    loop {
        if !calls.is_empty() {
            calls.all_ended().await;
            limit = TAKE_ANSWER_LIMIT;
        }
        let before = calls.begun();
        tokio::time::sleep(limit).await;
        if calls.is_empty() && calls.begun() == before {
            return;
        }
        limit = TAKE_ANSWER_LIMIT;
    }
}

/// Serves HTTP/1.1. After `stop` it returns when the open request is answered, which may not take long any more.
pub async fn serve_http(connection: Connection, router: axum::Router, stop: CancellationToken) {
    let Connection {
        stream,
        peer,
        permit,
    } = connection;
    serve_http1(stream, peer, router, TAKE_TIMEOUT, stop).await;
    drop(permit);
}

/// Serves HTTP/1.1 within the limits of all of it: of heads, and of the time in which answers are taken.
pub(crate) async fn serve_http1<S, R>(
    stream: S,
    peer: SocketAddr,
    router: R,
    take_timeout: Duration,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Service<
            Request<axum::body::Body>,
            Response = Response<axum::body::Body>,
            Error = Infallible,
        > + Clone,
{
    let stream = TokioIo::new(WriteLimit::new(stream, take_timeout));
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(stream, service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_WORDS, serving).await;
        }
    }
}
