//! Gives the framework's own statuses the form that all our errors have, in headers and in trailers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::status::normalize_framework_status;

/// The service behind which every error has details.
#[derive(Debug, Clone)]
pub struct StatusLayer<S> {
    inner: S,
}

impl<S> StatusLayer<S> {
    /// Puts the layer around `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for StatusLayer<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if has_status(response.headers()) {
                // A status in the headers is the whole answer.
                normalize(response.headers_mut());
                return Ok(response);
            }
            Ok(response.map(|inner| Body::new(StatusBody { inner })))
        })
    }
}

fn has_status(headers: &HeaderMap) -> bool {
    headers.contains_key(Status::GRPC_STATUS)
}

/// Replaces a framework's status; headers that are no status stay.
fn normalize(headers: &mut HeaderMap) {
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let normal = normalize_framework_status(status);
    // Fails only for metadata that is no header; ours is.
    let _ = normal.add_header(headers);
}

/// A body whose trailers have the form that all our errors have.
struct StatusBody {
    inner: Body,
}

impl http_body::Body for StatusBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
            && has_status(trailers)
        {
            normalize(trailers);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
