//! Transactions (one operation on a payment) and attempts (one call to a provider each).

use chrono::{DateTime, Utc};

use crate::cases::OpenCases;
use crate::contradictions::Contradictions;
use crate::decline::{Cause, Decline, Failure};
use crate::ids::{AttemptId, ProviderAccount, ProviderReference, TransactionId};
use crate::journal::Stamp;
use crate::left_alone::LeftAlone;
use crate::money::Money;
use crate::named::named_enum;
use crate::payment::NextAction;
use crate::text::{Sensitive, Text};

named_enum! {
    /// What a transaction does.
    pub enum TransactionKind {
        /// Authorize and capture in one.
        Purchase = "PURCHASE",
        /// Reserve an amount.
        Authorization = "AUTHORIZATION",
        /// Take a reserved amount.
        Capture = "CAPTURE",
        /// Release a reservation, or what is left of it.
        Void = "VOID",
        /// Give captured money back.
        Refund = "REFUND",
        /// The issuer takes captured money back.
        Chargeback = "CHARGEBACK",
        /// The issuer returns it.
        ChargebackReversal = "CHARGEBACK_REVERSAL",
    }
}

impl TransactionKind {
    /// Whether it opens a payment.
    pub fn opens(self) -> bool {
        matches!(self, Self::Purchase | Self::Authorization)
    }

    /// Whether the provider can do it and take it back later: what moves money because it was asked to; and what a
    /// dispute returned, which the issuer can take once more.
    pub fn can_be_taken_back(self) -> bool {
        matches!(
            self,
            Self::Purchase | Self::Capture | Self::Refund | Self::ChargebackReversal
        )
    }

    /// Whether it belongs to a dispute.
    pub fn disputes(self) -> bool {
        matches!(self, Self::Chargeback | Self::ChargebackReversal)
    }
}

named_enum! {
    /// Who caused a transaction.
    pub enum TransactionOrigin {
        /// A caller of this service.
        Caller = "CALLER",
        /// The provider's dashboard, or the network.
        Provider = "PROVIDER",
        /// An operator's resolution.
        Operator = "OPERATOR",
        /// This service itself, since its customer has left a payment.
        Service = "SERVICE",
    }
}

named_enum! {
    /// Where a transaction stands.
    pub enum TransactionState {
        /// Accepted; the outcome is not known.
        Pending = "PENDING",
        /// Waits for the customer.
        RequiresAction = "REQUIRES_ACTION",
        /// Proved done.
        Succeeded = "SUCCEEDED",
        /// Refused.
        Declined = "DECLINED",
        /// Proved not done.
        Failed = "FAILED",
        /// Done, and later reversed by the provider.
        Reversed = "REVERSED",
    }
}

impl TransactionState {
    /// Whether its outcome is known.
    pub fn ended(self) -> bool {
        match self {
            Self::Pending | Self::RequiresAction => false,
            Self::Succeeded | Self::Declined | Self::Failed | Self::Reversed => true,
        }
    }
}

/// What a chargeback is about, as the provider reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dispute {
    /// The network's or the provider's reason code; may be empty.
    pub reason: Text<100>,
    /// Until when evidence can be handed in, where the provider says so.
    pub due_at: Option<DateTime<Utc>>,
    /// The disputed amount, in the dispute's own currency.
    pub amount: Money,
}

/// One operation on a payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// The id; also the idempotency key at the provider (I2).
    pub id: TransactionId,
    /// What it does.
    pub kind: TransactionKind,
    /// Who caused it.
    pub origin: TransactionOrigin,
    /// Where it stands.
    pub state: TransactionState,
    /// Its amount in minor units of the payment's currency; 0 for a void whose extent is not known yet, and for what
    /// the provider did in another currency, until a person says what it was.
    pub amount: i64,
    /// The provider account that serves it.
    pub provider_account: ProviderAccount,
    /// The provider's reference of this operation.
    pub provider_reference: Option<ProviderReference>,
    /// Why it was declined.
    pub decline: Option<Decline>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The caller's reason (void, refund); may be empty.
    pub reason: Text<500>,
    /// Whether a capture releases the rest.
    pub final_capture: bool,
    /// What a chargeback, or its reversal, is about.
    pub dispute: Option<Dispute>,
    /// How many sends were committed.
    pub attempts: u32,
    /// I4: one send may have been processed, so no later refusal proves anything.
    pub ever_unknown: bool,
    /// Steps in a row that brought no news: retries and lookups; each waits longer.
    pub retries: u32,
    /// Whether an operator decided it. What the provider proves later still counts.
    pub resolved_by_operator: bool,
    /// The kinds of the cases that are open about it: the same finding does not open another, and none hides another.
    pub open_cases: OpenCases,
    /// What was told against what is known of it, and is on record, while a case about that is open.
    pub contradictions: Contradictions,
    /// The bytes that every send carries (I2); wiped when the transaction ends.
    pub request: Option<PreparedRequest>,
    /// No first send after this; of a confirmation's once one is accepted.
    pub execute_before: DateTime<Utc>,
    /// A sender may be alive, or its request under way, until then (database clock); `None` where
    /// that is excluded.
    pub lease_until: Option<DateTime<Utc>>,
    /// When the next step is due, where one is; recovery claims by it.
    pub next_step_at: Option<DateTime<Utc>>,
    /// Until when provider accounts are to be left alone about it.
    pub left_alone: LeftAlone,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Transaction {
    /// One that a caller asked for, accepted now: nothing was sent of it, and nothing is known.
    pub(crate) fn begun(
        stamp: &Stamp<'_>,
        kind: TransactionKind,
        amount: i64,
        provider_account: ProviderAccount,
        execute_before: DateTime<Utc>,
    ) -> Self {
        Self {
            id: stamp.transaction_id,
            kind,
            origin: TransactionOrigin::Caller,
            state: TransactionState::Pending,
            amount,
            provider_account,
            provider_reference: None,
            decline: None,
            failure: None,
            reason: Text::default(),
            final_capture: false,
            dispute: None,
            attempts: 0,
            ever_unknown: false,
            retries: 0,
            resolved_by_operator: false,
            open_cases: OpenCases::NONE,
            contradictions: Contradictions::default(),
            request: None,
            execute_before,
            lease_until: None,
            next_step_at: None,
            left_alone: LeftAlone::default(),
            created_at: stamp.now,
            updated_at: stamp.now,
        }
    }

    /// Whether an attempt is running, as far as is known: it has not ended, and its lease has not either.
    ///
    /// While it runs, the next step is due when its lease ends; an outcome sets the next step anew.
    pub fn is_being_sent(&self, now: DateTime<Utc>) -> bool {
        self.state == TransactionState::Pending
            && self.lease_until.is_some_and(|until| until > now)
            && self.lease_until == self.next_step_at
    }

    /// Whether its last attempt was started and never ended, and its sender cannot be alive any more.
    pub fn sender_is_lost(&self, now: DateTime<Utc>) -> bool {
        self.state == TransactionState::Pending
            && self.attempts > 0
            && self.lease_until.is_some_and(|until| until <= now)
            && self.lease_until == self.next_step_at
    }

    /// Whether it is without an outcome, and is taken up again at some time.
    pub fn is_taken_up(&self) -> bool {
        !self.state.ended() && self.next_step_at.is_some()
    }

    /// Whether it is an authorization that the provider is asked about at some time, since it may run out without a word.
    pub fn is_watched(&self) -> bool {
        self.kind == TransactionKind::Authorization
            && self.state == TransactionState::Succeeded
            && self.next_step_at.is_some()
    }

    /// What it holds back of the payment until it ends: only what we asked for does.
    pub fn reserved(&self) -> i64 {
        match self.origin {
            _ if self.state.ended() => 0,
            TransactionOrigin::Provider => 0,
            TransactionOrigin::Caller
            | TransactionOrigin::Operator
            | TransactionOrigin::Service => self.amount,
        }
    }

    /// I4: whether every send so far is proved not to have been processed, and none is under way.
    pub fn certainly_unprocessed(&self) -> bool {
        !self.ever_unknown && self.provider_reference.is_none() && self.lease_until.is_none()
    }
}

/// The bytes of a request to a provider, as its adapter made them: the same for every send (I2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreparedRequest {
    /// What the adapter wrote, for the adapter to read; holds the provider's token.
    pub bytes: Sensitive<Vec<u8>>,
}

named_enum! {
    /// What an attempt asked the provider to do.
    pub enum OperationKind {
        /// Authorize, and capture at once.
        Purchase = "purchase",
        /// Authorize.
        Authorize = "authorize",
        /// Hand over the customer's authentication.
        Confirm = "confirm",
        /// Capture.
        Capture = "capture",
        /// Void.
        Void = "void",
        /// Refund.
        Refund = "refund",
    }
}

/// One call to a provider, recorded before it is made (I1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The attempt's id.
    pub id: AttemptId,
    /// Which transaction it serves.
    pub transaction: TransactionId,
    /// 1, 2, 3 … within the transaction.
    pub number: u32,
    /// What it asks.
    pub operation: OperationKind,
    /// Which account it goes to.
    pub provider_account: ProviderAccount,
    /// 128 random bits, with which both digests are salted; erased with what they are digests of.
    pub digest_salt: [u8; 16],
    /// SHA-256 of salt and bytes sent.
    pub request_digest: [u8; 32],
    /// When it was committed.
    pub started_at: DateTime<Utc>,
    /// How it ended; `None` while it runs, or when its process died.
    pub ended: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptEnd {
    /// When.
    pub ended_at: DateTime<Utc>,
    /// How long the provider took, in microseconds.
    pub latency_micros: u64,
    /// What is known.
    pub outcome: AttemptOutcome,
    /// The cause, where the outcome is not an answer.
    pub cause: Option<Cause>,
    /// The HTTP status, where one came.
    pub http_status: Option<u16>,
    /// What came back, bounded; stored encrypted.
    pub response: Option<Sensitive<Vec<u8>>>,
    /// SHA-256 of salt and what came back.
    pub response_digest: Option<[u8; 32]>,
}

named_enum! {
    /// What an attempt told.
    pub enum AttemptOutcome {
        /// Done.
        Approved = "APPROVED",
        /// Refused.
        Declined = "DECLINED",
        /// The customer must act.
        RequiresAction = "REQUIRES_ACTION",
        /// Received; the result comes later.
        Pending = "PENDING",
        /// The provider reported failure.
        Failed = "FAILED",
        /// Proved not sent, or refused before processing.
        NotSent = "NOT_SENT",
        /// May have been processed.
        Unknown = "UNKNOWN",
    }
}

/// What a provider proved about a transaction, in an answer, a lookup or a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// What it proved.
    pub kind: FactKind,
    /// The provider's reference of the operation.
    pub provider_reference: Option<ProviderReference>,
    /// The provider's reference of the payment.
    pub payment_reference: Option<ProviderReference>,
}

impl Fact {
    /// Whether it says until when an authorization holds.
    pub(crate) fn says_until(&self) -> bool {
        matches!(
            self.kind,
            FactKind::Approved {
                expires_at: Some(_),
                ..
            }
        )
    }
}

/// What was proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FactKind {
    /// Done, for this amount.
    Approved {
        /// What the provider says it moved; compared with what was asked. `None` for a void that
        /// released nothing.
        amount: Option<Money>,
        /// When the authorization runs out, if the provider says so.
        expires_at: Option<DateTime<Utc>>,
    },
    /// Refused.
    Declined(Decline),
    /// The customer must act.
    RequiresAction(NextAction),
    /// Received, and not decided yet.
    Pending,
    /// The provider reports that it failed, or did not process it.
    Failed(Cause),
    /// Done, and taken back since: by a provider that tells the two apart, so that an older word that it was done is
    /// known for one, whichever of them comes first.
    TakenBack(Cause),
    /// An authorization ran out.
    Expired,
}

/// What one send proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The provider answered.
    Answered(Fact),
    /// Proved: no byte of the request was written, or the provider refused before processing.
    NotSent(Cause),
    /// May have been processed: look up before anything else.
    Unknown(Cause),
}

/// The outcome of one send, with its evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendReport {
    /// What it proved.
    pub outcome: SendOutcome,
    /// How long it took, in microseconds.
    pub latency_micros: u64,
    /// The HTTP status, where one came.
    pub http_status: Option<u16>,
    /// What came back, whole: its digest is made of this, and [`MAX_STORED_RESPONSE`] bytes of it are stored.
    pub response: Option<Sensitive<Vec<u8>>>,
    /// How long the provider asked us to wait.
    pub retry_after: Option<std::time::Duration>,
}

/// Most bytes of a provider's answer that are stored with the attempt.
pub const MAX_STORED_RESPONSE: usize = 16 * 1024;

/// What a lookup at the provider found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupOutcome {
    /// The transaction, as the provider has it.
    Found(Fact),
    /// The provider does not hold it. `authoritative` where its lookup sees every accepted request.
    NotFound {
        /// Whether this proves that it was not processed, once no sender can be alive.
        authoritative: bool,
    },
    /// The provider could not be asked.
    Unavailable {
        /// Why not.
        cause: Cause,
        /// How long the provider asked us to wait.
        retry_after: Option<std::time::Duration>,
    },
}
