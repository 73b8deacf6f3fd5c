//! Webhooks: what a provider tells by itself. They are verified, stored, and applied later, as any other fact is.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::ids::{
    EventId, PaymentId, ProviderAccount, ProviderReference, TransactionId, WebhookId,
};
use crate::named::named_enum;
use crate::ports::StoreError;
use crate::text::{Sensitive, Text};
use crate::transaction::{Dispute, Fact, TransactionKind};

/// A webhook as it came in: nothing of it is believed yet.
pub struct Delivery<'a> {
    /// The value of a header, by its name in lower case; `None` where it is missing, there several times, or not
    /// printable ASCII.
    pub header: &'a (dyn Fn(&str) -> Option<&'a str> + Send + Sync),
    /// The body, byte by byte as it was sent: this is what is signed.
    pub body: &'a [u8],
    /// When it came (database clock).
    pub received_at: DateTime<Utc>,
}

/// Its headers and body say nothing that may be logged before they are verified.
impl fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({} bytes)", self.body.len())
    }
}

named_enum! {
    /// Why a webhook is not believed.
    pub enum Unverified {
        /// The account has no webhook secret: nothing can be verified.
        NoSecret = "no_secret",
        /// What a signature needs is missing, or is not of the right form.
        Unsigned = "unsigned",
        /// No signature matches under any secret that is live.
        Signature = "signature",
        /// Signed longer ago than is tolerated: a replay, or a sender whose clock is wrong.
        TooOld = "too_old",
        /// Signed further ahead than is tolerated.
        TooNew = "too_new",
    }
}

/// Why a verified webhook cannot be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// It is not what the provider's documentation promises.
    #[error("the webhook cannot be read")]
    Malformed,
    /// It can be read, and is about something that is not handled.
    #[error("the webhook is about something that is not handled")]
    Unexpected,
}

/// One event of a delivery that verified: stored, deduplicated and applied by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvent {
    /// What the provider calls it, the same for every delivery of it; `None` where it names none.
    pub id: Option<EventId>,
    /// SHA-256 of all that is signed of it. One that has no id, or cannot be read, is known by this: what is not signed
    /// can be varied by whoever holds it.
    pub signed: [u8; 32],
    /// What is stored of it, and what [`ProviderWebhooks::webhook`] reads: the body of a delivery that tells one
    /// event, or as much of it as tells this one.
    pub body: Sensitive<Vec<u8>>,
}

/// What a webhook proves about an operation on a payment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookFact {
    /// The payment that it names.
    pub payment: PaymentName,
    /// The operation that it is about.
    pub subject: Subject,
    /// What it proves.
    pub fact: Fact,
}

/// How a webhook names a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentName {
    /// By our id, which the provider was given.
    Ours(PaymentId),
    /// By the provider's reference alone: the provider is asked which payment of ours that is
    /// ([`Provider::payment_named`](crate::ports::Provider::payment_named)).
    Theirs(ProviderReference),
    /// As another event of the account, which names it by our id and is stored once it came
    /// ([`Store::payment_of_event`](crate::ports::Store::payment_of_event)). For providers that cannot be asked.
    OfEvent(EventId),
}

/// Which operation on its payment a webhook is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A transaction that the provider names by our id.
    Transaction(TransactionId),
    /// An operation that the provider names by its own reference (the fact's `provider_reference`, which must be
    /// there): a transaction of ours of this kind that has that reference; where there is none, one that we never
    /// asked for, made in the provider's dashboard or by the network.
    ///
    /// An adapter that cannot tell the two apart may use it too. A void releases all that is left, so an open one
    /// of ours is the one that is told of; and while a capture or refund of ours for that amount is open and has no
    /// reference yet, the fact waits until it has.
    Operation {
        /// What it does; not one that opens a payment.
        kind: TransactionKind,
        /// What a chargeback, or its reversal, is about.
        dispute: Option<Dispute>,
    },
    /// There is an operation of this kind, and the event does not say which: the provider is asked for all of them
    /// ([`Provider::operations`](crate::ports::Provider::operations)). Of the fact, only the payment's reference says
    /// something, and it must be there.
    Unnamed {
        /// What it does.
        kind: TransactionKind,
    },
    /// Something was done about the money of this payment, and the event does not say what: a person is asked. Of the fact
    /// only the references say something.
    Unclear {
        /// What the provider calls the event.
        event: Text<50>,
    },
}

/// How the webhooks of an account are verified and read. Every adapter has to say it: there is no default.
pub trait ProviderWebhooks: Send + Sync {
    /// Verifies that the provider sent it: over the raw bytes, in constant time, under any secret that is live.
    /// Where it signs each event of a delivery, one that does not verify refuses them all.
    ///
    /// Gives the events that it tells, at least one, in their order.
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified>;

    /// Reads the body of a verified event, by signed fields only. Pure: the same body always tells the same.
    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable>;
}

named_enum! {
    /// How far a stored webhook got.
    pub enum WebhookState {
        /// Stored, not looked at yet.
        Received = "RECEIVED",
        /// It changed a payment.
        Applied = "APPLIED",
        /// It told nothing new.
        Ignored = "IGNORED",
        /// It cannot be applied yet, and is tried again.
        Parked = "PARKED",
        /// It is not applied: a dead letter, kept for a person.
        Dead = "DEAD",
    }
}

named_enum! {
    /// Why a stored webhook waits, or is a dead letter.
    pub enum WebhookReason {
        /// It names a payment that is not known (yet).
        UnknownPayment = "UNKNOWN_PAYMENT",
        /// It names a transaction that was not sent through its account (I9).
        OtherAccount = "OTHER_ACCOUNT",
        /// It names a transaction that was not sent there after all, and went to another account.
        MovedOn = "MOVED_ON",
        /// It contradicts an outcome that is known, and the provider could not confirm it.
        NotConfirmed = "NOT_CONFIRMED",
        /// It cannot be read.
        Unreadable = "UNREADABLE",
        /// It is about something that is not handled.
        Unexpected = "UNEXPECTED",
        /// It could not be applied just now.
        NotApplied = "NOT_APPLIED",
        /// Its account is not configured any more.
        UnknownAccount = "UNKNOWN_ACCOUNT",
        /// Its stored body cannot be opened: the key is missing, or somebody changed it.
        NotOpened = "NOT_OPENED",
        /// It was begun too often without an end: whoever works at it dies.
        Abandoned = "ABANDONED",
    }
}

/// A verified webhook to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Our id of it.
    pub id: WebhookId,
    /// The account that it came for, and that verified it.
    pub account: ProviderAccount,
    /// The event, once for each account.
    pub event: EventId,
    /// The body; stored encrypted.
    pub body: Sensitive<Vec<u8>>,
    /// Why it is a dead letter from the beginning; `None`: it is to be applied.
    pub dead: Option<WebhookReason>,
}

/// What became of storing a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is committed.
    Stored,
    /// The account's event had been stored before. Nothing was written.
    KnownEvent,
}

/// A stored webhook, claimed by this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedWebhook {
    /// Our id of it.
    pub id: WebhookId,
    /// The account that it came for.
    pub account: ProviderAccount,
    /// The body; `None` where it cannot be opened.
    pub body: Option<Sensitive<Vec<u8>>>,
    /// How often it was begun, this time included: 1, 2, 3 … Also the fence of the claim.
    pub attempt: u32,
    /// How often it was begun since it came in or was last replayed, this time included, without those times that used
    /// up no try.
    pub tries: u32,
    /// How long ago it was stored (database clock).
    pub age: Duration,
}

/// Which webhooks are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<WebhookState>,
    /// That came for this account.
    pub account: Option<ProviderAccount>,
    /// Parked or dead for this reason.
    pub reason: Option<WebhookReason>,
}

/// A stored webhook, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    /// Our id of it.
    pub id: WebhookId,
    /// The account that it came for.
    pub account: ProviderAccount,
    /// The provider's id of the event.
    pub event: EventId,
    /// How far it got.
    pub state: WebhookState,
    /// Why it is parked, or a dead letter.
    pub reason: Option<WebhookReason>,
    /// How often applying it was begun.
    pub attempts: u32,
    /// When it was stored.
    pub received_at: DateTime<Utc>,
    /// When it is to be applied; `None` once it is finished.
    pub next_step_at: Option<DateTime<Utc>>,
    /// When it was applied, ignored or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// When its body was wiped.
    pub wiped_at: Option<DateTime<Utc>>,
}

/// What is left of a stored webhook's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBody {
    /// All of it.
    Kept(Sensitive<Vec<u8>>),
    /// Nothing: it was kept for as long as it had to be.
    Wiped,
    /// It cannot be opened: the key is missing, or somebody changed it.
    NotOpened,
}

/// What became of taking a webhook up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It is due now.
    Due,
    /// It waits for nothing: it is neither parked nor a dead letter, or its body is gone.
    NotReplayable,
}

/// Whose bodies are wiped: what is done with, or what a person may still want to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiped {
    /// Those of applied and ignored webhooks.
    Done,
    /// Those of dead letters.
    Dead,
    /// Those of dead letters that name no payment of ours: nobody knows whom they are about.
    Unnamed,
}

/// What is to become of a claimed webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookVerdict {
    /// It changed a payment.
    Applied,
    /// It told nothing new.
    Ignored,
    /// It is tried again later.
    Parked {
        /// Why.
        reason: WebhookReason,
        /// In how long (database clock).
        again_in: Duration,
        /// Whether this time used up no try: it was not the webhook's fault.
        free: bool,
    },
    /// It is a dead letter.
    Dead {
        /// Why.
        reason: WebhookReason,
    },
}

impl WebhookVerdict {
    /// The state that it puts the webhook in.
    pub const fn state(&self) -> WebhookState {
        match self {
            Self::Applied => WebhookState::Applied,
            Self::Ignored => WebhookState::Ignored,
            Self::Parked { .. } => WebhookState::Parked,
            Self::Dead { .. } => WebhookState::Dead,
        }
    }

    /// Why, where there is a reason.
    pub const fn reason(&self) -> Option<WebhookReason> {
        match self {
            Self::Applied | Self::Ignored => None,
            Self::Parked { reason, .. } | Self::Dead { reason } => Some(*reason),
        }
    }
}

/// How much waits in the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboxBacklog {
    /// Webhooks that wait to be applied, parked ones included.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Which webhooks are claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxClaim {
    /// At most so many.
    pub limit: usize,
    /// At most so many of each account, those under way in this process included.
    pub per_account: usize,
    /// How many are under way in this process, by account.
    pub busy: Vec<(ProviderAccount, usize)>,
    /// For as long (database clock).
    pub lease: Duration,
}

/// The inbox: verified webhooks, until they are applied.
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// Stores webhooks, once for each account and event: all of them, or, where it fails, none. Committed when it
    /// answers, with what became of each, in their order. Of two of one event the first is stored.
    async fn receive(&self, webhooks: Vec<NewWebhook>) -> Result<Vec<Receipt>, StoreError>;

    /// Claims webhooks that are due, those due longest first, which nobody else has claimed.
    async fn claim_webhooks(&self, claim: &InboxClaim) -> Result<Vec<ClaimedWebhook>, StoreError>;

    /// Writes down what became of a claimed webhook, and which payments it is about, as far as that is known. What is
    /// finished keeps no body where it is about a payment whose customer is erased or being erased, or told nothing and
    /// names no payment. How long ago it was received, in seconds; `None` where somebody else has claimed it since.
    async fn close_webhook(
        &self,
        claimed: &ClaimedWebhook,
        verdict: WebhookVerdict,
        about: &[PaymentId],
    ) -> Result<Option<f64>, StoreError>;

    /// Counts what waits.
    async fn inbox_backlog(&self) -> Result<InboxBacklog, StoreError>;

    /// Lists webhooks, newest first, those before `before` (exclusive): at most `limit`.
    async fn list_webhooks(
        &self,
        filter: &WebhookFilter,
        before: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<StoredWebhook>, StoreError>;

    /// Reads a webhook with its body.
    async fn webhook(
        &self,
        id: WebhookId,
    ) -> Result<Option<(StoredWebhook, StoredBody)>, StoreError>;

    /// Has a parked webhook or a dead letter tried again at once, from the beginning of its schedule.
    async fn replay_webhook(&self, id: WebhookId) -> Result<Replay, StoreError>;

    /// Wipes the bodies of webhooks that were finished longer ago than `kept_for` (database clock), oldest first: at
    /// most `limit`, and none that somebody else is wiping. How many. The rest of the row stays for good: it is what
    /// tells a repetition from a new event.
    async fn wipe_webhooks(
        &self,
        which: Wiped,
        kept_for: Duration,
        limit: usize,
    ) -> Result<usize, StoreError>;
}
