//! What the sandbox answers when it does not answer with an operation.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The body of an error answer is `{"error": {type, code, message, param?}}`. Messages never
/// repeat what was sent: it may have been a card number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub status: u16,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub param: Option<Cow<'static, str>>,
    /// Whether the idempotency store keeps it: only refusals that depend on the payment's state.
    pub kept: bool,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authoritative: Option<bool>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
}

impl ApiError {
    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        let (code, message) = (Cow::Borrowed(code), Cow::Borrowed(message));
        Self {
            status,
            code,
            message,
            param: None,
            kept: false,
        }
    }

    const fn of_param(
        param: &'static str,
        code: &'static str,
        message: &'static str,
        kept: bool,
    ) -> Self {
        let (code, message) = (Cow::Borrowed(code), Cow::Borrowed(message));
        Self {
            status: 422,
            code,
            message,
            param: Some(Cow::Borrowed(param)),
            kept,
        }
    }

    /// The request cannot be read: 400.
    pub(crate) const fn malformed(code: &'static str, message: &'static str) -> Self {
        Self::new(400, code, message)
    }

    /// One field of the request is not acceptable: 422, never kept.
    pub(crate) const fn invalid(
        param: &'static str,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        Self::of_param(param, code, message, false)
    }

    /// The payment's state does not allow it: 409, kept under the idempotency key.
    pub(crate) const fn state(message: &'static str) -> Self {
        let mut error = Self::new(409, "invalid_state", message);
        error.kept = true;
        error
    }

    /// More than is left, or another currency: 422, kept under the idempotency key.
    pub(crate) const fn beyond(
        param: &'static str,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        Self::of_param(param, code, message, true)
    }

    pub(crate) const fn unauthorized() -> Self {
        Self::new(
            401,
            "invalid_api_key",
            "the Authorization header must hold the sandbox API key",
        )
    }

    pub(crate) const fn not_found(message: &'static str) -> Self {
        Self::new(404, "not_found", message)
    }

    pub(crate) const fn key_in_use() -> Self {
        Self::new(
            409,
            "idempotency_key_in_use",
            "the first request with this Idempotency-Key is still running",
        )
    }

    pub(crate) const fn key_reused() -> Self {
        Self::new(
            400,
            "idempotency_mismatch",
            "this Idempotency-Key was used for a different request",
        )
    }

    pub(crate) const fn too_large() -> Self {
        Self::new(413, "body_too_large", "the request body is too large")
    }

    pub(crate) const fn books_full() -> Self {
        Self::new(
            503,
            "books_full",
            "the sandbox keeps no more operations: restart it",
        )
    }

    pub(crate) const fn books_broken() -> Self {
        Self::new(
            500,
            "books_unwritable",
            "the sandbox cannot write its books file",
        )
    }

    /// The status that a fault asks for.
    pub(crate) fn injected(status: u16, kept: bool) -> Self {
        let code = if status == 429 {
            "rate_limited"
        } else {
            "injected_fault"
        };
        let mut error = Self::new(status, code, "a fault was asked for");
        error.kept = kept;
        error
    }

    /// The kind of error that a client branches on.
    fn kind(&self) -> &'static str {
        match self.status {
            401 | 403 => "authentication_error",
            404 => "not_found",
            409 => "conflict",
            429 => "rate_limited",
            status if status >= 500 => "api_error",
            _ => "invalid_request",
        }
    }

    /// The JSON body.
    pub(crate) fn to_json(&self, authoritative: Option<bool>) -> Vec<u8> {
        let body = Body {
            r#type: self.kind(),
            code: &self.code,
            message: &self.message,
            param: self.param.as_deref(),
        };
        // Strings and a flag always serialize.
        serde_json::to_vec(&Envelope {
            error: body,
            authoritative,
        })
        .unwrap_or_default()
    }
}
