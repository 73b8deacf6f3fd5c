//! A [`Change`]: everything that one step writes, committed together or not at all.

use chrono::{DateTime, Utc};
use quittance_evidence::LeafData;

use crate::fingerprint::Fingerprint;
use crate::ids::{EntryId, IdempotencyKey, PaymentId, TenantId, TransactionId};
use crate::named::named_enum;
use crate::payment::Payment;
use crate::text::Sensitive;
use crate::transaction::{Attempt, Transaction};

/// Everything that one step of a payment writes.
///
/// There is no other way to change a payment: the state, the transaction, the attempt, the idempotency
/// record and the journal entry commit in one database transaction (I7), guarded by the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The payment as it will be; `version` is one more than the version it was decided upon
    /// (1 for a new payment, which is inserted).
    pub payment: Payment,
    /// The idempotency record of the command that caused it; `None` for outcomes.
    pub idempotency: Option<IdempotencyRecord>,
    /// Transactions to insert or update, oldest first; at most three.
    pub transactions: Vec<Write<Transaction>>,
    /// The attempt that starts or ends.
    pub attempt: Option<Write<Attempt>>,
    /// Personal fields of the customer, given with a new payment.
    pub customer: Option<CustomerData>,
    /// What it closes of the open cases: all of a kind about a transaction; at most each kind once, for two transactions.
    pub closes_cases: Vec<OperatorAction>,
    /// A case for a person, opened by it.
    pub operator_action: Option<OperatorAction>,
    /// The one journal entry.
    pub entry: JournalEntry,
}

/// Whether a row is new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write<T> {
    /// Insert it.
    Insert(T),
    /// Update its changeable columns.
    Update(T),
}

impl<T> Write<T> {
    /// The row.
    pub fn row(&self) -> &T {
        match self {
            Self::Insert(row) | Self::Update(row) => row,
        }
    }
}

named_enum! {
    /// The mutating RPCs, as idempotency records name them.
    pub enum CommandKind {
        /// `CreatePayment`.
        Create = "CreatePayment",
        /// `ConfirmPayment`.
        Confirm = "ConfirmPayment",
        /// `CapturePayment`.
        Capture = "CapturePayment",
        /// `VoidPayment`.
        Void = "VoidPayment",
        /// `RefundPayment`.
        Refund = "RefundPayment",
    }
}

/// (tenant, key) → what was asked and which transaction answered it. Never expires (I6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyRecord {
    /// Who asked.
    pub tenant: TenantId,
    /// Under which key.
    pub key: IdempotencyKey,
    /// Which RPC.
    pub command: CommandKind,
    /// A keyed MAC per field of the request.
    pub fingerprint: Fingerprint,
    /// The payment.
    pub payment: PaymentId,
    /// The transaction that the command made or advanced.
    pub transaction: TransactionId,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Personal fields of a customer: each with its salt, so that the journal can hold salted digests and
/// erasing salts and values leaves every proof valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomerData {
    /// The caller's reference of the customer: what erasure is asked by.
    pub reference: Sensitive<String>,
    /// (name, salt, value), in the order of their names.
    pub fields: Vec<PersonalField>,
}

/// One personal field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersonalField {
    /// Its name, such as `customer.email`.
    pub name: &'static str,
    /// 128 random bits.
    pub salt: [u8; 16],
    /// Its value.
    pub value: Sensitive<String>,
}

named_enum! {
    /// Why a person has to look at a payment.
    pub enum OperatorActionKind {
        /// The provider named another amount or currency than was asked.
        AmountMismatch = "AMOUNT_MISMATCH",
        /// A fact contradicts an end state; it was recorded and applied.
        ContradictingFact = "CONTRADICTING_FACT",
        /// The provider proved more than our limits allow.
        ExcessAmount = "EXCESS_AMOUNT",
        /// Automatic recovery gave up: the outcome is still not known.
        RecoveryExhausted = "RECOVERY_EXHAUSTED",
    }
}

/// A case for a person, which a change opens or closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperatorAction {
    /// Why.
    pub kind: OperatorActionKind,
    /// About which transaction.
    pub transaction: TransactionId,
}

/// One entry of the journal: the canonical bytes, and the columns that index them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalEntry {
    /// The entry's id.
    pub id: EntryId,
    /// The stream: a payment's id, or the id of a named stream.
    pub stream: uuid::Uuid,
    /// 1, 2, 3 … within the stream; of a payment, its version.
    pub entity_seq: u64,
    /// Who owns it; `None` for what concerns no tenant.
    pub tenant: Option<TenantId>,
    /// The payment, where it concerns one.
    pub payment: Option<PaymentId>,
    /// The transaction, where it concerns one.
    pub transaction: Option<TransactionId>,
    /// What happened, such as `payment.authorized`.
    pub event_type: String,
    /// `success`, `failure` or `unknown`.
    pub result: &'static str,
    /// The cause's code, where there is one.
    pub cause: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// The RPC or component that caused it.
    pub source: String,
    /// The provider account concerned.
    pub provider_account: Option<String>,
    /// The trace that caused it, where one did.
    pub trace_id: Option<[u8; 16]>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The canonical bytes: what is hashed, signed and served.
    pub leaf: LeafData,
    /// Hash of those bytes, to which the stream's next entry is chained.
    pub leaf_hash: [u8; 32],
}
