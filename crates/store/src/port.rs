//! The store as the domain sees it: each method hands on to the module that knows.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use quittance_domain::change::{Change, IdempotencyRecord, JournalEntry};
use quittance_domain::ids::{EntryId, IdempotencyKey, PaymentId, TenantId};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{
    Commit, EntryFilter, FailureSummary, PaymentFilter, PaymentPage, Store, StoreError, StoredEntry,
};

use crate::store::PgStore;

#[async_trait]
impl Store for PgStore {
    async fn commit(&self, change: Change) -> Result<Commit, StoreError> {
        self.commit_change(change).await
    }

    async fn append(&self, entry: JournalEntry) -> Result<Commit, StoreError> {
        self.append_entry(entry).await
    }

    async fn payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        self.read_payment(tenant, id).await
    }

    async fn idempotency_record(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.read_idempotency_record(tenant, key).await
    }

    async fn list_payments(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        self.payment_page(tenant, filter, after, limit).await
    }

    async fn list_entries(
        &self,
        tenant: Option<&TenantId>,
        filter: &EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.read_entries(tenant, filter, after, limit).await
    }

    async fn entry(
        &self,
        tenant: Option<&TenantId>,
        id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        self.read_entry(tenant, id).await
    }

    async fn entries_from(
        &self,
        tenant: Option<&TenantId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.read_entries_from(tenant, position, limit).await
    }

    async fn next_position(&self) -> Result<u64, StoreError> {
        self.inner.positions.next_position().await
    }

    async fn wait_for_position(&self, position: u64, limit: Duration) {
        self.inner.positions.wait_for(position, limit).await;
    }

    async fn summarize_failures(
        &self,
        tenant: Option<&TenantId>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<FailureSummary>, StoreError> {
        self.read_failures(tenant, from, to, limit).await
    }
}
