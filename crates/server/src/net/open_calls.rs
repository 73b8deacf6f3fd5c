//! How many calls of a connection are open: from a request's head to the end of its answer's body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::body::Body;

/// Counts them.
#[derive(Clone)]
pub(super) struct OpenCalls {
    open: TaskTracker,
    begun: Arc<AtomicU64>,
}

impl OpenCalls {
    pub(super) fn new() -> Self {
        let open = TaskTracker::new();
        // It waits for those that there are, whichever may come.
        open.close();
        let begun = Arc::default();
        Self { open, begun }
    }

    /// One more.
    pub(super) fn open(&self) -> OpenCall {
        self.begun.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.open.token())
    }

    /// How many there were, ever.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Waits until there is none.
    pub(super) async fn all_ended(&self) {
        self.open.wait().await;
    }
}

/// A call that counts as open until this is dropped.
pub(super) struct OpenCall(TaskTrackerToken);

impl OpenCall {
    /// Leaves it open until the answer's body is dropped.
    pub(super) fn answered(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| {
            Body::new(Answer {
                body,
                _call: self.0,
            })
        })
    }
}

struct Answer {
    body: Body,
    _call: TaskTrackerToken,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
