//! The witness's connections: so many at once, and whoever says nothing gives way.
//!
//! Anybody may connect, and say as little as they like. Each connection is read within the limits of all HTTP here (a head
//! within 10 s, answers taken within 10 s); where there are as many as may be, the one that has waited longest for a
//! request is closed for one that comes. So it takes more strangers than there are places, in the moments in which a log
//! sends a request's head, to be in its way; and `/healthz`, which needs no other place, is answered as well.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};

use super::places::{Place, Places};
use crate::net::{TAKE_TIMEOUT, serve_http1};

/// Most connections at once: more than requests, so that there is one that waits.
pub const MAX_CONNECTIONS: usize = 4 * super::http::MAX_REQUESTS;
/// How long to wait after `accept` failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long those that are being answered may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (places, tracker) = (Places::new(MAX_CONNECTIONS), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Where all are being answered it is closed at once.
                if let Some(place) = places.take() {
                    let (router, stop) = (router.clone(), stop.clone());
                    tracker.spawn(serve_one(stream, peer, router, place, stop));
                }
            }
            Err(error) => {
                tracing::debug!(error.message = %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tracker.close();
    let _ = tokio::time::timeout(LAST_ANSWERS, tracker.wait()).await;
}

/// Serves one connection until its peer is done, or it has to give way between two requests.
async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    place: Place,
    stop: CancellationToken,
) {
    let lost = place.lost_token();
    let place = Arc::new(Mutex::new(place));
    let service = service_fn(move |request: Request<Body>| {
        let (router, place) = (router.clone(), Arc::clone(&place));
        async move {
            // One request at a time: HTTP/1.1.
            let mut place = place.lock().await;
            place.keep();
            let answer: Result<Response<Body>, Infallible> = router.oneshot(request).await;
            place.wait_again();
            answer
        }
    });
    tokio::select! {
        () = lost.cancelled() => {}
        () = serve_http1(stream, peer, service, TAKE_TIMEOUT, stop) => {}
    }
}
