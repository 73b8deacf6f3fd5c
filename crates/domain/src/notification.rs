//! Notifications: what tenants are told of their payments by themselves, as signed webhooks.
//!
//! Each event of the journal becomes one notification for each endpoint that wants it. They are made from the journal
//! in the order of its positions, and sent in the order of their payment.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::change::JournalEntry;
use crate::ids::{EndpointId, EntryId, NotificationId, PaymentId, TenantId};
use crate::named::named_enum;
use crate::ports::StoreError;
use crate::text::{Sensitive, Text};

/// Most event types that an endpoint names.
pub const MAX_EVENT_TYPES: usize = 64;
/// Longest name of an event type, in characters.
pub const MAX_EVENT_TYPE: usize = 64;
/// Longest URL of an endpoint, in characters.
pub const MAX_ENDPOINT_URL: usize = 2_048;
/// What stands for every event of a kind, behind the dot.
const ANY: &str = "*";

/// Which events an endpoint is told: one type, such as `payment.captured`, or all of a kind, such as `refund.*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPattern(String);

impl EventPattern {
    /// Parses `kind.name` or `kind.*`, where both are lower-case letters and underscores; at most
    /// [`MAX_EVENT_TYPE`] characters.
    pub fn parse(text: &str) -> Option<Self> {
        let word = |part: &str| {
            let known = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            !part.is_empty() && part.bytes().all(known)
        };
        let (kind, name) = text.split_once('.')?;
        let good = text.len() <= MAX_EVENT_TYPE && word(kind) && (name == ANY || word(name));
        good.then(|| Self(text.to_owned()))
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

named_enum! {
    /// Whether an endpoint is told of events.
    pub enum EndpointState {
        /// It is.
        Enabled = "ENABLED",
        /// A person has switched it off.
        Disabled = "DISABLED",
        /// Its receiver said that it is gone (410): a person may switch it on again.
        Gone = "GONE",
        /// It was deleted, and is kept only as long as the record of what it was told.
        Deleted = "DELETED",
    }
}

named_enum! {
    /// How far a notification got.
    pub enum NotificationState {
        /// It is to be delivered, perhaps for another time.
        Pending = "PENDING",
        /// The receiver took it.
        Delivered = "DELIVERED",
        /// It was given up: a dead letter, kept for a replay.
        Dead = "DEAD",
    }
}

named_enum! {
    /// Why an attempt failed, or a notification is a dead letter.
    pub enum NotificationCause {
        /// The receiver answered with a status other than 2xx.
        HttpStatus = "HTTP_STATUS",
        /// The receiver answered with a redirect, which is not followed.
        Redirect = "REDIRECT",
        /// The receiver answered 410: it wants no more.
        Gone = "GONE",
        /// There was no answer in time.
        Timeout = "TIMEOUT",
        /// No connection came about: nobody listens, or the certificate is not good.
        Unreachable = "UNREACHABLE",
        /// The connection broke before the answer.
        ConnectionLost = "CONNECTION_LOST",
        /// The name of the host has no address.
        NameNotResolved = "NAME_NOT_RESOLVED",
        /// The address is not one that notifications may be sent to.
        AddressRefused = "ADDRESS_REFUSED",
        /// The event or the endpoint's secret could not be read.
        NotPrepared = "NOT_PREPARED",
        /// The endpoint was switched off or deleted before it was delivered.
        EndpointClosed = "ENDPOINT_CLOSED",
        /// It was begun too often without an end.
        Abandoned = "ABANDONED",
    }
}

/// A new endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose events it is told; must exist.
    pub tenant: TenantId,
    /// Where notifications are posted; stored encrypted.
    pub url: Sensitive<String>,
    /// What it is for.
    pub description: Text<500>,
    /// Which events; none means all.
    pub events: Vec<EventPattern>,
    /// The secret, `whsec_…`; stored encrypted.
    pub secret: Sensitive<String>,
}

/// An endpoint as stored, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose events it is told.
    pub tenant: TenantId,
    /// Where notifications are posted.
    pub url: Sensitive<String>,
    /// What it is for.
    pub description: String,
    /// Which events; none means all.
    pub events: Vec<String>,
    /// Whether it is told of any.
    pub state: EndpointState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// Until when the secret before is live, where there is one that was not dropped.
    pub previous_secret_until: Option<DateTime<Utc>>,
}

/// What of an endpoint is changed; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointUpdate {
    /// Where notifications are posted.
    pub url: Option<Sensitive<String>>,
    /// What it is for.
    pub description: Option<Text<500>>,
    /// Which events.
    pub events: Option<Vec<EventPattern>>,
    /// Whether it is told of any.
    pub enabled: Option<bool>,
}

/// A change of a tenant's endpoints.
#[derive(Clone)]
pub enum EndpointChange {
    /// A new one; nothing is changed where the tenant has `limit` of them already, however many are made at once.
    Create {
        /// The endpoint.
        endpoint: NewEndpoint,
        /// Most that the tenant may have.
        limit: usize,
    },
    /// Another URL, description, or state; nothing is changed where the tenant has none with this id.
    Update {
        /// Which.
        id: EndpointId,
        /// What of it.
        update: EndpointUpdate,
    },
    /// It is deleted, with its URL and its secrets; nothing is changed where the tenant has none with this id.
    Delete {
        /// Which.
        id: EndpointId,
    },
    /// Puts a secret in the place of the newest one, which is live for as long as `keep`; any other is dropped. Nothing
    /// is changed where the tenant has no endpoint with this id.
    Rotate {
        /// Of which.
        id: EndpointId,
        /// The secret, `whsec_…`; stored encrypted.
        secret: Sensitive<String>,
        /// How long the one before stays live.
        keep: Duration,
    },
    /// Its receiver is gone, so that it is switched off; nothing is changed where it is not on, or is elsewhere by now:
    /// what a receiver said at the old URL is nothing to the new one.
    Gone {
        /// Which.
        id: EndpointId,
        /// Where the receiver said so.
        url: Sensitive<String>,
    },
}

/// What a notification is sent with.
#[derive(Clone)]
pub struct Destination {
    /// Where it is posted.
    pub url: Sensitive<String>,
    /// Every secret that is live, the newest first.
    pub secrets: Vec<Sensitive<String>>,
}

/// A notification that this process has claimed.
#[derive(Clone)]
pub struct ClaimedNotification {
    /// Its id.
    pub id: NotificationId,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The journal entry that it tells of.
    pub entry: EntryId,
    /// The payment concerned.
    pub payment: PaymentId,
    /// How often it was begun, this time included. Also the fence of the claim.
    pub attempt: u32,
    /// How often it was begun since it was made or last replayed, this time included: those times, too, that whoever was
    /// at it died, and not those that it was postponed.
    pub tries: u32,
    /// Failed attempts before this one, since it was made or replayed.
    pub failures: u32,
    /// `None` where a secret or the URL cannot be opened.
    pub destination: Option<Destination>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLog {
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub latency: Duration,
    /// What the receiver answered.
    pub http_status: Option<u16>,
}

/// What is to become of a claimed notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationVerdict {
    /// The receiver took it.
    Delivered,
    /// It is tried again.
    Again {
        /// Why.
        cause: NotificationCause,
        /// In how long (database clock).
        after: Duration,
    },
    /// It is given up.
    Dead {
        /// Why.
        cause: NotificationCause,
    },
}

impl NotificationVerdict {
    /// The state that it puts the notification in.
    pub const fn state(&self) -> NotificationState {
        match self {
            Self::Delivered => NotificationState::Delivered,
            Self::Again { .. } => NotificationState::Pending,
            Self::Dead { .. } => NotificationState::Dead,
        }
    }

    /// Why it was not delivered.
    pub const fn cause(&self) -> Option<NotificationCause> {
        match self {
            Self::Delivered => None,
            Self::Again { cause, .. } | Self::Dead { cause } => Some(*cause),
        }
    }
}

/// A notification as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNotification {
    /// Its id.
    pub id: NotificationId,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The position of its event.
    pub position: u64,
    /// The journal entry that it tells of.
    pub entry: EntryId,
    /// What happened.
    pub event_type: String,
    /// The payment concerned.
    pub payment: PaymentId,
    /// The entry's number within the payment.
    pub entity_seq: u64,
    /// How far it got.
    pub state: NotificationState,
    /// How often it was begun.
    pub attempts: u32,
    /// Why the last attempt failed, or why it is dead.
    pub cause: Option<NotificationCause>,
    /// What the receiver answered last.
    pub http_status: Option<u16>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it is due.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it was delivered or given up.
    pub ended_at: Option<DateTime<Utc>>,
}

/// One attempt of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAttempt {
    /// Which: 1, 2, 3 …
    pub number: u32,
    /// How it ended.
    pub log: AttemptLog,
    /// Why it failed; `None` where it was delivered.
    pub cause: Option<NotificationCause>,
}

/// Which notifications are listed. What is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationFilter {
    /// For this endpoint.
    pub endpoint: Option<EndpointId>,
    /// About this payment.
    pub payment: Option<PaymentId>,
    /// In this state.
    pub state: Option<NotificationState>,
}

/// Which dead letters are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// This one.
    One(NotificationId),
    /// Those of an endpoint, the oldest first.
    Endpoint(EndpointId),
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// So many are pending again.
    Again(u64),
    /// There is no such notification or endpoint.
    NotFound,
    /// The notification is pending or was delivered.
    NotDead,
    /// The endpoint is not enabled, so that nothing would be sent.
    EndpointClosed,
}

/// What became of making notifications from the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planned {
    /// How many were made.
    pub made: u64,
    /// The first position that was not looked at yet.
    pub next: u64,
    /// Whether there is more to be looked at now.
    pub more: bool,
    /// Whether there is any endpoint; where there is none, looking again soon is in vain.
    pub served: bool,
}

/// Which notifications are claimed.
#[derive(Clone, Default)]
pub struct NotificationClaim {
    /// At most so many.
    pub limit: usize,
    /// At most so many for each endpoint, those under way included.
    pub per_endpoint: usize,
    /// How many are under way in this process, by endpoint.
    pub busy: Vec<(EndpointId, usize)>,
    /// For as long (database clock).
    pub lease: Duration,
}

impl fmt::Debug for NotificationClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationClaim")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What is counted: each by itself, so that one that takes too long leaves the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationCount {
    /// Notifications that are to be delivered, those that are tried again later included.
    Waiting,
    /// Dead letters.
    Dead,
    /// Journal entries that were not looked at yet.
    Unplanned,
}

/// What is removed in time, with the log of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    /// What was delivered so long ago.
    Delivered,
    /// Dead letters that were given up so long ago.
    Dead,
    /// Dead letters of endpoints that were deleted so long ago: nobody can replay them.
    OfDeletedEndpoints,
    /// Endpoints that were deleted so long ago, and that nothing is left of what they were told.
    DeletedEndpoints,
}

/// Where notifications are kept until they are delivered, and the endpoints that they go to.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Changes an endpoint of a tenant, and puts it on record: both, in one commit, or neither. False, and no entry,
    /// where there is nothing to change: see [`EndpointChange`].
    async fn change_endpoint(
        &self,
        tenant: &TenantId,
        change: EndpointChange,
        entry: JournalEntry,
    ) -> Result<bool, StoreError>;

    /// The endpoints of a tenant that were not deleted, or of all, by id; those after `after` (exclusive).
    async fn list_endpoints(
        &self,
        tenant: Option<&TenantId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<Endpoint>, StoreError>;

    /// One endpoint of a tenant, unless it was deleted.
    async fn endpoint(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Endpoint>, StoreError>;

    /// Where an endpoint is, and what is signed under.
    async fn destination(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Destination>, StoreError>;

    /// Makes notifications from at most `limit` further entries of the journal, unless another process is at it.
    async fn plan_notifications(&self, limit: usize) -> Result<Planned, StoreError>;

    /// Gives up what waits for endpoints that are not on, at most `limit`; how many that were.
    async fn close_notifications(&self, limit: usize) -> Result<u64, StoreError>;

    /// Removes what is older than `keep`, at most `limit`; how many that were.
    async fn prune_notifications(
        &self,
        which: Pruned,
        keep: Duration,
        limit: usize,
    ) -> Result<u64, StoreError>;

    /// Claims notifications that are due, and that no earlier one of their payment waits before.
    async fn claim_notifications(
        &self,
        claim: &NotificationClaim,
    ) -> Result<Vec<ClaimedNotification>, StoreError>;

    /// Writes down what became of a claimed notification, with its attempt. How long ago its event was read from the
    /// journal, in seconds; `None` where somebody else has claimed it since, and nothing was written.
    async fn close_notification(
        &self,
        claimed: &ClaimedNotification,
        attempt: AttemptLog,
        verdict: NotificationVerdict,
    ) -> Result<Option<f64>, StoreError>;

    /// Leaves a claimed notification alone for as long as `after` (database clock), as though it had not been begun: what
    /// it is made of could not be read. Does nothing where somebody else has claimed it since.
    async fn postpone_notification(
        &self,
        claimed: &ClaimedNotification,
        after: Duration,
    ) -> Result<(), StoreError>;

    /// Lists notifications of a tenant, or of all, newest first; those before `before` (exclusive).
    async fn list_notifications(
        &self,
        tenant: Option<&TenantId>,
        filter: &NotificationFilter,
        before: Option<(u64, NotificationId)>,
        limit: usize,
    ) -> Result<Vec<StoredNotification>, StoreError>;

    /// One notification of a tenant, with the log of its attempts.
    async fn notification(
        &self,
        tenant: &TenantId,
        id: NotificationId,
    ) -> Result<Option<(StoredNotification, Vec<StoredAttempt>)>, StoreError>;

    /// Makes dead letters pending again, at most `limit`.
    async fn replay_notifications(
        &self,
        tenant: &TenantId,
        replay: Replay,
        limit: usize,
    ) -> Result<Replayed, StoreError>;

    /// Counts what waits, or was given up.
    async fn count_notifications(&self, what: NotificationCount) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_patterns_are_a_kind_and_a_name_or_a_star() {
        for good in ["payment.captured", "refund.*", "chargeback_reversal.opened"] {
            assert_eq!(EventPattern::parse(good).unwrap().as_str(), good);
        }
        let long = format!("payment.{}", "a".repeat(MAX_EVENT_TYPE));
        for bad in [
            "",
            "*",
            "payment",
            "payment.",
            ".captured",
            "payment.cap*",
            "Payment.captured",
            "payment.captured.x",
            "payment .captured",
            "*.captured",
            &long,
        ] {
            assert_eq!(EventPattern::parse(bad), None, "{bad}");
        }
    }
}
