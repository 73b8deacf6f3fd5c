//! `VerifyLog`: the whole log is checked while its caller listens.

use std::pin::Pin;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{Stream, StreamExt as _, stream};
use quittance_domain::verification::{CheckpointRow, Mismatch, Stage};
use quittance_evidence::Checkpoint;
use quittance_evidence::note::Note;
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_store::{VerifyError, VerifyEvent, VerifyProgress, VerifySummary};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::feed::Guard;
use super::status::{Failure, shutting_down};
use super::{TokenKind, Tokens};
use crate::convert::payment::timestamp;

/// Events that wait for a caller who is slower than the check.
const EVENTS: usize = 64;
/// Bytes of a resume token's content: what is there, the stream, three numbers, when the check began.
const TOKEN: usize = 1 + 16 + 4 * 8;
/// Oldest check that is gone on with: what it found intact may have been changed since.
const MAX_RESUME_AGE: TimeDelta = TimeDelta::hours(24);

/// Where a check goes on, and since when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    /// How far it had got.
    pub at: VerifyProgress,
    /// When its first part began.
    pub since: DateTime<Utc>,
}

/// Checks the log. One at a time, over all processes.
#[async_trait]
pub trait LogVerifier: Send + Sync {
    /// Checks from a point on, and tells what is found.
    async fn verify(
        &self,
        resume: VerifyProgress,
        events: mpsc::Sender<VerifyEvent>,
    ) -> Result<VerifySummary, VerifyError>;
}

pub(super) type VerifyLogStream =
    Pin<Box<dyn Stream<Item = Result<v1::VerifyLogResponse, Status>> + Send>>;

/// A check that runs, and what it told that was not sent yet. It ends with its caller.
struct Running {
    events: mpsc::Receiver<VerifyEvent>,
    check: JoinHandle<Result<VerifySummary, VerifyError>>,
    tokens: Tokens,
    guard: Guard,
    stop: CancellationToken,
    since: DateTime<Utc>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.check.abort();
    }
}

/// What a stream of `VerifyLog` needs.
pub(super) struct Parts {
    /// Looks at the caller's key again.
    pub guard: Guard,
    /// Seals resume tokens.
    pub tokens: Tokens,
    /// Ends the stream.
    pub stop: CancellationToken,
}

/// Where to go on; a check without a token begins now.
pub(super) fn resume(tokens: &Tokens, token: &str, now: DateTime<Utc>) -> Result<Begun, Failure> {
    if token.is_empty() {
        return Ok(Begun {
            at: VerifyProgress::default(),
            since: now,
        });
    }
    let bytes = tokens.open::<TOKEN>(TokenKind::VerifyLog, &[], token);
    let begun = bytes
        .and_then(unpack)
        .ok_or_else(Failure::invalid_resume_token)?;
    if now - begun.since > MAX_RESUME_AGE {
        return Err(Failure::old_resume_token(begun.since));
    }
    Ok(begun)
}

/// Starts the check, and streams what it tells.
pub(super) fn run(
    verifier: std::sync::Arc<dyn LogVerifier>,
    begun: Begun,
    parts: Parts,
) -> VerifyLogStream {
    let (sender, events) = mpsc::channel(EVENTS);
    let check = tokio::spawn(async move { verifier.verify(begun.at, sender).await });
    let running = Running {
        events,
        check,
        tokens: parts.tokens,
        guard: parts.guard,
        stop: parts.stop,
        since: begun.since,
    };
    let told = stream::unfold(Some(running), |running| async {
        let mut running = running?;
        match running.next().await {
            Ok((message, true)) => Some((Ok(message), None)),
            Ok((message, false)) => Some((Ok(message), Some(running))),
            Err(failure) => Some((Err(failure.nothing_moved().into()), None)),
        }
    });
    told.boxed()
}

impl Running {
    /// The next message, and whether it is the last.
    async fn next(&mut self) -> Result<(v1::VerifyLogResponse, bool), Failure> {
        use v1::verify_log_response::Event;
        self.guard.check().await?;
        let event = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(shutting_down()),
            event = self.events.recv() => event,
        };
        let (event, last) = match event {
            Some(VerifyEvent::Progress {
                stage,
                checked,
                total,
                at,
            }) => {
                let token = pack(&Begun {
                    at,
                    since: self.since,
                });
                let progress = v1::VerificationProgress {
                    stage: stage_of(stage).into(),
                    checked,
                    total,
                    mismatches: at.mismatches,
                    resume_token: self.tokens.seal(TokenKind::VerifyLog, &[], &token),
                };
                (Event::Progress(progress), false)
            }
            Some(VerifyEvent::Mismatch(found)) => (Event::Mismatch(mismatch(&found)), false),
            None => (Event::Summary(self.summary().await?), true),
        };
        Ok((v1::VerifyLogResponse { event: Some(event) }, last))
    }

    async fn summary(&mut self) -> Result<v1::VerificationSummary, Failure> {
        let ended = (&mut self.check).await;
        let ended = ended.map_err(|_| Failure::defect("a check of the log panicked"))?;
        let summary = ended.map_err(|error| match error {
            VerifyError::Busy => {
                let message = "the log is being verified already; one verification runs at a time";
                Failure::new(ErrorReason::TooManyStreams, message)
            }
            VerifyError::Store(error) => error.into(),
        })?;
        Ok(v1::VerificationSummary {
            entries_checked: summary.entries,
            payments_checked: summary.payments,
            mismatches: summary.mismatches,
            checkpoint: summary.checkpoint.and_then(checkpoint),
            begun_at: Some(timestamp(self.since)),
        })
    }
}

/// The checkpoint that the log was verified against. It was compared with the tree a moment ago.
fn checkpoint(row: CheckpointRow) -> Option<v1::Checkpoint> {
    let note = Note::parse(row.note.as_bytes()).ok()?;
    let stated = Checkpoint::parse_text(note.text()).ok()?;
    Some(v1::Checkpoint {
        origin: stated.origin.to_string(),
        tree_size: stated.size,
        root_hash: stated.root.as_bytes().to_vec(),
        signed_note: row.note,
        sign_time: Some(timestamp(row.signed_at)),
    })
}

fn stage_of(stage: Stage) -> v1::VerificationStage {
    match stage {
        Stage::Leaves => v1::VerificationStage::Leaves,
        Stage::Tree => v1::VerificationStage::Tree,
        Stage::Chains => v1::VerificationStage::Chains,
        Stage::Payments => v1::VerificationStage::Payments,
    }
}

fn mismatch(found: &Mismatch) -> v1::LogMismatch {
    let id = |id: Option<String>| id.unwrap_or_default();
    v1::LogMismatch {
        stage: stage_of(found.fault.stage()).into(),
        code: found.fault.code().to_owned(),
        entry_id: id(found.entry.map(|entry| entry.to_string())),
        payment_id: id(found.payment.map(|payment| payment.to_string())),
        leaf_index: found.position,
        detail: found.fault.to_string(),
    }
}

/// Whether streams are left, from which on, the counts, and since when, in microseconds since 1970.
fn pack(begun: &Begun) -> Vec<u8> {
    let at = &begun.at;
    let mut bytes = vec![u8::from(at.streams_from.is_some())];
    bytes.extend(at.streams_from.unwrap_or_default().as_bytes());
    for count in [at.entries, at.payments, at.mismatches] {
        bytes.extend(count.to_be_bytes());
    }
    bytes.extend(begun.since.timestamp_micros().to_be_bytes());
    bytes
}

fn unpack(bytes: [u8; TOKEN]) -> Option<Begun> {
    let (left, rest) = bytes.split_first()?;
    let (stream, rest) = rest.split_first_chunk::<16>()?;
    let (rest, since) = rest.split_last_chunk::<8>()?;
    let (counts, _) = rest.as_chunks::<8>();
    let mut counts = counts.iter().map(|count| u64::from_be_bytes(*count));
    let at = VerifyProgress {
        streams_from: (*left == 1).then(|| Uuid::from_bytes(*stream)),
        entries: counts.next()?,
        payments: counts.next()?,
        mismatches: counts.next()?,
        begun: true,
    };
    let since = DateTime::from_timestamp_micros(i64::from_be_bytes(*since))?;
    Some(Begun { at, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_resume_token_says_where_and_how_much_and_since_when() {
        let tokens = Tokens::new(&[[1; 32]]).unwrap();
        for streams_from in [None, Some(Uuid::now_v7())] {
            let begun = Begun {
                at: VerifyProgress {
                    streams_from,
                    entries: 1,
                    payments: u64::MAX,
                    mismatches: 3,
                    begun: true,
                },
                since: now() - MAX_RESUME_AGE,
            };
            let token = tokens.seal(TokenKind::VerifyLog, &[], &pack(&begun));
            assert_eq!(resume(&tokens, &token, now()).unwrap(), begun);
        }
        let anew = resume(&tokens, "", now()).unwrap();
        assert_eq!((anew.at, anew.since), (VerifyProgress::default(), now()));
        assert!(resume(&tokens, "no token", now()).is_err());
    }

    #[test]
    fn s75_a_check_that_began_long_ago_is_not_gone_on_with() {
        let tokens = Tokens::new(&[[1; 32]]).unwrap();
        let begun = Begun {
            at: VerifyProgress {
                begun: true,
                ..VerifyProgress::default()
            },
            since: now() - MAX_RESUME_AGE - TimeDelta::microseconds(1),
        };
        let token = tokens.seal(TokenKind::VerifyLog, &[], &pack(&begun));
        let refused: Status = resume(&tokens, &token, now()).unwrap_err().into();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("2027-01-14"), "{refused}");
    }
}
