//! The witness's one call, `POST /add-checkpoint` (C2SP tlog-witness).
//!
//! It needs no authentication: a request is a checkpoint that the log signed, and the answer a signature
//! that anybody may see. What is limited is how much a stranger can make it read and hold, and whom he can keep waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use quittance_domain::ports::Clock as _;
use quittance_evidence::note::Signature;
use quittance_evidence::witness::{MAX_ADD_CHECKPOINT_BYTES, Refusal};
use tracing::Level;

use super::places::Places;
use super::{Witness, WitnessError};
use crate::adapters::SystemClock;
use crate::warnings::Warnings;

/// Longest that a request's body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most requests at once: one more takes the place of whichever has been sending its body longest.
pub const MAX_REQUESTS: usize = 64;

/// Type of the answer that states the size last cosigned.
const SIZE: HeaderValue = HeaderValue::from_static("text/x.tlog.size");

/// Checkpoints without a valid proof, which anybody can send.
static UNPROVED: Mutex<Warnings> = Mutex::new(Warnings::new());

type Shared = Arc<Mutex<Witness>>;

/// What every request needs.
#[derive(Clone)]
struct Parts {
    witness: Shared,
    places: Places,
}

/// The routes.
pub fn router(witness: Witness) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Parts {
            witness: Arc::new(Mutex::new(witness)),
            places: Places::new(MAX_REQUESTS),
        })
}

async fn add_checkpoint(State(parts): State<Parts>, body: Body) -> Response {
    let Parts { witness, places } = parts;
    let Some(mut place) = places.take() else {
        return overloaded();
    };
    let reading = axum::body::to_bytes(body, MAX_ADD_CHECKPOINT_BYTES);
    let read = tokio::select! {
        biased;
        read = tokio::time::timeout(BODY_TIMEOUT, reading) => read,
        () = place.lost() => return overloaded(),
    };
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    if !place.keep() {
        return overloaded();
    }
    // It writes and syncs a file. The place is held until that is done, whether or not anybody waits for it.
    let added = tokio::task::spawn_blocking(move || {
        let answer = add(&witness, &body);
        drop(place);
        answer
    });
    let added = added.await;
    added.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// A log that is told so tries again soon.
fn overloaded() -> Response {
    let headers = [(RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}

fn add(witness: &Shared, body: &Bytes) -> Response {
    let seconds = SystemClock.now().timestamp();
    let Ok(time) = u64::try_from(seconds) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    // A panic in between changed nothing that counts: what is cosigned is what the file says.
    let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
    answer(witness.add_checkpoint(body, time))
}

fn answer(added: Result<Signature, WitnessError>) -> Response {
    match added {
        Ok(cosignature) => cosignature.to_string().into_response(),
        Err(error) => {
            tell(&error);
            refusal(&error)
        }
    }
}

fn refusal(error: &WitnessError) -> Response {
    let text = format!("{error}\n");
    match error {
        WitnessError::Malformed(_) | WitnessError::Refused(Refusal::Malformed) => {
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        WitnessError::UnknownLog => (StatusCode::NOT_FOUND, text).into_response(),
        WitnessError::Refused(Refusal::NotByTheLog(_)) => {
            (StatusCode::FORBIDDEN, text).into_response()
        }
        WitnessError::Refused(Refusal::OtherOldSize(size) | Refusal::Fork(size)) => {
            let headers = [(CONTENT_TYPE, SIZE)];
            (StatusCode::CONFLICT, headers, format!("{size}\n")).into_response()
        }
        WitnessError::Refused(Refusal::NotGrown(_)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, text).into_response()
        }
        WitnessError::State(_) => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
    }
}

/// A log that signed two histories is what witnesses are for: whoever runs one must hear of it. Anybody may send
/// nonsense, and nobody needs to. A public checkpoint without a valid proof is nonsense, too, for all that is known:
/// a stranger must not be able to accuse the log.
const fn level(error: &WitnessError) -> Level {
    match error {
        WitnessError::Refused(Refusal::Fork(_)) | WitnessError::State(_) => Level::ERROR,
        WitnessError::Refused(Refusal::NotGrown(_)) => Level::WARN,
        WitnessError::Malformed(_)
        | WitnessError::UnknownLog
        | WitnessError::Refused(
            Refusal::Malformed | Refusal::NotByTheLog(_) | Refusal::OtherOldSize(_),
        ) => Level::DEBUG,
    }
}

fn tell(error: &WitnessError) {
    match level(error) {
        Level::ERROR => tracing::error!(error.message = %error, "a checkpoint is not cosigned"),
        Level::WARN => {
            let mut warnings = UNPROVED.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = warnings.due() {
                tracing::warn!(error.message = %error, count, "refused a checkpoint");
            }
        }
        _ => tracing::debug!(error.message = %error, "refused a checkpoint"),
    }
}

#[cfg(test)]
mod tests {
    use quittance_evidence::tree::ProofError;

    use super::*;

    #[test]
    fn a_fork_is_an_error_and_a_proof_that_somebody_made_up_a_warning() {
        let level = |refusal| level(&WitnessError::Refused(refusal));
        assert_eq!(level(Refusal::Fork(5)), Level::ERROR);
        assert_eq!(level(Refusal::NotGrown(ProofError::WrongRoot)), Level::WARN);
        assert_eq!(level(Refusal::OtherOldSize(5)), Level::DEBUG);
    }
}
