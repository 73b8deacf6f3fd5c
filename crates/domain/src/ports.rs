//! The ports: what the flows need from the world, as traits. The domain names no runtime, database or wire.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use thiserror::Error;
use uuid::Uuid;

use crate::change::{Change, IdempotencyRecord, JournalEntry, OperatorActionKind};
use crate::context::TraceIds;
use crate::decline::Cause;
use crate::ids::{
    EntryId, EventId, IdempotencyKey, PaymentId, ProviderAccount, ProviderReference, TenantId,
    TransactionId,
};
use crate::money::{Currency, Money};
use crate::payment::{Payment, PaymentRecord, PaymentState};
use crate::reconciliation::{SettlementPage, SettlementSource};
use crate::text::Sensitive;
use crate::transaction::{
    Attempt, Dispute, LookupOutcome, OperationKind, PreparedRequest, SendReport, Transaction,
    TransactionKind, TransactionOrigin, TransactionState,
};
use crate::unconfirmed::Unconfirmed;
use crate::webhook::{ProviderWebhooks, WebhookFact};

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
    /// The cause: a decline code or a [`Cause`].
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

/// Whether a payment can be voided before it is authorized, and by which name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoidBefore {
    /// It cannot.
    Never,
    /// By the provider's name, while its customer has to act.
    Named,
    /// By ours too: while its customer has to act, and where it is not known whether the provider holds it.
    Ours,
}

/// What a provider can do.
#[allow(clippy::struct_excessive_bools)] // independent yes-or-no answers, not a state
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether part of an authorization can be captured.
    pub partial_capture: bool,
    /// Whether an authorization can be captured several times.
    pub several_captures: bool,
    /// Whether a payment can be voided before it is authorized.
    pub void_before_authorization: VoidBefore,
    /// Whether its lookup by our transaction id sees every accepted request.
    pub authoritative_lookup: bool,
    /// Whether a lookup by the provider's own reference tells how the operation stands now. Where it does not, what
    /// a webhook tells cannot be confirmed by asking, and its word has to do.
    pub current_lookup: bool,
    /// How long after a request its lookup may still miss it.
    pub consistency_window: Duration,
    /// How long it keeps an idempotency key.
    pub idempotency_key_lifetime: Duration,
}

/// What an adapter is asked to do, as domain values.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// What to do.
    pub kind: OperationKind,
    /// For which payment; its method carries the token when it is new.
    pub payment: &'a Payment,
    /// As which transaction; its id is the idempotency key.
    pub transaction: &'a Transaction,
    /// The transaction that opened the payment: the provider knows the payment by its id, also before it gives it a name
    /// of its own. `transaction` itself where that opens it.
    pub opening: &'a Transaction,
    /// How much (the transaction's amount); `None` for voids and confirmations.
    pub amount: Option<Money>,
    /// What the customer's authentication returned (confirm only).
    pub parameters: &'a [(String, String)],
}

/// Why an adapter cannot make a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unpreparable {
    /// The provider cannot represent the amount in this currency exactly.
    #[error("the provider cannot represent this amount exactly")]
    Amount,
    /// The provider does not serve this currency.
    #[error("the provider does not serve {0}")]
    Currency(Currency),
    /// The provider does not serve this payment method.
    #[error("the provider does not serve this payment method")]
    Method,
    /// The provider needs an optional field that the request does not hold, or not in a form that it takes.
    #[error("the provider needs {0}")]
    Field(&'static str),
    /// The provider's reference of the payment is not known yet.
    #[error("the provider's reference is not known yet")]
    NoReference,
}

/// The pure half of an adapter: what it can do, and the bytes of its requests.
pub trait ProviderRules: Send + Sync {
    /// What the provider can do.
    fn capabilities(&self) -> &Capabilities;

    /// Makes the request: the same operation always gives the same bytes.
    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable>;
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupQuery {
    /// Our transaction. The provider knows this id only where we asked for the transaction; see `origin`.
    pub transaction: TransactionId,
    /// What it does. A chargeback and its reversal may share the provider's reference.
    pub kind: TransactionKind,
    /// Who caused it: what the provider itself did is found by `provider_reference` alone, which is then known.
    pub origin: TransactionOrigin,
    /// Its provider reference, where known.
    pub provider_reference: Option<ProviderReference>,
    /// The payment's provider reference, where known.
    pub payment_reference: Option<ProviderReference>,
}

impl LookupQuery {
    /// Asks what became of a transaction of this payment.
    pub fn about(payment: &Payment, transaction: &Transaction) -> Self {
        Self {
            transaction: transaction.id,
            kind: transaction.kind,
            origin: transaction.origin,
            provider_reference: transaction.provider_reference.clone(),
            payment_reference: payment.provider_reference.clone(),
        }
    }
}

/// A place for one call to an account; given back when it is dropped.
pub struct Place(Option<Box<dyn Any + Send + Sync>>);

impl Place {
    /// A place that holds something until it is given back.
    pub fn holding(permit: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(permit)))
    }

    /// A place where there is no limit.
    pub fn unlimited() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.is_some()).finish()
    }
}

/// Whether an account is called at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Circuit {
    /// Yes.
    Closed,
    /// A few calls, to see whether it is back.
    HalfOpen,
    /// No: calls are answered as not sent.
    Open,
}

/// One account at a payment provider.
#[async_trait]
pub trait Provider: ProviderRules + ProviderWebhooks + 'static {
    /// Sends a prepared request once, and classifies what came of it. Never retries by itself.
    /// `send` is 1 for the first send of the transaction.
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport;

    /// Asks what became of a transaction.
    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome;

    /// Whether a lookup asks the provider at all. Where there is nothing to ask, its answer says nothing about
    /// whether the provider works.
    fn lookup_asks(&self) -> bool {
        true
    }

    /// Asks which payment of ours the provider knows by this reference. For webhooks that name a payment by the
    /// provider's reference alone.
    async fn payment_named(&self, _reference: &ProviderReference) -> Result<Named, Unconfirmed> {
        Ok(Named::NotFound)
    }

    /// Asks what a chargeback, or its reversal, is about now: its reason, its date, its amount. `None` where the provider
    /// cannot be asked that, or does not know it.
    async fn dispute(&self, _query: &LookupQuery) -> Result<Option<Dispute>, Unconfirmed> {
        Ok(None)
    }

    /// Asks for all operations of a kind on the payment that the provider knows by this reference, as its webhooks would
    /// tell of each. For webhooks that do not say which of them they are about.
    async fn operations(
        &self,
        _kind: TransactionKind,
        _payment: &ProviderReference,
    ) -> Result<Vec<WebhookFact>, Unconfirmed> {
        Err(Cause::RequestRefused.into())
    }

    /// How it is learnt what the account settled; `None` where that cannot be read.
    fn settlements(&self) -> Option<SettlementSource> {
        None
    }

    /// Asks what the account settled, behind `after`. For accounts whose source says that they are asked.
    async fn settlement_page(&self, _after: u64) -> Result<SettlementPage, Cause> {
        Err(Cause::RequestRefused)
    }

    /// How long a send can take at most, connection included.
    fn send_timeout(&self) -> Duration;

    /// Whether real money moves through this account.
    fn livemode(&self) -> bool;

    /// Takes a place for one send, before anything is written for it.
    fn reserve(&self) -> Result<Place, Saturated> {
        Ok(Place::unlimited())
    }

    /// Waits for a place for one send, as long as a send can take: whoever waits is served before those who only try
    /// ([`Provider::reserve`]). For what is accepted already, so that new requests do not keep it from being sent.
    async fn place(&self) -> Result<Place, Saturated> {
        self.reserve()
    }

    /// Whether it is called at all.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }
}

/// The configured provider accounts and the rules that choose among them.
pub trait Providers: Send + Sync + 'static {
    /// The account with this name.
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>>;

    /// Whether this tenant may use an account; an account that does not exist serves nobody.
    fn serves(&self, tenant: &TenantId, name: &ProviderAccount) -> bool;

    /// The names of all accounts.
    fn names(&self) -> Vec<ProviderAccount>;

    /// The accounts that may serve a new payment, best first; those whose circuit is open come last.
    fn route(
        &self,
        tenant: &TenantId,
        amount: Money,
        method: crate::payment::PaymentMethodType,
    ) -> Vec<ProviderAccount>;
}

/// Time, as the flows see it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now, UTC, in whole microseconds.
    fn now(&self) -> DateTime<Utc>;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// A future that outlives its caller.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// As many tasks or calls run as are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("as many run as are allowed")]
pub struct Saturated;

/// Starts tasks that outlive the caller's cancellation or deadline, in the current trace.
pub trait Spawn: Send + Sync + 'static {
    /// Starts one, unless as many as are allowed run already.
    fn spawn(&self, task: Task) -> Result<(), Saturated>;
}

/// Ids and salts.
pub trait Randomness: Send + Sync + 'static {
    /// A `UUIDv7` for this time, larger than those made before it in this process.
    fn uuid_v7(&self, now: DateTime<Utc>) -> Uuid;

    /// 128 random bits.
    fn salt(&self) -> [u8; 16];
}

/// Telemetry, as the flows need it.
pub trait Observer: Send + Sync + 'static {
    /// The ids of the current span.
    fn current_trace(&self) -> TraceIds;

    /// An attempt ended.
    fn attempt_ended(
        &self,
        account: &ProviderAccount,
        operation: OperationKind,
        outcome: &'static str,
        cause: Option<Cause>,
        seconds: f64,
    );

    /// A transaction was taken up again: sent again, or looked up.
    fn retried(&self, account: &ProviderAccount, operation: OperationKind, how: &'static str);

    /// A case was opened for a person.
    fn case_opened(&self, account: &ProviderAccount, kind: OperatorActionKind);

    /// A command was answered from an earlier one.
    fn replayed(&self, command: crate::change::CommandKind);
}

/// Every port, bundled for the flows.
#[derive(Clone)]
pub struct Ports {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The provider accounts.
    pub providers: Arc<dyn Providers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// Ids and salts.
    pub random: Arc<dyn Randomness>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
}
