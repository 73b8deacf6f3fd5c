//! The two ways in which a send can end without an answer, kept apart by type.

use quittance_domain::decline::Cause;
use quittance_domain::transaction::SendOutcome;

/// Proved: no byte of the request was written, or the provider refused it before processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// The connection was refused, or could not be made for another reason than those below.
    ConnectionRefused,
    /// The connection, TLS included, was not made in time.
    ConnectTimeout,
    /// The provider's name did not resolve.
    NameResolution,
    /// TLS failed before a byte of the request was written.
    TlsHandshake,
    /// 401 or 403.
    CredentialsRefused,
    /// 429.
    RateLimited,
    /// Refused as malformed or impossible: 400, 404, 422, or what an adapter knows to mean that.
    RequestRefused,
    /// The account's circuit is open: it was not even tried.
    CircuitOpen,
}

impl NotSent {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::ConnectionRefused,
        Self::ConnectTimeout,
        Self::NameResolution,
        Self::TlsHandshake,
        Self::CredentialsRefused,
        Self::RateLimited,
        Self::RequestRefused,
        Self::CircuitOpen,
    ];

    /// The cause, as the domain names it.
    pub fn cause(self) -> Cause {
        match self {
            Self::ConnectionRefused => Cause::ConnectionRefused,
            Self::ConnectTimeout => Cause::ConnectTimeout,
            Self::NameResolution => Cause::NameResolution,
            Self::TlsHandshake => Cause::TlsHandshake,
            Self::CredentialsRefused => Cause::CredentialsRefused,
            Self::RateLimited => Cause::RateLimited,
            Self::RequestRefused => Cause::RequestRefused,
            Self::CircuitOpen => Cause::CircuitOpen,
        }
    }
}

impl From<NotSent> for SendOutcome {
    fn from(not_sent: NotSent) -> Self {
        Self::NotSent(not_sent.cause())
    }
}

/// May have been processed: only a lookup or a resend under the same key tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// No complete answer within the total timeout, or a 408.
    ResponseTimeout,
    /// The connection broke after the request may have left.
    ConnectionLost,
    /// Any 5xx.
    ProviderError,
    /// An answer that cannot be understood, a redirect included.
    UnreadableResponse,
    /// An answer above [`crate::http::MAX_RESPONSE_BYTES`].
    ResponseTooLarge,
    /// The provider already has a request under the same key (409).
    RequestInProgress,
}

impl Unknown {
    /// The cause, as the domain names it.
    pub fn cause(self) -> Cause {
        match self {
            Self::ResponseTimeout => Cause::ResponseTimeout,
            Self::ConnectionLost => Cause::ConnectionLost,
            Self::ProviderError => Cause::ProviderError,
            Self::UnreadableResponse => Cause::UnreadableResponse,
            Self::ResponseTooLarge => Cause::ResponseTooLarge,
            Self::RequestInProgress => Cause::RequestInProgress,
        }
    }
}

impl From<Unknown> for SendOutcome {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown.cause())
    }
}
