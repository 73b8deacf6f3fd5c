//! Erasing the personal data of a customer: what was stored under the customer's own key becomes unreadable for good,
//! and every proof of the audit log stays valid, since the log holds salted digests only.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::ids::{ErasureId, TenantId};
use crate::ports::StoreError;
use crate::text::Sensitive;

/// An erasure that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewErasure {
    /// Its id, if it is a new one.
    pub id: ErasureId,
    /// Whose customer.
    pub tenant: TenantId,
    /// The tenant's reference of the customer.
    pub reference: Sensitive<String>,
}

/// An erasure, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: ErasureId,
    /// Whose customer.
    pub tenant: TenantId,
    /// When it was asked for (database clock).
    pub requested_at: DateTime<Utc>,
    /// Payments whose outcome was not known at the last look, or about which a webhook was still to be applied; it waits
    /// for them. 0 once it is done.
    pub open_payments: u64,
    /// When it was done, and how many payments the customer had; `None` until then.
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
    /// The key is destroyed. It is to be put on record, and then closed.
    Erased {
        /// How many payments the customer had.
        payments: u64,
    },
    /// It waits for payments whose outcome is not known: their requests are still needed.
    Waits {
        /// How many.
        open_payments: u64,
    },
}

/// Erasures, until they are done.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Asks for an erasure. From now on nothing more is stored under the customer's key. Asked again, it gives the
    /// erasure that there is. `None` where no such customer is or was known.
    async fn request_erasure(&self, new: NewErasure) -> Result<Option<Erasure>, StoreError>;

    /// Reads one of a tenant.
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

    /// Closes one whose key is destroyed, and which is on record.
    async fn close_erasure(&self, id: ErasureId, payments: u64) -> Result<(), StoreError>;
}
