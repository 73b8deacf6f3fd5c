//! The stored form of a request: the very bytes that every send of one transaction carries (I2).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quittance_domain::ids::TransactionId;
use quittance_domain::ports::{Operation, Unpreparable};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{OperationKind, PreparedRequest, SendOutcome, SendReport};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::http::path_segment;
use crate::outcome::NotSent;

/// Version of the stored form. A reader refuses any other: sending different bytes under the same
/// key is worse than not sending.
const VERSION: u8 = 1;

/// Why a stored request could not be read. Names no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stored request cannot be read by this version")]
pub struct PreparedError;

/// A request to a provider, before it becomes bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What it asks for.
    pub operation: OperationKind,
    /// For which transaction.
    pub transaction: TransactionId,
    /// The HTTP method.
    pub method: Method,
    /// The path below the account's base URL, beginning with `/`.
    pub path: String,
    /// The body's media type: JSON or a form.
    pub content_type: String,
    /// The body, byte for byte; holds the provider's token.
    pub body: Vec<u8>,
    /// What goes into the provider's idempotency header.
    pub idempotency_key: String,
}

/// The key of a request where the adapter's provider knows a transaction by our id: that id. Each confirmation hands over
/// something else, so it has a key of its own, or it would replay the one before; a resend of one carries the stored bytes,
/// and so its key.
#[must_use]
pub fn idempotency_key(operation: &Operation<'_>) -> String {
    let transaction = operation.transaction.id;
    match operation.kind {
        OperationKind::Confirm => {
            format!("{transaction}-confirm-{}", operation.transaction.attempts)
        }
        OperationKind::Purchase
        | OperationKind::Authorize
        | OperationKind::Capture
        | OperationKind::Void
        | OperationKind::Refund => transaction.to_string(),
    }
}

/// Hand-written: path and body stay out.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("operation", &self.operation)
            .field("transaction", &self.transaction)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    v: u8,
    operation: String,
    transaction: Uuid,
    method: String,
    path: String,
    content_type: String,
    body: String,
    idempotency_key: String,
}

/// The media type of most requests.
pub(crate) const JSON: &str = "application/json";

/// A JSON body.
pub(crate) fn json(body: &impl Serialize) -> Result<Vec<u8>, Unpreparable> {
    // Strings, numbers and flags always serialize.
    serde_json::to_vec(body).map_err(|_| Unpreparable::Method)
}

/// The path of a route, whose placeholder is the provider's reference of the payment.
pub(crate) fn path(operation: &Operation<'_>, route: &str) -> Result<String, Unpreparable> {
    let Some((before, rest)) = route.split_once('{') else {
        return Ok(route.to_owned());
    };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    let reference = operation.payment.provider_reference.as_ref();
    let segment = reference.and_then(path_segment);
    let segment = segment.ok_or(Unpreparable::NoReference)?;
    Ok(format!("{before}{segment}{after}"))
}

impl Prepared {
    /// What is posted as JSON for an operation, as it is stored. Its key is [`idempotency_key`].
    pub(crate) fn post(operation: &Operation<'_>, path: String, body: Vec<u8>) -> PreparedRequest {
        let prepared = Self {
            operation: operation.kind,
            transaction: operation.transaction.id,
            method: Method::POST,
            path,
            content_type: JSON.to_owned(),
            body,
            idempotency_key: idempotency_key(operation),
        };
        prepared.seal()
    }

    /// The bytes to store and to send from: the same request always gives the same ones.
    pub fn seal(&self) -> PreparedRequest {
        let envelope = Envelope {
            v: VERSION,
            operation: self.operation.name().to_owned(),
            transaction: self.transaction.0,
            method: self.method.as_str().to_owned(),
            path: self.path.clone(),
            content_type: self.content_type.clone(),
            body: STANDARD.encode(&self.body),
            idempotency_key: self.idempotency_key.clone(),
        };
        // A struct of strings always serializes.
        let bytes = serde_json::to_vec(&envelope).unwrap_or_default();
        PreparedRequest {
            bytes: Sensitive::new(bytes),
        }
    }

    /// Reads stored bytes back.
    pub fn open(request: &PreparedRequest) -> Result<Self, PreparedError> {
        let envelope: Envelope =
            serde_json::from_slice(request.bytes.expose()).map_err(|_| PreparedError)?;
        if envelope.v != VERSION || !envelope.path.starts_with('/') {
            return Err(PreparedError);
        }
        Ok(Self {
            operation: OperationKind::from_name(&envelope.operation).ok_or(PreparedError)?,
            transaction: TransactionId(envelope.transaction),
            method: envelope.method.parse().map_err(|_| PreparedError)?,
            path: envelope.path,
            content_type: envelope.content_type,
            body: STANDARD.decode(&envelope.body).map_err(|_| PreparedError)?,
            idempotency_key: envelope.idempotency_key,
        })
    }
}

/// A stored request that this version cannot read is not sent: other bytes under the same key
/// would break I2.
pub(crate) fn unsendable() -> SendReport {
    SendReport {
        outcome: SendOutcome::from(NotSent::RequestRefused),
        latency_micros: 0,
        http_status: None,
        response: None,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Prepared {
        Prepared {
            operation: OperationKind::Purchase,
            transaction: TransactionId(Uuid::from_u128(7)),
            method: Method::POST,
            path: "/v1/payments".to_owned(),
            content_type: "application/json".to_owned(),
            body: vec![0, 159, 146, 150, b'{'],
            idempotency_key: "key".to_owned(),
        }
    }

    #[test]
    fn any_bytes_survive_sealing_and_sealing_is_repeatable() {
        let sealed = prepared().seal();
        assert_eq!(Prepared::open(&sealed), Ok(prepared()));
        assert_eq!(sealed, prepared().seal());
    }

    #[test]
    fn another_version_and_garbage_are_refused() {
        let text = String::from_utf8(prepared().seal().bytes.into_exposed()).unwrap();
        for bad in [
            text.replace("\"v\":1", "\"v\":2"),
            text.replace("/v1", "v1"),
            "{}".to_owned(),
        ] {
            let request = PreparedRequest {
                bytes: Sensitive::new(bad.into_bytes()),
            };
            assert_eq!(Prepared::open(&request), Err(PreparedError));
        }
    }

    #[test]
    fn debug_output_shows_no_content() {
        let shown = format!("{:?}", prepared());
        assert!(
            !shown.contains("payments") && !shown.contains("159"),
            "{shown}"
        );
    }
}
