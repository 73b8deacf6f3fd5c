//! The database: what is asked of it, and what it answers.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use thiserror::Error;
use uuid::Uuid;

use crate::change::{Change, IdempotencyRecord, JournalEntry, OperatorActionKind};
use crate::ids::{
    EntryId, EventId, IdempotencyKey, PaymentId, ProviderAccount, TenantId, TransactionId,
};
use crate::payment::{Payment, PaymentRecord, PaymentState};
use crate::text::Sensitive;
use crate::transaction::{Attempt, OperationKind, Transaction, TransactionKind, TransactionState};

/// Why the store could not answer. Messages carry no values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database is out of reach, and the change was certainly not committed.
    #[error("the database is out of reach")]
    Unavailable,
    /// The connection was lost while committing: the change may be committed.
    #[error("the connection to the database was lost while committing")]
    CommitUnknown,
    /// A bounded queue is full; nothing was written.
    #[error("too many changes are waiting for the database")]
    Overloaded,
    /// The database refused the change: a defect of ours. Names the constraint.
    #[error("the database refused the change: {0}")]
    Refused(String),
    /// A stored value could not be read: a defect, or tampering.
    #[error("a stored value could not be read: {0}")]
    Corrupt(String),
}

/// What became of a change that the database could be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It is committed (by this call, or by an earlier one of the same entry).
    Committed,
    /// The payment has moved on: read it again and decide again. Nothing was written.
    VersionConflict,
    /// The tenant has used the idempotency key before. Nothing was written.
    IdempotencyKeyTaken,
}

/// What a reference of the provider's names, or an event of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// This payment of ours.
    Ours(PaymentId),
    /// A payment that somebody else made through the same account.
    NotOurs,
    /// Nothing that is known (yet).
    NotFound,
}

/// Which payments a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// Any of these states; empty for all.
    pub states: Vec<PaymentState>,
    /// Created at or after.
    pub created_from: Option<DateTime<Utc>>,
    /// Created before.
    pub created_to: Option<DateTime<Utc>>,
    /// Served by this account.
    pub provider_account: Option<ProviderAccount>,
    /// With exactly this merchant reference.
    pub merchant_reference: Option<String>,
}

/// A page of payments, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentPage {
    /// The payments.
    pub payments: Vec<PaymentRecord>,
    /// Whether the page ended early: there are more, though they are fewer than were asked for.
    pub ended_early: bool,
}

/// Which journal entries a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// About this payment.
    pub payment: Option<PaymentId>,
    /// About this transaction.
    pub transaction: Option<TransactionId>,
    /// In this trace.
    pub trace_id: Option<[u8; 16]>,
    /// Caused by this actor.
    pub actor: Option<String>,
    /// Of this type.
    pub event_type: Option<String>,
    /// From this RPC or component.
    pub source: Option<String>,
    /// With this result.
    pub result: Option<String>,
    /// With this cause.
    pub cause: Option<String>,
    /// Occurred at or after.
    pub from: Option<DateTime<Utc>>,
    /// Occurred before.
    pub to: Option<DateTime<Utc>>,
}

/// A journal entry as read back: its canonical bytes, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The entry's id.
    pub id: EntryId,
    /// The stream it belongs to.
    pub stream: Uuid,
    /// Its number within the stream.
    pub entity_seq: u64,
    /// The canonical bytes.
    pub leaf: Vec<u8>,
    /// Its gapless position, once sequenced: 0, 1, 2 …
    pub position: Option<u64>,
    /// Whether this service wrote the bytes, and as this entry.
    pub authenticity: Authenticity,
}

/// Whether this service wrote the bytes of a journal entry, and as this entry. What it did not may be shown, marked; nothing is
/// signed about it, and nobody is told that it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authenticity {
    /// It did: their MAC verifies, and id, stream and number are theirs.
    Ours,
    /// It did not: somebody changed the entry, or made it up.
    Forged,
    /// Their MAC is under a key that this process does not have: nothing can be said.
    KeyUnknown,
}

impl StoredEntry {
    /// Whether this service wrote it, as far as this process can tell.
    pub fn is_authentic(&self) -> bool {
        self.authenticity == Authenticity::Ours
    }

    /// The bytes, for whoever signs something about them; `None` where this service did not write them.
    pub fn authentic_leaf(&self) -> Option<&[u8]> {
        self.is_authentic().then_some(self.leaf.as_slice())
    }
}

/// What the log says about failures in a range of time.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureReport {
    /// The failures, most frequent first.
    pub summaries: Vec<FailureSummary>,
    /// From when on they were counted: later than asked for where the range has too many entries. To the millisecond.
    pub from: DateTime<Utc>,
    /// How many entries of the range were read.
    pub entries: u64,
    /// How many of those this service did not write: nothing that they say is counted.
    pub refused: u64,
}

/// How one operation failed, for `SummarizeFailures`.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureSummary {
    /// The cause: a decline code or a [`Cause`](crate::decline::Cause).
    pub cause: String,
    /// The provider account.
    pub provider_account: String,
    /// The operation.
    pub operation: String,
    /// Attempts that ended so.
    pub failures: u64,
    /// All attempts of this account and operation in the range.
    pub attempts: u64,
    /// Latency quantiles 0.5, 0.95 and 0.99 of those failures, in seconds, to within 1 %.
    pub latency: [f64; 3],
    /// Up to three payments that show it, newest first.
    pub examples: Vec<PaymentId>,
}

/// Which of what is due recovery claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueKind {
    /// All that has no outcome.
    Any,
    /// What is proved unsent, and is too late to send: no provider is called to end it.
    TooLate,
    /// That, and what opens a payment that routing placed: where it is proved unsent, another account may take it.
    Unsent,
    /// Authorizations that may have run out: they have their outcome, so nothing else includes them.
    RanOut,
}

impl DueKind {
    /// Whether it includes a transaction of a payment, whose next step is due.
    pub fn includes(self, payment: &Payment, row: &Transaction, now: DateTime<Utc>) -> bool {
        if row.state.ended() {
            return self == Self::RanOut && row.is_watched();
        }
        let unsent = row.state == TransactionState::Pending && row.certainly_unprocessed();
        let too_late = row.kind != TransactionKind::Void && row.execute_before <= now;
        match self {
            Self::RanOut => false,
            Self::Any => true,
            Self::TooLate => unsent && too_late,
            Self::Unsent => unsent && (too_late || row.kind.opens() && payment.routed),
        }
    }
}

/// Of which accounts recovery claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// Of all but these, which cannot be asked now; also of those that are not configured any more.
    AllBut(Vec<ProviderAccount>),
    /// Of this one.
    Only(ProviderAccount),
}

impl Accounts {
    /// Of every account.
    pub fn all() -> Self {
        Self::AllBut(Vec::new())
    }

    /// Whether an account is among them.
    pub fn include(&self, account: &ProviderAccount) -> bool {
        match self {
            Self::AllBut(except) => !except.contains(account),
            Self::Only(only) => only == account,
        }
    }
}

/// What recovery claims at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Only these.
    pub kind: DueKind,
    /// At most this many transactions.
    pub limit: usize,
    /// How long nobody else claims them, by the database's clock; a change of the transaction ends the claim.
    pub lease: Duration,
    /// Of which accounts.
    pub accounts: Accounts,
}

/// A transaction whose next step is due, claimed by this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub tenant: TenantId,
    /// Of which payment.
    pub payment: PaymentId,
    /// Which.
    pub transaction: TransactionId,
    /// The account that it waits for.
    pub provider_account: ProviderAccount,
}

/// How many sends of a transaction may have been processed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InDoubt {
    /// All but those proved not to have been sent.
    pub sends: u32,
    /// Those of them that have certainly begun: a process that died may have done so before it sent.
    pub begun: u32,
}

/// How much waits for an outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Transactions whose next step is due, claimed ones included.
    pub due: u64,
    /// Transactions without an outcome; those that wait for the customer, and what the provider did by itself
    /// (an inquiry of the issuer), left out.
    pub pending: u64,
    /// Age of the oldest of those, in seconds; 0 where there is none.
    pub oldest_pending_seconds: f64,
    /// Cases that are open for a person.
    pub open_cases: u64,
}

/// Which cases a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseFilter {
    /// Closed ones too.
    pub closed: bool,
    /// About this payment.
    pub payment: Option<PaymentId>,
    /// Of this kind.
    pub kind: Option<OperatorActionKind>,
}

/// A case for a person, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCase {
    /// The journal entry that opened it.
    pub id: EntryId,
    /// Whose payment it is about.
    pub tenant: TenantId,
    /// Which.
    pub payment: PaymentId,
    /// Which transaction.
    pub transaction: TransactionId,
    /// Why it was opened.
    pub kind: OperatorActionKind,
    /// When.
    pub opened_at: DateTime<Utc>,
    /// When it was closed, and by which journal entry; `None` while it is open.
    pub closed: Option<(DateTime<Utc>, EntryId)>,
}

/// Whether a transaction was sent through an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentThrough {
    /// By an attempt of this tenant's transaction.
    Yes(TenantId),
    /// The payment is known, and no attempt of that transaction went through the account.
    No,
    /// No such payment is known.
    UnknownPayment,
}

/// The database, as the flows see it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a change, all of it or nothing: the only way to change a payment.
    ///
    /// Executing the same change again is safe: it finds its own entry and answers `Committed`.
    async fn commit(&self, change: Change) -> Result<Commit, StoreError>;

    /// Appends an entry to a named stream: what concerns no payment's state.
    /// `VersionConflict` when the stream already has an entry with this number, or does not have the one before, as its
    /// bytes name it.
    async fn append(&self, entry: JournalEntry) -> Result<Commit, StoreError>;

    /// Reads a payment of a tenant with all its transactions.
    async fn payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError>;

    /// Finds what a tenant asked under an idempotency key.
    async fn idempotency_record(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Lists a tenant's payments, newest first, those after `after` (exclusive) of an earlier page: at most
    /// `limit`, and fewer where their transactions would make the page too large.
    async fn list_payments(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError>;

    /// Lists entries in chronological order of their ids, those after `after` (exclusive);
    /// `tenant` = `None` reads across tenants (platform roles).
    async fn list_entries(
        &self,
        tenant: Option<&TenantId>,
        filter: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;

    /// Reads one entry.
    async fn entry(
        &self,
        tenant: Option<&TenantId>,
        id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError>;

    /// Reads sequenced entries from a position on (inclusive), in order of position, at most `limit`.
    async fn entries_from(
        &self,
        tenant: Option<&TenantId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;

    /// How many entries are sequenced: the position that the next one will get.
    async fn next_position(&self) -> Result<u64, StoreError>;

    /// Waits until more than `position` entries are sequenced, or until `limit` has passed.
    async fn wait_for_position(&self, position: u64, limit: Duration);

    /// Claims transactions whose next step is due by the database's clock, those due longest first, which
    /// nobody else has claimed.
    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Due>, StoreError>;

    /// Counts what waits for an outcome.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Reads one attempt.
    async fn attempt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        number: u32,
    ) -> Result<Option<Attempt>, StoreError>;

    /// Counts the attempts of a transaction at this operation that may have been processed: all but those proved not to have
    /// been sent. A confirmation is none of the requests before it.
    async fn attempts_in_doubt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        operation: OperationKind,
    ) -> Result<InDoubt, StoreError>;

    /// Finds out whether an attempt sent this transaction through this very account (I9), and whose it is; `None`
    /// for the one that opened the payment.
    async fn sent_through(
        &self,
        payment: PaymentId,
        transaction: Option<TransactionId>,
        account: &ProviderAccount,
    ) -> Result<SentThrough, StoreError>;

    /// Finds the payment that a stored webhook of this account is about, by the name of its event. `NotOurs` where it was
    /// stored as one that is about nothing of ours; `NotFound` while it has not come, or was not looked at yet.
    async fn payment_of_event(
        &self,
        account: &ProviderAccount,
        event: &EventId,
    ) -> Result<Named, StoreError>;

    /// Reads the provider's token of a payment's method, which reading the payment leaves out.
    async fn method_token(
        &self,
        payment: PaymentId,
    ) -> Result<Option<Sensitive<String>>, StoreError>;

    /// Lists cases for a person, oldest first, those after `after` (exclusive); `tenant` = `None` reads
    /// across tenants (platform roles).
    async fn list_cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, StoreError>;

    /// Summarizes the attempts of a tenant that ended in a range of time and failed, as the bytes of the audit log say.
    async fn summarize_failures(
        &self,
        tenant: Option<&TenantId>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: usize,
    ) -> Result<FailureReport, StoreError>;
}
