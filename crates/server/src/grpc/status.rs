//! The one mapping from what went wrong to `google.rpc.Status`.
//!
//! No arm catches "all the rest": a new error breaks the build here, and gets a reason, a code, and an entry in
//! `docs/errors.md` (which a test compares with [`profile`]).

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use quittance_domain::error::{FlowError, Rejection};
use quittance_domain::flows::reconcile::ReconcileError;
use quittance_domain::payment::PaymentState;
use quittance_domain::ports::{StoreError, Unpreparable};
use quittance_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

use crate::auth::Role;
use crate::convert::Violations;
use crate::convert::entry::EntryError;
use crate::layers::Refusal;

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "quittance";
/// Prefix of the names of [`ErrorReason`], which `ErrorInfo.reason` leaves out.
const REASON_PREFIX: &str = "ERROR_REASON_";
/// What a caller is told to wait when the database is out of reach.
const DATABASE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// What callers are told to wait where a provider was not reached.
const PROVIDER_RETRY_AFTER: Duration = Duration::from_secs(30);
/// What a caller is told to wait when the server sheds load.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is always true of a reason, unless an error says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The gRPC status code.
    pub code: Code,
    /// Whether the same call can succeed later.
    pub retryable: bool,
    /// Whether it is not proved that no money moved.
    pub money_may_have_moved: bool,
}

impl Profile {
    const fn is(code: Code) -> Self {
        Self {
            code,
            retryable: false,
            money_may_have_moved: false,
        }
    }

    const fn retryable(self) -> Self {
        Self {
            retryable: true,
            ..self
        }
    }

    const fn money_may_have_moved(self) -> Self {
        Self {
            money_may_have_moved: true,
            ..self
        }
    }
}

/// Code, `retryable` and `money_may_have_moved` of each reason.
#[allow(clippy::too_many_lines)] // one reason a line
pub const fn profile(reason: ErrorReason) -> Profile {
    use ErrorReason as R;
    match reason {
        R::InvalidField
        | R::CardNumberNotAllowed
        | R::UnknownCurrency
        | R::AmountOutOfRange
        | R::CurrencyMismatch
        | R::InvalidPageToken
        | R::InvalidResumeToken
        | R::UndecodableRequest
        | R::SettlementExportUnreadable
        | R::SettlementExportTooLarge
        | R::AmountNotRepresentable => Profile::is(Code::InvalidArgument),
        // What is configured now need not have been so when an earlier call under the key was accepted, whose commit may
        // not be visible yet (I13).
        R::UnknownProviderAccount => Profile::is(Code::InvalidArgument).money_may_have_moved(),
        R::NoRoute => Profile::is(Code::FailedPrecondition).money_may_have_moved(),
        // Whoever could call before, and was not answered, may have lost the key or the role since.
        R::MissingCredentials | R::InvalidCredentials => {
            Profile::is(Code::Unauthenticated).money_may_have_moved()
        }
        R::RoleRequired => Profile::is(Code::PermissionDenied).money_may_have_moved(),
        R::PaymentNotFound
        | R::EntryNotFound
        | R::TransactionNotFound
        | R::CustomerNotFound
        | R::ErasureNotFound
        | R::EndpointNotFound
        | R::NotificationNotFound
        | R::TenantNotFound
        | R::WebhookNotFound => Profile::is(Code::NotFound),
        // The key is known: what was asked under it before was accepted.
        R::IdempotencyKeyReused => Profile::is(Code::AlreadyExists).money_may_have_moved(),
        R::AmountExceedsCapturable
        | R::AmountExceedsRefundable
        | R::PaymentStateForbids
        | R::PartialCaptureUnsupported
        | R::FinalCaptureRequired
        | R::OperationUnsupported
        | R::TooManyTransactions
        | R::TransactionEnded
        | R::OperatorActionNotOpen
        | R::TransactionOutcomeUnknown
        | R::PaymentChanged
        | R::WebhookNotReplayable
        | R::WebhookWiped
        | R::NotificationNotDead
        | R::TooManyEndpoints
        | R::EvidenceTooLarge => Profile::is(Code::FailedPrecondition),
        R::VoidPending
        | R::CapturePending
        | R::ProviderReferenceUnknown
        | R::TransactionBeingSent
        | R::EndpointNotEnabled
        | R::EntryNotMerged => Profile::is(Code::FailedPrecondition).retryable(),
        R::TreeSizeOutOfRange => Profile::is(Code::OutOfRange),
        // The race may have been lost to an equal call, which is not visible yet (I13).
        R::ConcurrentChange => Profile::is(Code::Aborted)
            .retryable()
            .money_may_have_moved(),
        // The key was not looked up: an earlier call under it may have been accepted (I13).
        R::Overloaded | R::RateLimited => Profile::is(Code::ResourceExhausted)
            .retryable()
            .money_may_have_moved(),
        R::TooManyStreams => Profile::is(Code::ResourceExhausted).retryable(),
        R::MessageTooLarge => Profile::is(Code::ResourceExhausted),
        R::ShuttingDown | R::ProviderNotReached => Profile::is(Code::Unavailable).retryable(),
        R::DatabaseUnavailable | R::AcceptanceUnknown => Profile::is(Code::Unavailable)
            .retryable()
            .money_may_have_moved(),
        R::DeadlineExceeded => Profile::is(Code::DeadlineExceeded)
            .retryable()
            .money_may_have_moved(),
        R::Cancelled => Profile::is(Code::Cancelled)
            .retryable()
            .money_may_have_moved(),
        R::UnknownMethod | R::NotImplemented | R::UnsupportedCompression => {
            Profile::is(Code::Unimplemented)
        }
        // "Unspecified" is never sent: should it ever be, that is a defect.
        R::Unspecified | R::Internal => Profile::is(Code::Internal)
            .retryable()
            .money_may_have_moved(),
    }
}

/// The reason as callers see it, without prefix.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(REASON_PREFIX).unwrap_or(name)
}

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    reason: ErrorReason,
    message: String,
    profile: Profile,
    metadata: Vec<(&'static str, String)>,
    fields: Vec<(String, String)>,
    precondition: Option<(String, String)>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// An error with this reason. The message is for people, and holds no value that a caller sent.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            reason,
            message: message.into(),
            profile: profile(reason),
            metadata: Vec::new(),
            fields: Vec::new(),
            precondition: None,
            // A place may be free again at any time, so there is nothing better to say.
            retry_after: (reason == ErrorReason::TooManyStreams).then_some(OVERLOAD_RETRY_AFTER),
        }))
    }

    /// A defect: the cause goes to the log under an id, the caller gets the id only.
    pub fn defect(cause: &str) -> Self {
        let id = Uuid::new_v4();
        tracing::error!(error.id = %id, error.message = cause, "a call ended in a defect");
        Self::new(ErrorReason::Internal, format!("internal error {id}")).with("error_id", &id)
    }

    /// A page token that was not issued for this list.
    pub(super) fn invalid_page_token() -> Self {
        Self::new(
            ErrorReason::InvalidPageToken,
            "the page token is not good for this list",
        )
        .field(
            "page_token",
            "was not issued by this service for this tenant and these filters",
        )
    }

    /// A resume token of a check of the log that began too long ago.
    pub(super) fn old_resume_token(since: DateTime<Utc>) -> Self {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let message = format!("the check began at {since}, too long ago to go on with it");
        Self::new(ErrorReason::InvalidResumeToken, message).field(
            "resume_token",
            "is of a check that began more than 24 hours ago; leave it out to begin anew",
        )
    }

    /// A resume token that was not issued for this stream.
    pub(super) fn invalid_resume_token() -> Self {
        Self::new(
            ErrorReason::InvalidResumeToken,
            "the resume token is not good for this stream",
        )
        .field(
            "resume_token",
            "was not issued by this service for this tenant and stream",
        )
    }

    /// The same error of a call that reads: whatever it met, it moved no money.
    #[must_use]
    pub fn nothing_moved(mut self) -> Self {
        self.0.profile.money_may_have_moved = false;
        self
    }

    /// The same error where it leaves open what an earlier call under the key did (I13).
    fn nothing_disproved(mut self) -> Self {
        self.0.profile.money_may_have_moved = true;
        self
    }

    /// The reason.
    pub fn reason(&self) -> ErrorReason {
        self.0.reason
    }

    fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.0.metadata.push((name, value.to_string()));
        self
    }

    fn field(mut self, field: &str, description: &str) -> Self {
        self.0
            .fields
            .push((field.to_owned(), description.to_owned()));
        self
    }

    /// Names what of the payment does not hold.
    pub(super) fn precondition(mut self, kind: impl Into<String>) -> Self {
        let description = self.0.message.clone();
        self.0.precondition = Some((kind.into(), description));
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let parts = *failure.0;
        let mut metadata: HashMap<String, String> = parts
            .metadata
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let flag = |value: bool| value.to_string();
        metadata.insert("retryable".to_owned(), flag(parts.profile.retryable));
        let moved = flag(parts.profile.money_may_have_moved);
        metadata.insert("money_may_have_moved".to_owned(), moved);
        let mut details = ErrorDetails::new();
        details.set_error_info(reason_name(parts.reason), DOMAIN, metadata);
        for (field, description) in parts.fields {
            details.add_bad_request_violation(field, description);
        }
        if let Some((kind, description)) = parts.precondition {
            details.add_precondition_failure_violation(kind, "payment", description);
        }
        if let Some(wait) = parts.retry_after {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(parts.profile.code, parts.message, details)
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        let mut fields = violations
            .listed()
            .iter()
            .map(|violation| violation.field.as_str());
        let message = match (fields.next(), fields.count() + violations.omitted()) {
            (None, _) => "the request is not valid".to_owned(),
            (Some(first), 0) => format!("{first} is not valid"),
            (Some(first), 1) => format!("{first} is not valid, nor is 1 more field"),
            (Some(first), more) => format!("{first} is not valid, nor are {more} more fields"),
        };
        let mut failure = Self::new(violations.reason(), message);
        for violation in violations.listed() {
            failure = failure.field(&violation.field, &violation.description);
        }
        if violations.omitted() > 0 {
            failure = failure.with("violations_omitted", &violations.omitted());
        }
        failure
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Self {
        use ErrorReason as R;
        let message = error.to_string();
        match error {
            FlowError::Rejected(rejection) => rejection.into(),
            FlowError::PaymentNotFound => Self::new(R::PaymentNotFound, message),
            FlowError::NothingUnderKey => {
                Self::new(R::PaymentNotFound, message).nothing_disproved()
            }
            FlowError::EntryNotFound => Self::new(R::EntryNotFound, message),
            FlowError::WebhookNotFound => Self::new(R::WebhookNotFound, message),
            FlowError::WebhookNotReplayable { state } => {
                Self::new(R::WebhookNotReplayable, message)
                    .with("state", &state)
                    .precondition(state.name())
            }
            FlowError::WebhookWiped => Self::new(R::WebhookWiped, message).precondition("BODY"),
            FlowError::IdempotencyKeyReused { field } => {
                Self::new(R::IdempotencyKeyReused, message).with("field", field)
            }
            FlowError::NoRoute => Self::new(R::NoRoute, message).precondition("NO_ROUTE"),
            FlowError::NoneCanServe(why) => unpreparable(why, message).nothing_disproved(),
            FlowError::UnknownProviderAccount(_) => Self::new(R::UnknownProviderAccount, message)
                .field(
                    "provider_account",
                    "is not a provider account of this service",
                ),
            FlowError::ConcurrentChange => Self::new(R::ConcurrentChange, message),
            FlowError::Overloaded { retry_after } => {
                Self::new(R::Overloaded, message).retry_after(retry_after)
            }
            FlowError::DatabaseUnavailable => {
                Self::new(R::DatabaseUnavailable, message).retry_after(DATABASE_RETRY_AFTER)
            }
            FlowError::AcceptanceUnknown => {
                Self::new(R::AcceptanceUnknown, message).retry_after(DATABASE_RETRY_AFTER)
            }
            FlowError::DeadlineExceeded => Self::new(R::DeadlineExceeded, message),
            FlowError::Internal(cause) => Self::defect(&cause),
        }
    }
}

/// An error of a command on a payment that exists: its caller named no provider account, so an account that is gone is
/// no fault of the request, but a state that an operator has to mend.
pub(super) fn of_existing_payment(error: FlowError) -> Failure {
    let message = error.to_string();
    match error {
        FlowError::UnknownProviderAccount(_) => {
            let mut failure = Failure::new(ErrorReason::UnknownProviderAccount, message);
            failure.0.profile.code = Code::FailedPrecondition;
            failure.precondition("PROVIDER_ACCOUNT")
        }
        FlowError::Rejected(_)
        | FlowError::PaymentNotFound
        | FlowError::NothingUnderKey
        | FlowError::EntryNotFound
        | FlowError::WebhookNotFound
        | FlowError::WebhookNotReplayable { .. }
        | FlowError::WebhookWiped
        | FlowError::IdempotencyKeyReused { .. }
        | FlowError::NoRoute
        | FlowError::NoneCanServe(_)
        | FlowError::ConcurrentChange
        | FlowError::Overloaded { .. }
        | FlowError::DatabaseUnavailable
        | FlowError::AcceptanceUnknown
        | FlowError::DeadlineExceeded
        | FlowError::Internal(_) => error.into(),
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        use ErrorReason as R;
        let message = rejection.to_string();
        let forbidden = |reason| Self::new(reason, message.clone());
        match rejection {
            Rejection::StateForbids { state } => state_forbids(state, message),
            Rejection::ExceedsCapturable { left } => forbidden(R::AmountExceedsCapturable)
                .with("left_minor_units", &left)
                .precondition("AMOUNT_CAPTURABLE"),
            Rejection::ExceedsRefundable { left } => forbidden(R::AmountExceedsRefundable)
                .with("left_minor_units", &left)
                .precondition("AMOUNT_REFUNDABLE"),
            Rejection::CurrencyDiffers => forbidden(R::CurrencyMismatch)
                .field("amount.currency_code", "must be the payment's currency"),
            Rejection::VoidPending => forbidden(R::VoidPending).precondition("VOID_PENDING"),
            // Its outcome comes by itself, and then decides whether something is left to void.
            Rejection::CapturePending => {
                forbidden(R::CapturePending).precondition("CAPTURE_PENDING")
            }
            Rejection::PartialCaptureUnsupported => {
                forbidden(R::PartialCaptureUnsupported).precondition("PARTIAL_CAPTURE")
            }
            Rejection::CaptureMustBeFinal => {
                forbidden(R::FinalCaptureRequired).precondition("SEVERAL_CAPTURES")
            }
            Rejection::TooManyTransactions => {
                forbidden(R::TooManyTransactions).precondition("TRANSACTIONS")
            }
            Rejection::Unpreparable(why) => unpreparable(why, message),
            Rejection::NoSuchTransaction => forbidden(R::TransactionNotFound),
            Rejection::TransactionEnded { state } => forbidden(R::TransactionEnded)
                .with("state", &state)
                .precondition(state.name()),
            Rejection::BeingSent => forbidden(R::TransactionBeingSent).precondition("BEING_SENT"),
            Rejection::NothingOpen => {
                forbidden(R::OperatorActionNotOpen).precondition("OPERATOR_ACTION")
            }
            Rejection::OutcomeUnknown => {
                forbidden(R::TransactionOutcomeUnknown).precondition("OUTCOME_UNKNOWN")
            }
            Rejection::PaymentChanged { version } => forbidden(R::PaymentChanged)
                .precondition("PAYMENT_VERSION")
                .with("version", &version),
            Rejection::ExecuteBeforePassed => {
                // It had not passed when an earlier call may have been accepted.
                let failure = forbidden(R::InvalidField).nothing_disproved();
                failure.field("execute_before", "must lie in the future")
            }
        }
    }
}

impl From<ReconcileError> for Failure {
    fn from(error: ReconcileError) -> Self {
        use ErrorReason as R;
        let message = error.to_string();
        match error {
            ReconcileError::Flow(error) => error.into(),
            ReconcileError::Export(unreadable) => {
                let failure = Self::new(R::SettlementExportUnreadable, message.clone());
                let failure = failure.field("chunk", &message);
                let failure = failure.with("line", &unreadable.line);
                match unreadable.column {
                    Some(column) => failure.with("column", &column),
                    None => failure,
                }
            }
            ReconcileError::TooManyLines(_) => {
                Self::new(R::SettlementExportTooLarge, message.clone()).field("chunk", &message)
            }
            ReconcileError::NoSettlements => {
                Self::new(R::OperationUnsupported, message).precondition("SETTLEMENTS")
            }
            ReconcileError::Provider(cause) => Self::new(R::ProviderNotReached, message)
                .with("cause", cause.name())
                .retry_after(PROVIDER_RETRY_AFTER),
            ReconcileError::NoRange => Self::new(R::InvalidField, message).field(
                "start.from_time",
                "is needed with start.to_time: the export does not say what time it is about",
            ),
            ReconcileError::Interrupted | ReconcileError::NotRead => {
                Self::new(R::Cancelled, message)
            }
        }
    }
}

fn state_forbids(state: PaymentState, message: String) -> Failure {
    Failure::new(ErrorReason::PaymentStateForbids, message)
        .with("state", &state)
        .precondition(state.name())
}

fn unpreparable(why: Unpreparable, message: String) -> Failure {
    use ErrorReason as R;
    match why {
        Unpreparable::Amount => Failure::new(R::AmountNotRepresentable, message).field(
            "amount.minor_units",
            "the provider cannot represent this amount exactly",
        ),
        Unpreparable::Currency(_) => {
            Failure::new(R::OperationUnsupported, message).precondition("CURRENCY")
        }
        Unpreparable::Method => {
            Failure::new(R::OperationUnsupported, message).precondition("PAYMENT_METHOD")
        }
        Unpreparable::Field(name) => Failure::new(R::InvalidField, message)
            .field(name, "the provider needs it, in a form that it takes"),
        // The provider's first answer brings it.
        Unpreparable::NoReference => {
            Failure::new(R::ProviderReferenceUnknown, message).precondition("PROVIDER_REFERENCE")
        }
    }
}

/// A store error met while reading.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable | StoreError::CommitUnknown => {
                FlowError::DatabaseUnavailable.into()
            }
            StoreError::Overloaded => overloaded(),
            StoreError::Refused(_) | StoreError::Corrupt(_) => Self::defect(&error.to_string()),
        }
    }
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        Self::defect(&error.to_string())
    }
}

/// Tests of endpoints hold calls open for as long as receivers like.
pub(super) fn too_many_trials() -> Failure {
    let message =
        "the notification endpoint is tested already, or too many others are; nothing was sent";
    Failure::new(ErrorReason::Overloaded, message).retry_after(OVERLOAD_RETRY_AFTER)
}

pub(super) fn overloaded() -> Failure {
    let message = "the service is overloaded; nothing was sent by this call";
    Failure::new(ErrorReason::Overloaded, message).retry_after(OVERLOAD_RETRY_AFTER)
}

fn role_required(role: &str) -> Failure {
    let message = format!("the caller lacks the role {role}");
    Failure::new(ErrorReason::RoleRequired, message).with("role", role)
}

/// Who looks beyond their own tenant needs this role.
pub(super) fn platform_role_required(role: Role) -> Failure {
    role_required(role.name())
}

/// A stream that ends because its replica does.
pub(super) fn shutting_down() -> Failure {
    let message = "this replica is shutting down; the stream goes on from its resume token";
    Failure::new(ErrorReason::ShuttingDown, message)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        use ErrorReason as R;
        match refusal {
            Refusal::MissingCredentials => Self::new(
                R::MissingCredentials,
                "no credentials: send metadata \"authorization: Bearer <api key>\"",
            ),
            Refusal::InvalidCredentials => Self::new(
                R::InvalidCredentials,
                "the API key is unknown, revoked or malformed",
            ),
            Refusal::RoleRequired(role) => role_required(role.name()),
            Refusal::UnknownMethod => Self::new(R::UnknownMethod, "there is no such method"),
            Refusal::Overloaded => overloaded(),
            Refusal::RateLimited { retry_after } => Self::new(
                R::RateLimited,
                "the tenant calls more often than it may; nothing was sent by this call",
            )
            .retry_after(retry_after),
            Refusal::DatabaseUnavailable => FlowError::DatabaseUnavailable.into(),
            Refusal::DeadlineExceeded => Self::new(
                R::DeadlineExceeded,
                "the deadline passed; whether the request was accepted is not known",
            ),
            Refusal::Interrupted => Self::new(
                R::AcceptanceUnknown,
                "this replica stopped before the call ended; whether the request was accepted is not known",
            ),
            Refusal::Defect => Self::defect("the call panicked"),
        }
    }
}

/// The status of a call that was refused before it reached its RPC, or did not end in time; `denies_nothing` as its RPC.
pub fn refusal(refusal: &Refusal, denies_nothing: bool) -> Status {
    let failure = Failure::from(*refusal);
    if denies_nothing {
        failure.into()
    } else {
        failure.nothing_moved().into()
    }
}

/// Gives a status that the framework made the form that all our errors have.
///
/// Statuses with details are ours, and stay as they are; so do codes that only health and reflection answer with, whose
/// protocols define what they mean.
pub fn normalize_framework_status(status: Status) -> Status {
    if status.code() == Code::Ok || !status.details().is_empty() {
        return status;
    }
    match framework_failure(&status) {
        Some(failure) => failure.into(),
        None => status,
    }
}

/// tonic names no reason in its statuses, so its words tell which of them it is; a test holds them to the version in use.
fn framework_failure(status: &Status) -> Option<Failure> {
    use ErrorReason as R;
    let message = status.message();
    Some(match status.code() {
        Code::Internal if message.starts_with("Error encoding") => Failure::defect(message),
        // What tonic reports as INTERNAL otherwise, it met while reading the request.
        Code::Internal => Failure::new(
            R::UndecodableRequest,
            "the request is not one valid protobuf message of this method",
        ),
        Code::OutOfRange
            if message.contains("encoded message length") && !message.contains("decoded") =>
        {
            Failure::defect(message)
        }
        Code::OutOfRange | Code::ResourceExhausted => Failure::new(
            R::MessageTooLarge,
            "the request, or its metadata, exceeds the size limit",
        ),
        Code::Unimplemented if message.starts_with("Content is compressed") => Failure::new(
            R::UnsupportedCompression,
            "the request uses a compression that this service does not support",
        ),
        Code::Unimplemented => Refusal::UnknownMethod.into(),
        Code::DeadlineExceeded => Refusal::DeadlineExceeded.into(),
        Code::Cancelled => Failure::new(R::Cancelled, "the call was cancelled"),
        Code::Unknown | Code::Unavailable | Code::DataLoss | Code::Aborted => {
            Failure::defect(message)
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unauthenticated => return None,
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
