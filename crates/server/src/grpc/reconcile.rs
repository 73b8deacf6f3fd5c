//! `Reconcile`: an export comes in, findings go out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _, stream};
use quittance_domain::flows::reconcile::{Export, Listener, ReconcileError, Reconciled};
use quittance_domain::reconciliation::Finding;
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_proto::v1::reconcile_request::Part;
use quittance_proto::v1::reconcile_response::Event;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::Services;
use super::call::Call;
use super::feed::Guard;
use super::status::{Failure, shutting_down};
use crate::convert::reconciliation as convert;

/// Findings that wait for a caller who is slower than the comparison.
const FINDINGS: usize = 64;
/// Longest wait for the next part of an export,
const CHUNK_LIMIT: Duration = Duration::from_secs(60);
/// and for all of it: others wait for their turn.
const EXPORT_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Longest wait for a caller to take what was found.
const READ_LIMIT: Duration = Duration::from_secs(60);

pub(super) type ReconcileStream =
    Pin<Box<dyn Stream<Item = Result<v1::ReconcileResponse, Status>> + Send>>;

/// Lets one run at a time: each holds an export.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let turn = Arc::clone(&self.0).try_acquire_owned();
        turn.map_err(|_| {
            let message = "an account is being reconciled already; one runs at a time";
            Failure::new(ErrorReason::TooManyStreams, message)
        })
    }
}

/// The export, as its messages come.
struct Messages {
    messages: Streaming<v1::ReconcileRequest>,
    until: Instant,
}

#[async_trait]
impl Export for Messages {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ReconcileError> {
        let until = self.until.min(Instant::now() + CHUNK_LIMIT);
        let next = tokio::time::timeout_at(until, self.messages.message()).await;
        match next {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(message))) => match message.part {
                Some(Part::Chunk(chunk)) => Ok(Some(chunk)),
                Some(Part::Start(_)) | None => Err(ReconcileError::Interrupted),
            },
            Ok(Err(_)) | Err(_) => Err(ReconcileError::Interrupted),
        }
    }
}

/// Findings, on their way to the caller.
struct Told {
    caller: mpsc::Sender<Finding>,
    patience: Duration,
}

#[async_trait]
impl Listener for Told {
    async fn found(&mut self, finding: &Finding) -> Result<(), ReconcileError> {
        let told = self.caller.send_timeout(finding.clone(), self.patience);
        told.await.map_err(|_| ReconcileError::NotRead)
    }
}

/// A run, and what it found that was not sent yet. It ends with its caller.
struct Running {
    findings: mpsc::Receiver<Finding>,
    run: JoinHandle<Result<Reconciled, ReconcileError>>,
    guard: Guard,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Starts a run, and streams what it finds.
pub(super) async fn run(
    services: &Services,
    turns: &Turns,
    request: Request<Streaming<v1::ReconcileRequest>>,
) -> Result<ReconcileStream, Failure> {
    let Call {
        caller,
        who,
        message: mut messages,
        ..
    } = Call::of(request)?;
    let first = tokio::time::timeout(CHUNK_LIMIT, messages.message()).await;
    let Ok(Ok(first)) = first else {
        return Err(ReconcileError::Interrupted.into());
    };
    let wanted = convert::start(first)?;
    let reconciler = services.reconciler.clone();
    reconciler.check(&wanted.account)?;
    let turn = turns.take()?;
    let (sender, findings) = mpsc::channel(FINDINGS);
    let run = tokio::spawn(async move {
        let _turn = turn;
        let mut export = Messages {
            messages,
            until: Instant::now() + EXPORT_LIMIT,
        };
        let mut listener = Told {
            caller: sender,
            patience: READ_LIMIT,
        };
        reconciler
            .run(&caller, &wanted, &mut export, &mut listener)
            .await
    });
    let authenticator = Arc::clone(&services.authenticator);
    let running = Running {
        findings,
        run,
        guard: Guard::new(authenticator, who, services.stream_recheck),
        stop: services.stop.clone(),
    };
    let told = stream::unfold(Some(running), |running| async {
        let mut running = running?;
        match running.next().await {
            Ok((message, true)) => Some((Ok(message), None)),
            Ok((message, false)) => Some((Ok(message), Some(running))),
            Err(failure) => Some((Err(failure.nothing_moved().into()), None)),
        }
    });
    Ok(told.boxed())
}

impl Running {
    /// The next message, and whether it is the last.
    async fn next(&mut self) -> Result<(v1::ReconcileResponse, bool), Failure> {
        self.guard.check().await?;
        let finding = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(shutting_down()),
            finding = self.findings.recv() => finding,
        };
        let (event, last) = if let Some(finding) = finding {
            (Event::Finding(convert::finding(&finding)), false)
        } else {
            let ended = (&mut self.run).await;
            let ended = ended.map_err(|_| Failure::defect("a reconciliation panicked"))?;
            (Event::Summary(convert::summary(&ended?)), true)
        };
        Ok((v1::ReconcileResponse { event: Some(event) }, last))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use quittance_domain::reconciliation::unknown;

    use super::*;

    #[tokio::test]
    async fn a_caller_who_reads_nothing_does_not_keep_the_turn() {
        let (caller, _unread) = mpsc::channel(1);
        let mut told = Told {
            caller,
            patience: Duration::from_millis(1),
        };
        let finding = unknown(1, "brand_new".to_owned());
        told.found(&finding).await.unwrap();
        let ended = told.found(&finding).await;
        assert_eq!(ended, Err(ReconcileError::NotRead));
    }
}
