//! The end of a call: whenever its last byte is sent, or its caller goes away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use quittance_telemetry::Metrics;
use tonic::{Code, Status};
use tracing::Span;

/// Ends the server span and counts the call when it is dropped.
pub(super) struct CallEnd {
    span: Span,
    metrics: Metrics,
    method: &'static str,
    began: Instant,
    /// What the call ended with; until then, a caller that went away.
    code: Code,
}

impl CallEnd {
    pub(super) fn new(span: Span, metrics: Metrics, method: &'static str) -> Self {
        Self {
            span,
            metrics,
            method,
            began: Instant::now(),
            code: Code::Cancelled,
        }
    }

    pub(super) fn see(&mut self, headers: &HeaderMap) {
        if headers.contains_key(Status::GRPC_STATUS) {
            self.code = Status::from_header_map(headers).map_or(Code::Unknown, |s| s.code());
        }
    }
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        let name = code_name(self.code);
        self.span.record("rpc.status_code", name);
        if is_server_error(self.code) {
            self.span.record("otel.status_code", "ERROR");
        }
        self.metrics
            .rpc_finished(self.method, name, self.began.elapsed().as_secs_f64());
    }
}

/// A response body that ends its call.
pub(super) struct EndingBody {
    inner: tonic::body::Body,
    end: CallEnd,
}

impl EndingBody {
    pub(super) fn new(inner: tonic::body::Body, end: CallEnd) -> Self {
        Self { inner, end }
    }
}

impl Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = {
            // Streams read the database here: in the call's trace.
            let _entered = self.end.span.clone().entered();
            Pin::new(&mut self.inner).poll_frame(context)
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.end.see(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The code's name, as gRPC spells it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Codes that OpenTelemetry counts as the server's own failure (RPC semantic conventions, gRPC).
const fn is_server_error(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}
