//! One answer of a provider: read within bounds, and what it proves.

use std::time::Duration;

use quittance_domain::decline::Cause;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{LookupOutcome, SendOutcome, SendReport};
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};

use super::{failure, retry_after};
use crate::outcome::{NotSent, Unknown};

/// Longest wait that is taken from a provider: a day, the most that `payments.retries.max_retry_after_seconds` can be. That
/// setting cuts it further.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// Largest answer that is read, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// What the transport and the status prove. Only [`Verdict::Success`] and [`Verdict::Refused`]
/// come with a complete body, for the adapter to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx.
    Success,
    /// A 4xx other than 401, 403 and 429.
    Refused(u16),
    /// Proved: nothing was processed.
    NotSent(NotSent),
    /// May have been processed.
    Unknown(Unknown),
}

/// What came of one request.
#[derive(Clone)]
pub struct Exchange {
    /// What it proves.
    pub verdict: Verdict,
    /// The HTTP status, where one came.
    pub status: Option<u16>,
    /// How long the provider asked us to wait.
    pub retry_after: Option<Duration>,
    /// From the first byte of connecting to the last of the answer, in microseconds.
    pub latency_micros: u64,
    /// The answer's headers; none where no answer came.
    pub headers: HeaderMap,
    /// What was read of the answer's body; `None` where no answer came.
    pub body: Option<Vec<u8>>,
}

impl Exchange {
    /// No answer came.
    pub(super) fn unanswered(verdict: Verdict) -> Self {
        Self {
            verdict,
            status: None,
            retry_after: None,
            latency_micros: 0,
            headers: HeaderMap::new(),
            body: None,
        }
    }

    /// Reads an answer; the caller knows how long it took.
    pub(super) async fn receive(mut response: Response) -> Self {
        let status = response.status().as_u16();
        let retry_after = retry_after::read(response.headers(), MAX_RETRY_AFTER);
        let mut body = Vec::new();
        let complete = read(&mut response, &mut body).await;
        let headers = std::mem::take(response.headers_mut());
        Self {
            verdict: verdict(status, complete),
            status: Some(status),
            retry_after,
            latency_micros: 0,
            headers,
            body: Some(body),
        }
    }

    /// The body as far as it was read.
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// The value of one of the answer's headers, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The report of a send: the adapter reads answers and refusals, all else is proved by transport and status.
    pub fn reported(
        self,
        answered: impl FnOnce(&[u8]) -> SendOutcome,
        refused: impl FnOnce(u16, &[u8]) -> SendOutcome,
    ) -> SendReport {
        let outcome = match self.verdict {
            Verdict::Success => answered(self.body()),
            Verdict::Refused(status) => refused(status, self.body()),
            Verdict::NotSent(not_sent) => not_sent.into(),
            Verdict::Unknown(unknown) => unknown.into(),
        };
        self.into_report(outcome)
    }

    /// The outcome of a lookup, in the same way.
    pub fn looked_up(
        &self,
        found: impl FnOnce(&[u8]) -> LookupOutcome,
        refused: impl FnOnce(u16, &[u8]) -> LookupOutcome,
    ) -> LookupOutcome {
        match self.verdict {
            Verdict::Success => found(self.body()),
            Verdict::Refused(status) => refused(status, self.body()),
            Verdict::NotSent(not_sent) => self.unavailable(not_sent.cause()),
            Verdict::Unknown(unknown) => self.unavailable(unknown.cause()),
        }
    }

    /// The outcome of a lookup that found nothing out.
    pub fn unavailable(&self, cause: Cause) -> LookupOutcome {
        LookupOutcome::Unavailable {
            cause,
            retry_after: self.retry_after,
        }
    }

    /// The report of a send that ended with `outcome`.
    pub fn into_report(self, outcome: SendOutcome) -> SendReport {
        SendReport {
            outcome,
            latency_micros: self.latency_micros,
            http_status: self.status,
            response: self.body.map(Sensitive::new),
            retry_after: self.retry_after,
        }
    }
}

/// What a 4xx means unless the provider's documentation says more: refused before processing for
/// 400, 404 and 422; an earlier request under the same key for 409; anything else proves nothing.
pub fn refusal(status: u16) -> SendOutcome {
    match status {
        400 | 404 | 422 => NotSent::RequestRefused.into(),
        409 => Unknown::RequestInProgress.into(),
        408 => Unknown::ResponseTimeout.into(),
        _ => Unknown::UnreadableResponse.into(),
    }
}

/// The status of a refusal or failure is proof by itself; anything else needs its whole body.
fn verdict(status: u16, complete: Result<(), Unknown>) -> Verdict {
    match (status, complete) {
        (401 | 403, _) => Verdict::NotSent(NotSent::CredentialsRefused),
        (429, _) => Verdict::NotSent(NotSent::RateLimited),
        (500..=599, _) => Verdict::Unknown(Unknown::ProviderError),
        (_, Err(unknown)) => Verdict::Unknown(unknown),
        (200..=299, Ok(())) => Verdict::Success,
        (400..=499, Ok(())) => Verdict::Refused(status),
        (_, Ok(())) => Verdict::Unknown(Unknown::UnreadableResponse),
    }
}

async fn read(response: &mut Response, body: &mut Vec<u8>) -> Result<(), Unknown> {
    let announced = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced
        .and_then(|value| value.parse::<u64>().ok())
        .unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > MAX_RESPONSE_BYTES) {
        return Err(Unknown::ResponseTooLarge);
    }
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE_BYTES => {
                return Err(Unknown::ResponseTooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(()),
            Err(error) => return Err(failure::after_connecting(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_alone_proves_a_refusal_but_never_a_success() {
        let lost = Err(Unknown::ConnectionLost);
        for (status, complete, expected) in [
            (200, Ok(()), Verdict::Success),
            (200, lost, Verdict::Unknown(Unknown::ConnectionLost)),
            (204, Ok(()), Verdict::Success),
            (302, Ok(()), Verdict::Unknown(Unknown::UnreadableResponse)),
            (401, lost, Verdict::NotSent(NotSent::CredentialsRefused)),
            (403, Ok(()), Verdict::NotSent(NotSent::CredentialsRefused)),
            (404, lost, Verdict::Unknown(Unknown::ConnectionLost)),
            (409, Ok(()), Verdict::Refused(409)),
            (429, lost, Verdict::NotSent(NotSent::RateLimited)),
            (500, Ok(()), Verdict::Unknown(Unknown::ProviderError)),
            (599, lost, Verdict::Unknown(Unknown::ProviderError)),
        ] {
            assert_eq!(verdict(status, complete), expected, "{status}");
        }
    }

    #[test]
    fn only_documented_refusals_prove_that_nothing_was_processed() {
        for status in 400..500 {
            let expected = match status {
                400 | 404 | 422 => SendOutcome::NotSent(Cause::RequestRefused),
                408 => SendOutcome::Unknown(Cause::ResponseTimeout),
                409 => SendOutcome::Unknown(Cause::RequestInProgress),
                _ => SendOutcome::Unknown(Cause::UnreadableResponse),
            };
            assert_eq!(refusal(status), expected, "{status}");
        }
    }
}
