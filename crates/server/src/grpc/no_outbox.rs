//! Notifications without a database: there are none, and nothing can be stored. What is stored is the store's own tests'
//! business, and that of the end-to-end tests.

use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::change::JournalEntry;
use quittance_domain::ids::{EndpointId, NotificationId, TenantId};
use quittance_domain::notification::{
    AttemptLog, ClaimedNotification, Destination, Endpoint, EndpointChange, NotificationClaim,
    NotificationCount, NotificationFilter, NotificationVerdict, Outbox, Planned, Pruned, Replay,
    Replayed, StoredAttempt, StoredNotification,
};
use quittance_domain::ports::StoreError;

use crate::notifications::{AllowedNetworks, Sender, SenderSettings};

/// Nothing is stored.
pub(super) struct NoOutbox;

/// A sender to public addresses only.
pub(super) fn sender() -> Sender {
    let settings = SenderSettings {
        connect_timeout: Duration::from_secs(1),
        total_timeout: Duration::from_secs(1),
        networks: AllowedNetworks::default(),
        plaintext_loopback: false,
        authorities: Vec::new(),
    };
    Sender::new(settings, |_| {})
}

#[async_trait]
impl Outbox for NoOutbox {
    async fn change_endpoint(
        &self,
        _: &TenantId,
        _: EndpointChange,
        _: JournalEntry,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn list_endpoints(
        &self,
        _: Option<&TenantId>,
        _: Option<EndpointId>,
        _: usize,
    ) -> Result<Vec<Endpoint>, StoreError> {
        Ok(Vec::new())
    }

    async fn endpoint(&self, _: &TenantId, _: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        Ok(None)
    }

    async fn destination(
        &self,
        _: &TenantId,
        _: EndpointId,
    ) -> Result<Option<Destination>, StoreError> {
        Ok(None)
    }

    async fn plan_notifications(&self, _: usize) -> Result<Planned, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn close_notifications(&self, _: usize) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn prune_notifications(
        &self,
        _: Pruned,
        _: Duration,
        _: usize,
    ) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn claim_notifications(
        &self,
        _: &NotificationClaim,
    ) -> Result<Vec<ClaimedNotification>, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn close_notification(
        &self,
        _: &ClaimedNotification,
        _: AttemptLog,
        _: NotificationVerdict,
    ) -> Result<Option<f64>, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn postpone_notification(
        &self,
        _: &ClaimedNotification,
        _: Duration,
    ) -> Result<(), StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn list_notifications(
        &self,
        _: Option<&TenantId>,
        _: &NotificationFilter,
        _: Option<(u64, NotificationId)>,
        _: usize,
    ) -> Result<Vec<StoredNotification>, StoreError> {
        Ok(Vec::new())
    }

    async fn notification(
        &self,
        _: &TenantId,
        _: NotificationId,
    ) -> Result<Option<(StoredNotification, Vec<StoredAttempt>)>, StoreError> {
        Ok(None)
    }

    async fn replay_notifications(
        &self,
        _: &TenantId,
        _: Replay,
        _: usize,
    ) -> Result<Replayed, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn count_notifications(&self, _: NotificationCount) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }
}
