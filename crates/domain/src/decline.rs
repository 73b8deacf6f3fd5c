//! Why money did not move: unified decline codes with advice, and the causes of failures.

use crate::named::named_enum;
use crate::text::Text;

named_enum! {
    /// Why the issuer or the provider refused, whichever provider it was.
    pub enum DeclineCode {
        /// Not enough money.
        InsufficientFunds = "INSUFFICIENT_FUNDS",
        /// The card has expired.
        CardExpired = "CARD_EXPIRED",
        /// Reported lost or stolen.
        CardLostOrStolen = "CARD_LOST_OR_STOLEN",
        /// The security code is wrong.
        CvcIncorrect = "CVC_INCORRECT",
        /// The card number is wrong.
        CardNumberIncorrect = "CARD_NUMBER_INCORRECT",
        /// Above a limit of the card or account.
        LimitExceeded = "LIMIT_EXCEEDED",
        /// This use is not permitted.
        NotPermitted = "NOT_PERMITTED",
        /// Refused without a reason.
        DoNotHonor = "DO_NOT_HONOR",
        /// Suspected fraud.
        FraudSuspected = "FRAUD_SUSPECTED",
        /// The customer must authenticate.
        AuthenticationRequired = "AUTHENTICATION_REQUIRED",
        /// The customer's authentication failed.
        AuthenticationFailed = "AUTHENTICATION_FAILED",
        /// The issuer cannot be reached.
        IssuerUnavailable = "ISSUER_UNAVAILABLE",
        /// The issuer takes it for a duplicate.
        Duplicate = "DUPLICATE",
        /// The provider itself refused.
        ProviderRefused = "PROVIDER_REFUSED",
        /// None of the above.
        Other = "OTHER",
    }
}

named_enum! {
    /// What a caller may do about a decline.
    pub enum RetryAdvice {
        /// Never again with this method.
        DoNotRetry = "DO_NOT_RETRY",
        /// Later, with a new idempotency key.
        RetryLater = "RETRY_LATER",
        /// With another payment method.
        RetryWithOtherMethod = "RETRY_WITH_OTHER_METHOD",
        /// After the customer has authenticated.
        RetryAfterAuthentication = "RETRY_AFTER_AUTHENTICATION",
    }
}

impl DeclineCode {
    /// The advice that goes with the code.
    pub fn advice(self) -> RetryAdvice {
        match self {
            Self::InsufficientFunds | Self::LimitExceeded | Self::IssuerUnavailable => {
                RetryAdvice::RetryLater
            }
            Self::CardExpired
            | Self::CvcIncorrect
            | Self::CardNumberIncorrect
            | Self::NotPermitted
            | Self::DoNotHonor
            | Self::ProviderRefused
            | Self::Other => RetryAdvice::RetryWithOtherMethod,
            Self::CardLostOrStolen | Self::FraudSuspected | Self::Duplicate => {
                RetryAdvice::DoNotRetry
            }
            Self::AuthenticationRequired | Self::AuthenticationFailed => {
                RetryAdvice::RetryAfterAuthentication
            }
        }
    }
}

/// A refusal by the issuer or the provider: an outcome, not an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decline {
    /// The unified code.
    pub code: DeclineCode,
    /// The provider's own code, as it came; may be empty.
    pub provider_code: Text<100>,
}

named_enum! {
    /// Why an attempt did not end in an answer, or a transaction not in success.
    pub enum Cause {
        /// The provider refused the connection.
        ConnectionRefused = "CONNECTION_REFUSED",
        /// Too many calls to the provider had failed: its circuit is open, and nothing was sent.
        CircuitOpen = "CIRCUIT_OPEN",
        /// The connection could not be made in time.
        ConnectTimeout = "CONNECT_TIMEOUT",
        /// The provider's name did not resolve.
        NameResolution = "NAME_RESOLUTION",
        /// TLS failed before a byte of the request was written.
        TlsHandshake = "TLS_HANDSHAKE",
        /// The provider refused our credentials (401, 403).
        CredentialsRefused = "CREDENTIALS_REFUSED",
        /// The provider asked us to slow down (429).
        RateLimited = "RATE_LIMITED",
        /// The provider refused the request as malformed or impossible (400, 404, 422).
        RequestRefused = "REQUEST_REFUSED",
        /// The provider still works on an earlier send under the same key (409).
        RequestInProgress = "REQUEST_IN_PROGRESS",
        /// No answer within the total timeout.
        ResponseTimeout = "RESPONSE_TIMEOUT",
        /// The connection broke after the request left.
        ConnectionLost = "CONNECTION_LOST",
        /// The provider failed (5xx).
        ProviderError = "PROVIDER_ERROR",
        /// The answer could not be understood.
        UnreadableResponse = "UNREADABLE_RESPONSE",
        /// The answer was larger than allowed.
        ResponseTooLarge = "RESPONSE_TOO_LARGE",
        /// The answer's amount or currency is not what was asked.
        AmountMismatch = "AMOUNT_MISMATCH",
        /// The provider proved that it holds no such transaction.
        NotProcessed = "NOT_PROCESSED",
        /// Proved never sent before `execute_before` had passed.
        NotSentInTime = "NOT_SENT_IN_TIME",
        /// The provider reported that the operation failed.
        ProviderReportedFailure = "PROVIDER_REPORTED_FAILURE",
        /// A void found that the payment was captured.
        AlreadyCaptured = "ALREADY_CAPTURED",
        /// Voided before it was authorized.
        Voided = "VOIDED",
        /// The authorization ran out.
        Expired = "EXPIRED",
        /// A void found nothing to release.
        NothingToVoid = "NOTHING_TO_VOID",
        /// Recording it took so long that it would have been sent too late: nothing was sent.
        SendOverdue = "SEND_OVERDUE",
        /// The process that sent it stopped before the answer was recorded.
        SenderLost = "SENDER_LOST",
        /// An operator decided that it was not processed.
        ResolvedByOperator = "RESOLVED_BY_OPERATOR",
    }
}

impl Cause {
    /// Whether a question that ended so was not answered: the provider could not be asked, or did not let us in. The same
    /// question is answered once that is over.
    pub fn unanswered(self) -> bool {
        match self {
            Self::ConnectionRefused
            | Self::CircuitOpen
            | Self::ConnectTimeout
            | Self::NameResolution
            | Self::TlsHandshake
            | Self::RateLimited
            | Self::CredentialsRefused
            | Self::RequestInProgress
            | Self::ResponseTimeout
            | Self::ConnectionLost
            | Self::ProviderError
            | Self::SendOverdue
            | Self::SenderLost => true,
            Self::UnreadableResponse
            | Self::ResponseTooLarge
            | Self::RequestRefused
            | Self::AmountMismatch
            | Self::NotProcessed
            | Self::NotSentInTime
            | Self::ProviderReportedFailure
            | Self::AlreadyCaptured
            | Self::Voided
            | Self::Expired
            | Self::NothingToVoid
            | Self::ResolvedByOperator => false,
        }
    }

    /// Whether a later attempt of the same transaction can end differently.
    pub fn retryable(self) -> bool {
        match self {
            Self::ConnectionRefused
            | Self::CircuitOpen
            | Self::ConnectTimeout
            | Self::NameResolution
            | Self::TlsHandshake
            | Self::RateLimited
            | Self::CredentialsRefused
            | Self::RequestInProgress
            | Self::ResponseTimeout
            | Self::ConnectionLost
            | Self::ProviderError
            | Self::UnreadableResponse
            | Self::ResponseTooLarge
            | Self::SendOverdue
            | Self::SenderLost => true,
            Self::RequestRefused
            | Self::AmountMismatch
            | Self::NotProcessed
            | Self::NotSentInTime
            | Self::ProviderReportedFailure
            | Self::AlreadyCaptured
            | Self::Voided
            | Self::Expired
            | Self::NothingToVoid
            | Self::ResolvedByOperator => false,
        }
    }
}

/// Why a transaction failed, as callers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The cause.
    pub cause: Cause,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s08_every_decline_code_has_a_stable_name_and_advice() {
        for code in DeclineCode::ALL {
            assert_eq!(DeclineCode::from_name(code.name()), Some(*code));
            assert!(RetryAdvice::ALL.contains(&code.advice()));
        }
        assert_eq!(DeclineCode::ALL.len(), 15);
    }

    #[test]
    fn s10_hard_declines_advise_against_any_retry() {
        for code in [DeclineCode::CardLostOrStolen, DeclineCode::FraudSuspected] {
            assert_eq!(code.advice(), RetryAdvice::DoNotRetry);
        }
    }
}
