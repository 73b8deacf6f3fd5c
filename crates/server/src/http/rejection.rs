//! Why a webhook is refused, and what is answered then.

use http::StatusCode;
use quittance_domain::webhook::Unverified;

/// Why a webhook is refused, or kept without being understood. Nothing of it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    UnknownAccount,
    /// The path is no text.
    Path,
    /// Not a POST.
    Method,
    Encoded,
    TooLarge,
    TooSlow,
    Broken,
    Unverified(Unverified),
    /// Verified, and stored as a dead letter: acknowledged, and counted all the same.
    Unreadable,
}

/// Every cause for which a webhook of a known account is refused, as metrics name it.
pub fn rejections() -> Vec<&'static str> {
    let others = [
        Rejection::Method,
        Rejection::Encoded,
        Rejection::TooLarge,
        Rejection::TooSlow,
        Rejection::Broken,
        Rejection::Unreadable,
    ];
    let unverified = Unverified::ALL.iter().copied().map(Rejection::Unverified);
    unverified.chain(others).map(Rejection::name).collect()
}

impl Rejection {
    /// How metrics and answers name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::UnknownAccount => "unknown_account",
            Self::Path => "path",
            Self::Method => "method",
            Self::Encoded => "encoded",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::Unverified(unverified) => unverified.name(),
            Self::Unreadable => "unreadable",
        }
    }

    /// How the audit log names it.
    pub(super) const fn audited(self) -> &'static str {
        match self {
            Self::UnknownAccount => "WEBHOOK_UNKNOWN_ACCOUNT",
            Self::Path => "WEBHOOK_PATH",
            Self::Method => "WEBHOOK_METHOD",
            Self::Encoded => "WEBHOOK_ENCODED",
            Self::TooLarge => "WEBHOOK_TOO_LARGE",
            Self::TooSlow => "WEBHOOK_TOO_SLOW",
            Self::Broken => "WEBHOOK_BROKEN",
            Self::Unverified(Unverified::NoSecret) => "WEBHOOK_NO_SECRET",
            Self::Unverified(Unverified::Unsigned) => "WEBHOOK_UNSIGNED",
            Self::Unverified(Unverified::Signature) => "WEBHOOK_SIGNATURE_INVALID",
            Self::Unverified(Unverified::TooOld) => "WEBHOOK_TOO_OLD",
            Self::Unverified(Unverified::TooNew) => "WEBHOOK_TOO_NEW",
            Self::Unreadable => "WEBHOOK_UNREADABLE",
        }
    }

    /// What is answered.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::UnknownAccount => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Path | Self::Broken => StatusCode::BAD_REQUEST,
            // Sent again it would be no better understood, and what waits behind it would come no further.
            Self::Unreadable => StatusCode::OK,
            Self::Unverified(_) => StatusCode::UNAUTHORIZED,
        }
    }
}
