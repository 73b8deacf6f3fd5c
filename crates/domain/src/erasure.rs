//! Erasing the personal data of a customer: what was stored under the customer's own key becomes unreadable for good,
//! and every proof of the audit log stays valid, since the log holds salted digests only.
//!
//! An erasure has a stream of the log of its own: its first entry says that it was asked for and whose data it is about, a
//! later one that it was done. Only what these say is believed, by whoever destroys a key and by whoever verifies the log:
//! anybody who can write to the database could add a row of `erasures`.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use quittance_evidence::{Leaf, StreamId};
use uuid::Uuid;

use crate::ids::{CustomerId, ErasureId, TenantId};
use crate::ports::StoreError;
use crate::reconciliation::StreamHead;
use crate::text::Sensitive;

/// Name of the streams of erasures; each is that of one erasure, by whose id it goes.
pub const ERASURE_STREAM: &str = "erasure";
/// What happened, where one was asked for.
pub const ERASURE_REQUESTED: &str = "personal_data.erasure_requested";
/// What happened, where one was done.
pub const ERASED: &str = "personal_data.erased";
/// The detail that names the erasure.
pub const ERASURE_DETAIL: &str = "erasure_id";
/// The detail that names the customer.
pub const CUSTOMER_DETAIL: &str = "customer_id";
/// The detail that says how many payments the customer had.
pub const PAYMENTS_DETAIL: &str = "payments";
/// How long after its end an erasure wipes once more what belongs to the customer. It waits until every server has forgotten
/// the key, and all that was begun with it is over; but a machine that stood still in between may go on with it.
pub const SWEPT_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// What an entry says of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureSaid {
    /// Which.
    pub erasure: ErasureId,
    /// Of whose customer.
    pub tenant: String,
    /// Of which customer.
    pub customer: CustomerId,
    /// That it was done; `None` where it was only asked for.
    pub done: Option<ErasureDone>,
}

impl ErasureSaid {
    /// What an entry says that this service wrote; `None` where it is about no erasure of a customer.
    pub fn of(leaf: &Leaf) -> Option<Self> {
        let done = match leaf.event_type.as_str() {
            ERASURE_REQUESTED => false,
            ERASED => true,
            _ => return None,
        };
        let StreamId::Named { name, id } = &leaf.stream_id else {
            return None;
        };
        let customer = Uuid::try_parse(leaf.details.get(CUSTOMER_DETAIL)?).ok()?;
        let payments = leaf.details.get(PAYMENTS_DETAIL);
        let payments = payments.and_then(|count| count.parse().ok());
        (name == ERASURE_STREAM).then(|| Self {
            erasure: ErasureId(*id),
            tenant: leaf.tenant_id.clone(),
            customer: CustomerId(customer),
            done: done.then(|| ErasureDone {
                at: leaf.occurred_at,
                payments: payments.unwrap_or_default(),
            }),
        })
    }
}

/// An erasure that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewErasure {
    /// Its id, if it is a new one.
    pub id: ErasureId,
    /// Whose customer.
    pub tenant: TenantId,
    /// The tenant's reference of the customer.
    pub reference: Sensitive<String>,
    /// The customer who had it when the request was put on record; `None` where there was none.
    pub customer: Option<CustomerId>,
}

/// An erasure, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: ErasureId,
    /// Whose customer.
    pub tenant: TenantId,
    /// Which customer, as the row says.
    pub customer: CustomerId,
    /// When it was asked for (database clock).
    pub requested_at: DateTime<Utc>,
    /// Payments whose outcome was not known at the last look, or about which a webhook was still to be applied; it waits
    /// for them. 0 once it is done.
    pub open_payments: u64,
    /// When it was done, and how many payments the customer had, as the log says; `None` until it does.
    pub done: Option<ErasureDone>,
}

/// The end of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasureDone {
    /// When (database clock).
    pub at: DateTime<Utc>,
    /// How many payments the customer had.
    pub payments: u64,
}

/// What one step of an erasure came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasureStep {
    /// The key is destroyed. It is to be put on record, and then to be looked at again.
    Erased {
        /// How many payments the customer had.
        payments: u64,
        /// Behind which entry of its stream it is to be put on record.
        behind: StreamHead,
    },
    /// It was on record already, and what had come since is wiped too.
    Swept {
        /// How many payments the customer has.
        payments: u64,
        /// When it was put on record (database clock).
        recorded_at: DateTime<Utc>,
    },
    /// The log does not say that it was asked for: somebody put it there. Nothing was done.
    NotAsked,
    /// It waits for payments whose outcome is not known: their requests are still needed.
    Waits {
        /// How many.
        open_payments: u64,
    },
}

/// Erasures, until they are done.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// The customer who has a reference now; `None` where nobody has, or whoever had it is being erased.
    async fn customer(
        &self,
        tenant: &TenantId,
        reference: &Sensitive<String>,
    ) -> Result<Option<CustomerId>, StoreError>;

    /// Asks for an erasure, which is on record. From now on nothing more is stored under the customer's key. Asked again, it gives the
    /// erasure that there is, and takes up again one that is closed: what has come since is wiped, and what somebody closed
    /// who did not do it is done. `None` where no such customer is or was known.
    async fn request_erasure(&self, new: NewErasure) -> Result<Option<Erasure>, StoreError>;

    /// Reads one of a tenant; `None` where the log does not say that it was asked for.
    async fn erasure(
        &self,
        tenant: &TenantId,
        id: ErasureId,
    ) -> Result<Option<Erasure>, StoreError>;

    /// Claims the one that is due longest, for as long as `lease` (database clock).
    async fn claim_erasure(&self, lease: Duration) -> Result<Option<Erasure>, StoreError>;

    /// Takes the step that a claimed one is due for. One that waits is due again after `again_in`.
    async fn erase(&self, claimed: &Erasure, again_in: Duration)
    -> Result<ErasureStep, StoreError>;

    /// Ends the step of one whose key is destroyed, and which is on record since `recorded_at`; `None` for just now. It is
    /// closed [`SWEPT_AGAIN_AFTER`] that, and due again then where that is not yet.
    async fn close_erasure(
        &self,
        id: ErasureId,
        payments: u64,
        recorded_at: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError>;
}
