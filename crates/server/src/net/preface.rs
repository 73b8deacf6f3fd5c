//! A connection whose peer has to begin to speak HTTP/2.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Bytes of the preface with which a client begins (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// Fails once the preface has not come within a limit, or the server stops before it has: until then HTTP/2 has no timer of its
/// own, and sends nobody away. A peer that has made its TLS handshake and says nothing would else keep its place for as long as
/// it likes, and a stopping server waiting.
pub(super) struct PrefaceLimit<S> {
    stream: S,
    /// Until the preface is there: how much of it is missing, and what ends the wait.
    waiting: Option<Waiting>,
}

struct Waiting {
    missing: usize,
    over: Pin<Box<dyn Future<Output = io::ErrorKind> + Send>>,
}

impl<S> PrefaceLimit<S> {
    pub(super) fn new(stream: S, limit: Duration, stop: CancellationToken) -> Self {
        let over = Box::pin(async move {
            match tokio::time::timeout(limit, stop.cancelled()).await {
                Ok(()) => io::ErrorKind::ConnectionAborted,
                Err(_) => io::ErrorKind::TimedOut,
            }
        });
        Self {
            stream,
            waiting: Some(Waiting {
                missing: PREFACE_BYTES,
                over,
            }),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(waiting) = &mut self.waiting else {
            return read;
        };
        if read.is_ready() {
            waiting.missing = waiting
                .missing
                .saturating_sub(buffer.filled().len() - before);
            if waiting.missing == 0 {
                self.waiting = None;
            }
            return read;
        }
        let over = waiting.over.as_mut().poll(context);
        over.map(|kind| Err(kind.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceLimit<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
