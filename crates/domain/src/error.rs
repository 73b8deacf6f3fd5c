//! What can go wrong, once: rejections (the command is not allowed) and flow errors (it could not be answered).

use std::time::Duration;

use thiserror::Error;

use crate::ids::ProviderAccount;
use crate::payment::PaymentState;
use crate::ports::Unpreparable;
use crate::transaction::TransactionState;
use crate::webhook::WebhookState;

/// Why a well-formed command is not allowed. Nothing was written, and nothing was sent by this call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The payment's state does not allow the command.
    #[error("the payment is {state}, which does not allow this")]
    StateForbids {
        /// The state.
        state: PaymentState,
    },
    /// More than what is left to capture.
    #[error("the amount exceeds what can still be captured ({left} minor units)")]
    ExceedsCapturable {
        /// What is left, in minor units.
        left: i64,
    },
    /// More than what is left to refund.
    #[error("the amount exceeds what can still be refunded ({left} minor units)")]
    ExceedsRefundable {
        /// What is left, in minor units.
        left: i64,
    },
    /// Another currency than the payment's.
    #[error("the currency is not the payment's")]
    CurrencyDiffers,
    /// A void is under way, which excludes captures and further voids.
    #[error("a void of this payment is under way")]
    VoidPending,
    /// A capture is under way: what is left to void is known only after its outcome.
    #[error("a capture of this payment is under way")]
    CapturePending,
    /// The provider cannot capture part of an authorization.
    #[error("the provider cannot capture part of an authorization")]
    PartialCaptureUnsupported,
    /// The provider captures an authorization once: a capture that leaves a rest must be final.
    #[error("the provider captures an authorization only once: set final_capture")]
    CaptureMustBeFinal,
    /// The payment has as many transactions as it may have.
    #[error("the payment has the most transactions that one may have")]
    TooManyTransactions,
    /// The provider cannot be asked this.
    #[error(transparent)]
    Unpreparable(#[from] Unpreparable),
    /// The payment has no such transaction.
    #[error("the payment has no such transaction")]
    NoSuchTransaction,
    /// The transaction's outcome is known.
    #[error("the transaction is {state}: its outcome is known")]
    TransactionEnded {
        /// Where it stands.
        state: TransactionState,
    },
    /// A request may still be under way to the provider, and decide the transaction.
    #[error("a request of this transaction may still be under way: try again later")]
    BeingSent,
    /// No case of the kind is open about the transaction.
    #[error("no case of this kind is open about this transaction")]
    NothingOpen,
    /// The outcome of the transaction is not known, and nobody would be asked about it any more.
    #[error(
        "the outcome of this transaction is not known: say what became of it, or have it taken up again"
    )]
    OutcomeUnknown,
    /// The payment has changed since the person looked at it: what they decide upon is not what there is.
    #[error("the payment has changed: it has version {version} by now")]
    PaymentChanged {
        /// Its version.
        version: u64,
    },
    /// `execute_before` has passed already.
    #[error("execute_before has passed")]
    ExecuteBeforePassed,
}

impl FlowError {
    /// Whether the same can end differently a moment later, without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ConcurrentChange
            | Self::Overloaded { .. }
            | Self::DatabaseUnavailable
            | Self::AcceptanceUnknown
            | Self::DeadlineExceeded => true,
            Self::Rejected(_)
            | Self::PaymentNotFound
            | Self::NothingUnderKey
            | Self::EntryNotFound
            | Self::WebhookNotFound
            | Self::WebhookNotReplayable { .. }
            | Self::WebhookWiped
            | Self::IdempotencyKeyReused { .. }
            | Self::NoRoute
            | Self::NoneCanServe(_)
            | Self::UnknownProviderAccount(_)
            | Self::Internal(_) => false,
        }
    }
}

impl FlowError {
    /// Whether it leaves open that the request was accepted: by this call, or by an earlier one under the same key. What
    /// keeps a call from looking its key up proves nothing about that, nor does a key that is not there yet (I13): an
    /// acceptance whose commit still hangs becomes visible later, and what refuses the request now (a route that is gone, a
    /// time that has passed, a race) need not have refused it then. A key that was used for another request is proof that one
    /// was accepted.
    pub fn money_may_have_moved(&self) -> bool {
        match self {
            Self::Overloaded { .. }
            | Self::DatabaseUnavailable
            | Self::AcceptanceUnknown
            | Self::DeadlineExceeded
            | Self::NoRoute
            | Self::NoneCanServe(_)
            | Self::UnknownProviderAccount(_)
            | Self::ConcurrentChange
            | Self::IdempotencyKeyReused { .. }
            | Self::NothingUnderKey
            | Self::Internal(_) => true,
            Self::Rejected(rejection) => *rejection == Rejection::ExecuteBeforePassed,
            Self::PaymentNotFound
            | Self::EntryNotFound
            | Self::WebhookNotFound
            | Self::WebhookNotReplayable { .. }
            | Self::WebhookWiped => false,
        }
    }
}

/// Why a flow could not answer with a payment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlowError {
    /// The command is not allowed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The tenant has no such payment.
    #[error("no such payment")]
    PaymentNotFound,
    /// No request under the idempotency key is known to be accepted; one may be on its way into the database.
    #[error("no request under this key was accepted so far")]
    NothingUnderKey,
    /// The tenant has no such audit entry.
    #[error("no such audit entry")]
    EntryNotFound,
    /// There is no such webhook.
    #[error("no such webhook")]
    WebhookNotFound,
    /// The webhook is neither parked nor a dead letter.
    #[error("the webhook is {state}: there is nothing to replay")]
    WebhookNotReplayable {
        /// Where it stands.
        state: WebhookState,
    },
    /// The body of the webhook is wiped.
    #[error("the body of the webhook is wiped: there is nothing left to replay")]
    WebhookWiped,
    /// The idempotency key was used for a different request.
    #[error("the idempotency key was used for a different request: {field} differs")]
    IdempotencyKeyReused {
        /// The first differing field.
        field: &'static str,
    },
    /// No configured provider account serves this payment.
    #[error("no provider account serves this payment")]
    NoRoute,
    /// No account of the payment's route can express it; this is why the first cannot. Unlike the account that a caller
    /// names ([`Rejection::Unpreparable`]), the route need not have been the same when an earlier call was accepted.
    #[error(transparent)]
    NoneCanServe(Unpreparable),
    /// The named provider account does not exist.
    #[error("no such provider account")]
    UnknownProviderAccount(ProviderAccount),
    /// Lost the race against concurrent changes, after the allowed number of decisions.
    #[error("the payment kept changing while this was decided")]
    ConcurrentChange,
    /// A bounded queue is full; nothing was written, and nothing was sent by this call.
    #[error("overloaded; nothing was sent by this call")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database is out of reach; nothing was accepted by this call.
    #[error("the database is out of reach; nothing was sent by this call")]
    DatabaseUnavailable,
    /// The connection was lost while accepting: it may have been accepted. The same key finds out.
    #[error("it is not known whether the request was accepted")]
    AcceptanceUnknown,
    /// The caller's deadline had passed before anything was accepted; nothing was written by this call.
    #[error("the deadline passed before the request was accepted; nothing was sent by this call")]
    DeadlineExceeded,
    /// A defect. The text is for the log, never for callers.
    #[error("internal: {0}")]
    Internal(String),
}
