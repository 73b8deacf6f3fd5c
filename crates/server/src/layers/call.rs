//! What a request's headers say about the call, besides who makes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName};
use quittance_domain::card_number::contains_card_number;
use quittance_domain::context::{Caller, Origin, TraceIds};
use quittance_telemetry as telemetry;

use crate::auth::{Authenticated, Rpc, peer_text};

/// Names the request in the caller's own logs; echoed.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Tells the caller which trace its call is in.
pub const TRACE_ID_HEADER: HeaderName = HeaderName::from_static("quittance-trace-id");
/// Longest `x-request-id` that is taken over, in characters.
const REQUEST_ID_MAX: usize = 128;
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// gRPC over HTTP/2, "Requests": a timeout has at most 8 digits.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// What is known about a call. In the extensions of every request to an RPC.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The RPC.
    pub rpc: Rpc,
    /// The caller's network address.
    pub peer: SocketAddr,
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: Arc<str>,
    /// The caller's own span, if it sent one.
    pub remote: Option<TraceIds>,
    /// When the caller stops waiting, or the server cuts the call off; `None` where it set no deadline: how long it is
    /// made to wait is then the flows' setting, which is below the server's limit.
    pub deadline: Option<DateTime<Utc>>,
}

impl CallContext {
    /// The call, as the flows need to know it.
    pub fn caller(&self, who: &Authenticated) -> Caller {
        Caller {
            tenant: who.tenant.clone(),
            actor: who.actor(),
            origin: Origin {
                peer: peer_text(self.peer.ip()),
                rpc_method: self.rpc.method.to_owned(),
                request_id: self.request_id.to_string(),
            },
            remote: self.remote,
            deadline: self.deadline,
        }
    }
}

/// The caller's request id, if it sent one that can be kept: in logs and in the journal, for good.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && !id.contains('\t');
    (fits && !contains_card_number(id)).then_some(id)
}

/// How long the caller waits. A malformed timeout counts as none.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// When a caller that waits for `timeout` stops waiting; `None` where that is out of reach.
pub(super) fn deadline(now: DateTime<Utc>, timeout: Duration) -> Option<DateTime<Utc>> {
    now.checked_add_signed(TimeDelta::from_std(timeout).ok()?)
}

/// The same ids, as the domain names them.
pub(crate) fn domain_ids(ids: telemetry::TraceIds) -> TraceIds {
    TraceIds {
        trace_id: ids.trace_id,
        span_id: ids.span_id,
        flags: ids.flags,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("100000000S", None),
            ("1", None),
            ("1s", None),
        ] {
            assert_eq!(timeout(&with(GRPC_TIMEOUT, text)), expected, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_id_is_kept_unless_it_is_long_or_a_card_number() {
        let id = |text: &str| request_id(&with("x-request-id", text)).map(str::to_owned);
        assert_eq!(id("order 42/a").as_deref(), Some("order 42/a"));
        assert_eq!(id(""), None);
        assert_eq!(id("4242 4242 4242 4242"), None);
        assert_eq!(
            id(&"x".repeat(REQUEST_ID_MAX)).map(|id| id.len()),
            Some(REQUEST_ID_MAX)
        );
        assert_eq!(id(&"x".repeat(REQUEST_ID_MAX + 1)), None);
    }
}
